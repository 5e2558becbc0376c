"""Progress as a person and as a file see it. Imports no jax, so that it can speak in the first second."""

import math
import os
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ztb_jax.runs import directory

PHASES = ("loading", "indicators", "compile", "train", "evaluate")
QUIET = 10.0  # seconds between windows that are told where nobody watches


class Reporter:
    """Tells phases and windows to the terminal, and to `run_metadata.json` once there is a run.

    On a terminal a bar shows phase, fraction, steps/s and ETA; elsewhere one line tells each phase, and
    one the first window, the last, and others at most once in `QUIET` seconds; no window where CI is set.
    """

    def __init__(self, *, stream: Any = None):
        self.console = Console(file=stream or sys.stderr, soft_wrap=True, highlight=False)
        self.started = time.perf_counter()
        self.phase_name = ""
        self.untold, self.told_at = "", -math.inf
        self.metadata: dict[str, Any] = {}
        self.run: directory.RunDirectory | None = None
        self.bar = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, rate="")

    def __enter__(self) -> "Reporter":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._tell_last()
        self.bar.stop()

    def attach(self, run: directory.RunDirectory, **facts: Any) -> None:
        """From now on the run's metadata is kept up to date; `facts` are its first fields."""
        self.run = run
        begun = {"run_id": run.id, "started_at": directory.timestamp()}
        self.update(**begun | facts | {"phase": self.phase_name})

    def update(self, **facts: Any) -> None:
        """Set fields of the run's metadata and write it."""
        self.metadata |= facts
        if self.run is not None:
            self.metadata["updated_at"] = directory.timestamp()
            directory.write_json(self.run.metadata, self.metadata)

    def _tell(self, line: str, *, last: bool) -> None:
        """Say a window's line, unless one was said in the last `QUIET` seconds; then it waits for the end."""
        now = time.perf_counter()
        self.untold = "" if last or now - self.told_at >= QUIET else line
        if not self.untold:
            self.told_at = now
            self.say(line)

    def _tell_last(self) -> None:
        if self.untold:
            self.say(self.untold)
        self.untold, self.told_at = "", -math.inf

    def phase(self, name: str, note: str = "") -> None:
        """A phase begins."""
        self._tell_last()
        self.phase_name = name
        self.bar.update(self.task, description=name, total=None, completed=0, rate="")
        self.say(f"{name:<11}{note}")
        self.update(phase=name, fraction=0.0)

    def say(self, line: str) -> None:
        """One line, with the seconds since the start before it."""
        self.console.print(f"[{time.perf_counter() - self.started:6.1f} s] {line}", markup=False)

    def advance(self, done: int, total: int, *, rate: float, note: str) -> None:
        """`done` of `total` environment steps at `rate` steps/s; `note` tells how it goes."""
        eta = (total - done) / rate if rate > 0 else None
        self.bar.update(self.task, total=total, completed=done, rate=f"{rate / 1e3:,.0f} k steps/s")
        if not self.console.is_terminal and not os.environ.get("CI"):
            left = "" if eta is None else f" · ETA {eta:,.0f} s"
            line = f"{self.phase_name:<11}{done / total:4.0%} · {rate / 1e3:,.0f} k steps/s{left} · {note}"
            self._tell(line, last=done >= total)
        self.metadata |= {"fraction": done / total, "steps_per_second": rate, "eta_seconds": eta}
