"""Losses, falls and promises kept, one pure function each, NumPy float64 on the host.

Axes: T bars; equity is marked at T + 1 closes. Losses are positive. A confidence of 0.95 looks at the worst
5 % of bars.

NaN policy: an input that is not finite raises ValueError naming it; a number that the inputs leave undefined
is NaN.
"""

import math
from typing import NamedTuple

import numpy as np

from ztb_jax.evaluation.series import checked, checked_equity, checked_share

# 0.1 * 30 is a little less than 3 in floating point: a count this close below a whole number is that number.
WHOLE = 1e-9


class UnderWater(NamedTuple):
    """How long an account stays below its last peak, in bars.

    Attributes:
      longest: bars of the longest spell; 0 when the equity never fell.
      average: mean over the spells; 0 when there was none.
    """

    longest: int
    average: float


class Compliance(NamedTuple):
    """Whether losses stayed within a promised value at risk.

    Attributes:
      share: of the bars whose loss was at most what was promised; NaN without a bar.
      violations: bars whose loss was larger.
      statistic: Kupiec's likelihood ratio; large where violations are too many, or too few.
      p_value: of that statistic: below 0.05 the promise does not have the confidence that it claims.
    """

    share: float
    violations: int
    statistic: float
    p_value: float


def under_water(equity: np.ndarray) -> UnderWater:
    """Spells of closes below the running peak of equity [T+1].

    A spell lasts from the first close below a peak to the last one before the peak is reached again. One that
    has not ended by the last bar counts with what it lasted.
    """
    equity = checked_equity(equity)
    below = equity < np.maximum.accumulate(equity)
    # The first mark is a peak, so every spell has a step up into it.
    edges = np.diff(np.concatenate([below, [False]]).astype(np.int8))
    lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    if lengths.size == 0:
        return UnderWater(0, 0.0)
    return UnderWater(int(lengths.max()), float(lengths.mean()))


def value_at_risk(returns: np.ndarray, *, confidence: float = 0.95) -> float:
    """The smallest loss that at most a share 1 - confidence of the T bars exceed, historical, positive.

    -r_(k+1), with r_(1) <= r_(2) ... and k = floor((1 - confidence) T): no interpolation, and the worst bar
    itself when k = 0. Negative where even that bar gained (`envs.risk`, for limits, says 0 there). NaN
    without a bar. The same as skfolio.
    """
    ordered, worst = _tail(returns, confidence)
    return -float(ordered[int(worst)]) if ordered.size else math.nan


def cvar(returns: np.ndarray, *, confidence: float = 0.95) -> float:
    """Mean loss of the worst 1 - confidence of the T bars, positive; never below `value_at_risk`.

    The bar at the edge counts with the part of it that belongs to the tail (Rockafellar and Uryasev 2002).
    NaN without a bar.
    """
    ordered, worst = _tail(returns, confidence)
    if ordered.size == 0:
        return math.nan
    whole = int(worst)
    return -float(ordered[:whole].sum() + (worst - whole) * ordered[whole]) / worst


def var_compliance(
    returns: np.ndarray, promised: np.ndarray | float, *, confidence: float = 0.95
) -> Compliance:
    """Did losses stay within the value at risk that was promised before each bar?

    Args:
      returns: [T].
      promised: [T] or one number, a loss as a positive fraction of equity, known before the bar.
      confidence: with which it was promised.

    Raises:
      ValueError: an input is not finite, a promise is negative, or lengths disagree.
    """
    returns, confidence = checked(returns, "returns"), checked_share(confidence, "confidence")
    promised = np.asarray(promised, np.float64)
    limits = checked(np.full(returns.size, promised) if promised.ndim == 0 else promised, "promised")
    if limits.size != returns.size:
        raise ValueError(f"promised has {limits.size} bars and returns {returns.size}: align them.")
    if np.any(limits < 0.0):
        raise ValueError("promised has negative values: give losses as positive fractions of equity.")
    violations = int(np.count_nonzero(-returns > limits))
    if returns.size == 0:
        return Compliance(math.nan, 0, math.nan, math.nan)
    statistic = kupiec(violations, returns.size, confidence=confidence)
    # The chi-squared law of one degree of freedom is that of a squared normal variable.
    p_value = math.erfc(math.sqrt(statistic / 2.0))
    return Compliance(1.0 - violations / returns.size, violations, statistic, p_value)


def kupiec(violations: int, bars: int, *, confidence: float = 0.95) -> float:
    """2 (log L(x / T) - log L(1 - confidence)), L(p) = p^x (1 - p)^(T - x): proportion of failures.

    Chi-squared with one degree of freedom when bars violate with probability 1 - confidence (Kupiec 1995).

    Args:
      violations: x, from 0 to `bars`.
      bars: T, at least 1.
      confidence: of the promise.

    Raises:
      ValueError: a number is out of its range.
    """
    expected = 1.0 - checked_share(confidence, "confidence")
    if bars < 1 or not 0 <= violations <= bars:
        raise ValueError(
            f"{violations} violations in {bars} bars: give a count from 0 to the number of bars."
        )

    def log_likelihood(share: float) -> float:
        hit = violations * math.log(share) if violations else 0.0
        missed = (bars - violations) * math.log1p(-share) if violations < bars else 0.0
        return hit + missed

    # Equal shares may differ by rounding, and a likelihood ratio is never negative.
    return max(0.0, 2.0 * (log_likelihood(violations / bars) - log_likelihood(expected)))


def _tail(returns: np.ndarray, confidence: float) -> tuple[np.ndarray, float]:
    """Returns in ascending order and how many of them, with a fraction, are in the tail."""
    returns, confidence = checked(returns, "returns"), checked_share(confidence, "confidence")
    worst = (1.0 - confidence) * returns.size
    nearest = round(worst)
    return np.sort(returns), nearest if nearest and abs(worst - nearest) < WHOLE * nearest else worst
