"""Event files for TensorBoard: numbers by group, the configuration, and where checkpoints and replays are.

A record a window, written and flushed here: tensorboardX's own `SummaryWriter` hands records to another
thread, so that what it flushes is not all that it was given.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ztb_jax.config import flattened
from ztb_jax.runs.sinks import rows
from ztb_jax.runs.sinks.event import Event

COMPARED = ("performance/validation_log_growth", "episode/reward")  # beside settings in the HPARAMS tab


class TensorBoard:
    """Writes an event file into a folder of the run's own; a sink.

    A run that goes on gets another file there, which supersedes what came after its step in the first.

    Args:
      folder: of the event files, made if need be.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.writer: Any = None

    def __call__(self, event: Event) -> None:
        """Take an event."""
        step, facts = event.env_steps, event.facts
        match event.kind:
            case "begun":
                self._begin(step, facts)
            case "window":
                self._write(_scalars(rows.grouped(facts)), step=facts["env_steps_total"])
            case "checkpoint":
                self._text("checkpoint", f"window {facts['window_id']}: `{facts['path']}`", step=step)
            case "replay":
                tags = ", ".join(facts["tags"])
                told = f"window {facts['window_id']}: `{facts['replay_path']}`, {tags}"
                self._text("replay", told, step=step)
            case "ended":
                self._end(step, facts)

    def _begin(self, step: int, config: Mapping[str, Any]) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.summary import hparams

        self.folder.mkdir(parents=True, exist_ok=True)
        earlier = len(list(self.folder.glob("events.out.tfevents.*")))
        # Its number keeps a file apart from another of the same second, which the writer would empty.
        self.writer = EventsWriter(str(self.folder / "events"), f".{earlier}")
        if earlier:
            self.writer.write_event(_record(step + 1, session_log={"status": "START"}))
        values = flattened(config)
        plain = {key: _plain(value) for key, value in values.items() if value is not None}
        experiment, session, _ = hparams(plain, dict.fromkeys(COMPARED, 0.0))
        for summary in (experiment, session):
            self._write(summary, step=step)
        lines = [f"| `{key}` | `{json.dumps(value)}` |" for key, value in values.items()]
        self._text("config", "\n".join(["| setting | value |", "|---|---|", *lines]), step=step)

    def _end(self, step: int, facts: Mapping[str, Any]) -> None:
        from tensorboardX.summary import hparams

        self._write(_scalars(rows.judged(facts)), step=step)
        self._text("status", f"{facts['status']}: {facts.get('error') or 'no error'}", step=step)
        if facts["status"] == "completed":
            self._write(hparams({}, {})[2], step=step)
        self.writer.close()

    def _text(self, tag: str, text: str, *, step: int) -> None:
        from tensorboardX.summary import text as summary

        self._write(summary(tag, text), step=step)

    def _write(self, summary: Any, *, step: int) -> None:
        self.writer.write_event(_record(step, summary=summary))
        self.writer.flush()


def _record(step: int, **what: Any) -> Any:
    from tensorboardX.proto.event_pb2 import Event as Record  # pyright: ignore[reportAttributeAccessIssue]

    return Record(wall_time=time.time(), step=step, **what)


def _scalars(values: Mapping[str, float]) -> dict[str, Any]:
    return {"value": [{"tag": tag, "simple_value": value} for tag, value in values.items()]}


def _plain(value: Any) -> str | bool | int | float:
    return value if isinstance(value, str | bool | int | float) else json.dumps(value)
