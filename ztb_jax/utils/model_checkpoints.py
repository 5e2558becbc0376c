"""Models with the metrics they were saved at, the best of which is found by metric.

    checkpoints = ModelCheckpointingSystem("models/checkpoints")
    path = checkpoints.save_checkpoint({"meta": params}, {"portfolio_sharpe": 1.4}, step=1000)
    models = checkpoints.get_best_model(metric="portfolio_sharpe").models

checkpoint_dir/<number>/  as `ztb_jax.runs.checkpoint` lays it out; numbers count the saves
"""

import math
import operator
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ztb_jax.errors import RunError
from ztb_jax.runs import checkpoint
from ztb_jax.utils import generations, trees


class ModelCheckpoint(NamedTuple):
    """What was saved.

    Attributes:
      models: as they were.
      metrics: by name.
      step: of the training.
      path: its folder.
    """

    models: Any
    metrics: dict[str, float]
    step: int
    path: Path


class ModelCheckpointingSystem:
    """Checkpoints of models in one folder.

    Args:
      checkpoint_dir: the folder, made by the first save.
      max_checkpoints: newest ones that stay, 1 or more; the best of every metric stays besides.

    Raises:
      ValueError: `max_checkpoints` is too small.
    """

    def __init__(self, checkpoint_dir: str | Path = "models/checkpoints", *, max_checkpoints: int = 10):
        self.checkpoint_dir = Path(checkpoint_dir).expanduser().absolute()
        self.max_checkpoints = operator.index(max_checkpoints)
        if self.max_checkpoints < 1:
            raise ValueError(f"max_checkpoints must be 1 or more, got {max_checkpoints}")
        self._known: dict[tuple[int, int], dict[str, float]] = {}

    def save_checkpoint(self, models: Any, metrics: Mapping[str, Any], step: int) -> Path:
        """Save models; they are on the disk when this returns the path for `load_checkpoint`.

        Args:
          models: what `CheckpointManager` can save, such as parameters by name.
          metrics: numbers by name; the higher the better.
          step: of the training.

        Raises:
          TypeError: a part of the models, or a metric, that cannot be saved; nothing is written.
          ValueError: a part of the models that cannot be read, likewise.
          OSError: it could not be written, and those before stand.
          RunError: the folder holds other checkpoints than of models.
        """
        numbers = {name: _number(name, value) for name, value in metrics.items()}
        parts = trees.take_apart(models, "models")
        facts = {"step": operator.index(step), "metrics": trees.take_apart(numbers).form}
        with generations.locked(self.checkpoint_dir, writing=True):
            known, _ = self._metrics()
            number = 1 + max(checkpoint.generations(self.checkpoint_dir), default=0)
            path = generations.write(self.checkpoint_dir, number, parts, facts)
            self._known[_identity(path)] = known[number] = numbers
            best = {n for metrics in known.values() for name in metrics for n in _ranked(known, name)[:1]}
            generations.remove_surplus(self.checkpoint_dir, self.max_checkpoints, whole=number, spared=best)
        return path

    def load_checkpoint(self, checkpoint_path: str | Path, like: Any = None) -> ModelCheckpoint:
        """What `save_checkpoint` saved.

        Args:
          checkpoint_path: as it returned it; of another folder, too.
          like: an example of the models, needed where they hold pytrees of optax, flax or the like.

        Raises:
          FileNotFoundError: `No checkpoints found`: there is none.
          ValueError: `like` is needed or does not fit.
          RunError: it is damaged, or another program or a later version wrote it.
        """
        path = Path(checkpoint_path).expanduser().absolute()
        if not path.name.isdecimal() or int(path.name) not in generations.completed(path.parent):
            raise FileNotFoundError(
                f"No checkpoints found at {path}: give a path that save_checkpoint returned"
            )
        with generations.locked(path.parent, writing=False):
            read = _read(path, like)
        if isinstance(read, str):
            raise RunError(f"{path.parent}: {read}; load another")
        return read

    def get_best_model(self, metric: str = "portfolio_sharpe", like: Any = None) -> ModelCheckpoint:
        """The checkpoint whose metric is highest, of equals the newest; damaged ones are told in a warning.

        Args:
          metric: its name; NaN is never best.
          like: as in `load_checkpoint`.

        Raises:
          FileNotFoundError: `No checkpoints found`: there is none.
          KeyError: no checkpoint has that metric as a number; those that there are, are named.
          ValueError: `like` is needed or does not fit.
          RunError: all that have it are damaged, or another program or a later version wrote one.
        """
        with generations.locked(self.checkpoint_dir, writing=False):
            known, told = self._metrics()
            if not (ranked := _ranked(known, metric)):
                raise self._none(known, told, metric)
            for number in ranked:
                read = _read(self.checkpoint_dir / str(number), like)
                if isinstance(read, ModelCheckpoint):
                    break
                told.append(read)
            else:
                raise RunError([f"{self.checkpoint_dir}: {each}" for each in told])
        if told:
            warnings.warn(
                f"{self.checkpoint_dir}: {'; '.join(told)}. Checkpoint {number} was loaded", stacklevel=2
            )
        return read

    def _none(self, known: Mapping[int, Mapping[str, float]], told: list[str], metric: str) -> Exception:
        place = self.checkpoint_dir
        if not known and told:
            return RunError([f"{place}: {each}" for each in told])
        if not known:
            return FileNotFoundError(f"No checkpoints found in {place}: save one first, or give their folder")
        names = sorted({name for metrics in known.values() for name in metrics})
        cause = "is NaN in" if metric in names else "is in none of"
        others = "".join(f"; {each}" for each in told)
        return KeyError(f"{metric!r} {cause} the checkpoints of {place}, which have {names}{others}")

    def _metrics(self) -> tuple[dict[int, dict[str, float]], list[str]]:
        """Metrics by number, newest first, and a sentence for each checkpoint that is damaged."""
        known, told = {}, []
        for number in generations.completed(self.checkpoint_dir):
            path = self.checkpoint_dir / str(number)
            identity = _identity(path)
            if identity not in self._known:  # reading one hashes all of its files
                plain = generations.facts_of(self.checkpoint_dir, number)
                if isinstance(plain, str):
                    told.append(plain)
                    continue
                self._known[identity] = _metrics_of(path, plain["facts"])
            known[number] = self._known[identity]
        return known, told


def _read(path: Path, like: Any) -> ModelCheckpoint | str:
    read = generations.read(path.parent, int(path.name), trees.ABSENT if like is None else like, "models")
    if isinstance(read, str):
        return read
    return ModelCheckpoint(read.state, _metrics_of(path, read.facts), read.facts["step"], path)


def _metrics_of(path: Path, facts: Mapping[str, Any]) -> dict[str, float]:
    if "metrics" not in facts:
        raise RunError(f"{path} holds no models: give a folder of ModelCheckpointingSystem")
    return trees.put_together(facts["metrics"], {})


def _identity(path: Path) -> tuple[int, int]:
    return int(path.name), (path / checkpoint.MANIFEST).stat().st_mtime_ns


def _number(name: Any, value: Any) -> float:
    if not isinstance(name, str):
        raise TypeError(f"metrics has the key {name!r}: names are strings")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"metric {name!r} is {value!r}, which is no number") from error


def _ranked(known: Mapping[int, Mapping[str, float]], metric: str) -> list[int]:
    """Numbers of the checkpoints with that metric, best first, of equals the newest; NaN is left out."""
    there = {number: metrics[metric] for number, metrics in known.items() if metric in metrics}
    return sorted((n for n, value in there.items() if not math.isnan(value)), key=lambda n: (-there[n], -n))
