"""Progress as a person and as a file see it. Imports no jax, so that it can speak in the first second."""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ztb_jax.runs import directory
from ztb_jax.runs.sinks import Event, Kind

LEARNT = {"wandb_run_url", "constellation_url"}
QUIET = 10.0  # seconds between windows that are told where nobody watches


class Reporter:
    """Tells phases and windows to the terminal, and to `run_metadata.json` once there is a run.

    What it is told may come from any thread. On a terminal a bar shows phase, fraction, steps/s and ETA;
    elsewhere one line tells each phase, and one the first window, the last, and others at most once in
    `QUIET` seconds; no window where CI is set.
    """

    def __init__(self, *, stream: Any = None):
        self.console = Console(file=stream or sys.stderr, soft_wrap=True, highlight=False)
        self.started = time.perf_counter()
        self.phase_name = ""
        self.untold, self.told_at = "", -math.inf
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
        self._say_last()
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

    def learn(self, facts: Mapping[str, Any]) -> None:
        """What a sink tells of the run: addresses, and nothing else of its metadata."""
        known = {name: facts[name] for name in LEARNT if isinstance(facts.get(name), str)}
        if unknown := facts.keys() - LEARNT:
            self.trouble(f"a sink told {', '.join(sorted(map(str, unknown)))}, which no run has: left out")
        self.update(**known)

    def trouble(self, sentence: str) -> None:
        """Something went wrong that does not stop the run; it stays in the run's metadata."""
        self.say(f"{'trouble':<11}{sentence}")
        with self._lock:
            self.update(troubles=[*self.metadata.get("troubles", []), sentence])

    def _say_window(self, line: str, *, last: bool) -> None:
        """Say a window's line, unless one was said in the last `QUIET` seconds; then it waits for the end."""
        now = time.perf_counter()
        self.untold = "" if last or now - self.told_at >= QUIET else line
        if not self.untold:
            self.told_at = now
            self.say(line)

    def _say_last(self) -> None:
        if self.untold:
            self.say(self.untold)
        self.untold, self.told_at = "", -math.inf

    def phase(self, name: str, note: str = "") -> None:
        """A phase begins."""
        self._say_last()
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
        speed = f"{rate:,.0f} steps/s" if rate < 1e4 else f"{rate / 1e3:,.0f} k steps/s"
        self.bar.update(self.task, total=total, completed=done, rate=speed)
        if not self.console.is_terminal and not os.environ.get("CI"):
            left = "" if eta is None else f" · ETA {eta:,.0f} s"
            line = f"{self.phase_name:<11}{done / total:4.0%} · {speed}{left} · {note}"
            self._say_window(line, last=done >= total)
        with self._lock:
            self.metadata |= {"fraction": done / total, "steps_per_second": rate, "eta_seconds": eta}
