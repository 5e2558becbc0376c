"""Ratios and moments of a series of returns, one pure function each, NumPy float64 on the host.

Axes: T bars. Returns are simple, per bar, net of costs. `metrics` has the return, the volatility and the
Sharpe ratio of an account.

NaN policy: an input that is not finite raises ValueError naming it; a number that the inputs leave undefined
(a ratio to nothing) is NaN.
"""

import math
from typing import NamedTuple

import numpy as np

from ztb_jax.evaluation.series import FLAT_SPREAD, checked, checked_share, checked_year, paired


class Regression(NamedTuple):
    """An account's returns explained by a benchmark's.

    Attributes:
      alpha: what is left over, a fraction a year.
      beta: share of the benchmark's return that is taken over.
    """

    alpha: float
    beta: float


def sortino(returns: np.ndarray, bars_per_year: float, *, target: float = 0.0) -> float:
    """mean(r - target) / sqrt(mean(min(r - target, 0)^2)) * sqrt(bars_per_year), annualised.

    The downside deviation is the population mean over all T bars, not over the losing ones alone (Sortino and
    Price 1994; quantstats has the same). NaN when no bar is below the target.

    Args:
      returns: [T].
      bars_per_year: bars in a year.
      target: return per bar that counts as no loss.
    """
    over, years = checked(returns, "returns") - target, checked_year(bars_per_year)
    missed = np.minimum(over, 0.0)
    if not missed.any():
        return math.nan
    return float(over.mean() / math.sqrt(np.mean(missed**2)) * math.sqrt(years))


def omega(returns: np.ndarray, *, threshold: float = 0.0) -> float:
    """sum(max(r - threshold, 0)) / sum(max(threshold - r, 0)) over the T bars (Keating and Shadwick 2002).

    `threshold` is a return per bar. NaN when no bar is below it.
    """
    over = checked(returns, "returns") - threshold
    below = -float(np.minimum(over, 0.0).sum())
    return float(np.maximum(over, 0.0).sum()) / below if below > 0.0 else math.nan


def tail_ratio(returns: np.ndarray, *, cutoff: float = 0.95) -> float:
    """|quantile(cutoff)| / |quantile(1 - cutoff)| of returns [T], quantiles interpolated linearly.

    Above 1 the good bars are larger than the bad ones. NaN without a bar, or where the lower quantile is 0.
    """
    returns, cutoff = checked(returns, "returns"), checked_share(cutoff, "cutoff")
    if returns.size == 0:
        return math.nan
    high, low = np.abs(np.quantile(returns, [cutoff, 1.0 - cutoff]))
    return float(high / low) if low > 0.0 else math.nan


def hit_rate(returns: np.ndarray) -> float:
    """Share of the bars with a return above zero among those with one other than zero; NaN without such.

    A bar in which nothing was held is neither a hit nor a miss.
    """
    returns = checked(returns, "returns")
    moved = np.count_nonzero(returns)
    return np.count_nonzero(returns > 0.0) / moved if moved else math.nan


def information_ratio(returns: np.ndarray, benchmark: np.ndarray, bars_per_year: float) -> float:
    """mean(r - b) / std(r - b, ddof=1) * sqrt(bars_per_year), annualised; both [T] on the same bars.

    NaN for fewer than two bars, and where the two differ by a constant only.
    """
    returns, benchmark = paired(returns, benchmark)
    active, years = returns - benchmark, checked_year(bars_per_year)
    spread = float(np.std(active, ddof=1)) if active.size > 1 else 0.0
    return float(active.mean()) / spread * math.sqrt(years) if spread > FLAT_SPREAD else math.nan


def regression(
    returns: np.ndarray, benchmark: np.ndarray, bars_per_year: float, *, risk_free: float = 0.0
) -> Regression:
    """Least squares of r - risk_free = alpha + beta (b - risk_free) + e (Jensen 1968).

    Alpha is the intercept times bars_per_year. Both are NaN where the benchmark does not vary, or with fewer
    than two bars. Whether alpha is more than luck: `significance.alpha_test`.

    Args:
      returns: [T].
      benchmark: [T] on the same bars.
      bars_per_year: bars in a year.
      risk_free: return per bar of holding nothing.
    """
    returns, benchmark = paired(returns, benchmark)
    years = checked_year(bars_per_year)
    if returns.size < 2 or np.std(benchmark) <= FLAT_SPREAD:
        return Regression(math.nan, math.nan)
    moves = benchmark - benchmark.mean()
    beta = float(moves @ returns / (moves @ moves))
    intercept = float((returns - risk_free).mean() - beta * (benchmark - risk_free).mean())
    return Regression(intercept * years, beta)


def skewness(returns: np.ndarray) -> float:
    """m3 / m2^1.5 with central moments over T (biased, scipy's default); NaN where returns do not vary."""
    return _standardised(returns, 3)


def kurtosis(returns: np.ndarray) -> float:
    """m4 / m2^2 with central moments over T, 3 for a normal law, not in excess of it; NaN without spread."""
    return _standardised(returns, 4)


def _standardised(returns: np.ndarray, order: int) -> float:
    returns = checked(returns, "returns")
    spread = float(np.std(returns)) if returns.size else 0.0
    if spread <= FLAT_SPREAD:
        return math.nan
    return float(np.mean(((returns - returns.mean()) / spread) ** order))
