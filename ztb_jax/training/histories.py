"""Returns of a study's trials, strung together along the bars that they were tested on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ztb_jax.data.folds import Fold, Range
from ztb_jax.errors import RunError
from ztb_jax.evaluation import pooling
from ztb_jax.runs import packing
from ztb_jax.training.chunks import Finished
from ztb_jax.training.study import Study


class Stretches(NamedTuple):
    """Where the tests of folds lie. Axes: G stretches that follow one another, P paths through them.

    Attributes:
      ranges: [G] in bars; each but the last ends with the first bar of the next, where its last decision is
        filled.
      paths: [P, G] the fold that tests each stretch in each path.
      place: [P, G] the position of that stretch among the fold's tests.
    """

    ranges: tuple[Range, ...]
    paths: np.ndarray
    place: np.ndarray


def stretches_of(folds: Sequence[Fold], paths: np.ndarray | None) -> Stretches:
    """The stretches that `folds` are tested on; `paths` of combinatorial ones, None where each tests one."""
    ranges = tuple(sorted({test for fold in folds for test in fold.test}))
    paths = np.arange(len(folds))[None] if paths is None else paths
    place = [[folds[fold].test.index(ranges[group]) for group, fold in enumerate(path)] for path in paths]
    return Stretches(ranges, paths, np.array(place))


class Histories(NamedTuple):
    """Returns of all trials.

    Attributes:
      study: what was trained.
      stretches: where it was tested.
      finished: what came of it.
    """

    study: Study
    stretches: Stretches
    finished: Finished

    def account(self, config: int, path: int, group: int, *, seed: int, kind: str = "returns") -> np.ndarray:
        """[T of the stretch] of one trial: returns, played as one of `chunks.KINDS`, or `levels`.

        Raises:
          RunError: its chunk has none, for an older version made it.
        """
        trial = self.study.trial(config, int(self.stretches.paths[path, group]), seed)
        start, stop = self.stretches.ranges[group]
        name = f"{kind}_{self.stretches.place[path, group]}"
        if name not in self.finished.arrays[trial]:
            raise RunError(
                f"training {trial} was kept without {name}, by an older version: begin a new study, or "
                "remove the chunks of this one and go on"
            )
        return self.finished.arrays[trial][name][: stop - start - 1]

    def along(
        self,
        config_of: np.ndarray,
        *,
        paths: Sequence[int],
        seeds: Sequence[int],
        kind: str = "returns",
    ) -> np.ndarray:
        """[T] returns of equal capital, anew in every stretch, on each of these paths and seeds.

        Args:
          config_of: [F] the configuration that each fold is played with.
          paths: numbers of them.
          seeds: positions of them.
          kind: of `chunks.KINDS`.
        """
        parts = [
            [
                self.account(
                    int(config_of[self.stretches.paths[path, group]]), path, group, seed=seed, kind=kind
                )
                for path in paths
                for seed in seeds
            ]
            for group in range(len(self.stretches.ranges))
        ]
        return np.concatenate([pooling.pooled(np.stack(accounts)) for accounts in parts])

    def tested(self, config: int, fold: int, seeds: Sequence[int]) -> list[np.ndarray]:
        """[T] returns of equal capital in these trials, for each test range of a fold."""
        found = []
        for place, (start, stop) in enumerate(self.study.folds[fold].test):
            accounts = [
                self.finished.arrays[self.study.trial(config, fold, seed)][f"returns_{place}"]
                for seed in seeds
            ]
            found.append(pooling.pooled(np.stack(accounts)[:, : stop - start - 1]))
        return found

    def policy(self, config_of: np.ndarray, seeds: Sequence[int]) -> str:
        """Digest of all weights that play in a history, whatever else was trained beside them."""
        weights = {
            f"{fold:06d}/{place:06d}": self.finished.rows[self.study.trial(int(config), fold, seed)]["policy"]
            for fold, config in enumerate(config_of)
            for place, seed in enumerate(seeds)
        }
        return packing.chained("", weights)
