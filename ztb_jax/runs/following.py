"""What a run that is under way appends and says of itself, read as it comes. Imports no jax."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ztb_jax.errors import RunError
from ztb_jax.runs import directory
from ztb_jax.runs.listing import KILLED

SHOWN = 5  # windows before the first look that are told
REACH = 1 << 16  # bytes before the end of the file that are looked at for them


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
        self.windows = Tail(run.windows)
        self.unlocked = 0

    def look(self) -> Look:
        """What there is now.

        Raises:
          RunError: a file is damaged.
        """
        # The lock before the metadata: a run writes how it ended before it lets go of the lock.
        locked = directory.is_locked(self.run)
        metadata = directory.read_json(self.run.metadata) if self.run.metadata.is_file() else {}
        status = metadata.get("status", "running")
        if status == "running":
            # A run is made an instant before it is locked, so that one look is not enough.
            self.unlocked = 0 if locked else self.unlocked + 1
            status = KILLED if self.unlocked > 1 else status
        return Look(metadata, status, self.windows.read())


class Tail:
    """The rows that are appended to a file of windows, each read once; first the newest `SHOWN` there are.

    A file that another takes the place of, as by a resume, goes on with the windows not told yet.

    Args:
      path: of the file, which may not be there yet.
    """

    def __init__(self, path: Path):
        self.path = path
        self.newest, self.offset, self.inode = -1, 0, 0

    def read(self) -> list[dict[str, Any]]:
        """The rows since the last call; what follows the last newline is left for the next one.

        Raises:
          RunError: a line is of no window.
        """
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            found = os.fstat(file.fileno())
            begun = self.inode != 0
            if found.st_ino != self.inode or found.st_size < self.offset:
                self.inode, self.offset = found.st_ino, 0 if begun else max(0, found.st_size - REACH)
            file.seek(self.offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        torn = self.offset > 0 and not begun
        self.offset += len(whole) + len(newline)
        lines = whole.split(b"\n")[1 if torn else 0 :] if whole else []
        rows = [row for row in map(self._row, lines) if row["window_id"] > self.newest]
        self.newest = max([self.newest, *(row["window_id"] for row in rows)])
        return rows if begun else rows[-SHOWN:]

    def _row(self, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
            if isinstance(row["window_id"], int):
                return row
        except (ValueError, KeyError, TypeError):
            pass
        raise RunError(f"{self.path} is damaged (a line is of no window): restore it, or train again")
