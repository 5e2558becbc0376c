"""Ratios, tail losses and round trips against quantstats, skfolio, scipy and numbers worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import quantstats.stats as qs
from scipy import stats
from skfolio import measures

from ztb_jax.evaluation import metrics, ratios, risk, trips

YEAR = 252.0
SEEDS = range(6)


def drawn(seed, bars=250):
    """Fat tails, some bars without a return, a size and a mean that vary with the seed."""
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(4, bars) * 0.01 * (1 + seed) / 3 + 0.0005 * (seed - 2)
    return np.where(rng.uniform(size=bars) < 0.1, 0.0, np.clip(returns, -0.4, 0.4))


def series(returns):
    return pd.Series(returns, index=pd.date_range("2020-01-01", periods=len(returns)))


def curve(returns):
    return np.concatenate([[1.0], np.cumprod(1.0 + returns)])


@pytest.mark.parametrize("seed", SEEDS)
def test_ratios_are_those_of_quantstats(seed):
    returns = drawn(seed)
    theirs = series(returns)
    assert ratios.sortino(returns, YEAR) == pytest.approx(qs.sortino(theirs, periods=252), rel=1e-12)
    assert ratios.omega(returns) == pytest.approx(qs.omega(theirs), rel=1e-12)
    assert ratios.omega(returns, threshold=0.001) == pytest.approx(qs.omega(theirs, 0, 0.001, 1), rel=1e-9)
    assert ratios.tail_ratio(returns) == pytest.approx(qs.tail_ratio(theirs), rel=1e-12)
    assert ratios.hit_rate(returns) == pytest.approx(qs.win_rate(theirs), rel=1e-12)
    assert metrics.calmar(curve(returns), YEAR) == pytest.approx(qs.calmar(theirs, periods=252), rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_benchmark_is_that_of_quantstats(seed):
    returns, benchmark = drawn(seed), drawn(seed + 100)
    greeks = qs.greeks(series(returns), series(benchmark), 252.0, prepare_returns=False)
    found = ratios.regression(returns, benchmark, YEAR)
    assert found.alpha == pytest.approx(greeks["alpha"], rel=1e-9)
    assert found.beta == pytest.approx(greeks["beta"], rel=1e-9)
    theirs = qs.information_ratio(series(returns), series(benchmark), prepare_returns=False)
    assert ratios.information_ratio(returns, benchmark, YEAR) == pytest.approx(
        theirs * math.sqrt(YEAR), rel=1e-9
    )


def test_alpha_of_excess_returns():
    benchmark = drawn(1)
    returns = 0.0002 + 0.5 * (benchmark - 0.0001) + 0.0001
    found = ratios.regression(returns, benchmark, YEAR, risk_free=0.0001)
    assert found == pytest.approx((0.0002 * YEAR, 0.5), rel=1e-9)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("bars", [10, 100, 249, 250])
def test_tail_losses_are_those_of_skfolio(bars, confidence):
    for seed in SEEDS:
        returns = drawn(seed, bars)
        value = risk.value_at_risk(returns, confidence=confidence)
        assert value == pytest.approx(measures.value_at_risk(returns, confidence), abs=1e-15)
        mean = risk.cvar(returns, confidence=confidence)
        assert mean == pytest.approx(measures.cvar(returns, confidence), rel=1e-9, abs=1e-15)
        assert mean >= value - 1e-15


def test_tail_losses_by_hand():
    returns = np.arange(-10, 10) / 100.0
    assert risk.value_at_risk(returns, confidence=0.9) == pytest.approx(0.08)
    assert risk.cvar(returns, confidence=0.9) == pytest.approx(0.095)
    # Three and a half bars: the whole of the worst three, half of the fourth.
    assert risk.cvar(returns, confidence=0.825) == pytest.approx((0.10 + 0.09 + 0.08 + 0.5 * 0.07) / 3.5)
    # 0.3 times 10 is a little more or less than 3: the fourth worst either way.
    assert risk.value_at_risk(np.arange(10.0), confidence=0.7) == -3.0
    assert risk.value_at_risk(np.arange(10.0), confidence=0.9) == -1.0
    assert risk.cvar(np.array([0.01, -0.02]), confidence=0.95) == pytest.approx(0.02)


@pytest.mark.parametrize("seed", SEEDS)
def test_moments_are_those_of_scipy_and_skfolio(seed):
    returns = drawn(seed)
    assert ratios.skewness(returns) == pytest.approx(stats.skew(returns), rel=1e-10)
    assert ratios.kurtosis(returns) == pytest.approx(stats.kurtosis(returns, fisher=False), rel=1e-10)
    assert ratios.skewness(returns) == pytest.approx(measures.skew(returns), rel=1e-10)
    assert ratios.kurtosis(returns) == pytest.approx(measures.kurtosis(returns), rel=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_time_under_water_is_that_of_quantstats(seed):
    equity = curve(drawn(seed))
    fall = pd.Series(-metrics.drawdown(equity), index=pd.date_range("2020-01-01", periods=equity.size))
    days = qs.drawdown_details(fall)["days"]
    found = risk.under_water(equity)
    assert found.longest == days.max()
    assert found.average == pytest.approx(days.mean())


def test_time_under_water_by_hand():
    assert risk.under_water(np.array([1.0, 2.0, 1.5, 1.6, 2.0, 1.0, 3.0])) == (2, 1.5)
    assert risk.under_water(np.array([1.0, 0.9, 0.8, 0.7])) == (3, 3.0)
    assert risk.under_water(np.array([1.0, 1.0, 1.1])) == (0, 0.0)
    assert risk.under_water(np.array([1.0])) == (0, 0.0)


def test_sortino_and_omega_by_hand():
    returns = np.array([0.03, -0.01, 0.0, 0.02])
    assert ratios.sortino(returns, 4.0) == pytest.approx(0.01 / 0.005 * 2.0)
    assert ratios.sortino(returns, 4.0, target=0.01) == pytest.approx(0.0)
    assert ratios.omega(returns) == pytest.approx(5.0)
    assert ratios.omega(returns, threshold=0.01) == pytest.approx(0.03 / 0.03)
    assert ratios.hit_rate(returns) == pytest.approx(2.0 / 3.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_ratios_do_not_depend_on_scale(seed):
    returns, benchmark = drawn(seed), drawn(seed + 100)
    for of in (
        lambda r, b: ratios.sortino(r, YEAR),
        lambda r, b: ratios.omega(r),
        lambda r, b: ratios.tail_ratio(r),
        lambda r, b: ratios.skewness(r),
        lambda r, b: ratios.kurtosis(r),
        lambda r, b: ratios.information_ratio(r, b, YEAR),
        lambda r, b: ratios.regression(r, b, YEAR).beta,
        lambda r, b: risk.cvar(r) / risk.value_at_risk(r),
    ):
        assert of(3.0 * returns, 3.0 * benchmark) == pytest.approx(of(returns, benchmark), rel=1e-9)


def test_round_trips_in_numbers():
    profits = np.array([3.0, -1.0, 0.0, 1.0, -1.0])
    assert trips.profit_factor(profits) == pytest.approx(2.0)
    assert trips.expectancy(profits) == pytest.approx(0.4)
    assert trips.average_win(profits) == pytest.approx(2.0)
    assert trips.average_loss(profits) == pytest.approx(1.0)
    assert trips.payoff(profits) == pytest.approx(2.0)
    assert trips.win_rate(profits) == pytest.approx(0.4)
    assert trips.profit_factor(np.array([-1.0])) == 0.0


def test_costs_and_time_in_the_market():
    equity = np.array([2.0, 2.5, 3.0])
    assert metrics.fees_share(np.array([0.25, 0.75]), equity) == pytest.approx(0.5)
    assert metrics.fees_share(np.array([1.0, 1.0]), np.array([2.0, 1.5, 1.0])) == pytest.approx(2.0)
    assert math.isnan(metrics.fees_share(np.array([0.1, 0.1]), np.array([2.0, 1.5, 1.0])))
    value = np.array([0.0, -1.0, 0.0])
    assert metrics.time_in_market(value, equity) == pytest.approx(0.5)


def test_the_summary_has_them_over_the_starting_equity():
    equity = np.array([50.0, 60.0, 54.0, 54.0])
    summary = metrics.summarise(
        equity=equity, value=np.array([0.0, 60.0, 0.0, 0.0]), held=np.array([0.0, 60.0, 0.0]),
        traded=np.array([50.0, -60.0, 0.0]), costs=np.array([0.0, 6.0, 0.0]), bars_per_year=YEAR,
    )  # fmt: skip
    assert summary["expectancy"] == pytest.approx(4.0 / 50.0)
    assert summary["fees_share"] == pytest.approx(0.6)
    assert summary["longest_under_water"] == 2.0
    assert summary["average_under_water"] == 2.0
    assert summary["time_in_market"] == pytest.approx(1.0 / 3.0)
    assert summary["value_at_risk"] == pytest.approx(0.1)
    assert summary["cvar"] == pytest.approx(0.1)
    assert summary["hit_rate"] == pytest.approx(0.5)
    assert summary["calmar"] == pytest.approx((1.08 ** (YEAR / 3) - 1.0) / 0.1)


@pytest.mark.parametrize(
    ("violations", "bars", "confidence"), [(0, 250, 0.99), (7, 250, 0.99), (250, 250, 0.95), (13, 250, 0.95)]
)
def test_kupiec_is_a_likelihood_ratio(violations, bars, confidence):
    ours = risk.kupiec(violations, bars, confidence=confidence)
    binomial = [stats.binom.logpmf(violations, bars, p) for p in (violations / bars, 1.0 - confidence)]
    assert ours == pytest.approx(2.0 * (binomial[0] - binomial[1]), rel=1e-9)


def test_the_published_region_of_kupiec():
    """At 99 % and 255 bars a promise stands with fewer than 7 violations (Kupiec 1995)."""
    critical = stats.chi2.ppf(0.95, 1)
    assert [x for x in range(20) if risk.kupiec(x, 255, confidence=0.99) < critical] == [1, 2, 3, 4, 5, 6]


def test_promises_kept():
    returns = np.array([0.01, -0.02, -0.03, 0.0] * 25)
    found = risk.var_compliance(returns, 0.02, confidence=0.75)
    assert (found.share, found.violations) == (0.75, 25)
    assert found.statistic == 0.0
    assert found.p_value == 1.0
    assert risk.var_compliance(returns, np.full(100, 0.02), confidence=0.75) == found
    strict = risk.var_compliance(returns, 0.02, confidence=0.95)
    assert strict.p_value == pytest.approx(stats.chi2.sf(strict.statistic, 1), rel=1e-9)
    assert strict.p_value < 1e-6


def test_undefined_is_nan():
    zeros, rising, none = np.zeros(10), np.full(10, 0.01), np.zeros(0)
    for returns in (zeros, none):
        numbers = [
            ratios.sortino(returns, YEAR), ratios.omega(returns), ratios.tail_ratio(returns),
            ratios.hit_rate(returns), ratios.skewness(returns), ratios.kurtosis(returns),
            ratios.information_ratio(returns, returns, YEAR), *ratios.regression(returns, returns, YEAR),
        ]  # fmt: skip
        assert all(map(math.isnan, numbers))
    assert math.isnan(ratios.sortino(rising, YEAR))
    assert math.isnan(ratios.omega(rising))
    assert math.isnan(metrics.calmar(curve(rising), YEAR))
    assert all(
        map(math.isnan, (risk.value_at_risk(none), risk.cvar(none), risk.var_compliance(none, 0.1).share))
    )
    assert risk.value_at_risk(rising) == -0.01
    of_trips = (
        trips.win_rate, trips.profit_factor, trips.expectancy, trips.average_win, trips.average_loss,
        trips.payoff,
    )  # fmt: skip
    assert all(math.isnan(of(none)) for of in of_trips)
    assert math.isnan(trips.profit_factor(np.ones(3)))
    assert math.isnan(trips.payoff(np.ones(3)))


@pytest.mark.parametrize(
    "of",
    [
        lambda r: ratios.sortino(r, YEAR), ratios.omega, ratios.tail_ratio, ratios.hit_rate, ratios.skewness,
        ratios.kurtosis, risk.value_at_risk, risk.cvar, lambda r: risk.var_compliance(r, 0.1),
        lambda r: ratios.information_ratio(r, r, YEAR), lambda r: ratios.regression(r, r, YEAR),
    ],
)  # fmt: skip
def test_nan_is_refused(of):
    with pytest.raises(ValueError, match="returns has 1 values that are not finite, first at bar 2"):
        of(np.array([0.1, -0.1, np.nan, 0.0]))


def test_other_refusals():
    with pytest.raises(ValueError, match="benchmark 3: give both on the same bars"):
        ratios.regression(np.zeros(4), np.zeros(3), YEAR)
    with pytest.raises(ValueError, match="confidence is 95"):
        risk.cvar(np.zeros(4), confidence=95)
    with pytest.raises(ValueError, match="confidence is 1"):
        risk.kupiec(1, 10, confidence=1.0)
    with pytest.raises(ValueError, match="cutoff is 0"):
        ratios.tail_ratio(np.zeros(4), cutoff=0.0)
    with pytest.raises(ValueError, match="11 violations in 10 bars"):
        risk.kupiec(11, 10)
    with pytest.raises(ValueError, match="promised has negative"):
        risk.var_compliance(np.zeros(4), -0.02)
    with pytest.raises(ValueError, match="align"):
        risk.var_compliance(np.zeros(4), np.zeros(3))
    with pytest.raises(ValueError, match="profits has 1 values"):
        trips.payoff(np.array([1.0, np.inf]))
