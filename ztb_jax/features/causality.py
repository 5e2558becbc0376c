"""Whether features look ahead, found by changing the future and by leaving it out.

A feature is causal where row t depends on bars 0 … t alone. So nothing that is done to later bars may move
it: not other prices, not extremes, not another order, not their absence. `check_causality` tries all of these
at many bars and demands the same bits. What it finds is a leak; one that touches none of the bars that were
tried is not found.

Axes: T bars, F features.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ztb_jax.errors import ConfigError, DataError
from ztb_jax.features import recipe
from ztb_jax.features.recipe import Features, Function, Recipe

KINDS = ("redrawn", "raised", "lowered", "reversed", "left out")
"""What is done to the future: other bars as high, 1000 times higher, lower, the same backwards, none."""
PRICES = ("open", "high", "low", "close")
VALID = "valid"
"""What `Features.valid` is called where it, and not a value, looks ahead."""
ROUNDING = 1e-9
"""Deviations; a smaller difference is likely of sums taken in another order."""
HOLES = 4
"""Stretches without volume whose first bars are tried, for what fills them from later ones."""

Differences = Iterator[tuple[str, np.ndarray]]


class Leak(NamedTuple):
    """A feature that looks ahead.

    Attributes:
      feature: its name.
      bar: the first row found that depends on a later bar.
      ahead: the most bars found between a row and the last bar that it depends on.
      difference: largest change of a row, in the feature's deviations, of those between finite values.
      gaps: whether a row became, or was, not finite.
      shown_by: of `KINDS`.
    """

    feature: str
    bar: int
    ahead: int
    difference: float
    gaps: bool
    shown_by: tuple[str, ...]


class Causality(NamedTuple):
    """What `check_causality` found.

    Attributes:
      names: F names of the features.
      bars: after which the future was changed.
      leaks: at most one for each feature; none where no leak was found.
    """

    names: tuple[str, ...]
    bars: tuple[int, ...]
    leaks: tuple[Leak, ...]

    def sentences(self, index: pd.Index) -> list[str]:
        """A sentence for each leak, with the stamps of the frame's `index` [T] and a remedy."""
        return [
            f"feature {leak.feature} looks ahead: its row {leak.bar} ({index[leak.bar]}) depends on later "
            f"bars, up to {leak.ahead} ahead of a row; {remedy(leak)}"
            for leak in self.leaks
        ]


class _Found(NamedTuple):
    """A change of a feature's row after a cut."""

    cut: int
    row: int
    kind: str
    difference: float
    gaps: bool


def _of_rows(cut: int, kind: str, apart: np.ndarray, rows: np.ndarray) -> _Found:
    """What changed at `rows` of differences [T]."""
    finite = np.isfinite(apart[rows])
    largest = float(apart[rows][finite].max(initial=0.0))
    return _Found(cut, int(rows[0]), kind, largest, not finite.all())


def remedy(leak: Leak) -> str:
    """What to do about a leak."""
    if leak.difference <= ROUNDING and not leak.gaps:
        return f"a tolerance of {ROUNDING:g} lets it pass, for it is as small as rounding"
    return "compute each row from its own and earlier bars"


def check_causality(
    compute: Function | Recipe | str,
    frame: pd.DataFrame,
    *,
    points: int = 8,
    seed: int = 0,
    tolerance: float = 0.0,
) -> Causality:
    """Compute features again with the bars after some t changed, and left out, and compare rows up to t.

    The bars t are `points` drawn ones, one from each of as many equal stretches after the warm-up, and fixed
    ones: 0, 3, 15, 63, … for what is filled at the beginning, the last but one for what sees the whole
    history, and the first bars of holes in the volume. `points` of T or more tries every bar, the only way to
    find what looks ahead at a single one. Bars are left out after drawn ones. From a leak, its first row and
    its reach are searched for by halving. About 5 `points` + 4 log4(T) computations, and 5 log2(T) a leak.

    Args:
      compute: a recipe, its name or a function of a frame; see `ztb_jax.features.recipe.compute`.
      frame: T bars; all its columns are changed and must be numbers.
      points: bars that are drawn, 1 or more.
      seed: of the bars and the changes.
      tolerance: difference that is none, in deviations of the feature over `frame`; 0 demands equal bits.

    Raises:
      ConfigError: two computations on the same frame differ; points or tolerance out of range; and what
        `recipe.compute` raises.
      DataError: fewer than 3 bars, or a column of something else than numbers.
    """
    if points < 1 or not tolerance >= 0:
        raise ConfigError(f"points is {points} and must be 1 or more; tolerance {tolerance} must not be < 0")
    frame = in_numbers(frame)
    original = features_of(compute, frame)
    changes = _Changes(compute, frame, original, seed)
    found: dict[int, list[_Found]] = {}
    cuts = _cuts(frame, changes.warm, points=points, seed=seed)
    for cut, short in cuts.items():
        for each, column in _changed(changes.differences(cut, short=short), cut, tolerance):
            found.setdefault(column, []).append(each)
    names = (*original.names, VALID)
    leaks = [
        _leak(names[column], column, found[column], changes, tried=list(cuts), tolerance=tolerance)
        for column in sorted(found)
    ]
    return Causality(original.names, tuple(cuts), tuple(leaks))


def require_causality(compute: Function | Recipe | str, frame: pd.DataFrame, *, points: int = 3) -> None:
    """Refuse features that look ahead by more than `ROUNDING`; as `check_causality`, at few bars.

    Raises:
      ConfigError: they do, a sentence for each; and what `check_causality` raises.
    """
    found = check_causality(compute, frame, points=points, tolerance=ROUNDING)
    if found.leaks:
        raise ConfigError(found.sentences(frame.index))


def in_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame [T] in float64, whatever columns it has besides those of a bar.

    Raises:
      DataError: fewer than 3 bars, a column of something else than numbers, or no frame of bars.
    """
    recipe.check_frame(frame)
    if len(frame) < 3:
        raise DataError(f"{len(frame)} bars are too few to tell the past from the future: give 3 or more")
    odd = [str(name) for name, kind in frame.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    if odd:
        raise DataError(
            f"columns {', '.join(odd)} of the frame are no numbers, so that their future cannot be changed: "
            "drop them, or turn them into numbers"
        )
    return frame.astype(np.float64)


def features_of(compute: Function | Recipe | str, frame: pd.DataFrame) -> Features:
    """`Features` of a frame, computed twice.

    Raises:
      ConfigError: the two differ, so that nothing can be said of what depends on what.
    """
    first, second = recipe.compute(compute, frame), recipe.compute(compute, frame)
    if first.names != second.names:
        raise ConfigError("features have other names in a second computation on the same bars: fix them")
    equal = np.equal(first.values, second.values) | (np.isnan(first.values) & np.isnan(second.values))
    findings = [
        f"feature {name} is not deterministic: row {int(np.argmin(same))} differs between two computations "
        "on the same bars; seed what it draws, and keep nothing from call to call"
        for name, same in zip(first.names, equal.T, strict=True)
        if not same.all()
    ]
    if findings:
        raise ConfigError(findings)
    return first


def deviations(values: np.ndarray) -> np.ndarray:
    """[F] standard deviation of the finite rows of values [T, F]; 1 where there is none that is finite."""
    spread = np.ones(values.shape[1])
    for column, series in enumerate(values.T):
        finite = series[np.isfinite(series)]
        with np.errstate(over="ignore", invalid="ignore"):
            deviation = finite.std() if finite.size and finite.min() < finite.max() else 1.0
        spread[column] = deviation if np.isfinite(deviation) else 1.0
    return spread


def difference(one: np.ndarray, other: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """[…, F] absolute difference in deviations [F]; 0 only for equal numbers or two NaN, inf for one NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(one - other) / deviation
    apart = np.where(np.isnan(apart), math.inf, apart)
    return np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0.0, apart)


class _Changes:
    """The features of a frame whose future is another one."""

    def __init__(self, compute: Function | Recipe | str, frame: pd.DataFrame, original: Features, seed: int):
        bars = frame.to_numpy(copy=True)
        self.compute, self.frame, self.count = compute, frame, len(frame)
        self.names, self.table = original.names, _table(original)
        self.deviation = np.append(deviations(original.values), 1.0)
        self.warm = int(np.argmax(original.valid)) if original.valid.any() else 0
        rng = np.random.default_rng(seed)
        self.others = {
            kind: _redrawn(frame.columns, bars, rng, level=level)
            for kind, level in zip(KINDS, (1.0, 1e3, 1e-3), strict=False)
        }
        self.bars, self.scale = bars, rng.uniform(1.5, 2.5)

    def differences(self, cut: int, *, short: bool) -> Differences:
        """[cut + 1, F + 1] difference of rows up to `cut` for each kind of change after it, valid last.

        Args:
          cut: the last bar that stays.
          short: leave the future out, too.
        """
        for kind in KINDS[: None if short else -1]:
            values = _table(self._features(kind, cut))[: cut + 1]
            yield kind, difference(values, self.table[: cut + 1], self.deviation)

    def _features(self, kind: str, cut: int) -> Features:
        if kind == "left out":
            frame = self.frame.iloc[: cut + 1]
        else:
            bars = self.bars.copy()
            after = bars[cut + 1 :]
            bars[cut + 1 :] = after[::-1] * self.scale if kind == "reversed" else self.others[kind][cut + 1 :]
            frame = pd.DataFrame(bars, self.frame.index, self.frame.columns)
        found = recipe.compute(self.compute, frame)
        if found.names != self.names:
            raise ConfigError(
                f"features are {', '.join(self.names)}, and {', '.join(found.names)} where bars after row "
                f"{cut} are {kind}: give the same ones on every frame"
            )
        return found


def _table(features: Features) -> np.ndarray:
    """[T, F + 1] float64: values, and whether `valid` says something else than that they are finite."""
    odd = features.valid != np.isfinite(features.values).all(axis=1)
    return np.column_stack([features.values, odd])


def _redrawn(names: pd.Index, bars: np.ndarray, rng: np.random.Generator, *, level: float) -> np.ndarray:
    """Valid bars of another shape than `bars` [T, columns], `level` times as high."""
    count, volumes = len(bars), names.tolist().index("volume")
    places = [names.tolist().index(name) for name in PRICES]
    made = bars * rng.uniform(0.3, 3.0, bars.shape) * level
    prices = (
        bars[:, places[-1:]] * level * rng.uniform(0.3, 3.0, (count, 1)) * rng.uniform(0.9, 1.1, (count, 2))
    )
    reach = rng.uniform(0.0, 0.1, (2, count))
    high, low = prices.max(axis=1) * (1 + reach[0]), prices.min(axis=1) * (1 - reach[1])
    made[:, places] = np.column_stack([prices[:, 0], high, low, prices[:, 1]])
    volume = bars[:, volumes]
    known = volume[np.isfinite(volume) & (volume > 0)]
    usual = np.median(known) if known.size else 1.0
    made[:, volumes] = usual * level * rng.uniform(0.1, 10.0, count)
    return made


def _cuts(frame: pd.DataFrame, warm: int, *, points: int, seed: int) -> dict[int, bool]:
    """Bars to change the future after, ascending, and whether it is left out there, too."""
    last = len(frame) - 2
    first = min(warm, last)
    edges = np.linspace(first, last + 1, min(points, last + 1 - first) + 1).astype(int)
    drawn = set(np.random.default_rng(seed).integers(edges[:-1], edges[1:]).tolist()) | {last}
    fixed = {4**power - 1 for power in range(1 + int(math.log(last + 1, 4)))}
    volume = frame["volume"].to_numpy(np.float64)
    hole = ~(np.isfinite(volume) & (volume > 0))
    begins = np.flatnonzero(hole & ~np.append(False, hole[:-1]))[:HOLES]
    fixed |= {int(bar) for bar in begins if bar <= last}
    if points > last:
        fixed |= set(range(first))
    return {cut: cut in drawn for cut in sorted(drawn | fixed)}


def _changed(differences: Differences, cut: int, tolerance: float) -> Iterator[tuple[_Found, int]]:
    """What changed after a cut, for each kind and column the earliest row."""
    for kind, apart in differences:
        bad = apart > tolerance
        for column in np.flatnonzero(bad.any(axis=0)).tolist():
            yield _of_rows(cut, kind, apart[:, column], np.flatnonzero(bad[:, column])), column


def _leak(
    name: str,
    column: int,
    found: Sequence[_Found],
    changes: _Changes,
    *,
    tried: list[int],
    tolerance: float,
) -> Leak:
    """The leak of a column, its first row and its reach searched for by halving."""

    def change(cut: int, row: int | None = None) -> _Found | None:
        """The first kind of change after `cut` that moves the column, at `row` where one is given."""
        for kind, apart in changes.differences(cut, short=cut >= changes.warm):
            rows = np.flatnonzero(apart[:, column] > tolerance)
            if rows.size and (row is None or row in rows):
                return _of_rows(cut, kind, apart[:, column], rows)
        return None

    earliest, longest = min(found), max(found, key=lambda each: each.cut - each.row)
    clean = max((cut for cut in tried if cut < earliest.cut), default=-1)
    searched = [
        *found,
        *_between(clean, earliest.cut, change),
        *_between(changes.count - 1, longest.cut, lambda cut: change(cut, longest.row)),
    ]
    return Leak(
        name,
        bar=min(each.row for each in searched),
        ahead=max(each.cut + 1 - each.row for each in searched),
        difference=max(each.difference for each in searched),
        gaps=any(each.gaps for each in searched),
        shown_by=tuple(kind for kind in KINDS if any(each.kind == kind for each in found)),
    )


def _between(clean: int, dirty: int, change: Callable[[int], _Found | None]) -> Iterator[_Found]:
    """The changes met while halving from a cut after which one was found towards one after which none is."""
    while abs(dirty - clean) > 1:
        middle = (dirty + clean) // 2
        found = change(middle)
        if found is None:
            clean = middle
        else:
            dirty = found.cut
            yield found
