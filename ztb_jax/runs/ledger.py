"""The record of everything that was ever scored, out of which the number of trials M is counted. No jax.

One file of JSON lines, `ztb_jax.runs.judged.Scored`, that is only ever appended to: `scored.jsonl` in the
folder of runs, or another that several folders share. A line is on the disk before anybody sees the verdict
that it counts for. Writers wait for each other by `flock`, which goes with a process however that ends.

What was cut off in the middle of its line was never shown to anybody; it is told of and left out, and the
next writer removes it. Any other damage is refused, for an M that is too small is a verdict that is too kind.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ztb_jax.errors import RunError
from ztb_jax.runs import artifacts, directory
from ztb_jax.runs.judged import Scored

NAME = "scored.jsonl"
ELSEWHERE = "give a file that you can write with --run.ledger, or another --run.root"


class Trials(NamedTuple):
    """What was scored on the bars of one scoring, that one among it.

    Attributes:
      policies: M, distinct policies with their settings and stretches.
      at_first: M when this policy was first scored on any of these bars.
      sharpes: Sharpe ratio per bar of each of them whose ratio is known, as it was last scored.
    """

    policies: int
    at_first: int
    sharpes: tuple[float, ...]


class Ledger(NamedTuple):
    """What a record holds.

    Attributes:
      rows: every scoring, oldest first.
      told: sentences on what was left out.
    """

    rows: list[Scored]
    told: list[str]


def place(root: Path, named: str | None) -> Path:
    """The file that scorings of a run go to: what `run.ledger` names, or one in its folder of runs."""
    return root / NAME if named is None else Path(named).expanduser()


def check(path: Path) -> None:
    """Refuse early what `score` would refuse late, after a training; nothing is made.

    Raises:
      RunError: the record is damaged, or cannot be written.
    """
    try:
        found = next(each for each in (path, *path.resolve().parents) if each.exists())
    except OSError as error:
        raise _unwritable(path, error) from None
    if found == path:
        with _opened(path) as file:
            _parsed(file.read(), path)
    elif not found.is_dir():
        raise _unwritable(path, NotADirectoryError(errno.ENOTDIR, f"{found} is no folder"))
    elif not os.access(found, os.W_OK | os.X_OK):
        raise _unwritable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def read(path: Path) -> Ledger:
    """Every scoring that a record holds; none where there is no such file.

    Raises:
      RunError: it cannot be read, or a line other than an unfinished last one is damaged.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return _parsed(file.read(), path)[0]
    except FileNotFoundError:
        return Ledger([], [])
    except OSError as error:
        raise RunError(f"cannot read the record of scorings {path}: {error.strerror}") from None


def append(path: Path, row: Scored) -> Ledger:
    """Write `row` behind all others; it is on the disk on return.

    Returns:
      The record with it. An unfinished last line is removed, and that is told.

    Raises:
      RunError: the record cannot be written, or is damaged; nothing was written.
      ValueError: `row` is no scoring.
    """
    artifacts.check("scored", row)
    with _opened(path) as file:
        found, whole = _parsed(file.read(), path)
        file.truncate(whole)
        try:
            file.write(directory.line(row).encode())
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                file.truncate(whole)  # a line that nobody was told of; else the next writer removes its rest
            raise _unwritable(path, error) from None
    return Ledger([*found.rows, row], found.told)


def trials(rows: Sequence[Scored], scored: Scored) -> Trials:
    """M of one of `rows`: distinct trials that were scored on any of its bars.

    Bars are the same where the instrument is, by symbol and timeframe or by the content hash of its bars, and
    the stretches overlap in time, whatever slices they were called. A trial is weights, the settings that
    they play by and the stretch: what was scored twice counts once, and one policy with other costs, levels
    or an earlier end is another look.

    Args:
      rows: oldest first.
      scored: among them.
    """
    alike = [row for row in rows if _overlap(row, scored)]
    last = {_trial(row): row["sharpe_per_bar"] for row in alike}
    looks = [_trial(row) for row in alike]
    until_first = looks[: looks.index(_trial(scored)) + 1]
    return Trials(
        policies=len(last),
        at_first=len(set(until_first)),
        sharpes=tuple(ratio for ratio in last.values() if ratio is not None),
    )


def _trial(row: Scored) -> tuple[str, ...]:
    return row["policy"], row["config"], row["first"], row["last"]


def _overlap(one: Scored, other: Scored) -> bool:
    market = ("symbol", "timeframe")
    return (
        one["first"] <= other["last"]
        and other["first"] <= one["last"]
        and (one["data"] == other["data"] or all(one[name] == other[name] for name in market))
    )


def _parsed(text: bytes, path: Path) -> tuple[Ledger, int]:
    """What is in it, and how many bytes of it are whole lines."""
    *lines, rest = text.split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(artifacts.parse("scored", line))
        except ValueError as error:
            raise RunError(
                f"{path}, line {number} is damaged ({error}), and without it nobody can say how often these "
                "bars were looked at: restore the file from a copy, or mend that line"
            ) from None
    told = []
    if rest:
        told = [f"{path}: line {len(lines) + 1} was cut off while it was written, and is left out"]
    return Ledger(rows, told), len(text) - len(rest)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, made if need be, with no other process inside."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = not path.exists()
        file = path.open("a+b")
    except OSError as error:
        raise _unwritable(path, error) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if made:
            directory.to_disk(path.parent)  # the name of a new file
        file.seek(0)
        yield file


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(f"cannot write the record of scorings {path}: {error.strerror}; {ELSEWHERE}")
