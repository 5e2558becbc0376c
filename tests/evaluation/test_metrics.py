"""Each number against its formula written out as a loop, its limits, and what it refuses."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztb_jax.evaluation import metrics, trips

YEAR = 252.0
RATIOS_TO_NOTHING = {
    "win_rate", "sortino", "calmar", "omega", "tail_ratio", "skewness", "kurtosis", "hit_rate", "fees_share",
    "profit_factor", "expectancy", "average_win", "average_loss", "payoff",
}  # fmt: skip
RETURNS = st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=40)


def curve(returns):
    return np.concatenate([[1.0], np.cumprod(1.0 + np.asarray(returns))])


def account(levels, gap, body, cost=0.001, start=1.0):
    """A plain loop of the environment's rules: equity, value, held, traded, costs."""
    equity, value, level = start, 0.0, 0.0
    marks, values, held, traded, costs = [equity], [0.0], [], [], []
    for target, overnight, day in zip(levels, gap, body, strict=True):
        equity += value * overnight
        value *= 1.0 + overnight
        held.append(value)
        change = 0.0 if target == level else target * equity - value
        costs.append(cost * abs(change))
        traded.append(change)
        level, value, equity = target, value + change, equity - cost * abs(change)
        equity += value * day
        value *= 1.0 + day
        marks.append(equity)
        values.append(value)
    names = ("equity", "value", "held", "traded", "costs")
    return dict(zip(names, map(np.asarray, (marks, values, held, traded, costs)), strict=True))


@settings(max_examples=50, deadline=None)
@given(RETURNS)
def test_definitions(returns):
    equity = curve(returns)
    simple = [equity[i + 1] / equity[i] - 1.0 for i in range(len(returns))]
    mean = sum(simple) / len(simple)
    spread = math.sqrt(sum((r - mean) ** 2 for r in simple) / (len(simple) - 1))
    peak, falls = 0.0, []
    for mark in equity:
        peak = max(peak, mark)
        falls.append((peak - mark) / peak)

    assert metrics.total_return(equity) == pytest.approx(equity[-1] - 1.0)
    assert metrics.annual_return(equity, YEAR) == pytest.approx(
        equity[-1] ** (YEAR / len(returns)) - 1.0
    ) or (equity[-1] > 1.0 and math.isnan(metrics.annual_return(equity, YEAR)))
    np.testing.assert_allclose(metrics.net_returns(equity), simple)
    assert metrics.volatility(np.array(simple), YEAR) == pytest.approx(spread * math.sqrt(YEAR))
    if spread > 1e-9:
        assert metrics.sharpe(np.array(simple), YEAR) == pytest.approx(mean / spread * math.sqrt(YEAR))
    np.testing.assert_allclose(metrics.drawdown(equity), falls, atol=1e-12)
    assert metrics.max_drawdown(equity) == pytest.approx(max(falls), abs=1e-12)


def test_flat_curve():
    equity = np.ones(11)
    nothing = np.zeros(10)
    summary = metrics.summarise(
        equity=equity, value=np.zeros(11), held=nothing, traded=nothing, costs=nothing, bars_per_year=YEAR
    )
    assert {name for name, number in summary.items() if number is None} == RATIOS_TO_NOTHING
    assert {number for number in summary.values() if number is not None} == {0.0}


def test_constant_growth_has_no_sharpe_ratio_and_annualises():
    equity = 1.001 ** np.arange(YEAR + 1)
    assert metrics.sharpe(metrics.net_returns(equity), YEAR) == 0.0
    assert metrics.annual_return(equity, YEAR) == pytest.approx(1.001**YEAR - 1.0)
    assert metrics.annual_return(equity, 2 * YEAR) == pytest.approx(1.001 ** (2 * YEAR) - 1.0)
    assert metrics.max_drawdown(equity) == 0.0


def test_a_known_drawdown():
    assert metrics.max_drawdown(np.array([1.0, 2.0, 1.0, 1.5, 3.0, 2.4])) == pytest.approx(0.5)


def test_turnover_counts_each_side_and_scales_with_equity():
    equity = np.array([2.0, 2.0, 2.0, 4.0, 4.0])
    traded = np.array([2.0, 0.0, -2.0, 0.0])
    assert metrics.turnover(traded, equity, 4.0) == pytest.approx(2.0)
    assert metrics.turnover(traded, equity, 8.0) == pytest.approx(4.0)
    assert metrics.turnover(np.array([0.0, 0.0, 0.0, 1.0]), equity, 4.0) == pytest.approx(0.25)
    assert metrics.num_trades(traded) == 2


def test_fees_and_exposure():
    equity, value = np.array([2.0, 2.0, 4.0]), np.array([0.0, -1.0, 4.0])
    assert metrics.fees_paid(np.array([0.1, 0.3]), equity) == pytest.approx(0.2)
    assert metrics.exposure(value, equity) == pytest.approx(0.75)
    assert metrics.net_exposure(value, equity) == pytest.approx(0.25)


def test_round_trips_by_hand():
    # Long at 100 and out at 110, then short at 110, turned at 99 into a long that stays open.
    held = np.array([0.0, 110.0, 0.0, -99.0])
    traded = np.array([100.0, -110.0, -110.0, 209.0 - 11.0])
    costs = np.array([1.0, 1.1, 1.1, 1.98])
    np.testing.assert_allclose(trips.round_trips(held, traded, costs), [10 - 2.1, 11 - 1.1 - 0.99])
    assert trips.win_rate(trips.round_trips(held, traded, costs)) == 1.0
    assert trips.win_rate(trips.round_trips(held, traded, 10.0 * costs)) == 0.0


def test_resizing_stays_in_the_round_trip():
    held, traded = np.array([0.0, 2.0, 6.0]), np.array([1.0, 1.0, -6.0])
    np.testing.assert_allclose(trips.round_trips(held, traded, np.full(3, 0.1)), [4.0 - 0.3])


def test_rounding_of_a_close_is_a_close():
    for rounding in (-6e-8, 0.0, 6e-8):
        traded = np.array([1.0, -1.1 * (1.0 + rounding), 2.0])
        assert trips.round_trips(np.array([0.0, 1.1, 0.0]), traded, np.zeros(3)).size == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_round_trips_close_the_account(seed):
    """All trips, once the last is closed, make up the whole change of equity."""
    generator = np.random.default_rng(seed)
    levels = generator.choice([-1.0, 0.0, 0.5, 1.0], 30)
    levels[-1] = 0.0
    record = account(levels, generator.normal(0, 0.01, 30), generator.normal(0, 0.02, 30))
    profits = trips.round_trips(record["held"], record["traded"], record["costs"])
    assert profits.sum() == pytest.approx(record["equity"][-1] - 1.0, abs=1e-12)
    positions = np.sign(np.concatenate([[0.0], levels]))
    assert profits.size == np.sum((positions[:-1] != 0) & (positions[1:] != positions[:-1]))


def test_summary_of_an_account():
    generator = np.random.default_rng(3)
    levels = generator.choice([-1.0, 0.0, 1.0], 60)
    record = account(levels, generator.normal(0, 0.01, 60), generator.normal(0, 0.02, 60), start=50.0)
    summary = metrics.summarise(**record, bars_per_year=YEAR)
    assert summary["num_trades"] == np.count_nonzero(np.diff(levels, prepend=0.0))
    assert summary["fees_paid"] == pytest.approx(record["costs"].sum() / 50.0)
    assert summary["total_return"] == pytest.approx(record["equity"][-1] / 50.0 - 1.0)
    assert summary["ruined"] == 0.0
    assert record["equity"][-1] + record["costs"].sum() < 50.0
    assert summary.pop("fees_share") is None
    assert all(type(number) is float for number in summary.values())
    assert metrics.summarise(**record, bars_per_year=YEAR, ruined=True)["ruined"] == 1.0


def test_ruin_is_finite_and_said():
    zeros = np.zeros(3)
    summary = metrics.summarise(
        equity=np.array([1.0, 0.5, -0.1, -0.1]), value=np.array([0.0, 1.0, 1.0, 0.0]),
        held=zeros, traded=zeros, costs=zeros, bars_per_year=YEAR,
    )  # fmt: skip
    assert summary["ruined"] == 1.0
    assert summary["annual_return"] == -1.0
    assert summary["exposure"] == pytest.approx(2.0 / 3.0)


def test_undefined_is_none():
    one = np.zeros(1)
    equity = np.array([1.0, 50.0])
    summary = metrics.summarise(
        equity=equity, value=equity, held=one, traded=one, costs=one, bars_per_year=6000
    )
    assert {name for name, number in summary.items() if number is None} == {
        "annual_return", "volatility", "sharpe", "win_rate", "sortino", "calmar", "omega", "skewness",
        "kurtosis", "profit_factor", "expectancy", "average_win", "average_loss", "payoff",
    }  # fmt: skip
    none = np.zeros(0)
    empty = metrics.summarise(
        equity=np.ones(1), value=np.zeros(1), held=none, traded=none, costs=none, bars_per_year=YEAR
    )
    assert empty["turnover"] is None
    assert empty["exposure"] is None
    assert empty["total_return"] == 0.0


@pytest.mark.parametrize("name", ["equity", "value", "held", "traded", "costs"])
def test_nan_is_refused_by_name(name):
    record = account([1.0, 0.0, -1.0], [0.0] * 3, [0.01] * 3)
    record[name][1] = np.nan
    with pytest.raises(ValueError, match=rf"^{name} has 1 values that are not finite, first at bar 1"):
        metrics.summarise(**record, bars_per_year=YEAR)


@pytest.mark.parametrize("name", ["value", "traded", "costs"])
def test_wrong_lengths_are_refused_by_name(name):
    record = account([1.0, 0.0, -1.0], [0.0] * 3, [0.01] * 3)
    record[name] = record[name][:-1]
    with pytest.raises(ValueError, match=name):
        metrics.summarise(**record, bars_per_year=YEAR)


@pytest.mark.parametrize("year", [0.0, -1.0, math.nan, math.inf])
def test_a_year_without_bars_is_refused(year):
    with pytest.raises(ValueError, match="bars_per_year"):
        metrics.sharpe(np.array([0.1, 0.2]), year)


def test_other_refusals():
    with pytest.raises(ValueError, match="must start with a positive"):
        metrics.total_return(np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="one axis"):
        metrics.sharpe(np.ones((2, 2)), YEAR)
    with pytest.raises(ValueError, match="returns has 1 values"):
        metrics.sharpe(np.array([0.1, np.nan]), YEAR)
    with pytest.raises(ValueError, match="align"):
        trips.round_trips(np.zeros(2), np.zeros(3), np.zeros(3))
