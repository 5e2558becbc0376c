"""Hindsight against brute force, its limits, reference policies and the score by hand."""

import itertools
import math

import numpy as np
import pytest

from ztb_jax.evaluation import oracle

LEVELS = (-1.0, 0.0, 1.0)


def growth(path, gap, body, cost):
    """log growth of one path at constant exposure, bar by bar."""
    total, held = 0.0, 0.0
    for level, overnight, day in zip(path, gap, body, strict=True):
        total += math.log1p(held * overnight) + math.log1p(level * day)
        if level != held:
            total += math.log(max(1.0 - cost * abs(level - held), 1e-300))
        held = level
    return total


@pytest.mark.parametrize("levels", [LEVELS, (0.0, 1.0), (-1.0, 1.0), (0.3, -0.5, 1.0, 0.0)])
@pytest.mark.parametrize("cost", [0.0, 0.002, 0.01, 0.3])
def test_hindsight_equals_brute_force(levels, cost):
    for seed in range(3):
        generator = np.random.default_rng(seed)
        gap, body = generator.normal(0, 0.01, 6), generator.normal(0, 0.02, 6)
        best = oracle.hindsight(gap, body, levels=levels, cost=cost)
        brute = max(growth(path, gap, body, cost) for path in itertools.product(levels, repeat=6))
        assert best.log_growth == pytest.approx(brute, abs=1e-7)
        assert growth(best.path, gap, body, cost) == pytest.approx(best.log_growth, abs=1e-12)


def test_hindsight_at_zero_cost_takes_every_bar():
    body = np.random.default_rng(0).normal(0, 0.02, 200)
    best = oracle.hindsight(np.zeros(200), body, cost=0.0)
    np.testing.assert_array_equal(best.path, np.sign(body))
    assert best.log_growth == pytest.approx(np.log1p(np.abs(body)).sum())


def test_hindsight_at_infinite_cost_stays_flat():
    body = np.random.default_rng(0).normal(0, 0.02, 200)
    best = oracle.hindsight(body, body, cost=math.inf)
    np.testing.assert_array_equal(best.path, 0.0)
    assert best.log_growth == 0.0


def test_an_unchanged_level_wins_a_tie():
    body = np.array([0.01, 0.0, 0.01])
    np.testing.assert_array_equal(oracle.hindsight(np.zeros(3), body, cost=0.0).path, 1.0)
    np.testing.assert_array_equal(oracle.myopic(body[:2], 0.0), 1.0)


def test_a_large_value_does_not_swallow_small_gains():
    small = np.random.default_rng(0).normal(0.0, 1e-6, 100)
    body = np.concatenate([np.full(20_000, 0.05), small])
    best = oracle.hindsight(np.zeros(body.size), body, cost=0.0)
    np.testing.assert_array_equal(best.path, np.sign(body))


def test_the_old_level_earns_the_gap():
    flat, jump = np.zeros(2), np.array([0.0, 0.05])
    assert oracle.hindsight(jump, flat, cost=0.0).path[0] == 1.0
    assert oracle.hindsight(jump, flat, cost=0.0).log_growth == pytest.approx(math.log(1.05))
    assert oracle.hindsight(jump[::-1], flat, cost=0.0).log_growth == 0.0


def test_hindsight_never_improves_with_cost_and_holds_in_a_long_series():
    generator = np.random.default_rng(1)
    body = generator.normal(0, 0.01, 20_000)
    growths = [oracle.hindsight(0.3 * body, body, cost=cost).log_growth for cost in (0.0, 1e-3, 1e-2)]
    assert growths == sorted(growths, reverse=True)

    held = np.array(LEVELS)
    switch = np.log1p(-1e-3 * np.abs(held[:, None] - held[None, :]))
    value = np.array([-np.inf, 0.0, -np.inf])
    for day in body:
        value = ((value + np.log1p(held * 0.3 * day))[:, None] + switch).max(axis=0) + np.log1p(held * day)
    assert growths[1] == pytest.approx(value.max(), rel=1e-6)


def test_ruin_is_avoided_and_reported():
    crash = np.array([0.1, -1.0])
    assert oracle.hindsight(np.zeros(2), crash, levels=(0.0, 1.0), cost=0.0).path.tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="No path"):
        oracle.hindsight(np.zeros(2), crash, levels=(1.0,), cost=0.0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"gap": np.zeros(3)}, "gap has 3 bars and body 2"),
        ({"body": np.array([0.0, np.nan])}, "body has 1 values"),
        ({"levels": ()}, "levels has shape"),
        ({"levels": (1.0, 1.0)}, "repeat"),
        ({"cost": -0.1}, "cost is -0.1"),
        ({"cost": math.nan}, "cost is nan"),
    ],
)
def test_hindsight_refuses(change, match):
    arguments = {"gap": np.zeros(2), "body": np.zeros(2), "levels": LEVELS, "cost": 0.0} | change
    with pytest.raises(ValueError, match=match):
        oracle.hindsight(arguments.pop("gap"), arguments.pop("body"), **arguments)


def test_score_is_its_formula():
    path, mean = np.array([1.0, -1.0, -1.0, 0.5]), np.array([0.01, -0.02, 0.005, 0.01])
    random = (0.01 + 0.02 - 0.005 + 0.005) - 0.5 * 0.03**2 * 3.25 - 0.002 * (1 + 2 + 0 + 1.5)
    assert oracle.score_by_conditional_mean(path, mean, 0.002, sigma=0.03) == pytest.approx(random / 4)
    known = growth(path, np.zeros(4), mean, 0.002) / 4
    assert oracle.score_by_conditional_mean(path, mean, 0.002) == pytest.approx(known)
    sure = oracle.score_by_conditional_mean(path, mean, 0.002, sigma=0.0)
    assert sure == pytest.approx((0.01 + 0.02 - 0.005 + 0.005 - 0.002 * 4.5) / 4)
    with pytest.raises(ValueError, match="path has 4 bars and conditional_mean 3"):
        oracle.score_by_conditional_mean(path, mean[1:], 0.002)


def test_the_best_path_scores_its_own_growth():
    body = np.random.default_rng(5).normal(0, 0.02, 300)
    best = oracle.hindsight(np.zeros(300), body, cost=0.004)
    score = oracle.score_by_conditional_mean(best.path, body, 0.004)
    assert score * 300 == pytest.approx(best.log_growth)


def test_reference_policies_by_hand():
    mean = np.array([0.001, 0.03, -0.001, -0.03, 0.0])
    np.testing.assert_array_equal(oracle.cost_blind(mean), [1.0, 1.0, -1.0, -1.0, 0.0])
    np.testing.assert_array_equal(oracle.cost_blind(mean, levels=(1.0, 0.0)), [1.0, 1.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(oracle.myopic(mean, 0.01), [0.0, 1.0, 1.0, -1.0, -1.0])
    np.testing.assert_array_equal(oracle.myopic(mean, 0.0), [*oracle.cost_blind(mean)[:4], -1.0])
    # Half the mean-variance optimum is worth less than its variance costs.
    np.testing.assert_array_equal(oracle.myopic(np.array([0.03]), 0.0, sigma=0.3), [0.0])


def test_hindsight_over_many_levels_is_that_of_its_extremes_without_costs():
    rng = np.random.default_rng(5)
    body = rng.normal(0, 0.01, 60)
    few = oracle.hindsight(np.zeros(60), body, levels=(-1.0, 0.0, 1.0), cost=0.0)
    for count in (101, 201, 401):
        many = oracle.hindsight(np.zeros(60), body, levels=np.linspace(-1, 1, count), cost=0.0)
        np.testing.assert_allclose(many.log_growth, few.log_growth, rtol=1e-6)
