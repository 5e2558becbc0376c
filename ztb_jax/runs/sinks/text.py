"""A log file for a person: one line for each event, there for `tail -f` at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from ztb_jax import verdicts
from ztb_jax.runs import directory
from ztb_jax.runs.sinks import rows
from ztb_jax.runs.sinks.event import Event


class TextLog:
    """Appends to a file; a sink.

    Args:
      path: of the file; its folder is made if need be.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file: TextIO | None = None

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a", buffering=1, encoding="utf-8")
        self.file.write(f"{directory.timestamp()} {' '.join(told(event).splitlines())}\n")
        if event.kind == "ended":
            self.file.close()


def told(event: Event) -> str:
    """What the log says of an event."""
    facts = event.facts
    match event.kind:
        case "line":
            return facts["text"]
        case "begun":
            resumed = f"resumed after {event.env_steps:,} steps" if event.env_steps else "begun"
            return f"run {event.run.id} {resumed}"
        case "window":
            return _window(facts)
        case "checkpoint":
            return f"checkpoint window={facts['window_id']} path={event.run.path / facts['path']}"
        case "replay":
            path = event.run.path / facts["replay_path"]
            return f"replay window={facts['window_id']} tags={','.join(facts['tags'])} path={path}"
        case "ended":
            return _ended(facts)


def _window(row: Mapping[str, Any]) -> str:
    numbers = rows.grouped(row)
    code = row["verdict"]
    violations = [] if code == verdicts.HEALTHY else [verdicts.VERDICTS[code].name]
    if ruined := numbers.get("risk/ruined"):
        violations.append(f"ruined:{ruined:g}")
    shown = {
        "episode_reward": numbers.get("episode/reward"),
        "training_loss": numbers.get("loss/loss"),
        "evaluation_metric": numbers.get("performance/validation_log_growth"),
    }
    measured = " ".join(f"{key}={'-' if value is None else f'{value:.6g}'}" for key, value in shown.items())
    return (
        f"window {row['window_id']} env_steps={row['env_steps_total']} {measured} "
        f"risk_violations={','.join(violations) or 'none'}"
    )


def _ended(facts: Mapping[str, Any]) -> str:
    parts = [f"ended status={facts['status']}"]
    if facts.get("error"):
        parts.append(f"error: {facts['error']}")
    if facts.get("evaluation"):
        edge = facts["evaluation"].get("edge")
        parts += [f"verdict={edge['label']}"] if edge else []
        parts.append(facts["evaluation"]["verdict"])
    return " ".join(parts)
