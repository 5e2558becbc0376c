"""Paths of levels and weights that a policy is judged beside: simple rules, and luck. NumPy float64.

Axes: N bars, A instruments. Row n of a path is decided at the close of bar n, from the closes up to and
including it, to be filled at the next open; later closes change no bit of it. A rule is flat (0) until its
window is full: an account starts flat, so nothing is traded before, whether or not 0 is a level. Formulas and
sources are in `docs/reference/baselines.md`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ztb_jax.evaluation.series import checked

# What differs by less than this share of a price is rounding: nothing has moved.
STILL = 1e-12


class Stances(NamedTuple):
    """The level that a rule takes for each opinion."""

    long: float
    flat: float
    short: float


def stances_of(levels: Sequence[float]) -> Stances:
    """The opinions in an environment's levels.

    Long is the highest level, short the lowest and flat the one nearest to 0: so where no level is negative
    (positive), to be short (long) is to be flat.

    Raises:
      ValueError: no level.
    """
    if not len(levels):
        raise ValueError("there are no levels to choose from: give at least one")
    return Stances(long=max(levels), flat=min(levels, key=abs), short=min(levels))


def rule_paths(close: np.ndarray, levels: Sequence[float]) -> dict[str, np.ndarray]:
    """Every rule with its usual numbers, in an environment's levels.

    The signed rules take `stances_of(levels)`. Inverse volatility is an amount and not an opinion: it aims at
    no more than the highest level and is rounded to the nearest level that is not short, the smaller one in a
    tie. With levels -1, 0 and 1 that is to be long but for bars at more than twice the usual deviation; with
    finer levels it comes close to the amount itself. Where no level is positive it is flat.

    Args:
      close: [N].
      levels: that an account may take, in any order. Of a range give some: with an amount that is different
        at every bar, an account pays for every wobble.

    Returns:
      Name to path [N].
    """
    opinions = stances_of(levels)
    amount = inverse_volatility(close, cap=max(opinions.long, 0.0))
    return {
        "moving_average_cross": moving_average_cross(close, **opinions._asdict()),
        "momentum": momentum(close, **opinions._asdict()),
        "mean_reversion": mean_reversion(close, **opinions._asdict()),
        "inverse_volatility": np.where(amount > 0.0, nearest(amount, [x for x in levels if x >= 0.0]), 0.0),
    }


def moving_average_cross(
    close: np.ndarray,
    *,
    fast: int = 20,
    slow: int = 50,
    long: float = 1.0,
    short: float = -1.0,
    flat: float = 0.0,
) -> np.ndarray:
    """[N] long where the mean of the last `fast` closes is above that of the last `slow`, short where below.

    Args:
      close: [N] positive prices.
      fast: closes in the short mean.
      slow: closes in the long one; the path is 0 until there are as many.
      long: level above.
      short: level below.
      flat: level where they are equal.

    Raises:
      ValueError: prices that are not positive and finite, or windows that are not 1 <= fast < slow.
    """
    close = _prices(close)
    if not 1 <= fast < slow:
        raise ValueError(f"fast ({fast}) must be at least 1 and below slow ({slow})")
    slower, _ = _moments(close, slow)
    return _opinion(_moments(close, fast)[0] / slower - 1.0, long=long, short=short, flat=flat)


def momentum(
    close: np.ndarray, *, window: int = 60, long: float = 1.0, short: float = -1.0, flat: float = 0.0
) -> np.ndarray:
    """[N] long where the close is above the one `window` bars before, short where below.

    Args:
      close: [N] positive prices.
      window: bars; the path is 0 until there is a close that many bars before.
      long: level after a rise.
      short: level after a fall.
      flat: level where the two are equal.

    Raises:
      ValueError: prices that are not positive and finite, or a window below 1.
    """
    close = _prices(close)
    _at_least(window, 1)
    change = np.full(close.size, np.nan)
    change[window:] = close[window:] / close[:-window] - 1.0
    return _opinion(change, long=long, short=short, flat=flat)


def mean_reversion(
    close: np.ndarray,
    *,
    window: int = 20,
    entry: float = 1.0,
    long: float = 1.0,
    short: float = -1.0,
    flat: float = 0.0,
) -> np.ndarray:
    """[N] long from `entry` deviations below the mean of the last `window` closes until back at the mean.

    With z = (close - mean) / deviation (population), a long begins at z <= -entry and lasts while z < 0; a
    short begins at z >= entry and lasts while z > 0. Where the closes do not vary, z is 0.

    Args:
      close: [N] positive prices.
      window: closes; the path is 0 until there are as many.
      entry: deviations.
      long: level after a fall.
      short: level after a rise.
      flat: level of one who waits.

    Raises:
      ValueError: prices that are not positive and finite, a window below 2, or an entry that is not positive.
    """
    close = _prices(close)
    _at_least(window, 2)
    if not entry > 0.0:
        raise ValueError(f"entry is {entry}: give a positive number of deviations")
    mean, square = _moments(close, window)
    deviation = np.sqrt(square / window)
    varies = deviation > STILL * mean  # nowhere in the warm-up, where both are NaN
    z = np.where(varies, (close - mean) / np.where(varies, deviation, 1.0), 0.0)
    path = np.select([_since_entry(z, entry), _since_entry(-z, entry)], [long, short], flat)
    return np.where(np.isnan(mean), 0.0, path)


def inverse_volatility(
    close: np.ndarray, *, window: int = 20, target: float | None = None, cap: float = 1.0
) -> np.ndarray:
    """[N] min(cap, target / deviation of the last `window` returns): long, of constant risk.

    Args:
      close: [N] positive prices.
      window: simple returns (deviation with ddof 1); the path is 0 until there are as many, and where they do
        not vary, for then nothing is known of the risk.
      target: deviation of a bar's return that is aimed at; None is the median of all deviations up to and
        including the bar's own, so that the usual level is 1.
      cap: largest level.

    Raises:
      ValueError: prices that are not positive and finite, a window below 2, a target that is not positive, or
        a negative cap.
    """
    close = _prices(close)
    _at_least(window, 2)
    if (target is not None and not target > 0.0) or not cap >= 0.0:
        raise ValueError(f"target ({target}) must be positive or None, and cap ({cap}) at least 0")
    deviation = _known_deviation(np.diff(close) / close[:-1], window)
    deviation = np.concatenate([[np.nan], deviation])[: close.size]
    aim = pd.Series(deviation).expanding().median().to_numpy() if target is None else target
    return np.where(np.isnan(deviation), 0.0, np.minimum(aim / deviation, cap))


def nearest(path: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """[N] the level nearest to each row of path [N], in a tie the one nearer to 0; 0 without a level."""
    ordered = np.array(sorted(levels, key=abs) or [0.0], np.float64)
    return ordered[np.abs(np.asarray(path)[:, None] - ordered).argmin(axis=1)]


def shuffled_spells(
    path: np.ndarray, rng: np.random.Generator, *, accounts: int, step: float = 0.0
) -> np.ndarray:
    """[accounts, N] the spells of a path in random orders: the same levels and turnover, at other times.

    A spell is a stretch of bars at one level. Each order keeps the multiset of spells (so the time spent at
    every level), the level of the first, and how often each level is followed by each other one: so also the
    number of trades and the sum of |changes of level|, exactly. Of all orders that do, each is as likely: a
    random Eulerian path through the levels, its last exits drawn as a random spanning tree; then the lengths
    are dealt out anew among the spells of a level.

    Args:
      path: [N] levels.
      rng: the generator.
      accounts: orders to draw.
      step: where hardly any level repeats, as of a continuous policy, levels that round to the same multiple
        of `step` are one spell, which keeps what is in it. Trades are still as many, but for the first, and
        the sum of |changes| agrees to `step` for each change from spell to spell. 0 takes levels as they are.

    Raises:
      ValueError: a path that is empty or not finite, or a negative step.
    """
    path = checked(path, "path", at_least=1)
    if not step >= 0.0:
        raise ValueError(f"step is {step}: give 0, or the width of what counts as one level")
    level = np.round(path / step) if step else path
    starts = np.flatnonzero(np.diff(level, prepend=np.nan) != 0.0)
    lengths = np.diff(starts, append=path.size)
    kinds = np.unique(level[starts], return_inverse=True)[1]
    members = [np.flatnonzero(kinds == kind) for kind in range(kinds.max() + 1)]
    exits = [kinds[own[own < kinds.size - 1] + 1].tolist() for own in members]
    rows = np.empty((accounts, path.size))
    for row in rows:
        order = _eulerian(exits, int(kinds[0]), int(kinds[-1]), rng)
        spells = np.empty_like(kinds)
        for kind, own in enumerate(members):
            spells[order == kind] = rng.permutation(own)
        size = lengths[spells]
        shift = starts[spells] - (np.cumsum(size) - size)
        row[:] = path[np.repeat(shift, size) + np.arange(path.size)]
    return rows


def equal_weight(num_bars: int, num_assets: int, *, rebalance: int | None = None) -> np.ndarray:
    """[N, A] weights 1 / A.

    A weight that is asked for again keeps the units. So None buys once and holds; else the weights are
    restored every `rebalance` bars, which is said by a weight that is one float32 smaller every other time.

    Raises:
      ValueError: no bar, no instrument, or a period below 1.
    """
    if num_bars < 1 or num_assets < 1:
        raise ValueError(f"{num_bars} bars and {num_assets} instruments: give at least one of each")
    weight = np.float32(1.0 / num_assets)
    path = np.full((num_bars, num_assets), weight, np.float64)
    if rebalance is not None:
        _at_least(rebalance, 1, "rebalance")
        path[np.arange(num_bars) // rebalance % 2 == 1] = np.nextafter(weight, np.float32(0.0))
    return path


def inverse_volatility_weights(returns: np.ndarray, *, window: int, rebalance: int = 1) -> np.ndarray:
    """[N, A] weights in proportion to 1 / deviation of the last `window` returns, with sum 1.

    Args:
      returns: [N, A] simple returns; row n is known at the close of bar n.
      window: returns (deviation with ddof 1); rows before there are as many are 0. An instrument that does
        not vary gets nothing, for nothing is known of its risk.
      rebalance: bars that weights are kept for, from the first that are known.

    Raises:
      ValueError: returns that are not [N, A] or not finite, a window below 2, or a period below 1.
    """
    returns = np.asarray(returns, np.float64)
    if returns.ndim != 2 or returns.shape[1] == 0:
        raise ValueError(f"returns has shape {returns.shape}: give bars by instruments, [N, A]")
    returns = checked(returns.T, "returns", axes=2).T
    _at_least(window, 2)
    _at_least(rebalance, 1, "rebalance")
    deviation = _known_deviation(returns, window)
    parts = np.where(np.isnan(deviation), 0.0, 1.0 / np.where(np.isnan(deviation), 1.0, deviation))
    total = parts.sum(axis=1, keepdims=True)
    weights = parts / np.where(total > 0.0, total, 1.0)
    first, bars = window - 1, np.arange(len(weights))
    return weights[np.where(bars < first, bars, first + (bars - first) // rebalance * rebalance)]


def _prices(close: np.ndarray) -> np.ndarray:
    close = checked(close, "close", at_least=1)
    bad = np.flatnonzero(close <= 0.0)
    if bad.size:
        raise ValueError(f"close of bar {bad[0]} is {close[bad[0]]}: a rule needs positive prices")
    return close


def _at_least(count: int, least: int, name: str = "window") -> None:
    if count < least:
        raise ValueError(f"{name} is {count}: give at least {least} bars")


def _opinion(sign: np.ndarray, *, long: float, short: float, flat: float) -> np.ndarray:
    """Long where sign [N] is above 0 by more than rounding, short where below, 0 where it is NaN."""
    return np.select([np.isnan(sign), sign > STILL, sign < -STILL], [0.0, long, short], flat)


def _since_entry(z: np.ndarray, entry: float) -> np.ndarray:
    """[N] bool, z has been at or below -entry and not at 0 or above since."""
    # Between the two nothing is decided: the last bar that was outside of them says what is held.
    decides = (z <= -entry) | (z >= 0.0)
    last = np.maximum.accumulate(np.where(decides, np.arange(z.size), -1))
    return (last >= 0) & (z[last] <= -entry)


def _moments(values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """([N, ...], [N, ...]) mean and sum of squared deviations of the last `window` rows; NaN before.

    Term by term over all bars at once: the order of the sums depends on no other bar, so bits do not, either.
    """
    mean, square = np.full(values.shape, np.nan), np.full(values.shape, np.nan)
    count = len(values) - window + 1
    if count > 0:
        parts = [values[lag : lag + count] for lag in range(window)]
        mean[window - 1 :] = sum(parts) / window
        square[window - 1 :] = sum((part - mean[window - 1 :]) ** 2 for part in parts)
    return mean, square


def _known_deviation(returns: np.ndarray, window: int) -> np.ndarray:
    """[N, ...] of the last `window` returns, ddof 1; NaN before there are as many and where none varies."""
    deviation = np.sqrt(_moments(returns, window)[1] / (window - 1))
    return np.where(deviation > STILL, deviation, np.nan)


def _eulerian(exits: list[list[int]], first: int, last: int, rng: np.random.Generator) -> np.ndarray:
    """A random order of kinds from `first` to `last` in which each member of exits[k] follows kind k once.

    All are as likely. BEST theorem: the last exits of all kinds but the last form a tree towards it, and the
    others may come in any order. The tree is drawn by loop-erased random walks (Wilson 1996).
    """
    leaving: dict[int, int] = {}
    rooted = {last}
    for kind in range(len(exits)):
        at = kind
        while at not in rooted:
            leaving[at] = exits[at][int(rng.random() * len(exits[at]))]
            at = leaving[at]
        at = kind
        while at not in rooted:
            rooted.add(at)
            at = leaving[at]
    queues = []
    for kind, own in enumerate(exits):
        rest, final = own.copy(), [leaving[kind]] if kind in leaving else []
        for one in final:
            rest.remove(one)
        queues.append(iter(rng.permutation(rest).tolist() + final))
    order = [first]
    for _ in range(sum(map(len, exits))):
        order.append(next(queues[order[-1]]))
    return np.array(order)
