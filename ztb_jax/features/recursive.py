"""How much history features need: the same bars again, computed on frames that begin later.

A windowed feature forgets what lies before its window. A recursive one (EMA, RSI, ATR) never does, ever more
weakly; what sums up or averages all there was depends on where the data begin, for good. A live feed that is
started on too few bars shows a policy other features than it was trained on.

Axes: T bars, F features, N lengths of history, E bars compared.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ztb_jax.errors import ConfigError, DataError
from ztb_jax.features import recipe
from ztb_jax.features.causality import deviations, difference, features_of, in_numbers
from ztb_jax.features.recipe import Function, Recipe

STARTS = (50, 100, 200, 400, 800)
ENDS = 4  # bars that are compared, so that a single one at which all agree by chance decides nothing
NEAR, CLOSE = 1e-3, 1e-6
"""Deviations of a feature: what a policy hardly sees, and what it does not."""


class Memory(NamedTuple):
    """What a feature remembers.

    Attributes:
      feature: its name.
      differences: for each length of history the largest difference to the whole one, in the feature's
        deviations; inf where it is still NaN, nan where it is so on the whole history, too.
      near: the tested length from which on every difference is at most `NEAR`; None where there is none.
      close: likewise `CLOSE`.
    """

    feature: str
    differences: tuple[float, ...]
    near: int | None
    close: int | None


class Recursive(NamedTuple):
    """What `check_recursive` found.

    Attributes:
      starts: N lengths of history in bars, ascending.
      bars: E rows that were compared.
      memories: of each feature.
    """

    starts: tuple[int, ...]
    bars: tuple[int, ...]
    memories: tuple[Memory, ...]

    @property
    def unsettled(self) -> tuple[Memory, ...]:
        """Those that still differ by more than `NEAR` on the longest history."""
        return tuple(memory for memory in self.memories if memory.near is None)

    def sentences(self) -> list[str]:
        """A sentence for each that is unsettled, with a remedy."""
        return [_sentence(memory, self.starts[-1]) for memory in self.unsettled]


def check_recursive(
    compute: Function | Recipe | str, frame: pd.DataFrame, *, starts: Sequence[int] = STARTS
) -> Recursive:
    """Compare features at a bar with those computed on only so many bars up to it.

    The bars are the last and up to three before it in equal steps. Both computations end at the bar, so that
    a leak does not show here. 2 + E computations on long frames, E N on short ones.

    Args:
      compute: a recipe, its name or a function of a frame; see `ztb_jax.features.recipe.compute`.
      frame: T bars.
      starts: lengths of history in bars, each at most T / 2: of nearly all bars everything agrees.

    Raises:
      ConfigError: starts that are none or too short, not deterministic, and what `recipe.compute` raises.
      DataError: too few bars for the starts.
    """
    frame, lengths = in_numbers(frame), tuple(sorted(set(starts)))
    if not lengths or lengths[0] < 1:
        raise ConfigError(
            f"histories are {list(starts)}: give lengths in bars, 1 or more, such as 50 200 800"
        )
    if 2 * lengths[-1] > len(frame):
        raise DataError(
            f"a history of {lengths[-1]} bars needs {2 * lengths[-1]} to be compared with and there are "
            f"{len(frame)}: give more bars, or histories up to {len(frame) // 2}"
        )
    whole = features_of(compute, frame)
    deviation = deviations(whole.values)
    ends = sorted(set(np.linspace(2 * lengths[-1] - 1, len(frame) - 1, ENDS).astype(int).tolist()))
    apart = np.zeros((len(ends), len(lengths), len(whole.names)))
    for row, end in enumerate(ends):
        there = recipe.compute(compute, frame.iloc[: end + 1]).values[-1]
        for column, length in enumerate(lengths):
            here = recipe.compute(compute, frame.iloc[end + 1 - length : end + 1]).values[-1]
            apart[row, column] = np.where(np.isnan(there), math.nan, difference(here, there, deviation))
    memories = tuple(_memory(name, lengths, apart[:, :, column]) for column, name in enumerate(whole.names))
    return Recursive(lengths, tuple(ends), memories)


def _memory(name: str, lengths: tuple[int, ...], apart: np.ndarray) -> Memory:
    """Of differences [E, N]."""
    known = apart[~np.isnan(apart[:, 0])]
    largest = known.max(axis=0) if len(known) else np.full(len(lengths), math.nan)
    return Memory(
        name, tuple(largest.tolist()), *(_settled(lengths, largest, limit) for limit in (NEAR, CLOSE))
    )


def _settled(lengths: tuple[int, ...], largest: np.ndarray, limit: float) -> int | None:
    """The length from which on all are at most `limit`."""
    above = np.flatnonzero(~(largest <= limit))
    after = int(above[-1]) + 1 if above.size else 0
    return lengths[after] if after < len(lengths) else None


def _sentence(memory: Memory, longest: int) -> str:
    """What is wrong with an unsettled feature, and what to do."""
    last = memory.differences[-1]
    if math.isnan(last):
        return (
            f"feature {memory.feature} is NaN wherever the frame ends, so that nothing can be compared: fill "
            "no row from later ones, and check whether it looks ahead"
        )
    told = "it is still NaN" if math.isinf(last) else f"{last:.2g} of its deviation away"
    return (
        f"feature {memory.feature} does not settle within {longest} bars of history ({told}): use a window "
        "or a mean that forgets, or test longer histories if it forgets slowly"
    )
