"""What a run that is under way appends and says of itself, read as it comes. Imports no jax."""

import os
from pathlib import Path
from typing import Any, NamedTuple, get_args

from ztb_jax.errors import RunError
from ztb_jax.runs import artifacts, directory
from ztb_jax.runs.listing import KILLED

STATUSES = get_args(artifacts.Status)
SHOWN = 5  # windows before the first look that are told
REACH = 1 << 16  # bytes before the end of the file that are looked at for them
CHUNK = 1 << 20  # bytes of new rows read in one look


class Look(NamedTuple):
    """A look at a run.

    Attributes:
      metadata: what it says of itself; empty before it has begun to.
      status: of the metadata, "running" before there is any, or "killed" when no process holds its lock.
      windows: rows of windows that are new since the look before.
    """

    metadata: dict[str, Any]
    status: str
    windows: list[dict[str, Any]]


class Follower:
    """Looks at a run.

    Args:
      run: the run; it may not have begun to write yet.
    """

    def __init__(self, run: directory.RunDirectory):
        self.run = run
        self.windows = Tail(run.windows, newest=SHOWN)
        self.unlocked = 0

    def look(self) -> Look:
        """What there is now.

        Raises:
          RunError: a file is damaged.
        """
        # The lock before the metadata: a run writes how it ended before it lets go of the lock.
        locked = directory.is_locked(self.run)
        metadata = directory.read_json(self.run.metadata) if self.run.metadata.is_file() else {}
        status = metadata.get("status", "running") if isinstance(metadata, dict) else ""
        if status not in STATUSES:
            raise RunError(f"{self.run.metadata} is damaged (no status): restore it, or train again")
        if status == "running":
            # A run is made an instant before it is locked, so that one look is not enough.
            self.unlocked = 0 if locked else self.unlocked + 1
            status = KILLED if self.unlocked > 1 else status
        rows, more = self.windows.read()
        while more:
            further, more = self.windows.read()
            rows += further
        return Look(metadata, status, rows)


class Tail:
    """The rows of a growing `metrics/windows.jsonl`, each once.

    A resumed run replaces the file by one without the rows that it makes again: it is then read anew, and
    windows that were told are not told twice.

    Args:
      path: of the file, which may not be there yet.
      after: number of the newest window that is known already.
      newest: of the rows that are there at first, only the last so many; None is all.

    Attributes:
      after: number of the newest window that was told.
    """

    def __init__(self, path: Path, *, after: int = -1, newest: int | None = None):
        self.path, self.after, self.newest = path, after, newest
        self.inode, self.offset, self.rest = 0, 0, b""

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Rows that are new, a `CHUNK` of the file at the most; and whether there may be more at once.

        Raises:
          RunError: a line is of no window.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return [], False
        with file:
            found, first = os.fstat(file.fileno()), self.inode == 0
            if found.st_ino != self.inode or found.st_size < self.offset:
                self.inode, self.offset, self.rest = found.st_ino, 0, b""
            if first and self.newest is not None:
                self.offset = max(0, found.st_size - REACH)
            torn = first and self.offset > 0
            file.seek(self.offset)
            fresh = file.read(CHUNK)
        self.offset += len(fresh)
        *lines, self.rest = (self.rest + fresh).split(b"\n")
        rows = [row for row in map(self._row, lines[torn:]) if row["window_id"] > self.after]
        self.after = max([self.after, *(row["window_id"] for row in rows)])
        return rows[-self.newest :] if first and self.newest else rows, len(fresh) == CHUNK

    def _row(self, line: bytes) -> dict[str, Any]:
        try:
            row = directory.parsed(line)
            if isinstance(row["window_id"], int):
                return row
        except (ValueError, KeyError, TypeError):
            pass
        raise RunError(f"{self.path} is damaged (a line is of no window): restore it, or train again")
