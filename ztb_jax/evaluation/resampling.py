"""Statistics by drawing histories and seeds again; the same seed gives the same numbers. NumPy float64.

Axes: T bars, K candidates. Returns are simple, per bar, net of costs, and more is better: `arch` compares
losses, and is given their negatives here.
"""

import math
from typing import NamedTuple

import numpy as np

from ztb_jax.evaluation.series import FLAT_SPREAD, checked, checked_share, checked_year
from ztb_jax.evaluation.significance import long_run_variance, newey_west_lag

FEWEST_BARS = 30
FEWEST_DRAWS = 100


class Interval(NamedTuple):
    """A number as it was seen, and the quantiles of it over the draws.

    Attributes:
      seen: in the data.
      low: lower end.
      high: upper end.
    """

    seen: float
    low: float
    high: float


class Bootstrap(NamedTuple):
    """What other histories of the same kind would have shown.

    Attributes:
      mean: return per bar.
      sharpe: of a year.
      total_return: over the T bars.
      block: mean length in bars of the stretches that were drawn.
    """

    mean: Interval
    sharpe: Interval
    total_return: Interval
    block: float


class Superiority(NamedTuple):
    """Hansen's test that no candidate beats the baseline. Small p-values speak against that.

    They are shares of draws: 0 means less than one draw's.

    Attributes:
      lower: liberal p-value, which leaves worse candidates out of the comparison.
      consistent: the one to quote.
      upper: White's reality check, studentised: every candidate counts as just as good as the baseline.
    """

    lower: float
    consistent: float
    upper: float


def block_length(returns: np.ndarray) -> float:
    """Mean block of the stationary bootstrap for returns [T], in bars, at least 1.

    Politis and White 2004, corrected by Patton, Politis and White 2009; 1 where the returns do not vary.
    """
    from arch.bootstrap import optimal_block_length

    returns = checked(returns, "returns", at_least=FEWEST_BARS)
    if np.std(returns) <= FLAT_SPREAD:
        return 1.0
    return max(1.0, float(optimal_block_length(returns)["stationary"].iloc[0]))


def bootstrap(
    returns: np.ndarray,
    bars_per_year: float,
    *,
    seed: int,
    draws: int = 2000,
    confidence: float = 0.95,
    block: float | None = None,
) -> Bootstrap:
    """Two-sided percentile intervals of mean, annual Sharpe ratio and total return.

    Stretches of consecutive bars of random length are drawn with replacement, which keeps dependence over
    short spans (stationary bootstrap, Politis and Romano 1994). The intervals say how much of a result is the
    luck of this history, not whether the policy was fitted to it.

    Args:
      returns: [T], at least 30.
      bars_per_year: bars in a year.
      seed: of the draws.
      draws: histories.
      confidence: share of the draws within.
      block: mean length of a stretch, by default `block_length`.
    """
    from arch.bootstrap import StationaryBootstrap

    returns = checked(returns, "returns", at_least=FEWEST_BARS)
    years, confidence = checked_year(bars_per_year), checked_share(confidence, "confidence")
    _check_draws(draws)
    block = block_length(returns) if block is None else block
    if not 1.0 <= block < math.inf:
        raise ValueError(f"block is {block}: give a mean length of at least one bar.")

    def statistics(history: np.ndarray) -> np.ndarray:
        spread = np.std(history, ddof=1)
        ratio = history.mean() / spread * math.sqrt(years) if spread > FLAT_SPREAD else 0.0
        return np.array([history.mean(), ratio, np.prod(1.0 + history) - 1.0])

    # arch annotates whole lengths and takes any.
    drawn = StationaryBootstrap(block, returns, seed=seed).apply(statistics, draws)  # pyright: ignore[reportArgumentType]
    ends = np.quantile(drawn, [0.5 - confidence / 2.0, 0.5 + confidence / 2.0], axis=0)
    intervals = [Interval(*map(float, numbers)) for numbers in zip(statistics(returns), *ends, strict=True)]
    return Bootstrap(*intervals, block=block)


def superior_ability(
    candidates: np.ndarray, baseline: np.ndarray, *, seed: int, draws: int = 1000
) -> Superiority:
    """Does any candidate have a higher mean return than the baseline, all of them counted? (SPA, Hansen 2005)

    The statistic is the largest of the candidates' mean differences over their Newey-West errors. Candidates
    must be everything that was tried: one chosen beforehand from many makes the p-value too small.

    Args:
      candidates: [K, T].
      baseline: [T] on the same bars, such as buy-and-hold or flat; for several, test against each.
      seed: of the draws.
      draws: of the stationary bootstrap.

    Raises:
      ValueError: a value is not finite, lengths disagree, or no candidate differs from the baseline.
    """
    from arch.bootstrap import SPA

    losses, block = _studentised(candidates, baseline, draws)
    test = SPA(np.zeros(len(losses)), losses, block_size=block, reps=draws, seed=seed)
    test.compute()
    p_values = test.pvalues
    return Superiority(*(float(p_values[name]) for name in Superiority._fields))


def superior_candidates(
    candidates: np.ndarray, baseline: np.ndarray, *, seed: int, draws: int = 1000, level: float = 0.05
) -> list[int]:
    """Rows of `candidates` [K, T] with a higher mean return than the baseline's [T], in ascending order.

    The chance that any of them is there by luck is at most `level` (StepM, Romano and Wolf 2005), with the
    statistic of `superior_ability`, which also says what the other arguments are and what is refused.
    """
    from arch.bootstrap import StepM

    level = checked_share(level, "level")
    losses, block = _studentised(candidates, baseline, draws)
    # The baseline itself, which never wins: arch steps down to those that are left, and fails where none is.
    losses = np.column_stack([losses, np.zeros(len(losses))])
    test = StepM(np.zeros(len(losses)), losses, size=level, block_size=block, reps=draws, seed=seed)
    test.compute()
    return np.asarray(test.superior_models, np.int64).tolist()


def interquartile_mean(
    scores: np.ndarray, *, seed: int, draws: int = 2000, confidence: float = 0.95
) -> Interval:
    """Mean of the middle half of scores over seeds, with a percentile interval (Agarwal et al. 2021).

    floor(n / 4) scores are left out at either end, of all tasks together, as rliable does. Seeds are drawn
    with replacement, for each task by itself.

    Args:
      scores: [seeds] or [seeds, tasks], at least three seeds; of several tasks on one scale.
      seed: of the draws.
      draws: how many.
      confidence: share of the draws within.
    """
    scores = np.asarray(scores, np.float64)
    scores = scores[:, None] if scores.ndim == 1 else scores
    scores, confidence = checked(scores, "scores", axes=2), checked_share(confidence, "confidence")
    num_seeds, tasks = scores.shape
    if num_seeds < 3 or tasks == 0:
        raise ValueError(f"scores has {num_seeds} seeds of {tasks} tasks: give at least three of one.")
    _check_draws(draws)
    picked = np.random.default_rng(seed).integers(num_seeds, size=(draws, num_seeds, tasks))
    drawn = _middle(scores[picked, np.arange(tasks)].reshape(draws, -1))
    low, high = np.quantile(drawn, [0.5 - confidence / 2.0, 0.5 + confidence / 2.0])
    return Interval(float(_middle(scores.reshape(1, -1))[0]), float(low), float(high))


def _middle(scores: np.ndarray) -> np.ndarray:
    """[...] interquartile means of scores [..., n]."""
    cut = scores.shape[-1] // 4
    return np.sort(scores, axis=-1)[..., cut : scores.shape[-1] - cut].mean(axis=-1)


def _studentised(candidates: np.ndarray, baseline: np.ndarray, draws: int) -> tuple[np.ndarray, int]:
    """Losses [T, K] against a baseline of zero, and the block in bars.

    arch 8 accepts `studentize` and compares plain means all the same, so that the candidate that varies most
    would decide. Differences of unit long-run variance make its statistic Hansen's.
    """
    baseline = checked(baseline, "baseline", at_least=FEWEST_BARS)
    candidates = checked(candidates, "candidates", axes=2, at_least=FEWEST_BARS)
    if candidates.shape[1] != baseline.size or not len(candidates):
        raise ValueError(
            f"candidates has shape {candidates.shape} and baseline {baseline.size} bars: "
            "give [candidates, bars]."
        )
    _check_draws(draws)
    lead = candidates - baseline
    lag = newey_west_lag(baseline.size)
    error = np.array([math.sqrt(max(0.0, long_run_variance(row, lag))) for row in lead])
    moving = error > FLAT_SPREAD
    if not moving.any():
        raise ValueError("no candidate differs from the baseline: there is nothing to compare.")
    # A constant lead has no error to be measured by, and a zero never wins.
    scaled = np.where(moving[:, None], lead / np.where(moving, error, 1.0)[:, None], 0.0)
    block = max(block_length(row) for row in scaled)
    return -scaled.T, math.ceil(block)


def _check_draws(draws: int) -> None:
    if draws < FEWEST_DRAWS:
        raise ValueError(f"draws is {draws}: give at least {FEWEST_DRAWS}, or the quantiles are noise.")
