"""Regimes by a float64 loop, causal to the last bit, and what was earned in each."""

import math

import numpy as np
import pytest

from ztb_jax.evaluation import metrics
from ztb_jax.evaluation.regimes import CRISIS, RANGE, REGIMES, TREND, by_regime, label_regimes

WINDOWS = {"peak_bars": 50, "volatility_bars": 10, "efficiency_bars": 20}


def prices(seed=0, bars=600):
    """Calm, then wild, then steadily rising, then calm."""
    rng = np.random.default_rng(seed)
    scale = np.repeat([0.005, 0.03, 0.002, 0.006], bars // 4)
    drift = np.repeat([0.0, 0.0, 0.004, 0.0], bars // 4)
    return 100.0 * np.exp(np.cumsum(drift + scale * rng.standard_normal(scale.size)))


def by_hand(
    closed, *, peak_bars, volatility_bars, efficiency_bars, drawdown=0.15, multiple=2.0, efficiency=0.3
):
    labels, volatilities = [], []
    for t in range(len(closed)):
        fall = 1.0 - closed[t] / max(closed[max(0, t - peak_bars + 1) : t + 1])
        wild = False
        if t >= volatility_bars:
            squares = [
                math.log(closed[i] / closed[i - 1]) ** 2 for i in range(t - volatility_bars + 1, t + 1)
            ]
            volatilities.append(math.sqrt(sum(squares) / volatility_bars))
            wild = volatilities[-1] > multiple * np.median(volatilities)
        trend = False
        if t >= efficiency_bars:
            way = sum(abs(closed[i] - closed[i - 1]) for i in range(t - efficiency_bars + 1, t + 1))
            trend = way > 0 and abs(closed[t] - closed[t - efficiency_bars]) / way >= efficiency
        labels.append(CRISIS if fall > drawdown or wild else TREND if trend else RANGE)
    return labels


def test_labels_are_those_of_a_loop():
    closed = prices()
    labels = label_regimes(closed, **WINDOWS)
    assert labels.tolist() == by_hand(closed, **WINDOWS)
    assert labels.dtype == np.int8
    counts = np.bincount(labels, minlength=3)
    assert (counts > 30).all(), counts
    other = {"drawdown": 0.05, "volatility_multiple": 1.3, "efficiency": 0.5}
    expected = by_hand(closed, **WINDOWS, drawdown=0.05, multiple=1.3, efficiency=0.5)
    assert label_regimes(closed, **WINDOWS, **other).tolist() == expected


def test_nothing_later_changes_a_label():
    closed = prices()
    whole = label_regimes(closed)
    for stop in (1, 20, 61, 300, 451):
        np.testing.assert_array_equal(label_regimes(closed[:stop]), whole[:stop])


def test_markets_that_are_one_thing():
    assert set(label_regimes(np.full(300, 7.0)).tolist()) == {RANGE}
    rising = label_regimes(1.001 ** np.arange(300))
    assert set(rising[:60].tolist()) == {RANGE}  # too few bars to tell
    assert set(rising[60:].tolist()) == {TREND}
    zigzag = 100.0 + np.tile([0.0, 1.0], 150)
    assert set(label_regimes(zigzag).tolist()) == {RANGE}
    fallen = label_regimes(np.append(np.full(100, 100.0), np.full(400, 84.0)))
    assert set(fallen[100:349].tolist()) == {CRISIS}  # until the peak leaves its window of 250 closes
    assert fallen[349] == RANGE


def test_each_regime_has_what_was_earned_in_it():
    rng = np.random.default_rng(1)
    returns, benchmark = rng.normal(0.001, 0.01, (2, 400))
    labels = rng.integers(0, 2, 400)
    found = by_regime(returns, benchmark, labels, 252.0)
    assert tuple(found) == REGIMES
    for label in (TREND, RANGE):
        ours, theirs = returns[labels == label], benchmark[labels == label]
        regime = found[REGIMES[label]]
        assert regime.bars == ours.size
        np.testing.assert_allclose(regime.total_return, math.prod(1 + r for r in ours) - 1)
        np.testing.assert_allclose(regime.benchmark_return, math.prod(1 + r for r in theirs) - 1)
        assert regime.sharpe == metrics.sharpe(ours, 252.0)
        assert regime.benchmark_sharpe == metrics.sharpe(theirs, 252.0)
    never = found["crisis"]
    assert never[:2] == (0, 0.0)
    assert math.isnan(never.sharpe)
    assert math.isnan(
        by_regime(np.full(1100, 1.0), np.zeros(1100), np.zeros(1100), 252.0)["trend"].total_return
    )


def test_what_cannot_be_labelled_is_refused():
    with pytest.raises(
        ValueError, match=r"peak_bars \(0\).*drawdown \(2\).*volatility_multiple \(nan\)"
    ) as told:
        label_regimes(np.array([1.0, -1.0]), peak_bars=0, drawdown=2, volatility_multiple=math.nan)
    assert "closed of bar 1" in str(told.value)
    with pytest.raises(ValueError, match="not finite"):
        label_regimes(np.array([1.0, np.nan]))
    zeros = np.zeros(3)
    with pytest.raises(ValueError, match="labels have shape"):
        by_regime(zeros, zeros, np.zeros(2), 252.0)
    with pytest.raises(ValueError, match=r"labels hold \[3\]"):
        by_regime(zeros, zeros, np.array([0, 1, 3]), 252.0)
    with pytest.raises(ValueError, match="same bars"):
        by_regime(zeros, zeros[:2], zeros, 252.0)
    with pytest.raises(ValueError, match="bars_per_year"):
        by_regime(zeros, zeros, zeros, 0.0)
