"""Generations of any state in one folder, over `ztb_jax.runs.checkpoint`: its layout, its manifests, its hashes.

What this adds is the form of the state, in the manifest; a lock; and what may be removed. orbax compresses with
zstd.
"""

import fcntl
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ztb_jax.errors import RunError
from ztb_jax.runs import checkpoint
from ztb_jax.utils import trees

KIND = "ztb_jax.utils"
VERSION = 1
LOCK = ".lock"
STATE = "state"
EMPTY = {"none": np.zeros(1, np.uint8)}  # orbax refuses a tree without arrays


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

    The lock goes with the process, however that ends. Where a reader finds no lock, nobody ever wrote here, or it
    is a copy: then it goes without.
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
    shapes = {name: list(array.shape) for name, array in parts.arrays.items()}
    plain = {
        "kind": KIND,
        "version": VERSION,
        "form": parts.form,
        "dtypes": parts.dtypes,
        "shapes": shapes,
        "facts": facts,
    }
    place = folder / str(number)
    try:
        # It removes none: what goes, goes when this one is committed.
        with checkpoint.Checkpoints(folder, keep=sys.maxsize) as writer:
            writer.save(number, {STATE: parts.arrays or EMPTY}, plain)
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
    wanted = trees.abstract(plain["dtypes"], plain["shapes"]) or EMPTY
    restored, _ = checkpoint.restore(folder, {STATE: wanted}, generation=number)
    arrays = {name: restored.trees[STATE][name] for name in plain["dtypes"]}
    return Read(trees.put_together(plain["form"], arrays, plain["dtypes"], like, root), plain["facts"])


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


def remove_surplus(
    folder: Path, most: int, *, whole: int | None = None, spared: Collection[int] = ()
) -> list[Path]:
    """Remove all but the newest `most` generations, and what was never completed; but never the last whole one.

    Args:
      folder: of the generations, which the caller has locked.
      most: how many may stay.
      whole: one that is known to be; None looks for the newest.
      spared: stay besides.

    Returns:
      What was removed, newest first.
    """
    numbers, there = checkpoint.generations(folder), completed(folder)
    if len(there) > most and whole is None:
        whole = next((n for n in there if not isinstance(checkpoint.read_manifest(folder, n), str)), None)
    first = [] if whole is None else [whole]
    kept = {*(first + [number for number in there if number not in first])[:most], *spared}
    if len(there) <= most:
        kept = set(there)
    return [_removed(folder, number) for number in numbers if number not in kept]


def _removed(folder: Path, number: int) -> Path:
    # Without its manifest it is none, should this end half-way.
    _manifest(folder, number).unlink(missing_ok=True)
    shutil.rmtree(folder / str(number))
    return folder / str(number)


def _manifest(folder: Path, number: int) -> Path:
    return folder / str(number) / checkpoint.MANIFEST
