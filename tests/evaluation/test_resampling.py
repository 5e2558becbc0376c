"""Drawn histories and seeds against arch itself, purgedcv and scipy, and what noise and skill must give."""

import math

import numpy as np
import pytest
from arch.bootstrap import SPA, StationaryBootstrap, optimal_block_length
from purgedcv import probability_of_backtest_overfitting
from scipy import stats

from ztb_jax.evaluation import resampling
from ztb_jax.evaluation.overfitting import backtest_overfitting
from ztb_jax.evaluation.significance import long_run_variance, newey_west_lag

YEAR = 252.0


def noise(seed, shape):
    return np.random.default_rng(seed).normal(0.0, 0.01, shape)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("blocks", "bars"), [(2, 50), (8, 240), (8, 251), (10, 333)])
def test_overfitting_is_that_of_purgedcv(seed, blocks, bars):
    returns = noise(seed, (5, bars)) + 0.002 * seed * np.arange(5)[:, None] / 5
    ours = backtest_overfitting(returns, blocks=blocks)
    theirs = probability_of_backtest_overfitting(returns, n_splits=blocks)
    assert ours.probability == theirs.pbo
    # Theirs goes through the halves that are left out in order, ours through those that choose.
    np.testing.assert_allclose(ours.logits[::-1], theirs.logits, atol=1e-12)
    both = np.stack([ours.chosen, ours.kept], axis=1)[::-1]
    np.testing.assert_allclose(both, theirs.is_oos_performance, rtol=1e-9, atol=1e-12)


def test_overfitting_with_ties_and_configurations_that_never_trade():
    returns = noise(0, (4, 120))
    returns[2], returns[3] = 0.0, 0.0
    ours = backtest_overfitting(returns, blocks=6)
    theirs = probability_of_backtest_overfitting(returns, n_splits=6)
    assert ours.probability == theirs.pbo
    np.testing.assert_allclose(ours.logits[::-1], theirs.logits, atol=1e-12)


def test_choosing_among_noise_is_luck_and_among_skill_is_not():
    lucky = [backtest_overfitting(noise(seed, (10, 400)), blocks=8).probability for seed in range(60)]
    assert np.mean(lucky) == pytest.approx(0.5, abs=0.08)
    skilled = noise(1, (10, 1000))
    skilled[3] += 0.003
    assert backtest_overfitting(skilled, blocks=8).probability < 0.01


def test_overfitting_does_not_depend_on_scale_or_order():
    returns = noise(2, (6, 200)) + 0.001
    found = backtest_overfitting(returns, blocks=6)
    assert backtest_overfitting(100 * returns, blocks=6).probability == found.probability
    assert backtest_overfitting(returns[::-1], blocks=6).probability == found.probability


@pytest.mark.parametrize(
    ("returns", "blocks", "words"),
    [
        (np.zeros(100), 8, "an array of 2 axes"),
        (np.zeros((1, 100)), 8, "1 configurations"),
        (np.zeros((3, 100)), 7, "blocks is 7: give an even number"),
        (np.zeros((3, 100)), 22, "from 2 to 20"),
        (np.zeros((100, 3)), 8, r"\[configurations, bars\]"),
        (np.full((3, 100), np.nan), 8, "not finite, first at bar 0"),
    ],
)
def test_overfitting_refuses(returns, blocks, words):
    with pytest.raises(ValueError, match=words):
        backtest_overfitting(returns, blocks=blocks)


def test_the_bootstrap_is_that_of_arch():
    returns = noise(0, 300) + 0.0005
    block = float(optimal_block_length(returns)["stationary"].iloc[0])
    found = resampling.bootstrap(returns, YEAR, seed=7, draws=500, block=3.0)
    direct = StationaryBootstrap(3.0, returns, seed=7).apply(
        lambda r: np.array([r.mean(), np.prod(1 + r) - 1]), 500
    )
    low, high = np.quantile(direct, [0.025, 0.975], axis=0)
    assert found.mean == pytest.approx((returns.mean(), low[0], high[0]), rel=1e-12)
    assert found.total_return == pytest.approx((np.prod(1 + returns) - 1, low[1], high[1]), rel=1e-12)
    assert resampling.block_length(returns) == max(1.0, block)
    assert resampling.bootstrap(returns, YEAR, seed=7, draws=500, block=3.0) == found
    assert resampling.bootstrap(returns, YEAR, seed=8, draws=500, block=3.0) != found
    narrow = resampling.bootstrap(returns, YEAR, seed=7, draws=500, block=3.0, confidence=0.5)
    assert found.sharpe.low < narrow.sharpe.low < narrow.sharpe.high < found.sharpe.high
    assert found.sharpe.seen == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(YEAR))


def test_bootstrap_intervals_hold_the_truth_so_often():
    held = 0
    for seed in range(200):
        interval = resampling.bootstrap(
            noise(seed, 250) + 0.001, YEAR, seed=seed, draws=200, confidence=0.9
        ).mean
        held += interval.low <= 0.001 <= interval.high
    assert 0.82 <= held / 200 <= 0.96


def test_dependence_makes_blocks_and_intervals_longer():
    steps = noise(0, 2000)
    trending = np.convolve(steps, np.ones(10) / 10, mode="valid")
    found = resampling.bootstrap(trending, YEAR, seed=0, draws=300)
    single = resampling.bootstrap(trending, YEAR, seed=0, draws=300, block=1.0)
    assert found.block > 10.0
    assert found.mean.high - found.mean.low > 2.0 * (single.mean.high - single.mean.low)


def test_nothing_traded_has_an_interval_of_nothing():
    found = resampling.bootstrap(np.zeros(50), YEAR, seed=0, draws=100)
    assert found == ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0)


def test_superiority_is_that_of_arch_on_losses_of_one_spread():
    candidates, baseline = noise(3, (4, 300)) + 0.0006, noise(4, 300)
    lead = candidates - baseline
    scale = [math.sqrt(long_run_variance(row, newey_west_lag(300))) for row in lead]
    losses = -(lead / np.array(scale)[:, None]).T
    block = math.ceil(max(resampling.block_length(row) for row in lead))
    theirs = SPA(np.zeros(300), losses, block_size=block, reps=400, seed=5)
    theirs.compute()
    ours = resampling.superior_ability(candidates, baseline, seed=5, draws=400)
    assert ours == pytest.approx(tuple(theirs.pvalues[name] for name in ("lower", "consistent", "upper")))
    assert ours.lower <= ours.consistent <= ours.upper
    assert resampling.superior_ability(candidates, baseline, seed=5, draws=400) == ours


def test_more_return_is_superior_and_less_is_not():
    baseline = noise(0, 500)
    better, worse = baseline + noise(1, 500) + 0.002, baseline + noise(2, 500) - 0.002
    good = resampling.superior_ability(np.stack([worse, better]), baseline, seed=0)
    assert good.upper < 0.01
    assert resampling.superior_ability(worse[None], baseline, seed=0).consistent > 0.5
    assert resampling.superior_candidates(np.stack([worse, better]), baseline, seed=0) == [1]
    assert resampling.superior_candidates(worse[None], baseline, seed=0) == []


def test_a_wild_candidate_does_not_hide_a_steady_one():
    """The plain means that arch compares would let the one that varies most decide."""
    steady, wild = 0.1 * noise(1, 500) + 0.0003, 30.0 * noise(2, 500)
    both = np.stack([steady, wild])
    assert resampling.superior_ability(both, np.zeros(500), seed=0).consistent < 0.01
    assert resampling.superior_candidates(both, np.zeros(500), seed=0) == [0]
    plain = SPA(np.zeros(500), -both.T, block_size=1, reps=500, seed=0)
    plain.compute()
    assert plain.pvalues["consistent"] > 0.1


def test_stepping_down_finds_the_rest():
    """With twenty strong ones out of the way a smaller lead suffices; all rows are ints."""
    rows = noise(0, (30, 400))
    rows -= rows.mean(axis=1, keepdims=True)
    rows[:20] += 0.01
    rows[24] += 2.6 * 0.01 / math.sqrt(400)
    assert resampling.superior_candidates(rows, np.zeros(400), seed=0) == [*range(20), 24]
    weak = rows.copy()
    weak[:20] -= 0.01
    assert resampling.superior_candidates(weak, np.zeros(400), seed=0) == []
    assert all(type(row) is int for row in resampling.superior_candidates(rows, np.zeros(400), seed=0))


def test_all_may_be_superior_in_two_steps():
    """One by far and one by a little: after the second step there is nobody left to compare."""
    found = 0
    for seed in range(40):
        rows = noise(seed, (2, 400))
        rows -= rows.mean(axis=1, keepdims=True)
        rows += np.array([[10.0], [1.8]]) * 0.01 / math.sqrt(400)
        found += resampling.superior_candidates(rows, np.zeros(400), seed=0, draws=200) == [0, 1]
    assert found > 20


def test_superiority_among_noise_is_as_rare_as_said():
    found = sum(
        resampling.superior_ability(noise(seed, (5, 200)), np.zeros(200), seed=seed, draws=100).consistent
        <= 0.1
        for seed in range(150)
    )
    assert found / 150 <= 0.18


def test_a_candidate_that_is_the_baseline_never_wins():
    baseline = noise(0, 200)
    both = np.stack([baseline, baseline + noise(1, 200) + 0.003])
    assert resampling.superior_candidates(both, baseline, seed=0, draws=200) == [1]
    with pytest.raises(ValueError, match="no candidate differs"):
        resampling.superior_ability(baseline[None], baseline, seed=0)


@pytest.mark.parametrize("shape", [(3,), (8,), (10,), (5, 4)])
def test_the_interquartile_mean_is_that_of_scipy(shape):
    scores = np.random.default_rng(1).exponential(size=shape)
    found = resampling.interquartile_mean(scores, seed=0)
    assert found.seen == pytest.approx(stats.trim_mean(scores, 0.25, axis=None), rel=1e-12)
    assert scores.min() <= found.low <= found.seen <= found.high <= scores.max()
    assert resampling.interquartile_mean(scores, seed=0) == found


def test_seeds_are_drawn_for_each_task_by_itself():
    """Tasks of 0 and of 100 keep their numbers in every draw, so the middle never leaves them."""
    scores = np.stack([np.zeros(8), np.full(8, 100.0)], axis=1)
    assert resampling.interquartile_mean(scores, seed=0) == (50.0, 50.0, 50.0)
    outlier = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 900.0])
    assert resampling.interquartile_mean(outlier, seed=0, confidence=0.5) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (lambda: resampling.bootstrap(np.zeros(29), YEAR, seed=0), "returns has 29 bars: give at least 30"),
        (lambda: resampling.bootstrap(np.zeros(50), YEAR, seed=0, draws=99), "draws is 99"),
        (lambda: resampling.bootstrap(np.zeros(50), YEAR, seed=0, confidence=95), "confidence is 95"),
        (lambda: resampling.bootstrap(np.zeros(50), YEAR, seed=0, block=0.5), "block is 0.5"),
        (lambda: resampling.bootstrap(np.zeros(50), 0.0, seed=0), "bars_per_year is 0"),
        (lambda: resampling.superior_ability(np.ones((50, 3)), np.ones(50), seed=0), "candidates has 3 bars"),
        (lambda: resampling.superior_ability(np.ones((3, 60)), np.ones(50), seed=0), "baseline 50 bars"),
        (
            lambda: resampling.superior_candidates(np.ones((3, 50)), np.ones(50), seed=0, level=2),
            "level is 2",
        ),
        (lambda: resampling.interquartile_mean(np.ones(2), seed=0), "2 seeds"),
        (lambda: resampling.interquartile_mean(np.array([1.0, 2.0, np.inf]), seed=0), "not finite"),
    ],
)
def test_refusals(of, words):
    with pytest.raises(ValueError, match=words):
        of()
