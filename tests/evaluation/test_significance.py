"""Tests of luck against skfolio, purgedcv, statsmodels, the published example, and simulation."""

import math
from itertools import pairwise

import numpy as np
import purgedcv
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skfolio import measures

from ztb_jax.evaluation import significance as sig

YEAR = 252.0
SEEDS = range(5)


def drawn(seed, bars=400):
    rng = np.random.default_rng(seed)
    noise = rng.standard_t(4, bars) * 0.01
    return noise + 0.3 * np.concatenate([[0.0], noise[:-1]]) + 0.0008 * seed


def test_the_published_example():
    """Bailey and Lopez de Prado 2014: annual Sharpe 2.5 over five years of days, the best of 100 trials."""
    seen = sig.Moments(bars=1250, sharpe=2.5 / math.sqrt(250), skewness=-3.0, kurtosis=10.0)
    spread = math.sqrt(0.5 / 250)
    assert sig.expected_max_sharpe(100, spread) == pytest.approx(0.11317, abs=5e-6)
    assert sig.deflated_sharpe(seen, trials=100, spread=spread) == pytest.approx(0.90040, abs=5e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("benchmark", [0.0, 0.05, -0.1])
def test_probabilistic_sharpe_is_that_of_skfolio(seed, benchmark):
    returns = drawn(seed)
    ours = sig.probabilistic_sharpe(sig.moments(returns), benchmark=benchmark)
    assert ours == pytest.approx(measures.probabilistic_sharpe_ratio(returns, benchmark), rel=1e-9)
    # purgedcv divides the spread by T and corrects the moments for bias: the same but for terms of 1 / T.
    assert ours == pytest.approx(purgedcv.probabilistic_sharpe_ratio(returns, benchmark), abs=5e-3)


@pytest.mark.parametrize("trials", [1, 2, 10, 37.5, 10_000])
def test_expected_maximum_is_that_of_skfolio(trials):
    ours = sig.expected_max_sharpe(trials, 0.04)
    assert ours == pytest.approx(measures.expected_max_sharpe_ratio(trials, 0.04), rel=1e-9)


def test_expected_maximum_is_what_luck_brings():
    best = np.random.default_rng(0).standard_normal((20_000, 100)).max(axis=1).mean()
    assert sig.expected_max_sharpe(100, 1.0) == pytest.approx(best, rel=0.015)


@pytest.mark.parametrize("seed", SEEDS)
def test_deflated_sharpe_is_that_of_skfolio_and_falls_with_trials(seed):
    returns = drawn(seed)
    others = np.random.default_rng(seed).normal(0.0, 0.05, 20)
    seen, spread = sig.moments(returns), float(np.std(others, ddof=1))
    ours = sig.deflated_sharpe(seen, trials=20, spread=spread)
    assert ours == pytest.approx(measures.deflated_sharpe_ratio(returns, others), rel=1e-9)
    falling = [sig.deflated_sharpe(seen, trials=m, spread=spread) for m in (1, 2, 5, 20, 100, 10_000)]
    assert all(later < earlier for earlier, later in pairwise(falling))
    assert falling[0] == sig.probabilistic_sharpe(seen)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0.01, 0.5), st.floats(-3.0, 3.0), st.floats(0.1, 10.0), st.floats(-0.1, 0.009),
    st.sampled_from([0.9, 0.95, 0.99]),
)  # fmt: skip
def test_a_track_record_of_that_length_is_just_enough(sharpe, skewness, extra, benchmark, confidence):
    seen = sig.Moments(100, sharpe, skewness, 1.0 + skewness**2 + extra)
    bars = sig.min_track_record(seen, benchmark=benchmark, confidence=confidence)
    theirs = purgedcv.min_track_record_length(sharpe, benchmark, 1.0 - confidence, skewness, seen.kurtosis)
    assert theirs - 1.0 - 1e-6 <= bars <= theirs + 1e-6
    if bars >= 3.0:
        reached = sig.probabilistic_sharpe(seen._replace(bars=bars), benchmark=benchmark)
        assert reached == pytest.approx(confidence, abs=1e-9)


def test_no_record_is_long_enough_for_what_was_not_reached():
    seen = sig.moments(drawn(2))
    assert math.isinf(sig.min_track_record(seen, benchmark=seen.sharpe))
    assert math.isinf(sig.bars_for_power(0.0, YEAR))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bars", [40, 400, 2000])
def test_mean_and_alpha_are_those_of_statsmodels(seed, bars):
    returns, benchmark = drawn(seed, bars), drawn(seed + 10, bars)
    returns = returns + 0.5 * benchmark
    errors = {"cov_type": "HAC", "cov_kwds": {"maxlags": sig.newey_west_lag(bars)}}

    mean = sm.OLS(returns, np.ones(bars)).fit(**errors)
    ours = sig.mean_test(returns)
    assert ours.t == pytest.approx(mean.tvalues[0], rel=1e-8)
    assert ours.p_value == pytest.approx(stats.norm.sf(mean.tvalues[0]), rel=1e-7)

    line = sm.OLS(returns, sm.add_constant(benchmark)).fit(**errors)
    found = sig.alpha_test(returns, benchmark)
    assert found[:3] == pytest.approx((*line.params, line.tvalues[0]), rel=1e-7)
    assert found.p_value == pytest.approx(stats.norm.sf(line.tvalues[0]), rel=1e-7)
    assert not found.degenerate


@pytest.mark.parametrize(
    ("bars", "lag"), [(3, 1), (10, 2), (50, 3), (100, 4), (1000, 6), (2520, 8), (10_000, 11)]
)
def test_the_lag(bars, lag):
    assert sig.newey_west_lag(bars) == lag


def test_long_run_variance_of_a_known_process():
    """Of an MA(1) with weight w it is (1 + w)^2, where the variance is 1 + w^2."""
    noise = np.random.default_rng(0).standard_normal(200_001)
    series = noise[1:] + 0.5 * noise[:-1]
    assert sig.long_run_variance(series, 60) == pytest.approx(1.5**2, rel=0.05)
    assert sig.long_run_variance(series, 0) == pytest.approx(np.var(series), rel=1e-12)
    assert sig.long_run_variance(np.array([1.0, -1.0] * 10), 1) == pytest.approx(1.0 - 0.95)


@pytest.mark.parametrize("size", [1.0, -1.0, 0.5])
def test_always_the_same_position_has_no_alpha(size):
    market = drawn(3, 1000)
    # As float32 arithmetic leaves it, and with the cost of the one fill.
    returns = size * market + 1e-9 * np.random.default_rng(0).standard_normal(1000)
    returns[0] -= 3e-4 * abs(size)
    found = sig.alpha_test(returns, market)
    assert found.degenerate
    assert found.p_value == 1.0
    assert math.isnan(found.t)
    assert found.beta == pytest.approx(size, abs=1e-3)
    held = np.ones(1000)
    held[500:505] = 0.0
    assert not sig.alpha_test(held * market, market).degenerate


def test_a_market_or_a_policy_that_stands_still_has_no_alpha():
    moving, still = drawn(1), np.full(400, 1e-4)
    assert sig.alpha_test(moving, still).p_value == 1.0
    assert sig.alpha_test(still, moving).degenerate
    assert sig.alpha_test(np.zeros(400), moving).degenerate
    assert sig.mean_test(still) == pytest.approx((1e-4, math.nan, 1.0, 5), nan_ok=True)


def test_holding_less_of_a_falling_market_is_no_alpha():
    rng = np.random.default_rng(0)
    market = rng.normal(-0.002, 0.01, 1000)
    cautious = (rng.uniform(size=1000) < 0.3) * market
    assert sig.mean_test(cautious - market).p_value < 0.001
    assert sig.alpha_test(cautious, market).p_value > 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_the_error_of_a_sharpe_ratio_without_lags_is_mertens(seed):
    returns = drawn(seed)
    ratio = returns.mean() / np.std(returns)
    skewness, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    mertens = math.sqrt((1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / returns.size)
    assert sig.sharpe_error(returns, lag=0) == pytest.approx(mertens, rel=1e-9)


def test_the_error_of_a_sharpe_ratio_is_its_spread_over_histories():
    """Autocorrelated, skewed returns, for which the formula for independent ones is a quarter too small."""
    rng = np.random.default_rng(0)
    noise = rng.exponential(1.0, (3000, 1001)) - 0.9
    histories = noise[:, 1:] + 0.5 * noise[:, :-1]
    spread = np.std(histories.mean(axis=1) / histories.std(axis=1))
    said = np.mean([sig.sharpe_error(row) for row in histories[:300]])
    naive = np.mean([sig.sharpe_error(row, lag=0) for row in histories[:300]])
    assert said == pytest.approx(spread, rel=0.08)
    assert naive < 0.85 * spread


@pytest.mark.parametrize(
    ("ratio", "trials", "bars"),
    [(2, 1, 540), (2, 10, 940), (2, 100, 1320), (1, 1, 2160), (1, 10, 3750), (1, 100, 5270)],
)
def test_bars_for_power_as_measured_before(ratio, trials, bars):
    assert sig.bars_for_power(ratio, YEAR, trials=trials) == pytest.approx(bars, rel=0.005)


def test_bars_for_power_find_it_so_often():
    bars, found = math.ceil(sig.bars_for_power(3.0, YEAR, trials=5, power=0.8)), 0
    for seed in range(1000):
        returns = np.random.default_rng(seed).normal(3.0 / math.sqrt(YEAR), 1.0, bars)
        found += sig.mean_test(returns).p_value <= 0.05 / 5
    assert found / 1000 == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("t", [-3.0, 0.0, 1.645, 12.0])
def test_tail_of_the_normal_law(t):
    assert sig.above(t) == pytest.approx(stats.norm.sf(t), rel=1e-12)


def test_critical_values():
    assert sig.critical_value(0.05, 1) == pytest.approx(stats.norm.isf(0.05), rel=1e-12)
    assert sig.critical_value(0.05, 1e16) == pytest.approx(stats.norm.isf(5e-18), rel=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_scale_does_not_matter(seed):
    returns, benchmark = drawn(seed), drawn(seed + 10)
    assert sig.mean_test(7 * returns).t == pytest.approx(sig.mean_test(returns).t)
    assert sig.alpha_test(7 * returns, 3 * benchmark).t == pytest.approx(sig.alpha_test(returns, benchmark).t)
    assert sig.sharpe_error(7 * returns) == pytest.approx(sig.sharpe_error(returns))
    assert sig.moments(7 * returns) == pytest.approx(sig.moments(returns))


def test_undefined_is_nan():
    still = sig.moments(np.full(10, 0.01))
    assert math.isnan(still.sharpe)
    assert math.isnan(sig.probabilistic_sharpe(still))
    assert math.isnan(sig.deflated_sharpe(still, trials=10, spread=0.1))
    assert math.isnan(sig.min_track_record(still))
    assert math.isnan(sig.sharpe_error(np.full(10, 0.01)))


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (lambda: sig.moments(np.zeros(2)), "returns has 2 bars: give at least 3"),
        (
            lambda: sig.mean_test(np.array([0.1, np.nan, 0.2, 0.3])),
            "1 values that are not finite, first at bar 1",
        ),
        (lambda: sig.alpha_test(np.zeros(5), np.zeros(6)), "returns has 5 bars and benchmark 6"),
        (lambda: sig.alpha_test(np.zeros((5, 2)), np.zeros(5)), "one axis"),
        (lambda: sig.expected_max_sharpe(0, 0.1), "trials is 0: count everything ever scored"),
        (lambda: sig.expected_max_sharpe(10, -0.1), "spread is -0.1"),
        (lambda: sig.probabilistic_sharpe(sig.Moments(2, 0.1, 0.0, 3.0)), "2 bars say nothing"),
        (lambda: sig.probabilistic_sharpe(sig.Moments(9, 0.1, math.nan, 3.0)), "skewness nan"),
        (lambda: sig.probabilistic_sharpe(sig.moments(drawn(0)), benchmark=math.nan), "benchmark is nan"),
        (lambda: sig.min_track_record(sig.moments(drawn(0)), confidence=0.5), "confidence is 0.5"),
        (lambda: sig.bars_for_power(2.0, 0.0), "bars_per_year is 0"),
        (lambda: sig.bars_for_power(2.0, YEAR, trials=0.5), "trials is 0.5"),
        (lambda: sig.bars_for_power(2.0, YEAR, level=0.0), "level is 0"),
        (lambda: sig.bars_for_power(2.0, YEAR, power=1.0), "power is 1"),
        (lambda: sig.bars_for_power(math.nan, YEAR), "annual_sharpe is nan"),
        (lambda: sig.long_run_variance(np.zeros(5), 5), "lag is 5 for 5 bars"),
    ],
)
def test_refusals(of, words):
    with pytest.raises(ValueError, match=words):
        of()
