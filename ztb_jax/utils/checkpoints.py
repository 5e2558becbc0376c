"""States of experiments, saved beside a running event loop.

    manager = CheckpointManager(base_path="checkpoints", max_generations=5)
    await manager.save_async(model_state, "exp_001")
    model_state = manager.load("exp_001")

base_path/<experiment>/<generation>/  as `ztb_jax.runs.checkpoint` lays it out
base_path/.checkpoints.lock           held for as long as one save or load takes

Generations are numbered over all experiments of a folder: the greatest number is what was saved last.
"""

import asyncio
import operator
import re
import warnings
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ztb_jax.errors import RunError
from ztb_jax.runs import checkpoint
from ztb_jax.utils import generations, trees

EXPERIMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Loaded(NamedTuple):
    """A state and where it is from.

    Attributes:
      state: as it was saved.
      experiment_id: whose.
      generation: its number.
      passed_over: a sentence for each newer generation that is not whole.
    """

    state: Any
    experiment_id: str
    generation: int
    passed_over: list[str]


class CheckpointManager:
    """Generations of the states of experiments in one folder, compressed with orbax's zstd.

    A state is nested dicts, lists and tuples of arrays, numbers, strings, bools and None, or holds pytrees
    such as those of optax and flax. All comes back to the bit: numbers of Python as they were, arrays of
    NumPy and of JAX as such, typed keys with their implementation. Not kept are weak types, devices and
    layouts.

    Saves of one manager are written in the order in which they were begun; those of other managers and
    processes wait for each other. Making a manager touches no disk.

    Args:
      base_path: the folder, made by the first save.
      max_generations: of an experiment that stay, 1 or more; the older stand until the newer is on the
        disk, so that there is one more meanwhile.

    Attributes:
      base_path: the folder, absolute.
      max_generations: as given.

    Raises:
      ValueError: `max_generations` is too small.
    """

    def __init__(self, base_path: str | Path = "checkpoints", max_generations: int = 5):
        self.base_path = Path(base_path).expanduser().absolute()
        self.max_generations = operator.index(max_generations)
        if self.max_generations < 1:
            raise ValueError(f"max_generations must be 1 or more, got {max_generations}")
        # One thread keeps the order; orbax writes with several of its own.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._ours: set[Path] = set()

    def save_async(self, state: Any, experiment_id: str) -> Coroutine[Any, Any, int]:
        """Save the state of an experiment as a new generation; await it for its number.

        The state is copied to the host before this returns, so that it may be donated or assigned to. Once
        awaited, the generation is on the disk, and older ones than `max_generations` are removed. When the
        waiting task is cancelled, a save that has begun is still completed.

        Args:
          state: what is saved.
          experiment_id: letters, digits, dot, dash and underscore.

        Raises:
          TypeError: a part that cannot be saved, by its path; nothing is written.
          ValueError: a part that cannot be read, likewise, or an id that cannot name a folder.
          OSError: when awaited: it could not be written, and the generations before stand.
          RunError: when awaited: another program's checkpoints are in the experiment's folder.
        """
        return self._saved(trees.take_apart(state), _checked(experiment_id))

    async def _saved(self, parts: trees.Parts, experiment_id: str) -> int:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._write, parts, experiment_id)

    def _write(self, parts: trees.Parts, experiment_id: str) -> int:
        with generations.locked(self.base_path, writing=True):
            folder = self.base_path / experiment_id
            self._check_ours(folder)
            number = 1 + max(
                (n for place in self._folders() for n in checkpoint.generations(place)), default=0
            )
            generations.write(folder, number, parts, {})
            generations.remove_surplus(folder, self.max_generations, whole=number)
        return number

    def load(self, experiment_id: str | None = None, generation: int | None = None, like: Any = None) -> Any:
        """The newest state of an experiment that is whole; what is passed over is told in a warning.

        Args:
          experiment_id: None is the one that was saved last.
          generation: this one and no other.
          like: an example of the state, whose values do not matter. States that hold pytrees of optax, flax
            or the like need it, and arrays of JAX go to its devices.

        Raises:
          FileNotFoundError: `No checkpoints found`: there is none.
          ValueError: `like` is needed or does not fit, or an id that cannot name a folder.
          RunError: no generation is whole, or another program or a later version wrote it.
        """
        loaded = self._loaded(experiment_id, generation, like)
        _warn(self.base_path, loaded)
        return loaded.state

    def restore(
        self, experiment_id: str | None = None, generation: int | None = None, like: Any = None
    ) -> Loaded:
        """As `load`, with where the state is from and what was passed over."""
        loaded = self._loaded(experiment_id, generation, like)
        _warn(self.base_path, loaded)
        return loaded

    def _loaded(self, experiment_id: str | None, generation: int | None, like: Any) -> Loaded:
        if experiment_id is not None:
            _checked(experiment_id)
        with generations.locked(self.base_path, writing=False):
            name = self._newest(generation) if experiment_id is None else experiment_id
            folder, passed_over = self.base_path / name, []
            if not (there := generations.completed(folder)):
                raise self._none(f" for {name!r}", f"it holds {', '.join(self.experiments())}")
            if generation is not None and generation not in there:
                raise self._none(f" of generation {generation} for {name!r}", f"it holds {there}")
            for number in checkpoint.generations(folder) if generation is None else [generation]:
                read = generations.read(folder, number, trees.ABSENT if like is None else like)
                if not isinstance(read, str):
                    return Loaded(read.state, name, number, passed_over)
                passed_over.append(read)
        remedy = "" if generation is None else "; without `generation` the newest that is whole is loaded"
        raise RunError([f"{folder}: {each}{remedy}" for each in passed_over])

    def _newest(self, generation: int | None) -> str:
        """The experiment that was saved last, or that has a generation."""
        numbers = [(n, place.name) for place in self._folders() for n in generations.completed(place)]
        found = [name for number, name in sorted(numbers) if generation in (None, number)]
        if not found:
            raise self._none("" if generation is None else f" of generation {generation}", "save one first")
        return found[-1]

    def _none(self, what: str, remedy: str) -> FileNotFoundError:
        if not self.experiments():
            remedy = "save one first, or give the base_path that holds them"
        return FileNotFoundError(f"No checkpoints found{what} in {self.base_path}: {remedy}")

    def experiments(self) -> list[str]:
        """The ids of all experiments that were saved."""
        return [place.name for place in self._folders() if generations.completed(place)]

    def generations(self, experiment_id: str) -> list[int]:
        """The numbers of an experiment's generations, newest first.

        Raises:
          ValueError: an id that cannot name a folder.
        """
        return generations.completed(self.base_path / _checked(experiment_id))

    def cleanup_old_generations(self, experiment_id: str | None = None) -> list[Path]:
        """Remove all but the newest `max_generations` of an experiment; never its last whole one.

        Every save does this for its experiment. What a crash left is removed, too.

        Args:
          experiment_id: None is every one.

        Returns:
          The folders that were removed.

        Raises:
          ValueError: an id that cannot name a folder.
          RunError: another program's checkpoints are there; nothing is removed.
        """
        if experiment_id is not None:
            _checked(experiment_id)
        if not self.base_path.is_dir():
            return []
        with generations.locked(self.base_path, writing=True):
            places = self._folders() if experiment_id is None else [self.base_path / experiment_id]
            for place in places:
                self._check_ours(place)
            return [
                path for place in places for path in generations.remove_surplus(place, self.max_generations)
            ]

    def _check_ours(self, folder: Path) -> None:
        if folder not in self._ours:  # it hashes a generation, so once
            generations.check_ours(folder)
            self._ours.add(folder)

    def _folders(self) -> list[Path]:
        if not self.base_path.is_dir():
            return []
        return sorted(place for place in self.base_path.iterdir() if EXPERIMENT.fullmatch(place.name))


def _checked(experiment_id: str) -> str:
    if not isinstance(experiment_id, str) or not EXPERIMENT.fullmatch(experiment_id):
        raise ValueError(
            f"experiment_id {experiment_id!r} cannot name a folder: use up to 128 letters, digits, dots, "
            "dashes and underscores, the first a letter or digit"
        )
    return experiment_id


def _warn(base_path: Path, loaded: Loaded) -> None:
    if loaded.passed_over:
        place = base_path / loaded.experiment_id
        told = f"{place}: {'; '.join(loaded.passed_over)}. Generation {loaded.generation} was loaded instead"
        warnings.warn(told, stacklevel=3)
