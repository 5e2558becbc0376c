"""Each sink in a thread of its own, so that none delays the run or another sink."""

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ztb_jax.runs.sinks.event import Event, Sink

BOUND = 10_000
FREQUENT = ("line", "window")  # what a sink that is too slow goes without; each of the others is rare

Report = Callable[[str], None]
Learnt = Callable[[Mapping[str, Any]], None]


class Sinks:
    """Tells events to every sink, each in the order of `tell`; a context manager.

    Leaving the context waits until all is taken, `patience` seconds at the most for all of them together. A
    sink that has not taken everything by then is reported and given up: its thread is a daemon, which ends
    with the process.

    Args:
      sinks: by the name of their setting in `sinks`.
      report: told sentences for a person, such as that a sink failed; called from any thread.
      learnt: told what a sink returned, unless that is empty; called from any thread.
      patience: seconds.
      bound: events that may wait for a sink. Beyond it the sink is reported as too slow, and loses lines and
        windows until it has caught up.
    """

    def __init__(
        self,
        sinks: Mapping[str, Sink],
        *,
        report: Report,
        learnt: Learnt,
        patience: float = 10.0,
        bound: int = BOUND,
    ):
        self.patience = patience
        self._channels = [
            _Channel(name, sink, report=report, learnt=learnt, bound=bound) for name, sink in sinks.items()
        ]

    def __enter__(self) -> "Sinks":
        for channel in self._channels:
            channel.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        deadline = time.monotonic() + self.patience
        for channel in self._channels:
            channel.queue.put(None)
        for channel in self._channels:
            channel.thread.join(max(0.0, deadline - time.monotonic()))
            channel.close(self.patience)

    def tell(self, event: Event) -> None:
        """Hand an event to every sink; returns at once. A copy of `facts`, one level deep, is handed on."""
        event = dataclasses.replace(event, facts=dict(event.facts))
        for channel in self._channels:
            channel.put(event)


class _Channel:
    """The queue and the thread of one sink."""

    def __init__(self, name: str, sink: Sink, *, report: Report, learnt: Learnt, bound: int):
        self.name, self.sink, self.bound = name, sink, bound
        self.report, self.learnt = report, learnt
        self.queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=f"sink-{name}", daemon=True)
        self.lost, self.over = 0, False

    def put(self, event: Event) -> None:
        if self.over:
            return
        if event.kind in FREQUENT and self.queue.qsize() >= self.bound:
            self.lost += 1
            if self.lost == 1:
                self.report(
                    f"{self.name} is too slow: {self.bound:,} events wait for it, and until it has caught up "
                    f"it loses lines and windows; to be rid of this, change sinks.{self.name}"
                )
            return
        self.queue.put(event)

    def close(self, patience: float) -> None:
        """Tell what was not taken; the sink is over."""
        if self.lost:
            self.report(f"{self.name} was too slow and lost {self.lost:,} lines and windows")
        if self.thread.is_alive():
            # The end's own mark is in the queue, and the event that is being taken no longer is.
            left = self.queue.qsize()
            self.report(
                f"{self.name} has not taken everything after {patience:g} s: given up with {left:,} events "
                f"left; the run directory holds them all"
            )
        self.over = True

    def _run(self) -> None:
        while (event := self.queue.get()) is not None and not self.over:
            try:
                facts = self.sink(event)
                if facts and not self.over:
                    self.learnt(facts)
            except BaseException as error:  # noqa: BLE001 - the thread's boundary: told here, or by nobody
                self._failed(event, error)

    def _failed(self, event: Event, error: BaseException) -> None:
        if self.over:  # given up, and reported so
            return
        self.over = True
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        self.report(
            f"{self.name} could not take the {event.kind!r} at {event.env_steps:,} steps ({cause}): it is "
            f"told nothing more, and the run goes on; mend that, or change sinks.{self.name}"
        )
