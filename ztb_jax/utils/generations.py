"""Generations of any state in one folder: layout, manifests and hashes are `ztb_jax.runs.checkpoint`'s.

What this adds is the form of the state, in the manifest; a lock; and what may be removed. orbax compresses
with zstd.
"""

import fcntl
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ztb_jax.errors import RunError
from ztb_jax.runs import checkpoint, packing
from ztb_jax.utils import trees

KIND = "ztb_jax.utils"
VERSION = 1
LOCK = ".checkpoints.lock"  # not that of a run, which is held for long
STATE = "state"


class Read(NamedTuple):
    """A generation that was read.

    Attributes:
      state: as it was saved.
      facts: the plain values that were saved with it.
    """

    state: Any
    facts: dict[str, Any]


@contextmanager
def locked(folder: Path, *, writing: bool) -> Iterator[None]:
    """Inside, nobody else writes to `folder`, and nobody reads while one writes; others wait.

    The lock goes with the process, however that ends. Where a reader finds no lock, nobody ever wrote here,
    or it is a copy: then it goes without.
    """
    path = folder / LOCK
    if writing:
        folder.mkdir(parents=True, exist_ok=True)
    elif not path.is_file():
        yield
        return
    with path.open("a" if writing else "r") as file:
        fcntl.flock(file, fcntl.LOCK_EX if writing else fcntl.LOCK_SH)
        try:
            yield
        finally:
            # A child that was forked meanwhile has the file open, too.
            fcntl.flock(file, fcntl.LOCK_UN)


def write(folder: Path, number: int, parts: trees.Parts, facts: dict[str, Any]) -> Path:
    """Save a state; it is on the disk when this returns.

    Args:
      folder: of the generations.
      number: of this one, greater than every other in the folder.
      parts: of the state.
      facts: what JSON can hold.

    Raises:
      OSError: it cannot be written; what was begun is removed.
    """
    told = {"form": parts.form, "arrays": trees.described(parts.arrays), "facts": facts}
    place = folder / str(number)
    try:
        # It removes none: what goes, goes when this one is committed.
        with checkpoint.Checkpoints(folder, keep=sys.maxsize) as writer:
            writer.save(number, {STATE: parts.arrays}, {"kind": KIND, "version": VERSION} | told)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return place


def read(folder: Path, number: int, like: Any = trees.ABSENT, root: str = "state") -> Read | str:
    """The state of a generation, or a sentence on why it is not whole.

    Args:
      folder: of the generations.
      number: of this one.
      like: an example of the state.
      root: what errors call the state.

    Raises:
      ValueError: `like` is needed or does not fit.
      RunError: another program or a later version wrote it.
    """
    plain = facts_of(folder, number)
    if isinstance(plain, str):
        return plain
    wanted = {STATE: trees.stand_ins(plain["arrays"])}
    restored, _ = checkpoint.restore(folder, wanted, generation=number)
    return Read(trees.put_together(plain["form"], restored.trees[STATE], like, root), plain["facts"])


def facts_of(folder: Path, number: int) -> dict[str, Any] | str:
    """What the manifest of a generation that is whole holds, or a sentence on why it is not.

    Raises:
      RunError: another program or a later version wrote it.
    """
    manifest = checkpoint.read_manifest(folder, number)
    if isinstance(manifest, str):
        return manifest
    place, plain = folder / str(number), manifest.plain
    if plain.get("kind") != KIND:
        raise RunError(f"{place} is a checkpoint of another program, such as a run: read it with that")
    if plain["version"] > VERSION:
        raise RunError(f"{place} was written by a later version: update ztb_jax to read it")
    return plain


def completed(folder: Path) -> list[int]:
    """The numbers of the generations that were committed, newest first."""
    return [number for number in checkpoint.generations(folder) if _manifest(folder, number).is_file()]


def check_ours(folder: Path) -> None:
    """Refuse to write to a folder, or remove from it, where another program's checkpoints are.

    Raises:
      RunError: the newest that is whole is of another program or a later version.
    """
    for number in completed(folder):
        if not isinstance(facts_of(folder, number), str):
            return


def remove_surplus(
    folder: Path, most: int, *, whole: int | None = None, spared: Collection[int] = ()
) -> list[Path]:
    """Remove what was never completed and all but the newest `most` generations, never the last whole one.

    Args:
      folder: of the generations, which the caller has locked.
      most: how many may stay.
      whole: one that is known to be; None looks for the newest.
      spared: stay besides.

    Returns:
      What was removed, newest first.
    """
    there = committed = completed(folder)
    if len(there) > most:
        if whole is None:
            whole = next((n for n in there if not isinstance(checkpoint.read_manifest(folder, n), str)), None)
        there = ([n for n in there if n == whole] + [n for n in there if n != whole])[:most]
    kept = {*there, *spared}
    going = [number for number in checkpoint.generations(folder) if number not in kept]
    return [_removed(folder, n) for n in going if n in committed or _begun(folder, n)]


def _begun(folder: Path, number: int) -> bool:
    """Whether a folder without a manifest was to be a generation; another's name may be a number, too."""
    told = folder / str(number) / checkpoint.STATE / "_METADATA"
    return told.is_file() and f"'{packing.PACK}'" in told.read_text()


def _removed(folder: Path, number: int) -> Path:
    # Without its manifest it is none, should this end half-way.
    _manifest(folder, number).unlink(missing_ok=True)
    shutil.rmtree(folder / str(number))
    return folder / str(number)


def _manifest(folder: Path, number: int) -> Path:
    return folder / str(number) / checkpoint.MANIFEST
