"""What an allocation among specialists, or among instruments, was worth. Pure functions, NumPy float64.

Axes: T bars, S specialists (or instruments). Capital is a fraction of equity: for a hierarchy risk x
allocation, `message.risk * message.allocation` of `envs.hierarchy_state`; for a portfolio |weights|.

NaN policy: an input that is not finite raises ValueError naming it; a number that the inputs leave undefined
is NaN.
"""

import math
from typing import NamedTuple

import numpy as np

from ztb_jax.evaluation.series import checked, checked_year


class Utilisation(NamedTuple):
    """How the specialists were used.

    Attributes:
      given: [S] mean capital given to each over the bars.
      used: [S] mean gross exposure held over mean capital given; NaN for one who never got any. The sizing
        rules of the environment, limits and quiet signals leave it below 1.
      evenness: entropy of the shares in which `given` was distributed, over log S: 1 when all got the same, 0
        when one got all. NaN when nobody got any; 1 for a team of one.
    """

    given: np.ndarray
    used: np.ndarray
    evenness: float


class Efficiency(NamedTuple):
    """What was earned per unit of capital, a fraction a year.

    Attributes:
      earned: with the capital as it was allocated.
      equal: with the same capital in the same bars, in equal parts.
      lead: earned - equal, what allocating was worth. A difference, because a ratio to `equal` changes its
        meaning where that is negative and has none where it is zero.
    """

    earned: float
    equal: float
    lead: float


def utilisation(given: np.ndarray, held: np.ndarray) -> Utilisation:
    """How much capital each specialist got, how much of it worked, and how evenly it was spread.

    Evenness is that of the means: a controller that changes its favourite every bar uses its team evenly,
    though the `entropy` of the team's reward, taken bar by bar, is low.

    Args:
      given: [T, S] capital in force during each bar.
      held: [T, S] gross exposure that the specialist's instruments held at the close of it.

    Raises:
      ValueError: a value is not finite or negative, or shapes disagree.
    """
    given, held = _capital(given, "given"), _capital(held, "held")
    if given.shape != held.shape:
        raise ValueError(f"given has shape {given.shape} and held {held.shape}: align them.")
    if given.shape[0] == 0:
        nothing = np.full(given.shape[1], math.nan)
        return Utilisation(nothing, nothing, math.nan)
    mean, gross = given.mean(axis=0), held.mean(axis=0)
    used = np.where(mean > 0.0, gross / np.where(mean > 0.0, mean, 1.0), math.nan)
    return Utilisation(mean, used, _evenness(mean))


def allocation_efficiency(given: np.ndarray, sleeves: np.ndarray, bars_per_year: float) -> Efficiency:
    """Return on the capital used, beside that of the same capital in equal parts.

    earned = sum_ts given[t, s] q[t, s] / sum_ts given[t, s], a year; equal has mean_s(given[t]) in place of
    given[t, s]. Both use the same capital in every bar, so `lead` says nothing about how much risk was taken,
    or when: only about who got it. Costs are taken to grow with capital. 0 where all get the same.

    Args:
      given: [T, S] capital in force during each bar.
      sleeves: q [T, S], what each specialist earned in the bar per unit of its capital, net of costs:
        `reports.earned` summed over its instruments, over given; its paper record where it got nothing.
      bars_per_year: bars in a year.

    Returns:
      NaN where no capital was used.

    Raises:
      ValueError: a value is not finite, capital is negative, or shapes disagree.
    """
    given, sleeves = _capital(given, "given"), _panel(sleeves, "sleeves")
    if given.shape != sleeves.shape:
        raise ValueError(f"given has shape {given.shape} and sleeves {sleeves.shape}: align them.")
    years, capital = checked_year(bars_per_year), float(given.sum())
    if capital <= 0.0:
        return Efficiency(math.nan, math.nan, math.nan)
    equal = given.mean(axis=1, keepdims=True)
    earned, even = (float((parts * sleeves).sum()) / capital * years for parts in (given, equal))
    return Efficiency(earned, even, earned - even)


def _evenness(capital: np.ndarray) -> float:
    total = float(capital.sum())
    if total <= 0.0:
        return math.nan
    if capital.size == 1:
        return 1.0
    shares = capital[capital > 0.0] / total
    return float(-(shares * np.log(shares)).sum() / math.log(capital.size)) + 0.0


def _panel(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"{name} has shape {values.shape}: give bars by specialists, [T, S].")
    return checked(values.T, name, axes=2).T


def _capital(values: np.ndarray, name: str) -> np.ndarray:
    values = _panel(values, name)
    if np.any(values < 0.0):
        raise ValueError(f"{name} has negative values: give capital and gross exposure, not signed weights.")
    return values
