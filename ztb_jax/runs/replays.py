"""Replays as files: frames that stream in and out, and the index of a run. Imports no jax.

A replay is gzip of JSON lines, written as one gzip member for every `BLOCK` frames, each of which names its
own length and frames in its header (RFC 1952, FEXTRA). Any gzip reader reads the whole; ours hops over
members to a frame far inside without unpacking those before.
"""

import gzip
import hashlib
import io
import itertools
import struct
import zlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ztb_jax.errors import FormatError, RunError
from ztb_jax.runs import artifacts, directory

SCHEMA_VERSION = 1
BLOCK = 512
LONGEST = 1 << 22  # characters of a frame
REQUIRED = (
    "schema_version",
    "frame_index",
    "t",
    "dt",
    "action",
    "reward",
    "terminated",
    "truncated",
    "render_state",
    "events",
)
_HEAD = struct.Struct("<BBBBIBBH2sHII")  # fixed gzip header, XLEN, then our one subfield
_TAIL = struct.Struct("<II")
_MARK = b"ZF"


class Written(NamedTuple):
    """What was written.

    Attributes:
      frames: how many.
      digest: SHA-256 of the JSON lines.
    """

    frames: int
    digest: str


def write_frames(path: Path, frames: Iterable[Mapping[str, Any]]) -> Written:
    """Write a replay whole or not at all, in memory of one block of frames.

    Args:
      path: of the file, replaced at once when all is written.
      frames: each a `ztb_jax.runs.artifacts.ReplayFrame`.

    Raises:
      ValueError: a frame lacks keys, or its `dt` is not positive.
    """
    digest, count, source = hashlib.sha256(), 0, iter(frames)
    with directory.replacing(path) as file:
        while block := list(itertools.islice(source, BLOCK)):
            for frame in block:
                _check(frame)
            text = "".join(directory.line(frame) for frame in block).encode()
            digest.update(text)
            count += len(block)
            file.write(_member(text, len(block)))
    return Written(count, digest.hexdigest())


def read_frames(path: Path, *, offset: int = 0, limit: int | None = None) -> Generator[dict[str, Any]]:
    """The frames of a replay from number `offset` on, `limit` at the most, one after the other.

    Raises:
      RunError: the file is missing or damaged.
    """
    if limit is not None and limit <= 0:
        return
    if not path.is_file():
        raise RunError(f"there is no file {path}: restore it, or replay the run again")
    stop = None if limit is None else offset + limit
    try:
        with path.open("rb") as file:
            number = _hop(file, offset)
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                while (stop is None or number < stop) and (text := lines.readline(LONGEST)):
                    if number >= offset:
                        yield _frame(text, number)
                    number += 1
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, zlib.error) as error:
        raise RunError(f"{path} is damaged ({error}): restore it, or replay the run again") from None


def _frame(text: str, number: int) -> dict[str, Any]:
    if len(text) == LONGEST:
        raise ValueError(f"frame {number} has no end")
    frame = artifacts.check("replay_frame", directory.parsed(text))
    if frame["frame_index"] != number:
        raise ValueError(f"frame {frame['frame_index']} stands where frame {number} should")
    return frame


def _member(text: bytes, frames: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(text) + packer.flush()
    size = _HEAD.size + len(packed) + _TAIL.size
    head = _HEAD.pack(0x1F, 0x8B, 8, 4, 0, 0, 255, 12, _MARK, 8, size, frames)
    return head + packed + _TAIL.pack(zlib.crc32(text), len(text) & 0xFFFFFFFF)


def _hop(file: BinaryIO, offset: int) -> int:
    """Move to the member that holds frame `offset`, as far as members tell; the number of its first frame."""
    first, at, whole = 0, 0, file.seek(0, io.SEEK_END)
    file.seek(0)
    while True:
        head = file.read(_HEAD.size)
        known = len(head) == _HEAD.size and head[3] == 4 and head[12:14] == _MARK
        size, frames = _HEAD.unpack(head)[-2:] if known else (0, 0)
        unsized = size <= _HEAD.size  # of another writer, or damaged: hopping by it would stand still
        if unsized or first + frames > offset:
            file.seek(at)
            return first
        first, at = first + frames, at + size
        if at > whole:
            raise ValueError("its last block is cut off")
        file.seek(at)


def _check(frame: Mapping[str, Any]) -> None:
    missing = [key for key in REQUIRED if key not in frame]
    if missing:
        raise ValueError(f"a replay frame has missing keys: {', '.join(missing)}")
    if not frame["dt"] > 0:
        raise ValueError(f"dt must be positive, got {frame['dt']}")


def tags_of(
    entry: Mapping[str, Any],
    earlier: Sequence[Mapping[str, Any]],
    *,
    profit: Sequence[float] = (),
    returns: Sequence[float] = (),
    survival: Sequence[float] = (),
) -> list[str]:
    """`every_window`; `best_so_far` if its return is above all `earlier`; a milestone for each threshold met.

    Args:
      entry: with `return_total`, `return_percent`, `profit` and `survival`.
      earlier: entries of the run before it.
      profit: thresholds in account currency.
      returns: thresholds in percent.
      survival: thresholds as a share of the episode.
    """
    tags = ["every_window"]
    if all(entry["return_total"] > other["return_total"] for other in earlier):
        tags.append("best_so_far")
    wanted = (
        ("profit", "profit", profit),
        ("return", "return_percent", returns),
        ("survival", "survival", survival),
    )
    return tags + [
        f"milestone:{name}:{threshold:.10g}"
        for name, key, thresholds in wanted
        for threshold in thresholds
        if entry[key] >= threshold
    ]


def read_index(run: directory.RunDirectory) -> list[dict[str, Any]]:
    """The entries of a run's replay index, oldest first; none where there is no index.

    Raises:
      RunError: it is damaged; a FormatError where it is of another schema or another run.
    """
    if not run.replay_index.is_file():
        return []
    index = directory.read_json(run.replay_index)
    if not isinstance(index, dict) or index.get("schema_version") != SCHEMA_VERSION:
        raise FormatError(f"{run.replay_index} is not of schema_version {SCHEMA_VERSION}")
    if index.get("run_id") != run.id:
        raise FormatError(f"{run.replay_index} is of run {index.get('run_id')!r}, not {run.id!r}")
    try:
        return artifacts.check("replay_index", index)["entries"]
    except ValueError as error:
        raise RunError(f"{run.replay_index} is damaged ({error}): restore it, or remove it") from None


def write_index(run: directory.RunDirectory, entries: Sequence[Mapping[str, Any]]) -> None:
    """Replace the index at once."""
    directory.write_json(
        run.replay_index,
        {
            "schema_version": SCHEMA_VERSION,
            "run_id": run.id,
            "updated_at": directory.timestamp(),
            "entries": list(entries),
        },
    )


def path_of(run: directory.RunDirectory, entry: Mapping[str, Any]) -> Path:
    """The file of a replay.

    Raises:
      RunError: it is not there, or not inside the run.
    """
    try:
        path = (run.path / entry["replay_path"]).resolve()
        if path.is_relative_to(run.path.resolve()) and path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):  # links in a circle, or a name that no file can have
        pass
    raise RunError(f"{run.path} has no file {entry['replay_path']!r} of its own")


def entry_of(run: directory.RunDirectory, replay_id: str | None) -> dict[str, Any]:
    """One entry of the index, by its id or a part of it that no other has.

    When `replay_id` is None it is the newest that was best so far, or the newest.

    Raises:
      RunError: there is none.
    """
    entries = read_index(run)
    if not entries:
        raise RunError(f"{run.path} has no replays: train with --replays.episodes 1, or by `ztb windowed`")
    if replay_id is None:
        best = [entry for entry in entries if "best_so_far" in entry["tags"]]
        return (best or entries)[-1]
    whole = [entry for entry in entries if entry["replay_id"] == replay_id]
    found = whole or [entry for entry in entries if replay_id in entry["replay_id"]]
    if len(found) != 1:
        newest = ", ".join(entry["replay_id"] for entry in entries[-3:])
        has = f"{len(found)} replays of" if found else "no replay"
        raise RunError(f"{run.path} has {has} {replay_id!r}; the newest are {newest}")
    return found[0]
