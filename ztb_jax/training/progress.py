"""Progress as a person and as a file see it. Imports no jax, so that it can speak in the first second."""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ztb_jax.runs import directory
from ztb_jax.runs.sinks import Event, Kind


class Reporter:
    """Tells phases and windows to the terminal, and to `run_metadata.json` once there is a run.

    What it is told may come from any thread. On a terminal a bar shows phase, fraction, steps/s and ETA;
    elsewhere one line tells each phase and one each window.
    """

    def __init__(self, *, stream: Any = None):
        self.console = Console(file=stream or sys.stderr, soft_wrap=True, highlight=False)
        self.started = time.perf_counter()
        self.phase_name = ""
        self.metadata: dict[str, Any] = {}
        self.run: directory.RunDirectory | None = None
        self.listener: Callable[[Event], None] | None = None
        self._begun, self._lock = False, threading.RLock()
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
        self.bar.stop()

    def attach(self, run: directory.RunDirectory, **facts: Any) -> None:
        """From now on the run's metadata is kept up to date; `facts` are its first fields."""
        self.run = run
        begun = {"run_id": run.id, "started_at": directory.timestamp()}
        self.update(**begun | facts | {"phase": self.phase_name})

    def update(self, **facts: Any) -> None:
        """Set fields of the run's metadata and write it."""
        with self._lock:
            self.metadata |= facts
            if self.run is not None:
                self.metadata["updated_at"] = directory.timestamp()
                directory.write_json(self.run.metadata, self.metadata)

    def tell(self, kind: Kind, facts: Mapping[str, Any]) -> None:
        """Something happened in the run: whoever listens is told an `Event`, once the run has "begun"."""
        self._begun |= kind == "begun"
        if self._begun and self.listener is not None and self.run is not None:
            steps = self.metadata.get("env_steps_total") or 0
            self.listener(Event(kind, self.run, steps, facts))

    def trouble(self, sentence: str) -> None:
        """Something went wrong that does not stop the run; it stays in the run's metadata."""
        self.say(f"{'trouble':<11}{sentence}")
        with self._lock:
            self.update(troubles=[*self.metadata.get("troubles", []), sentence])

    def phase(self, name: str, note: str = "") -> None:
        """A phase begins."""
        self.phase_name = name
        self.bar.update(self.task, description=name, total=None, completed=0, rate="")
        self.say(f"{name:<11}{note}")
        self.update(phase=name, fraction=0.0)

    def say(self, line: str) -> None:
        """One line, with the seconds since the start before it."""
        self.console.print(f"[{time.perf_counter() - self.started:6.1f} s] {line}", markup=False)
        self.tell("line", {"text": line})

    def advance(self, done: int, total: int, *, rate: float, note: str) -> None:
        """`done` of `total` environment steps at `rate` steps/s; `note` tells how it goes."""
        eta = (total - done) / rate if rate > 0 else None
        self.bar.update(self.task, total=total, completed=done, rate=f"{rate / 1e3:,.0f} k steps/s")
        if not self.console.is_terminal:
            left = "" if eta is None else f" · ETA {eta:,.0f} s"
            self.say(f"{self.phase_name:<11}{done / total:4.0%} · {rate / 1e3:,.0f} k steps/s{left} · {note}")
        self.metadata |= {"fraction": done / total, "steps_per_second": rate, "eta_seconds": eta}
