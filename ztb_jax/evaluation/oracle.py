"""The best that could be done over known prices, two reference policies, and the score of a path of levels.

The optimal policies of markets whose future is random are in `ztb_jax.evaluation.markov`.

Axes: T bars, A candidate levels (the caller's levels, and flat, where every account starts).
A level is a signed fraction of equity; costs are fractions of the value traded, one way.

All oracles hold the exposure constant: while a level is kept, the account earns `level * return` on
every bar. The simulator lets exposure drift with the price instead (units are held), so an oracle's
path is re-scored by the simulator wherever the two are compared.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

DEFAULT_LEVELS = (-1.0, 0.0, 1.0)


class NoPathError(ValueError):
    """Every allowed path is ruined or cannot be paid for."""


class Hindsight(NamedTuple):
    """The best path with every price known.

    Attributes:
      path: [T] float64 level chosen at each decision.
      log_growth: log of final over initial equity along `path`, constant exposure, net of costs.
    """

    path: np.ndarray
    log_growth: float


def hindsight(
    gap: np.ndarray, body: np.ndarray, *, levels: Sequence[float] = DEFAULT_LEVELS, cost: float
) -> Hindsight:
    """The path of levels with the highest log growth when all prices are known.

    Dynamic programming over levels: with `q` the level before decision t and `p` the one taken,

        V[t, p] = max_q(V[t-1, q] + log(1 + q gap[t]) + log(1 - cost |p - q|)) + log(1 + p body[t])

    starting flat. It is the optimum of the constant-exposure approximation (see the module docstring).
    Limits: at zero cost and without gaps the growth is the sum of the best level's log growth of every bar;
    at infinite cost the path stays flat. An unchanged level wins a tie. The search runs in float32 with the
    value rebased at every step (unrebased accumulation is off by 0.4 % after a million bars); the growth is
    then summed along the path in float64.

    Args:
      gap: [T] simple return from the close of decision t to the next open, earned by the old level.
      body: [T] simple return from that open to its close, earned by the new level.
      levels: levels that may be chosen; flat is where the account starts, and not added to them.
      cost: one-way cost, fraction of the value traded; may be infinite.

    Raises:
      ValueError: arrays differ in length, are empty or not finite; no level; or a negative cost.
      NoPathError: every allowed level is ruined or unaffordable.
    """
    gap, body = checked_series(gap, "gap"), checked_series(body, "body")
    if gap.shape != body.shape:
        raise ValueError(f"gap has {gap.size} bars and body {body.size}: give both for the same decisions.")
    allowed = checked_levels(levels)
    held = np.union1d(allowed, 0.0)
    switch = _log_growth(np.abs(held[:, None] - held[None, :]), -checked_cost(cost))
    switch[:, ~np.isin(held, allowed)] = -np.inf

    value = np.where(held == 0.0, 0.0, -np.inf)
    carry = (
        jnp.asarray(value, jnp.float32),
        jnp.asarray(switch, jnp.float32),
        jnp.asarray(held, jnp.float32),
    )
    bars = (jnp.asarray(gap, jnp.float32), jnp.asarray(body, jnp.float32))
    (value, _, _), origins = jax.lax.scan(_extend, carry, bars)
    _, indices = jax.lax.scan(_retrace, jnp.argmax(value), origins, reverse=True)
    path = held[np.asarray(indices)]

    before = np.concatenate([[0.0], path[:-1]])
    taken = np.searchsorted(held, path)
    switched = switch[np.searchsorted(held, before), taken]
    growth = float(np.sum(_log_growth(before, gap) + switched + _log_growth(path, body)))
    if not np.isfinite(growth):
        raise NoPathError(f"No path over levels {allowed.tolist()} survives these prices: allow level 0.")
    return Hindsight(path=path, log_growth=growth)


def myopic(
    conditional_mean: np.ndarray,
    cost: float,
    *,
    sigma: float | None = None,
    levels: Sequence[float] = DEFAULT_LEVELS,
) -> np.ndarray:
    """[T] levels of one who trades as if every position lasted a single bar, starting flat.

    Takes the p that maximises the score of the next bar (`score_by_conditional_mean`) given the level it
    holds: optimal at zero cost, blind to a gain that takes several bars to pay for its trade.
    """
    mean = checked_series(conditional_mean, "conditional_mean")
    allowed = checked_levels(levels)
    held = np.union1d(allowed, 0.0)
    values = np.moveaxis(one_bar(mean[:, None], allowed, sigma), -1, 0)[:, :, None]
    return walk(best_level(values, allowed, held[None, :], checked_cost(cost)), held)


def cost_blind(conditional_mean: np.ndarray, *, levels: Sequence[float] = DEFAULT_LEVELS) -> np.ndarray:
    """[T] the highest level where conditional_mean [T] is positive, the lowest where negative, else idle.

    Optimal at zero cost when the mean outweighs the variance. Idle is the level nearest to flat.
    """
    mean = checked_series(conditional_mean, "conditional_mean")
    allowed = checked_levels(levels)
    idle = allowed[np.argmin(np.abs(allowed))]
    return np.select([mean > 0.0, mean < 0.0], [allowed[-1], allowed[0]], idle)


def score_by_conditional_mean(
    path: np.ndarray, conditional_mean: np.ndarray, cost: float, *, sigma: float | None = None
) -> float:
    """Expected log growth per bar of a path of levels when the mean of the next return is known.

    Mean over t, starting flat, of

        p[t] m[t] - p[t]² sigma² / 2 - cost |p[t] - p[t-1]|

    which grades the decisions and not the luck of the draws: on realised returns a tuned rule can "exceed"
    the optimum. With `sigma` None the next return is not random, m is that return, and the terms are exact:
    log(1 + p m) + log(1 - cost |p[t] - p[t-1]|), the ones that `hindsight` maximises.

    Args:
      path: [T] levels held over the next bar.
      conditional_mean: [T] mean of the next bar's simple return, known at the decision.
      cost: one-way cost, fraction of the value traded.
      sigma: standard deviation of the next bar's return around its mean, or None; 0 is a return that is
        known, to first order in it.

    Raises:
      ValueError: lengths differ, an input is empty or not finite, or the cost is negative.
    """
    path, mean = checked_series(path, "path"), checked_series(conditional_mean, "conditional_mean")
    if path.shape != mean.shape:
        raise ValueError(
            f"path has {path.size} bars and conditional_mean {mean.size}: give one mean a level."
        )
    traded = np.abs(np.diff(path, prepend=0.0))
    cost = checked_cost(cost)
    if sigma is None:
        return float(np.mean(_log_growth(path, mean) + _log_growth(traded, -cost)))
    return float(np.mean(path * mean - 0.5 * path**2 * sigma**2 - charge(traded, cost)))


def _extend(carry, bar):
    """One forward step of the dynamic programme; emits, for each new level, the level it came from."""
    value, switch, held = carry
    gap, body = bar
    reached = (value + _log_or_ruin(held * gap))[:, None] + switch
    stay = jnp.diag(reached)
    origin = jnp.where(stay >= reached.max(axis=0), jnp.arange(held.size), reached.argmax(axis=0))
    value = reached.max(axis=0) + _log_or_ruin(held * body)
    top = value.max()
    return (value - jnp.where(jnp.isfinite(top), top, 0.0), switch, held), origin.astype(
        jnp.int8 if held.size < 128 else jnp.int32
    )


def _retrace(index, origin):
    return origin[index].astype(index.dtype), index


def _log_or_ruin(earned):
    """log(1 + earned), minus infinity where nothing is left."""
    return jnp.where(earned > -1.0, jnp.log1p(jnp.maximum(earned, -0.999999)), -jnp.inf)


def _log_growth(level: np.ndarray, returns: np.ndarray | float) -> np.ndarray:
    """log(1 + level * returns) in float64; a level of 0 grows by exactly nothing, ruin is minus infinity."""
    with np.errstate(divide="ignore", invalid="ignore"):
        product = np.where(level == 0.0, 0.0, level * returns)
        return np.log1p(np.maximum(product, -1.0))


def charge(distance: np.ndarray, cost: float) -> np.ndarray:
    """Cost of moving the level by distance; not moving is free even where the cost is infinite."""
    return np.where(distance == 0.0, 0.0, cost * np.where(distance == 0.0, 1.0, distance))


def one_bar(mean: np.ndarray, levels: np.ndarray, sigma: float | None) -> np.ndarray:
    """[T, A] expected log growth of one bar at each level, costs aside; mean is [T, 1]."""
    if sigma is None:
        return _log_growth(levels[None, :], mean)
    return mean * levels[None, :] - 0.5 * (levels[None, :] * sigma) ** 2


def best_level(values: np.ndarray, levels: np.ndarray, previous: np.ndarray, cost: float) -> np.ndarray:
    """The level whose value [A, ...] less the cost from previous is highest; previous itself in a tie."""
    column = levels.reshape((-1,) + (1,) * (values.ndim - 1))
    distance = np.abs(column - previous)
    net = values - charge(distance, cost)
    choice = levels[np.argmax(net, axis=0)]
    stays = np.max(np.where(distance == 0.0, net, -np.inf), axis=0) >= net.max(axis=0)
    return np.where(stays, previous, choice)


def walk(choice: np.ndarray, held: np.ndarray) -> np.ndarray:
    """[T] levels met by following choice [T, A] (level taken from each held level) from flat."""
    steps = np.searchsorted(held, choice).tolist()
    index, visited = int(np.searchsorted(held, 0.0)), []
    for step in steps:
        index = step[index]
        visited.append(index)
    return held[np.asarray(visited)]


def checked_series(values: np.ndarray, name: str) -> np.ndarray:
    """values as a non-empty float64 series [T] of finite numbers, or a ValueError that names it."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name} has shape {values.shape}: give a non-empty series of one axis.")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(f"{name} has {bad.size} values that are not finite, first at bar {bad[0]}.")
    return values


def checked_levels(levels: Sequence[float]) -> np.ndarray:
    """levels [A] as float64, ascending; a ValueError where one repeats, or none is given."""
    values = checked_series(np.asarray(levels, np.float64), "levels")
    if np.unique(values).size != values.size:
        raise ValueError(f"levels {values.tolist()} repeat: give each level once.")
    return np.sort(values)


def checked_cost(cost: float) -> float:
    """cost, or a ValueError where it is negative or NaN."""
    if not cost >= 0.0:
        raise ValueError(f"cost is {cost}: give a one-way fraction of the value traded, zero or more.")
    return float(cost)
