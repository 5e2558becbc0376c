"""`ztb runs show RUN --follow`: a run that is under way, watched from another terminal. Imports no jax."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ztb_jax.cli.tables import clean
from ztb_jax.cli.train import STATUS
from ztb_jax.runs import directory
from ztb_jax.runs.following import Follower
from ztb_jax.runs.listing import KILLED
from ztb_jax.runs.listing import verdict as verdict_of
from ztb_jax.verdicts import HEALTHY, VERDICTS

EVERY = 0.5  # seconds between two looks


def follow(run: directory.RunDirectory) -> int:
    """Tell of a run until it has ended; the exit status is that of `ztb train`, 1 for one that was killed.

    Nothing is written to the run, and whoever stops following does not stop it.

    Raises:
      RunError: a file of the run is damaged.
    """
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False, markup=False)
    follower = Follower(run)
    with Progress(
        TextColumn("{task.description:<11}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        task = bar.add_task("", total=1.0, told="")
        while True:
            look = follower.look()
            for row in look.windows:
                console.print(clean(window_line(row, look.metadata.get("target_env_steps"))))
            if look.status != "running":
                break
            bar.update(task, **_bar(look.metadata))
            time.sleep(EVERY)
    return _ended(run, look.metadata, look.status)


def _bar(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the bar shows; a phase other than training does not say how far it is."""
    phase, done = metadata.get("phase", "starting"), metadata.get("fraction", 0.0)
    if phase != "train":
        return {"description": phase, "total": None, "completed": 0.0, "told": ""}
    return {"description": phase, "total": 1.0, "completed": done, "told": f"{done:4.0%}{pace(metadata)}"}


def window_line(row: Mapping[str, Any], target: int | None) -> str:
    """A row of `metrics/windows.jsonl` for a person."""
    parts = [f"window {row['window_id']}"]
    if target and "env_steps_total" in row:
        parts.append(f"{row['env_steps_total'] / target:.0%}")
    if "steps_per_second" in row:
        parts.append(f"{row['steps_per_second'] / 1e3:,.0f} k steps/s")
    for name, key in (("train", "reward_mean"), ("validation", "validation_log_growth")):
        if row.get(key) is not None:
            parts.append(f"{name} {1e4 * row[key]:+.2f} bp/bar")
    parts.append(f"best window {'–' if row.get('best_window') is None else row['best_window']}")
    verdict = row.get("verdict", HEALTHY)
    if verdict != HEALTHY:
        known = VERDICTS.get(verdict) if isinstance(verdict, int) else None
        parts.append(f"verdict {verdict}" if known is None else known.name)
    return " · ".join(parts)


def pace(metadata: Mapping[str, Any]) -> str:
    """Steps a second and the time left, as far as they are known, each behind a dot."""
    rate, left = metadata.get("steps_per_second"), metadata.get("eta_seconds")
    told = "" if rate is None else f" · {rate / 1e3:,.0f} k steps/s"
    return told if left is None else f"{told} · ETA {left:,.0f} s"


def _ended(run: directory.RunDirectory, metadata: Mapping[str, Any], status: str) -> int:
    if status == KILLED:
        sys.stderr.write(
            f"ztb runs show: {run.path} was killed: it says that it is running, and no process writes to it; "
            f"`ztb resume {run.path}` goes on with it\n"
        )
        return 1
    why = metadata.get("halt_reason")
    told = metadata.get("error") or verdict_of(metadata) or ""
    sys.stdout.write(clean(f"{status}{f' ({why})' if why else ''}{f': {told}' if told else ''}") + "\n")
    return STATUS[status]
