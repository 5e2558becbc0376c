"""Which market a policy earned in: trend, range or crisis, by a rule that looks back alone.

Axes: T bars, N steps. The step from bar t to bar t + 1 belongs to the regime of bar t, at whose close it was
decided: the regime of the bar that earned would be chosen by what it earned.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ztb_jax.evaluation.metrics import sharpe
from ztb_jax.evaluation.series import checked, checked_year, paired

REGIMES = ("trend", "range", "crisis")
TREND, RANGE, CRISIS = range(3)


class Regime(NamedTuple):
    """What was earned in the steps of one regime, strung together.

    Attributes:
      bars: steps.
      total_return: of the policy, a fraction; 0 without a step, NaN beyond a float.
      sharpe: a year's, of the policy; NaN for fewer than two steps.
      benchmark_return: of buy-and-hold.
      benchmark_sharpe: of buy-and-hold.
    """

    bars: int
    total_return: float
    sharpe: float
    benchmark_return: float
    benchmark_sharpe: float


def label_regimes(
    closed: np.ndarray,
    *,
    peak_bars: int = 250,
    drawdown: float = 0.15,
    volatility_bars: int = 20,
    volatility_multiple: float = 2.0,
    efficiency_bars: int = 60,
    efficiency: float = 0.3,
) -> np.ndarray:
    """[T] int8 label of every bar, an index into `REGIMES`; that of bar t depends on closes 0 … t alone.

    crisis: the close is more than `drawdown` below the highest of the last `peak_bars` closes, or the
    realised volatility sqrt(mean(r²)) of the last `volatility_bars` log returns is above
    `volatility_multiple` times the median of all its values so far.
    trend: otherwise, and Kaufman's efficiency ratio |c[t] - c[t-n]| / sum |c[i] - c[i-1]| over n =
    `efficiency_bars` changes is at least `efficiency` (Kaufman 1995). A random walk's is about 1 / sqrt(n).
    range: otherwise, also where there are too few bars to tell.

    Give the bars before a slice, too: windows and median begin with the first close.

    Args:
      closed: [T] closing prices.
      peak_bars: closes, the bar's own among them; fewer at the start.
      drawdown: fraction of the peak.
      volatility_bars: returns in the realised volatility.
      volatility_multiple: of the median.
      efficiency_bars: n.
      efficiency: from 0 to 1.

    Raises:
      ValueError: prices that are not positive and finite, or a window or threshold out of its range.
    """
    closed = checked(closed, "closed")
    windows = {"peak_bars": peak_bars, "volatility_bars": volatility_bars, "efficiency_bars": efficiency_bars}
    wrong = [f"{name} ({bars}) must be at least 1" for name, bars in windows.items() if bars < 1]
    wrong += [
        f"{name} ({share}) must be from 0 to 1"
        for name, share in {"drawdown": drawdown, "efficiency": efficiency}.items()
        if not 0.0 <= share <= 1.0
    ]
    if not 0.0 < volatility_multiple < math.inf:
        wrong.append(f"volatility_multiple ({volatility_multiple}) must be above 0")
    if (closed <= 0.0).any():
        wrong.append(f"closed of bar {int((closed <= 0.0).argmax())} must be positive")
    if wrong:
        raise ValueError("; ".join(wrong))
    price, logs = pd.Series(closed), pd.Series(np.log(closed))
    fall = 1.0 - price / price.rolling(peak_bars, min_periods=1).max()
    volatility = (logs.diff() ** 2).rolling(volatility_bars).mean().clip(lower=0.0) ** 0.5
    wild = volatility > volatility_multiple * volatility.expanding().median()
    way = price.diff().abs().rolling(efficiency_bars).sum()
    directed = price.diff(efficiency_bars).abs() >= efficiency * way
    moved = way > 0.0
    labels = np.where(directed & moved, TREND, RANGE)
    return np.where((fall > drawdown) | wild, CRISIS, labels).astype(np.int8)


def by_regime(
    returns: np.ndarray, benchmark: np.ndarray, labels: Sequence[int] | np.ndarray, bars_per_year: float
) -> dict[str, Regime]:
    """What policy and buy-and-hold earned in each of `REGIMES`.

    Args:
      returns: [N] simple net returns of the policy.
      benchmark: [N] of buy-and-hold.
      labels: [N] of `label_regimes`, each of the bar at whose close the step was decided.
      bars_per_year: of the instrument's own calendar; Sharpe ratios are annualised as if the regime's bars
        were all there are.

    Raises:
      ValueError: a return that is not finite, lengths that disagree, or a label that is none.
    """
    returns, benchmark = paired(returns, benchmark)
    checked_year(bars_per_year)
    labels = np.asarray(labels)
    if labels.shape != returns.shape:
        raise ValueError(
            f"labels have shape {labels.shape} and returns {returns.shape}: give one for a step."
        )
    unknown = sorted(set(labels.tolist()) - set(range(len(REGIMES))))
    if unknown:
        raise ValueError(f"labels hold {unknown}: give those of label_regimes, 0 to {len(REGIMES) - 1}.")
    found = {}
    for label, name in enumerate(REGIMES):
        ours, theirs = returns[labels == label], benchmark[labels == label]
        found[name] = Regime(
            bars=ours.size,
            total_return=_grown(ours),
            sharpe=sharpe(ours, bars_per_year),
            benchmark_return=_grown(theirs),
            benchmark_sharpe=sharpe(theirs, bars_per_year),
        )
    return found


def _grown(returns: np.ndarray) -> float:
    with np.errstate(over="ignore"):
        total = float(np.prod(1.0 + returns) - 1.0)
    return total if math.isfinite(total) else math.nan
