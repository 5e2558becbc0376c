"""Is it more than luck? Tests of one series of returns, pure functions, NumPy float64 on the host.

Axes: T bars. Returns are simple, per bar, net of costs. Sharpe ratios here are per bar, not annual, where the
name does not say otherwise: multiply by sqrt(bars_per_year) for a year's. p-values are one-sided: small ones
speak for the policy.

An input that is not finite, too short or out of its range raises ValueError naming it; what the inputs leave
undefined is NaN.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from ztb_jax.evaluation.ratios import kurtosis, skewness
from ztb_jax.evaluation.series import FLAT_SPREAD, checked, checked_share, checked_year, paired

FEWEST_BARS = 3
# A residual of less than this part of the variance is rounding, or the cost of one fill: no strategy at all.
EXPLAINED = 1e-6
NORMAL = NormalDist()


class Moments(NamedTuple):
    """What the significance of a Sharpe ratio depends on.

    Attributes:
      bars: T.
      sharpe: mean over standard deviation (ddof=1), per bar.
      skewness: population, 0 for a normal law.
      kurtosis: population, 3 for a normal law.
    """

    bars: int
    sharpe: float
    skewness: float
    kurtosis: float


class MeanTest(NamedTuple):
    """A mean against zero.

    Attributes:
      mean: per bar.
      t: mean over its Newey-West standard error; NaN where the returns do not vary.
      p_value: P(a normal variable > t); 1 where the returns do not vary, which is no evidence of anything.
      lag: autocovariances that the error takes in.
    """

    mean: float
    t: float
    p_value: float
    lag: int


class AlphaTest(NamedTuple):
    """The intercept of a regression on a benchmark, against zero.

    Attributes:
      alpha: per bar; NaN where degenerate.
      beta: share of the benchmark that is held; NaN where the benchmark does not vary.
      t: alpha over its Newey-West standard error; NaN where degenerate.
      p_value: P(a normal variable > t); 1 where degenerate.
      degenerate: the benchmark explains everything (always long, or always flat), or does not vary. Alpha is
        then rounding over rounding, and is never significant.
      lag: autocovariances that the error takes in.
    """

    alpha: float
    beta: float
    t: float
    p_value: float
    degenerate: bool
    lag: int


def moments(returns: np.ndarray) -> Moments:
    """Of returns [T], at least three; the ratios are NaN where they do not vary."""
    returns = checked(returns, "returns", at_least=FEWEST_BARS)
    spread = float(np.std(returns, ddof=1))
    ratio = float(returns.mean()) / spread if spread > FLAT_SPREAD else math.nan
    return Moments(returns.size, ratio, skewness(returns), kurtosis(returns))


def probabilistic_sharpe(seen: Moments, *, benchmark: float = 0.0) -> float:
    """P(the true Sharpe ratio > benchmark), given the one that was seen.

    Phi((SR - SR*) sqrt(T - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR^2)), Bailey and Lopez de Prado 2012, with
    skewness g3 and kurtosis g4 over T, so that the root cannot be negative (g4 >= 1 + g3^2). Bars count as
    independent. NaN where the returns do not vary.

    Args:
      seen: of the returns.
      benchmark: SR*, per bar.
    """
    _check_moments(seen)
    if not math.isfinite(benchmark):
        raise ValueError(f"benchmark is {benchmark}: give a Sharpe ratio per bar, such as 0.")
    variance = _sharpe_variance(seen)
    if not variance > 0.0:
        return math.nan
    return above((benchmark - seen.sharpe) * math.sqrt((seen.bars - 1) / variance))


def expected_max_sharpe(trials: float, spread: float) -> float:
    """SR0, the largest Sharpe ratio to expect of M trials without any skill.

    spread ((1 - g) Phi^-1(1 - 1 / M) + g Phi^-1(1 - 1 / (M e))), g = 0.5772 (false strategy theorem, Bailey
    and Lopez de Prado 2014). 0 for one trial. Trials count as independent, which overstates it where they are
    alike. It is an approximation for many trials: 9 % too small for 2, 3 % too large for 5, 1 % for 100.

    Args:
      trials: M, everything ever scored on these bars; at least 1, and may be fractional.
      spread: standard deviation of the trials' Sharpe ratios, in their unit, which is also the result's.
    """
    if not (math.isfinite(trials) and trials >= 1.0):
        raise ValueError(f"trials is {trials}: count everything ever scored on these bars, at least 1.")
    if not (math.isfinite(spread) and spread >= 0.0):
        raise ValueError(f"spread is {spread}: give the standard deviation of the trials' Sharpe ratios.")
    if trials == 1.0:
        return 0.0
    low, high = (NORMAL.inv_cdf(1.0 - 1.0 / (trials * scale)) for scale in (1.0, math.e))
    return spread * ((1.0 - np.euler_gamma) * low + np.euler_gamma * high)


def deflated_sharpe(seen: Moments, *, trials: float, spread: float) -> float:
    """P(the true Sharpe ratio > 0), given that the one seen is the best of M trials.

    `probabilistic_sharpe` against `expected_max_sharpe` (Bailey and Lopez de Prado 2014). At least 0.95 is
    what they ask for.

    Args:
      seen: of the returns of the chosen trial.
      trials: M.
      spread: standard deviation of the trials' Sharpe ratios per bar.
    """
    return probabilistic_sharpe(seen, benchmark=expected_max_sharpe(trials, spread))


def min_track_record(seen: Moments, *, benchmark: float = 0.0, confidence: float = 0.95) -> float:
    """Bars after which `probabilistic_sharpe` against `benchmark` would reach `confidence`.

    1 + (1 - g3 SR + (g4 - 1) / 4 SR^2) (Phi^-1(confidence) / (SR - SR*))^2, not rounded (Bailey and Lopez de
    Prado 2012). Infinite where the Sharpe ratio is not above the benchmark; NaN where returns do not vary.

    Args:
      seen: of the returns; their number does not matter.
      benchmark: SR*, per bar.
      confidence: above 0.5.
    """
    _check_moments(seen)
    if not 0.5 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}: give a fraction above 0.5 and below 1, such as 0.95.")
    if math.isnan(seen.sharpe):
        return math.nan
    if seen.sharpe <= benchmark:
        return math.inf
    ahead = NORMAL.inv_cdf(confidence) / (seen.sharpe - benchmark)
    return 1.0 + _sharpe_variance(seen) * ahead**2


def bars_for_power(
    annual_sharpe: float,
    bars_per_year: float,
    *,
    trials: float = 1.0,
    level: float = 0.05,
    power: float = 0.9,
) -> float:
    """Bars in which a true Sharpe ratio is found significant with probability `power`, not rounded.

    bars_per_year ((Phi^-1(1 - level / M) + Phi^-1(power)) / SR)^2, of a one-sided test of the mean of
    independent bars. Infinite for a ratio that is not positive.

    Args:
      annual_sharpe: SR, a year's, net of costs.
      bars_per_year: bars in a year.
      trials: M, by which the level is divided.
      level: of the test.
      power: probability of finding what is there.
    """
    years, power = checked_year(bars_per_year), checked_share(power, "power")
    critical = critical_value(level, trials)
    if not math.isfinite(annual_sharpe):
        raise ValueError(f"annual_sharpe is {annual_sharpe}: give a finite ratio.")
    if annual_sharpe <= 0.0:
        return math.inf
    return years * ((critical + NORMAL.inv_cdf(power)) / annual_sharpe) ** 2


def critical_value(level: float, trials: float) -> float:
    """Phi^-1(1 - level / M): what t must exceed, one-sided, with Bonferroni's correction for M trials."""
    level = checked_share(level, "level")
    if not (math.isfinite(trials) and trials >= 1.0):
        raise ValueError(f"trials is {trials}: count everything ever scored on these bars, at least 1.")
    # The lower tail keeps its digits where 1 - level / M would round to 1.
    return -NORMAL.inv_cdf(level / trials)


def newey_west_lag(bars: int) -> int:
    """floor(4 (T / 100)^(2/9)), at most T - 1 (Newey and West 1994)."""
    return min(math.floor(4.0 * (bars / 100.0) ** (2.0 / 9.0)), bars - 1)


def long_run_variance(series: np.ndarray, lag: int) -> float:
    """c_0 + 2 sum_j (1 - j / (lag + 1)) c_j of series [T], c_j over T about the mean (Newey and West 1987).

    Over T it is the variance of the mean. Bartlett's weights keep it from being negative.
    """
    series = checked(series, "series", at_least=1)
    if not 0 <= lag < series.size:
        raise ValueError(f"lag is {lag} for {series.size} bars: give one from 0 to below the number of bars.")
    moves = series - series.mean()
    covariances = [float(moves[j:] @ moves[: moves.size - j]) / moves.size for j in range(lag + 1)]
    weights = [1.0, *(2.0 * (1.0 - j / (lag + 1)) for j in range(1, lag + 1))]
    return float(np.dot(weights, covariances))


def mean_test(returns: np.ndarray) -> MeanTest:
    """Is the mean of returns [T] above zero? Newey-West t with `newey_west_lag`, against the normal law."""
    returns = checked(returns, "returns", at_least=FEWEST_BARS)
    mean, lag = float(returns.mean()), newey_west_lag(returns.size)
    variance = long_run_variance(returns, lag)
    if np.std(returns) <= FLAT_SPREAD or not variance > 0.0:
        return MeanTest(mean, math.nan, 1.0, lag)
    t = mean / math.sqrt(variance / returns.size)
    return MeanTest(mean, t, above(t), lag)


def alpha_test(returns: np.ndarray, benchmark: np.ndarray) -> AlphaTest:
    """Is the intercept of r = alpha + beta b + e above zero? Least squares with Newey-West errors.

    The test of "better than holding it": a difference of means would call a policy that holds less of a
    falling market skilled. The same as statsmodels' OLS with `cov_type="HAC"`, against the normal law.

    Args:
      returns: [T].
      benchmark: [T], buy-and-hold on the same bars.
    """
    returns, benchmark = paired(returns, benchmark, at_least=FEWEST_BARS)
    lag = newey_west_lag(returns.size)
    moves = benchmark - benchmark.mean()
    energy = float(moves @ moves)
    if np.std(benchmark) <= FLAT_SPREAD:
        return AlphaTest(math.nan, math.nan, math.nan, 1.0, degenerate=True, lag=lag)
    beta = float(moves @ returns) / energy
    alpha = float(returns.mean() - beta * benchmark.mean())
    residual = returns - alpha - beta * benchmark
    total = float(np.var(returns))
    if total <= FLAT_SPREAD**2 or np.var(residual) <= EXPLAINED * total:
        return AlphaTest(math.nan, beta, math.nan, 1.0, degenerate=True, lag=lag)
    # alpha - its true value is the mean of what each bar contributes to it.
    influence = residual * (1.0 - moves * benchmark.mean() * returns.size / energy)
    t = alpha / math.sqrt(long_run_variance(influence, lag) / returns.size)
    return AlphaTest(alpha, beta, t, above(t), degenerate=False, lag=lag)


def sharpe_error(returns: np.ndarray, *, lag: int | None = None) -> float:
    """Standard error of the Sharpe ratio per bar of returns [T]; NaN where they do not vary.

    sqrt(long-run variance of psi / T), psi_t = z_t - SR / 2 (z_t^2 - 1), z the standardised returns: what
    each bar contributes to the ratio (Ledoit and Wolf 2008). With lag 0 it is Mertens' 1 - g3 SR +
    (g4 - 1) / 4 SR^2 over T, which is Lo's (2002) 1 + SR^2 / 2 for a normal law; the lags add what
    autocorrelation and clusters of volatility do to it.

    Args:
      returns: [T].
      lag: autocovariances to take in, by default `newey_west_lag`.
    """
    returns = checked(returns, "returns", at_least=FEWEST_BARS)
    spread = float(np.std(returns))
    if spread <= FLAT_SPREAD:
        return math.nan
    standard = (returns - returns.mean()) / spread
    ratio = float(returns.mean()) / spread
    influence = standard - 0.5 * ratio * (standard**2 - 1.0)
    lag = newey_west_lag(returns.size) if lag is None else lag
    return math.sqrt(max(0.0, long_run_variance(influence, lag)) / returns.size)


def above(t: float) -> float:
    """P(a standard normal variable > t), to the last digits of its tail."""
    return 0.5 * math.erfc(t / math.sqrt(2.0))


def binomial_quantile(draws: int, chance: float, confidence: float) -> int:
    """The least k with P(X <= k) >= confidence, X the successes among `draws` of `chance` each."""
    below = 0.0
    for successes in range(draws + 1):
        below += math.comb(draws, successes) * chance**successes * (1.0 - chance) ** (draws - successes)
        if below >= confidence:
            return successes
    return draws


def _sharpe_variance(seen: Moments) -> float:
    return 1.0 - seen.skewness * seen.sharpe + 0.25 * (seen.kurtosis - 1.0) * seen.sharpe**2


def _check_moments(seen: Moments) -> None:
    if seen.bars < FEWEST_BARS:
        raise ValueError(f"{seen.bars} bars say nothing about a Sharpe ratio: give at least {FEWEST_BARS}.")
    if math.isfinite(seen.sharpe) and not (math.isfinite(seen.skewness) and math.isfinite(seen.kurtosis)):
        raise ValueError(f"skewness {seen.skewness} and kurtosis {seen.kurtosis} must be finite.")
