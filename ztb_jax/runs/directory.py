"""The run directory: its layout, and writes that a reader never sees half done. Imports no jax.

runs/<run_id>/
  config.json          every resolved value
  seal.json            what the run depends on: environment, data, key, scaling; and how it was resumed
  run_metadata.json    live: status, phase, progress, latest window and checkpoint
  metrics/windows.jsonl  one object a window
  metrics/digests.jsonl  hashes of the carry after every window
  checkpoints/<window>/  the whole carry, the best policy so far and the counters
  checkpoints/ckpt_<window>.pt  the policy alone, self-contained
  replays/<replay>.jsonl.gz, replay_index.json  episodes played with those
  evaluation.json      the out-of-sample result
  report.html          the same for a person
  evaluation-<slice>.json, report-<slice>.html  a look at another slice, when asked for
"""

import fcntl
import hashlib
import json
import math
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ztb_jax.errors import RunError

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
RESERVED = 1 << 16  # bytes kept so that a full disk does not keep a run from saying how it ended
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class RunDirectory:
    """Paths of one run and the few ways in which its files are written.

    Attributes:
      path: the directory.
      id: its name.
    """

    def __init__(self, path: Path):
        self.path = path
        self.id = path.resolve().name
        self.config = path / "config.json"
        self.metadata = path / "run_metadata.json"
        self.seal = path / "seal.json"
        self.windows = path / "metrics" / "windows.jsonl"
        self.digests = path / "metrics" / "digests.jsonl"
        self.checkpoints = path / "checkpoints"
        self.replays = path / "replays"
        self.replay_index = path / "replay_index.json"
        self.reserve = path / ".reserve"
        self.lock = path / ".lock"
        self.evaluation = path / "evaluation.json"
        self.report = path / "report.html"

    def results(self, slice_name: str) -> tuple[Path, Path]:
        """Where the JSON and the page of a slice go; the run's own verdict is the test slice's."""
        if slice_name == "test":
            return self.evaluation, self.report
        return self.path / f"evaluation-{slice_name}.json", self.path / f"report-{slice_name}.html"

    def relative(self, path: Path) -> str:
        """`path` as metadata names it: relative to the run directory, POSIX."""
        return path.relative_to(self.path).as_posix()


def create(
    root: str | Path, run_id: str | None, config: Mapping[str, Any], *, now: datetime | None = None
) -> RunDirectory:
    """A new run directory that holds its configuration.

    Args:
      root: folder of run directories, created if need be.
      run_id: its name, or None for `YYYYmmddTHHMMSSZ-<commit>`.
      config: plain values, for config.json.
      now: the time to name it by.

    Raises:
      RunError: the name is taken or unusable, or the folder cannot be written.
    """
    root = Path(root).expanduser()
    check_name(root, run_id)
    base = run_id or f"{(now or datetime.now(UTC)).strftime('%Y%m%dT%H%M%SZ')}-{commit() or 'nogit'}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        path = _claim(root, base, numbered=run_id is None)
    except (OSError, ValueError) as error:
        raise _unwritable(root, error) from None
    run = RunDirectory(path)
    try:
        run.windows.parent.mkdir()
        write_json(run.config, config)
        run.reserve.write_bytes(bytes(RESERVED))
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise _unwritable(root, error) from None
    return run


def _unwritable(root: Path, error: OSError | ValueError) -> RunError:
    cause = getattr(error, "strerror", None) or error
    return RunError(
        f"cannot create a run directory in {root}: {cause}; give a folder that you can write with --run.root"
    )


def check_name(root: str | Path, run_id: str | None) -> None:
    """Refuse early what `create` would refuse late: nothing is made.

    Raises:
      RunError: the name is taken or unusable.
    """
    if run_id is None:
        return
    if not RUN_ID.fullmatch(run_id):
        raise RunError(
            f"run.id {run_id!r} cannot name a directory: use letters, digits, dot, dash and underscore"
        )
    if (Path(root).expanduser() / run_id).exists():
        raise _taken(Path(root).expanduser() / run_id)


def _taken(path: Path) -> RunError:
    return RunError(f"{path} exists: choose another --run.id, or remove that run if it is not needed")


def _claim(root: Path, base: str, *, numbered: bool) -> Path:
    """Make `root/base`; a generated name that another run took in the same second gets a number."""
    attempt = 1
    while True:
        path = root / (base if attempt == 1 else f"{base}-{attempt}")
        try:
            path.mkdir()
        except FileExistsError:
            if not numbered:
                raise _taken(path) from None
            attempt += 1
        else:
            return path


@contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Inside, no other process writes to `run`; the lock goes with the process, however that ends.

    Raises:
      RunError: another one does, or the directory cannot be written.
    """
    try:
        file = run.lock.open("a+")
    except OSError as error:
        raise RunError(f"cannot write to {run.path}: {error.strerror}") from None
    with file:
        if not _taken_over(file):
            file.seek(0)
            raise RunError(
                f"{run.path} is being written by {file.read().strip()}: wait until that has ended, or stop it"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def _taken_over(file: TextIO) -> bool:
    """Whether the lock is ours now; one who only looks holds it for an instant, which is waited for."""
    deadline = time.monotonic() + 0.5
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def is_locked(run: RunDirectory) -> bool:
    """Whether a process writes to `run` now."""
    if not run.lock.is_file():
        return False
    with run.lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def clear_drafts(run: RunDirectory) -> None:
    """Remove what a killed process was about to put in place; only for the one that holds the lock."""
    for folder in (run.path, run.windows.parent, run.checkpoints, run.replays):
        for path in folder.glob(".*.tmp"):
            path.unlink()


def find(path: str | Path) -> RunDirectory:
    """An existing run directory; a bare name is also looked for in the folder `runs`.

    Raises:
      RunError: there is none, or it is no run.
    """
    run = RunDirectory(Path(path))
    if not run.path.exists() and run.path.name == str(path) and (Path("runs") / path).is_dir():
        run = RunDirectory(Path("runs") / path)
    if not run.path.is_dir():
        raise RunError(f"{path} is no directory: give the path of a run, such as runs/<run_id>")
    if not run.config.is_file():
        raise RunError(f"{path} holds no {run.config.name}: give the path of a run that `ztb train` made")
    return run


def parsed(text: str | bytes) -> Any:
    """JSON as `json.loads` reads it, but nothing that could not be written again or shown.

    Raises:
      ValueError: it is no JSON, nests too deep, or holds NaN, a number beyond a float or half a character.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_int=_whole, parse_float=_finite)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    whole = text if isinstance(text, str) else text.decode()
    if SURROGATE.search(whole):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _whole(digits: str) -> int:
    return int(digits) if len(digits) < 20 else int(_refuse(f"a number of {len(digits)} digits"))


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits[:20])


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      RunError: it is missing or damaged.
    """
    try:
        return parsed(path.read_text())
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): restore it, or train again") from None


def read_object(path: Path) -> dict[str, Any]:
    """As `read_json`, of a file that holds an object."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged (it holds no object): restore it, or train again")
    return found


def write_json(path: Path, value: Any) -> None:
    """Replace `path` at once: a reader sees the old value or the new one, also after a crash."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """As `write_json`, for any text."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, whole: bytes) -> None:
    """As `write_json`, for any bytes."""
    with replacing(path) as file:
        file.write(whole)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` at once when the block ends well, and otherwise is gone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """A file's bytes, or the names in a directory, so that they are found again after a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one compact JSON object; it is on the disk on return."""
    with path.open("a") as file:
        file.write(line(row))
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """As `write_json`, for the objects of a JSON Lines file."""
    write_text(path, "".join(line(row) for row in rows))


def line(row: Mapping[str, Any]) -> str:
    """One compact JSON object and a newline."""
    return json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n"


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every object of a JSON Lines file, none when it does not exist; a torn last line is left out."""
    if not path.is_file():
        return []
    try:
        lines = path.read_text().split("\n")[:-1]  # what follows the last newline was never finished
        rows = [parsed(line) for line in lines]
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): restore it, or train again") from None
    if not all(isinstance(row, dict) for row in rows):
        raise RunError(f"{path} is damaged (a line is no object): restore it, or train again")
    return rows


def read_windows(path: Path) -> list[dict[str, Any]]:
    """As `read_lines`, of lines that each tell of a window."""
    rows = read_lines(path)
    if not all(isinstance(row.get("window_id"), int) for row in rows):
        raise RunError(f"{path} is damaged (a line is of no window): restore it, or train again")
    return rows


def timestamp() -> str:
    """Now, UTC, ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def commit() -> str | None:
    """Short commit of the repository that holds this package, `-dirty` when changed; None outside one."""

    def git(*arguments: str) -> str:
        here = Path(__file__).resolve().parents[2]
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != Path(__file__).resolve().parents[2]:
            return None
        short = git("rev-parse", "--short=9", "HEAD")
        return f"{short}-dirty" if git("status", "--porcelain", "--untracked-files=no") else short
    except (OSError, subprocess.CalledProcessError):
        return None
