"""What is new in a run, as Server-Sent Events: files are looked at, and only what was appended is read."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import anyio
from anyio import to_thread

from ztb_jax.errors import RunError
from ztb_jax.runs import directory, listing
from ztb_jax.runs.following import Tail

INTERVAL = 0.25  # seconds between looks


class Event(NamedTuple):
    """One event: its name, what it tells, and the number to go on after, if it has one."""

    name: str
    data: Any
    id: int | None = None

    def text(self) -> str:
        """As the protocol writes it."""
        number = "" if self.id is None else f"id: {self.id}\n"
        return f"{number}event: {self.name}\ndata: {json.dumps(self.data, separators=(',', ':'))}\n\n"


class Watch:
    """What changed in a run since the last look."""

    def __init__(self, run: directory.RunDirectory, *, after: int):
        self.run, self.tail, self.seen = run, Tail(run.windows, after=after), None

    def look(self) -> tuple[list[Event], bool]:
        """Events that are new, and whether there may be more at once; the last one is `end` or `problem`."""
        try:
            status = listing.summary(self.run)["status"]  # before the rows: none is written after the end
            rows, more = self.tail.read()
            events = [*self._metadata(), *(Event("window", row, row["window_id"]) for row in rows)]
        except (RunError, OSError) as error:
            return [Event("problem", {"detail": str(error)})], False
        if not more and status != "running":
            events.append(Event("end", {"status": status}))
        return events, more

    def _metadata(self) -> list[Event]:
        if not self.run.metadata.is_file():
            return []
        told = self.run.metadata.stat()
        stamp = (told.st_ino, told.st_mtime_ns)
        if stamp == self.seen:
            return []
        self.seen = stamp
        return [Event("metadata", directory.read_json(self.run.metadata))]


async def stream(
    run: directory.RunDirectory,
    *,
    after: int,
    is_gone: Callable[[], Awaitable[bool]],
    is_stopping: Callable[[], bool],
) -> AsyncIterator[str]:
    """Events of a run until it has ended, is damaged, or nobody listens.

    Args:
      run: to be watched.
      after: number of the newest window that the listener knows, -1 for none.
      is_gone: whether the listener went.
      is_stopping: whether the server is to end.
    """
    watch = Watch(run, after=after)
    yield "retry: 1000\n\n"
    while not is_stopping() and not await is_gone():
        events, more = await to_thread.run_sync(watch.look)
        if events:
            yield "".join(event.text() for event in events)
            if events[-1].name in ("end", "problem"):
                return
        if not more:
            await anyio.sleep(INTERVAL)
