"""What may be read of a folder of runs, and that it is what it should be.

Names come from outside: none leads out of the folder, nor a link inside it. Files may be damaged: what is
not as it should be is a `RunError`, never anything else.
"""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ztb_jax.errors import RunError
from ztb_jax.runs import artifacts, directory, listing, replays

EXTRAS = ("run_id", "window_complete")  # columns of a row that are no number


class NotHereError(RunError):
    """There is nothing by that name."""


class Replay(NamedTuple):
    """One entry of a replay index and the file that it names."""

    entry: dict[str, Any]
    path: Path


class Checkpoint(NamedTuple):
    """What is kept of one window.

    Attributes:
      window: its number.
      state: whether a run can go on from it.
      policy: path of the policy alone, relative to the run, or None.
      size: bytes of that policy, or None.
    """

    window: int
    state: bool
    policy: str | None
    size: int | None


def list_runs(root: Path, *, status: str | None = None, sort: str = "started_at") -> list[dict[str, Any]]:
    """As `listing.list_runs`, without what a link leads out of `root` to and what `find_run` would not find.

    Files that did not change are not read again, so that a page may look often.

    Raises:
      RunError: there is no such folder, or nothing by that name to sort by.
    """
    try:
        told = [_summary(Path(entry.path), root) for entry in os.scandir(root)]
    except OSError as error:
        raise RunError(f"cannot read {root}: {error.strerror}") from None
    return listing.in_order((each for each in told if each is not None), status=status, sort=sort)


def _summary(path: Path, root: Path) -> dict[str, Any] | None:
    stamps = tuple(_stamp(each) for each in (path, path / "config.json", path / "run_metadata.json"))
    told = None if stamps[1] is None else _summary_of(path, root, stamps)
    if told is not None and told["status"] in ("running", listing.KILLED):
        return listing.summary(directory.RunDirectory(path))  # which of the two it is, no file tells
    return told


@lru_cache(maxsize=1 << 16)
def _summary_of(path: Path, root: Path, stamps: tuple[Any, ...]) -> dict[str, Any] | None:
    del stamps  # they make what is kept out of date
    run = directory.RunDirectory(path)
    return listing.summary(run) if _is_ours(run, root) else None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        told = os.lstat(path)
    except OSError:
        return None
    return told.st_ino, told.st_mtime_ns


def find_run(root: Path, run_id: str) -> directory.RunDirectory:
    """The run of that name.

    Raises:
      NotHereError: there is none, or it leads out of `root`.
    """
    if directory.RUN_ID.fullmatch(run_id):  # before any path is made of it
        run = directory.RunDirectory(root / run_id)
        if run.config.is_file() and _is_ours(run, root):
            return run
    raise NotHereError(f"there is no run {run_id!r}")


def _is_ours(run: directory.RunDirectory, root: Path) -> bool:
    try:
        return _leads_nowhere_else(run, root)
    except (OSError, RuntimeError):  # links in a circle
        return False


def _leads_nowhere_else(run: directory.RunDirectory, root: Path) -> bool:
    home = run.path.resolve()
    files = (run.config, run.metadata, run.seal, run.windows, run.replay_index, run.evaluation, run.report)
    named = directory.RUN_ID.fullmatch(run.path.name) is not None
    return (
        named
        and home.is_relative_to(root.resolve())
        and all(file.resolve().is_relative_to(home) for file in files if _may_lead_out(file, run))
    )


def _may_lead_out(file: Path, run: directory.RunDirectory) -> bool:
    return file.is_symlink() or file.parent != run.path


def read_optional(path: Path) -> dict[str, Any] | None:
    """As `directory.read_object`; None where there is no such file."""
    return directory.read_object(path) if path.is_file() else None


def read_metadata(run: directory.RunDirectory) -> dict[str, Any]:
    """What a run tells of itself while it runs, with every key of `RunMetadata`; what is not told is None.

    Raises:
      RunError: it is damaged.
    """
    found = dict.fromkeys(artifacts.RunMetadata.__annotations__) | (read_optional(run.metadata) or {})
    if not isinstance(found["troubles"] or [], list):
        raise RunError(f"{run.metadata} is damaged (troubles are no list): restore it, or train again")
    return found


def read_evaluation(run: directory.RunDirectory) -> dict[str, Any] | None:
    """The verdict on the test slice, or None before there is one.

    Raises:
      RunError: it is damaged.
    """
    found = read_optional(run.evaluation)
    if found is None:
        return None
    strategies, notes = found.get("strategies", {}), found.get("notes", [])
    tables = isinstance(strategies, dict) and all(isinstance(each, dict) for each in strategies.values())
    edge = found.get("edge")
    judged = edge is None or (isinstance(edge, dict) and isinstance(edge.get("reasons"), list))
    if not tables or not judged or not isinstance(notes, list):
        raise RunError(
            f"{run.evaluation} is damaged (strategies, edge or notes are none): evaluate the run again"
        )
    return dict.fromkeys(artifacts.Evaluation.__annotations__) | found


def read_windows(run: directory.RunDirectory) -> list[dict[str, Any]]:
    """Every row of metrics, oldest first.

    Raises:
      RunError: the file is damaged.
    """
    return directory.read_windows(run.windows)


def curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Every column of numbers that rows have, by name; None where a row has none."""
    names = {name: None for row in rows for name, value in row.items() if _is_number(value)}
    return {
        name: [row.get(name) if _is_number(row.get(name)) else None for row in rows]
        for name in names
        if name not in EXTRAS
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_replays(run: directory.RunDirectory) -> list[dict[str, Any]]:
    """The entries of the replay index, newest first.

    Raises:
      RunError: it is damaged.
    """
    return replays.read_index(run)[::-1]


def find_replay(run: directory.RunDirectory, replay_id: str) -> Replay:
    """One replay of the index.

    Raises:
      NotHereError: there is none by that id, or its file is not inside the run's directory.
      RunError: the index is damaged.
    """
    for entry in read_replays(run):
        if entry["replay_id"] == replay_id:
            try:
                return Replay(entry, replays.path_of(run, entry))
            except RunError as error:
                raise NotHereError(str(error)) from None
    raise NotHereError(f"run {run.id} has no replay {replay_id!r}")


def tagged(
    entries: Sequence[dict[str, Any]],
    *,
    every: Sequence[str] = (),
    some: Sequence[str] = (),
    window_id: int | None = None,
) -> list[dict[str, Any]]:
    """The entries with all tags of `every`, one at least of `some` unless it is empty, of that window."""
    return [
        entry
        for entry in entries
        if set(every) <= set(entry["tags"])
        and (not some or set(some) & set(entry["tags"]))
        and window_id in (None, entry["window_id"])
    ]


def list_checkpoints(run: directory.RunDirectory) -> list[Checkpoint]:
    """What can be gone on from or played, newest first."""
    if not run.checkpoints.is_dir():
        return []
    states, policies = set(), {}
    for path in run.checkpoints.iterdir():
        if path.name.isdecimal() and (path / "manifest.json").is_file():
            states.add(int(path.name))
        elif path.name.startswith("ckpt_") and path.suffix == ".pt" and path.stem[5:].isdecimal():
            policies[int(path.stem[5:])] = path
    return [
        Checkpoint(
            window,
            window in states,
            run.relative(policies[window]) if window in policies else None,
            _size(policies[window]) if window in policies else None,
        )
        for window in sorted(states | policies.keys(), reverse=True)
    ]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a run under way removes old ones
        return None
