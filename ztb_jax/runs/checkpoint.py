"""Checkpoints: generations of a state that orbax writes aside, and a manifest of hashes that commits each.

checkpoints/<generation>/
  state/             by orbax: the bytes of every leaf, small ones in one array
  manifest.json      plain values, hashes of every file and of every leaf; the last line hashes the rest

A generation without a manifest was never completed, and one that does not agree with it is damaged: neither
is ever restored.
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as keeping

from ztb_jax.errors import RunError
from ztb_jax.runs import directory, packing

# Its threads log what they also raise, and we tell that once.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname or record.levelno < 40)

FORMAT = 1
MANIFEST = "manifest.json"
DAMAGED = "damaged-"
NUMBER = re.compile("0|[1-9][0-9]*", re.ASCII)
STATE = "state"
FEWEST = 2  # generations kept: the older one stands until the newer is committed


class Manifest(NamedTuple):
    """What commits a generation.

    Attributes:
      generation: its number.
      plain: the plain values that were saved with it.
      files: size and SHA-256 by path within the generation.
      leaves: SHA-256 of every leaf by tree and path.
      forms: dtype and shape of every leaf, likewise.
      sizes: bytes of every leaf, likewise, in the order in which they were packed.
    """

    generation: int
    plain: dict[str, Any]
    files: dict[str, tuple[int, str]]
    leaves: dict[str, str]
    forms: dict[str, str]
    sizes: dict[str, int]


class Restored(NamedTuple):
    """A generation that was read.

    Attributes:
      generation: its number.
      trees: by name.
      plain: the plain values that were saved with it.
      leaves: SHA-256 of every leaf by tree and path.
    """

    generation: int
    trees: dict[str, Any]
    plain: dict[str, Any]
    leaves: dict[str, str]


class Checkpoints:
    """The generations of one directory; one writer at a time.

    Args:
      folder: of the generations, made if need be.
      keep: newest generations that are kept, 2 or more.
      every: keep all whose number is a multiple of this, too; None keeps no others.

    Raises:
      ValueError: `keep` is too small.
    """

    def __init__(self, folder: Path, *, keep: int, every: int | None = None):
        if keep < FEWEST:
            raise ValueError(f"keep must be {FEWEST} or more, got {keep}")
        self.folder = folder.absolute()
        self._best = _Best()
        kept = [keeping.LatestN(n=keep), self._best]
        if every is not None:
            kept.append(keeping.EveryNSteps(interval_steps=every))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keeping.AnyPreservationPolicy(kept),
            create=True,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._committing: Future[Manifest] | None = None
        self._failed = False

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            # What ends the block is what is told, not a save that failed as well.
            with contextlib.nullcontext() if kind is None else contextlib.suppress(Exception):
                self.wait()
        finally:
            self._aside.shutdown()
            # orbax tells a failed save again.
            with contextlib.suppress(Exception) if self._failed else contextlib.nullcontext():
                self._manager.close()

    def save(
        self,
        generation: int,
        trees: Mapping[str, Any],
        plain: Mapping[str, Any],
        *,
        best: int | None = None,
        first: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to save a generation; `wait` makes it durable.

        The trees are on the host when this returns, so that their buffers may be donated.

        Args:
          generation: greater than every one before.
          trees: pytrees of arrays by name.
          plain: what JSON can hold.
          best: a generation that is kept however old it gets.
          first: done before the generation is committed, on the thread that does so; may raise OSError.

        Raises:
          OSError: this save or the one before could not be written.
        """
        self.wait()
        told = json.loads(json.dumps(dict(plain), allow_nan=False))
        if best is not None:
            self._best.generation = best
        held = {name: packing.on_host(leaf) for name, leaf in packing.named(trees)}
        sizes = {name: values.nbytes for name, values in held.items()}
        manifest = Manifest(generation, told, files={}, leaves={}, forms=packing.forms(trees), sizes=sizes)
        state = ocp.args.StandardSave(packing.packed(held))  # pyright: ignore[reportCallIssue]
        self._manager.save(generation, args=ocp.args.Composite(**{STATE: state}), force=True)
        self._committing = self._aside.submit(self._commit, manifest, held, first)

    def wait(self) -> Manifest | None:
        """Wait for the save in flight; what it committed, or None where none was in flight.

        Raises:
          OSError: it could not be written.
        """
        committing, self._committing = self._committing, None
        if committing is None:
            return None
        try:
            return committing.result()
        except BaseException:
            self._failed = True
            raise

    def _commit(
        self, manifest: Manifest, held: Mapping[str, np.ndarray], first: Callable[[], None]
    ) -> Manifest:
        first()
        leaves = {name: packing.digest(values) for name, values in held.items()}
        try:
            self._manager.wait_until_finished()
        except ValueError as error:
            # tensorstore tells a full disk as a ValueError.
            raise OSError(f"generation {manifest.generation} could not be written: {error}") from error
        return _commit(self.folder / str(manifest.generation), manifest._replace(leaves=leaves))


class _Best(keeping.PreservationPolicy):
    """Keeps one generation by its number."""

    generation: int | None = None

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        return [each.step == self.generation for each in checkpoints]


def generations(folder: Path) -> list[int]:
    """The numbers of all generations, newest first, completed or not."""
    names = (path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()
    return sorted((int(name) for name in names if NUMBER.fullmatch(name)), reverse=True)


def read_manifest(folder: Path, generation: int) -> Manifest | str:
    """The manifest of a generation whose every file agrees with it, or a sentence on what does not.

    Raises:
      RunError: a later version of this format.
    """
    place = folder / str(generation)
    manifest = _parsed(place / MANIFEST, generation)
    if isinstance(manifest, str):
        return f"generation {generation} {manifest}"
    there = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()} - {MANIFEST}
    wrong = [f"{name} is missing" for name in sorted(manifest.files.keys() - there)]
    wrong += [f"{name} does not belong to it" for name in sorted(there - manifest.files.keys())]
    for name in sorted(manifest.files.keys() & there):
        size, digest = manifest.files[name]
        if (place / name).stat().st_size != size or _digest_of_file(place / name) != digest:
            wrong.append(f"{name} is not what was written")
    return f"generation {generation} is damaged: {'; '.join(wrong)}" if wrong else manifest


def newest(folder: Path, like: Mapping[str, Any]) -> tuple[Restored | None, list[str]]:
    """The newest generation that is whole, None without any, and a sentence for each newer one.

    Args:
      folder: of the generations.
      like: the trees to read, or their shapes; leaves go where these are.

    Raises:
      RunError: it does not fit `like`, or a later version wrote it.
    """
    passed_over: list[str] = []
    for number in generations(folder):
        try:
            read = _restored(folder, number, like)
        except FileNotFoundError:
            read = f"generation {number} was removed while it was read"
        if isinstance(read, Restored):
            return read, passed_over
        passed_over.append(read)
    return None, passed_over


def restore(
    folder: Path, like: Mapping[str, Any], *, generation: int | None = None
) -> tuple[Restored, list[str]]:
    """As `newest`, or `generation` and no other.

    Raises:
      RunError: there is none as well.
    """
    if generation is None:
        read, passed_over = newest(folder, like)
    else:
        there = _restored(folder, generation, like)
        read, passed_over = (there, []) if isinstance(there, Restored) else (None, [there])
    if read is None:
        raise RunError([f"{folder}: {each}" for each in passed_over] or f"{folder} holds no checkpoint")
    return read, passed_over


def put_aside(folder: Path, newest: int) -> None:
    """Make room after `newest`: what was never completed is removed, what is damaged is renamed.

    Only for the one that writes to `folder`.
    """
    for number in generations(folder):
        if number <= newest:
            return
        place = folder / str(number)
        if not (place / MANIFEST).is_file():
            shutil.rmtree(place)
            continue
        attempt = 1
        while (kept := folder / f"{DAMAGED}{number}-{attempt}").exists():
            attempt += 1
        place.rename(kept)


def _unpacked(place: Path, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The bytes of every leaf by its name."""
    wanted = {name: np.empty(size, np.uint8) for name, size in packing.packed_sizes(sizes).items()}
    with ocp.StandardCheckpointer() as reader:
        return packing.unpacked(reader.restore((place / STATE).absolute(), wanted), sizes)


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _commit(place: Path, manifest: Manifest) -> Manifest:
    """Bring every file to the disk, and then the manifest that tells of them."""
    files = {}
    for path in sorted(place.rglob("*")):
        directory.to_disk(path)
        if path.is_file():
            files[path.relative_to(place).as_posix()] = (path.stat().st_size, _digest_of_file(path))
    manifest = manifest._replace(files=files)
    body = json.dumps({"format": FORMAT} | manifest._asdict(), indent=1, allow_nan=False)
    directory.write_text(place / MANIFEST, f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n")
    for path in (place, place.parent):
        directory.to_disk(path)
    return manifest


def _parsed(path: Path, generation: int) -> Manifest | str:
    if not path.is_file():
        return "was never completed"
    body, _, digest = path.read_bytes().rstrip(b"\n").rpartition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return f"is damaged: {path.name} is not what was written"
    told = json.loads(body)
    if told.pop("format") > FORMAT:
        raise RunError(f"{path} was written by a later version: update ztb_jax to read it")
    try:
        manifest = Manifest(**told)
    except TypeError as error:
        return f"is damaged: {path.name} is no manifest ({error})"
    if manifest.generation != generation:
        return f"is damaged: it is generation {manifest.generation} under another name"
    return manifest._replace(files={name: (size, told) for name, (size, told) in manifest.files.items()})


def _restored(folder: Path, number: int, like: Mapping[str, Any]) -> Restored | str:
    """A generation, or a sentence on why it cannot be used."""
    manifest = read_manifest(folder, number)
    if isinstance(manifest, str):
        return manifest
    if misfits := _misfits(manifest, like):
        raise RunError(
            f"{folder / str(number)} does not fit, for it was saved with other settings or by other code: "
            + "; ".join(misfits)
        )
    flat = _unpacked(folder / str(number), manifest.sizes)
    trees = {
        name: jax.tree.unflatten(
            jax.tree.structure(tree),
            [packing.leaf_of(flat[key], leaf) for key, leaf in packing.named({name: tree})],
        )
        for name, tree in like.items()
    }
    wrong = [key for key, digest in packing.digests(trees).items() if manifest.leaves.get(key) != digest]
    if wrong:
        return f"generation {number} is damaged: {', '.join(wrong)} read differently"
    return Restored(number, trees, manifest.plain, manifest.leaves)


def _misfits(manifest: Manifest, like: Mapping[str, Any]) -> list[str]:
    """Leaves that are not there, that `like` does not have, or that have another form."""
    wanted = packing.forms(like)
    there = {name: form for name, form in manifest.forms.items() if name.split("/", 1)[0] in like}
    return [
        f"{name} is {there.get(name, 'not in it')}, and {wanted.get(name, 'nothing')} is wanted"
        for name in sorted({*wanted, *there})
        if wanted.get(name) != there.get(name)
    ]
