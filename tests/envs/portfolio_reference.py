"""The rules of `envs.portfolio` again, from the page, in float64 cash and units: the oracle of its tests."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np


class Bars(NamedTuple):
    """[T, A] prices and presence, as `ztb_jax.data.align` has them, and [T] years."""

    opened: np.ndarray
    closed: np.ndarray
    present: np.ndarray
    years: np.ndarray


@dataclass(frozen=True)
class Limits:
    var: float = 0.02
    correlation: float = 0.7
    sector: float = 0.4
    margin: float = 0.02 * 1.1
    weight: float = np.inf
    gross: float = np.inf
    window: int = 100
    confidence: float = 0.95


@dataclass(frozen=True)
class Rules:
    fee_rate: float = 0.0
    half_spread: float = 0.0
    slippage: float = 0.0
    ruin_equity: float = 0.1
    band: float = 0.0
    borrow_rate: float = 0.0
    loan_rate: float = 0.0
    cash_rate: float = 0.0
    limits: Limits | None = None
    groups: np.ndarray | None = None  # [A, K]


def known(bars: Bars, bar: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Covariance and absolute correlation [A, A] of the last `window` returns as known at close[bar]."""
    closed = bars.closed[bar - window : bar + 1]
    covariance = np.atleast_2d(np.cov(closed[1:] / closed[:-1] - 1.0, rowvar=False))
    deviation = np.sqrt(np.diag(covariance))
    scale = np.outer(deviation, deviation)
    return covariance, np.abs(np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0))


def shares(size, correlation, free) -> dict[tuple[int, int], float]:
    """Share of each pair of holdings of which one is free, times its correlation."""
    return {
        (i, j): correlation[i, j] * (size[i] + size[j]) / size.sum()
        for i in range(len(size))
        for j in range(i + 1, len(size))
        if size[i] > 0 and size[j] > 0 and (free[i] or free[j])
    }


def exposures(weights, covariance, correlation, free, rules: Rules) -> dict[str, float]:
    size = np.abs(weights)
    z = NormalDist().inv_cdf(rules.limits.confidence)
    return {
        "var": z * np.sqrt(max(weights @ covariance @ weights, 0.0)),
        "correlation": max(shares(size, correlation, free).values(), default=0.0),
        "sector": 0.0 if rules.groups is None else max(size @ rules.groups),
        "gross": size.sum(),
    }


def over(value, most) -> bool:
    return value > most * (1 + 2e-6)


def spread_out(size, correlation, most, free):
    """Cut the worst pair, and again, until none is over; flat after 64 cuts."""
    start = size.copy()
    for _ in range(64):
        pairs = shares(size, correlation, free)
        worst = max(pairs, key=lambda pair: pairs[pair], default=None)
        if worst is None or not over(pairs[worst], most):
            return size
        i, j = worst if size[worst[0]] >= size[worst[1]] else worst[::-1]  # i is the larger leg
        goal = 0.99 * most
        both = max(goal * (size.sum() - size[i] - size[j]) / (correlation[i, j] - goal), 0.0)
        low = min(size[j], both / 2)
        if free[i] and free[j]:
            size[i], size[j] = both - low, low
        elif free[i]:
            size[i] = max(both - size[j], 0.0)
        else:
            size[j] = max(both - size[i], 0.0)
    pairs = shares(size, correlation, free)
    fits = not over(max(pairs.values(), default=0.0), most)
    return size if fits else np.where(free, 0.0, start)


def fit_deviation(weights, covariance, most, free):
    moving = np.where(free, weights, 0.0)
    if not over(np.sqrt(weights @ covariance @ weights), most):
        return weights
    square, cross = moving @ covariance @ moving, weights @ covariance @ moving
    if square <= 0:
        return weights
    roots = np.roots([square, -2 * cross, weights @ covariance @ weights - most**2])
    inside = [root.real for root in roots if abs(root.imag) < 1e-12 and 0 <= root.real <= 1]
    least = float(np.clip(cross / square, 0.0, 1.0))
    return weights - (min(inside) if inside else least) * moving


def fit(weights, covariance, correlation, free, rules: Rules):
    """The book brought within the limits; what is not free stays."""
    limits = rules.limits
    size = np.where(free, np.minimum(np.abs(weights), limits.weight), np.abs(weights))
    if rules.groups is not None:
        factor = np.ones(len(size))
        for group in rules.groups.T > 0:
            total, fixed = size[group].sum(), size[group & ~free].sum()
            if over(total, limits.sector):
                room = max(limits.sector - fixed, 0.0) / max(total - fixed, 1e-30)
                factor[group] = np.minimum(factor[group], min(room, 1.0))
        size = np.where(free, size * factor, size)
    size = spread_out(size, correlation, limits.correlation, free)
    most, fixed = min(limits.gross, 1 / limits.margin), size[~free].sum()
    if over(size.sum(), most) and size[free].any():
        size = np.where(free, size * max(most - fixed, 0.0) / (size.sum() - fixed), size)
    deviation = limits.var / NormalDist().inv_cdf(limits.confidence)
    fitted = fit_deviation(np.sign(weights) * size, covariance, deviation, free)
    left = shares(np.abs(fitted), correlation, free)
    if over(max(left.values(), default=0.0), limits.correlation):
        fitted = np.where(free, 0.0, fitted)
    return fitted


def interest(weights, rules: Rules) -> float:
    """A year's charge over equity."""
    long, short = weights[weights > 0].sum(), -weights[weights < 0].sum()
    idle = min(max(1 - long, 0.0), 1.0)
    return rules.borrow_rate * short + rules.loan_rate * max(long - 1, 0.0) - rules.cash_rate * idle


def play(bars: Bars, asked, *, start: int, initial, rules: Rules) -> dict[str, np.ndarray]:
    """Follow `asked` [n, A] from bar `start`: decide at close[t], trade at open[t+1], mark at close[t+1]."""
    level = np.array(initial, np.float64)
    units, cash, equity, rows = level / bars.closed[start], 1.0 - level.sum(), 1.0, []
    worse = rules.half_spread + rules.slippage
    for step, wanted in enumerate(np.asarray(asked, np.float64)):
        bar = start + 1 + step
        opened, closed, free = bars.opened[bar], bars.closed[bar], bars.present[bar]
        weights = units * bars.closed[bar - 1] / equity
        held = ~free | (wanted == level) | (np.abs(wanted - weights) < rules.band)
        planned = intended = np.where(held, weights, wanted)
        risk = {}
        if rules.limits is not None:
            covariance, correlation = known(bars, bar - 1, rules.limits.window)
            risk = exposures(intended, covariance, correlation, free, rules)
            planned = fit(intended, covariance, correlation, free, rules)
        cash -= equity * bars.years[bar] * interest(weights, rules)
        at_open = cash + units @ opened
        gone = at_open <= 0.01 * equity
        quantity = np.zeros(len(units))
        if gone:
            cash, units = 0.01 * equity, np.zeros(len(units))
        else:
            trades = free & (~held | (planned != intended))
            quantity = np.where(trades, planned * at_open / opened - units, 0.0)
            level = np.where(free, wanted, level)
        paid = opened * (1 + worse * np.sign(quantity))
        fee = rules.fee_rate * np.abs(quantity) * paid
        cash -= quantity @ paid + fee.sum()
        units = units + quantity
        after = cash + units @ closed
        if gone or after <= 0.01 * equity:
            after, cash, units, gone = 0.01 * equity, 0.01 * equity, np.zeros(len(units)), True
        rows.append(
            {
                "equity": after,
                "reward": np.log(after / equity),
                "exposure": units * closed / after,
                "level": level,
                "traded": quantity * opened / equity,
                "cost": (np.abs(quantity) * np.abs(paid - opened) + fee) / equity,
                "fee": fee / equity,
                "price": np.where(quantity == 0, 0.0, paid / opened),
                "terminated": gone or after <= rules.ruin_equity,
            }
            | risk
        )
        equity = after
        if rows[-1]["terminated"]:
            break
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
