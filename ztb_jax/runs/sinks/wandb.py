"""Weights & Biases: windows, policies and replays as artifacts, and the page's address for the metadata."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ztb_jax.runs import directory
from ztb_jax.runs.sinks import rows
from ztb_jax.runs.sinks.event import Event

TAGS = ("m3", "windowed-training")
LONGEST = 128  # characters of an artifact's name
EXIT = {"completed": 0, "failed": 1, "cancelled": 130}  # as `ztb train` ends
# Seconds; W&B's own hook at the end of the process waits for these too, and for minutes without them. What is
# not uploaded in time stays on the disk for `wandb sync`.
BEGUN_WITHIN, UPLOADED_WITHIN = 20.0, 10.0


def unreachable() -> str | None:
    """Why the server would not take a run, or None; asks the server, and nobody for a key."""
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))
    try:
        return None if wandb.login(prompt=False) else "there is no login"
    except wandb.Error as error:
        return " ".join(str(error).split())


def alias(tag: str) -> str:
    """A tag as an alias may be: other characters than letters, digits, `_`, `.` and `-` become `-`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", tag)


def _short(name: str) -> str:
    """A name as long as W&B takes; the end of a longer one is its hash, so that no two become one."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{digest}"


class WandB:
    """Logs to a W&B run of the same id, whose own files are in `<run>/wandb`; a sink.

    Returns `wandb_run_url` when the run begins. A run that goes on goes on there, too; what it plays again
    has the same values.

    Args:
      project: its name on the server.
      mode: offline leaves all in the run directory, for `wandb sync`.
    """

    def __init__(self, project: str, *, mode: Literal["offline", "online"]):
        self.project: str = project
        self.mode: Literal["offline", "online"] = mode
        self.wandb_run: Any = None

    def __call__(self, event: Event) -> Mapping[str, Any] | None:
        """Take an event."""
        facts = event.facts
        match event.kind:
            case "begun":
                return self._begin(event)
            case "window":
                self.wandb_run.log(rows.numbers(facts), step=facts["env_steps_total"])
            case "checkpoint" if rows.is_policy(facts):
                path, window = event.run.path / facts["path"], facts["window_id"]
                self._artifact(f"model-{event.run.id}", "model", path, aliases=[f"window-{window}"])
            case "replay":
                self._replay(event.run, facts)
            case "ended":
                self.wandb_run.summary.update(rows.judged(facts))
                self.wandb_run.finish(exit_code=EXIT[facts["status"]])
        return None

    def _begin(self, event: Event) -> dict[str, Any]:
        import wandb

        # Silent from the first word on; without a repository or a console to look into.
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            init_timeout=BEGUN_WITHIN,
            finish_timeout=UPLOADED_WITHIN,
        )
        wandb.setup(settings=settings)
        self.wandb_run = wandb.init(
            project=self.project,
            mode=self.mode,
            id=event.run.id,
            name=event.run.id,
            dir=str(event.run.path),
            resume="allow",
            tags=TAGS,
            config=dict(event.facts),
            settings=settings,
            reinit="create_new",  # else it would be the run of another sink that is not finished
        )
        return {"wandb_run_url": self.wandb_run.url}  # None when offline

    def _replay(self, run: directory.RunDirectory, entry: Mapping[str, Any]) -> None:
        window = entry["window_id"]
        aliases = [f"window-{window}", *map(alias, entry["tags"])]
        name = f"replay-{run.id}-{window:06d}-{entry['replay_id']}"
        self._artifact(name, "replay", run.path / entry["replay_path"], aliases=aliases)

    def _artifact(self, name: str, kind: str, path: Path, *, aliases: Sequence[str]) -> None:
        import wandb

        artifact = wandb.Artifact(_short(name), type=kind)
        artifact.add_file(str(path))
        self.wandb_run.log_artifact(artifact, aliases=list(dict.fromkeys(["latest", *aliases])))
