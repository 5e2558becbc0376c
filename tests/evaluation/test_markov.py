"""Optimal policies against brute force on tiny chains, filters against every path of regimes, and limits."""

import itertools
import math

import numpy as np
import pytest

from ztb_jax.data import synthetic
from ztb_jax.evaluation import markov, oracle

LEVELS = (-1.0, 0.0, 1.0)
REGIMES = {"drift": 0.02, "persistence": 0.8, "volatility": 0.03}


def follow_bar_by_bar(policy, states):
    held, path = 0.0, []
    for state in states:
        held = float(policy(state, held))
        path.append(held)
    return np.array(path)


def gain_of(rule, mean, transition, *, sigma, cost):
    """Mean net growth in the long run of a rule [A, N], levels by held level and state, begun flat."""
    size = len(mean)
    chain, reward = np.zeros((3 * size, 3 * size)), np.zeros(3 * size)
    for q, x in itertools.product(range(3), range(size)):
        p = rule[q, x]
        level = LEVELS[p]
        reward[q * size + x] = level * mean[x] - 0.5 * (level * sigma) ** 2 - cost * abs(level - LEVELS[q])
        chain[q * size + x, p * size : (p + 1) * size] = transition[x]
    weights = np.linalg.matrix_power(chain, 4096)[size]
    return float(weights @ reward)


@pytest.mark.parametrize("cost", [0.0, 0.004, 0.02])
@pytest.mark.parametrize("sigma", [0.0, 0.08])
def test_value_iteration_equals_the_best_of_every_stationary_rule(cost, sigma):
    points, mean = np.array([-1.0, 0.0, 1.0]), np.array([-0.01, 0.001, 0.008])
    transition = np.array([[0.8, 0.15, 0.05], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    found = markov._iterate(points, mean, transition, sigma=sigma, cost=cost, levels=LEVELS)
    gains = [
        gain_of(np.array(rule).reshape(3, 3), mean, transition, sigma=sigma, cost=cost)
        for rule in itertools.product(range(3), repeat=9)
    ]
    assert found.gain == pytest.approx(max(gains), abs=1e-9)
    rule = np.searchsorted(LEVELS, found(points[None, :], np.array(LEVELS)[:, None]))
    assert gain_of(rule, mean, transition, sigma=sigma, cost=cost) == pytest.approx(max(gains), abs=1e-9)


def enumerated_belief(returns, *, drift, persistence, volatility):
    """P(next bar rises) by the sum over every path of regimes, in float64."""
    beliefs = []
    for size in range(1, len(returns) + 1):
        weight = {1.0: 0.0, -1.0: 0.0}
        for path in itertools.product((1.0, -1.0), repeat=size + 1):
            chance = 0.5
            for before, after in itertools.pairwise(path):
                chance *= persistence if before == after else 1.0 - persistence
            for side, value in zip(path, returns[:size], strict=False):
                centre = math.log1p(side * drift) - volatility**2 / 2
                chance *= math.exp(-0.5 * ((math.log1p(value) - centre) / volatility) ** 2)
            weight[path[-1]] += chance
        beliefs.append(weight[1.0] / (weight[1.0] + weight[-1.0]))
    return beliefs


@pytest.mark.parametrize("seed", range(3))
def test_the_filter_equals_the_sum_over_every_path_of_regimes(seed):
    returns = np.random.default_rng(seed).normal(0.01, 0.04, 9)
    belief = markov.regime_belief(returns, **REGIMES)
    np.testing.assert_allclose(belief, enumerated_belief(returns, **REGIMES), rtol=1e-11)


def test_the_filter_is_calibrated_and_knows_no_later_bar():
    frame = synthetic.regimes(3, 200_000, arch=0.0, garch=0.0)
    returns = (frame["close"] / frame["open"] - 1).to_numpy()
    belief = markov.regime_belief(returns, drift=0.003, persistence=0.98, volatility=0.01)
    for low, high in itertools.pairwise((0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)):
        inside = (belief[:-1] >= low) & (belief[:-1] < high)
        expected = 0.003 * (2 * belief[:-1][inside] - 1).mean()
        assert returns[1:][inside].mean() == pytest.approx(expected, abs=4 * 0.01 / inside.sum() ** 0.5)
    again = markov.regime_belief(returns[:500], drift=0.003, persistence=0.98, volatility=0.01)
    np.testing.assert_array_equal(again, belief[:500])


def test_a_certain_regime_is_believed_and_extreme_returns_do_not_break_the_filter():
    belief = markov.regime_belief([0.9, 0.9, -0.9, -0.9], drift=0.02, persistence=0.9, volatility=0.001)
    np.testing.assert_allclose(belief, [0.9, 0.9, 0.1, 0.1], atol=1e-12)


def test_what_a_belief_moves_to_keeps_its_mean():
    """b is a martingale up to the turning of regimes: E[b'] = persistence b + (1 - persistence) (1 - b)."""
    points = np.linspace(0.2, 0.8, 41)
    means = markov._regime_means(0.02, 0.03)
    normals, weights = np.polynomial.hermite_e.hermegauss(markov.QUADRATURE)
    total, expected = np.zeros((41, 41)), 0.8 * points + 0.2 * (1 - points)
    for mean, believed in zip(means, (points, 1 - points), strict=True):
        evidence = markov._log_odds_of(mean + 0.03 * normals, means, 0.03)
        moved = markov._moved_on(points[:, None], evidence[None, :], 0.8)
        total += markov._shared_out(moved, believed[:, None] * (weights / weights.sum())[None, :], points)
    np.testing.assert_allclose(total.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(total @ points, expected, atol=1e-4)


@pytest.fixture(scope="module")
def regimes():
    """(policy, belief, conditional mean) of the generator's own regimes at 50 bp."""
    numbers = {"drift": 0.003, "persistence": 0.98, "volatility": 0.01}
    frame = synthetic.regimes(0, 200_000, arch=0.0, garch=0.0)
    belief = markov.regime_belief((frame["close"] / frame["open"] - 1).to_numpy(), **numbers)
    return markov.regime_policy(cost=0.005, **numbers), belief, 0.003 * (2 * belief - 1)


def test_the_regime_optimum_scores_its_gain_and_beats_every_threshold(regimes):
    policy, belief, mean = regimes

    def score(path):
        return oracle.score_by_conditional_mean(np.array(path), mean, 0.005, sigma=0.01)

    best = score(policy.follow(belief))
    assert best == pytest.approx(policy.gain, rel=0.03)
    for threshold in (0.5, 0.7, 0.8, 0.9, 0.95):
        path, held = [], 0.0
        for b in belief:
            held = 1.0 if b > threshold else -1.0 if b < 1 - threshold else held
            path.append(held)
        assert score(path) < best * 1.0005


def test_the_regime_policy_is_symmetric_waits_and_hardly_depends_on_its_grid(regimes):
    policy, *_ = regimes
    beliefs = np.linspace(0.02, 0.98, 193)
    long, short = policy(beliefs, 1.0), policy(beliefs, -1.0)
    np.testing.assert_array_equal(long, -short[::-1])
    assert np.all(np.diff(long) >= 0)
    assert float(policy(0.4, 1.0)) == 1.0
    fine = markov.regime_policy(0.003, 0.98, 0.01, 0.005, grid=801)
    assert fine.gain == pytest.approx(policy.gain, rel=2e-3)


def test_regimes_that_cost_more_than_they_bring_are_left_alone():
    policy = markov.regime_policy(0.0001, 0.9, 0.01, 0.005, grid=101)
    np.testing.assert_array_equal(policy(np.linspace(0.1, 0.9, 9), 0.0), 0.0)
    assert policy.gain == pytest.approx(0.0, abs=1e-12)


def test_a_leaked_return_is_traded_when_it_pays_for_itself():
    policy = markov.signal_policy(0.0, 0.01, 0.005)
    coming = np.linspace(-0.03, 0.03, 121)
    coming = coming[np.abs(np.abs(coming) - 0.005) > 1e-9]
    np.testing.assert_array_equal(policy(coming, 1.0), np.where(coming < -0.005, -1.0, 1.0))
    z = 0.5
    density, tail = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), 0.5 * math.erfc(z / math.sqrt(2))
    assert policy.gain == pytest.approx(2 * 0.01 * density - 2 * 0.005 * tail, rel=2e-4)


def test_following_is_deciding_bar_by_bar():
    states = np.random.default_rng(0).normal(0, 0.01, 300)
    for policy in (markov.signal_policy(0.5, 0.01, 0.01, sigma=0.02), markov.ar1_policy(0.3, 0.01, 0.002)):
        np.testing.assert_array_equal(policy.follow(states), follow_bar_by_bar(policy, states))


def test_ar1_policy_limits():
    points = np.linspace(-0.05, 0.05, 101)
    free = markov.ar1_policy(0.3, 0.01, 0.0)
    mean = 0.3 * points
    expected = np.where(np.abs(mean) > 0.5 * 0.01**2, np.sign(mean), 0.0)
    np.testing.assert_array_equal(free(points, 0.0), expected)
    idle = markov.ar1_policy(0.0, 0.01, 0.001)
    np.testing.assert_array_equal(idle(points, 0.0), 0.0)
    assert idle.gain == pytest.approx(0.0, abs=1e-12)
    dear = markov.ar1_policy(0.3, 0.01, 0.05, grid=101)
    np.testing.assert_array_equal(dear(points, 0.0), 0.0)


def test_ar1_policy_is_symmetric_and_has_a_band():
    policy = markov.ar1_policy(0.3, 0.01, 0.002)
    points = np.linspace(-0.04, 0.04, 161)
    long, short = policy(points, 1.0), policy(points, -1.0)
    np.testing.assert_array_equal(long, -short[::-1])
    assert np.all(np.diff(long) >= 0)
    assert np.all(long >= short)
    assert np.any(long > short)
    assert float(policy(0.0, 1.0)) == 1.0
    coarse = markov.ar1_policy(0.3, 0.01, 0.002, grid=401)
    assert coarse.gain == pytest.approx(policy.gain, rel=1e-3)


def test_the_ar1_optimum_scores_its_gain_and_beats_every_threshold():
    noise = np.random.default_rng(0).normal(0.0, 0.01, 100_000)
    returns = np.zeros(noise.size)
    for bar in range(1, noise.size):
        returns[bar] = 0.3 * returns[bar - 1] + noise[bar]
    policy, mean = markov.ar1_policy(0.3, 0.01, 0.002), 0.3 * returns

    def score(path):
        return oracle.score_by_conditional_mean(np.array(path), mean, 0.002, sigma=0.01)

    best = score(policy.follow(returns))
    assert best == pytest.approx(policy.gain, rel=0.01)
    for threshold in (0.0, 0.5, 0.7, 0.9, 1.2):
        path, held = [], 0.0
        for expected in mean:
            held = math.copysign(1.0, expected) if abs(expected) > threshold * 0.002 else held
            path.append(held)
        assert score(path) < best * 1.0005


@pytest.mark.parametrize(
    ("make", "arguments", "match"),
    [
        (markov.ar1_policy, {"phi": 1.0, "sigma": 0.01, "cost": 0.0}, r"persistence \(phi .* is 1.0"),
        (markov.ar1_policy, {"phi": 0.3, "sigma": 0.0, "cost": 0.0}, r"innovation \(sigma .* is 0.0"),
        (markov.ar1_policy, {"phi": 0.3, "sigma": 0.01, "cost": 0.0, "grid": 2}, "grid is 2"),
        (markov.ar1_policy, {"phi": 0.3, "sigma": 0.01, "cost": -1.0}, "cost is -1.0"),
        (markov.ar1_policy, {"phi": 0.3, "sigma": 0.01, "cost": math.inf}, "cost is inf"),
        (markov.signal_policy, {"persistence": 0.5, "innovation": math.inf, "cost": 0.0}, "is inf"),
        (markov.signal_policy, {"persistence": 0.5, "innovation": 1.0, "cost": 0, "sigma": -1.0}, "sigma -1"),
        (markov.regime_policy, REGIMES | {"cost": 0.0, "grid": 1}, "grid is 1"),
        (markov.regime_policy, REGIMES | {"cost": 0.0, "drift": 0.0}, "drift is 0.0"),
        (markov.regime_policy, REGIMES | {"cost": 0.0, "persistence": 0.5}, "persistence is 0.5"),
        (markov.regime_policy, REGIMES | {"cost": 0.0, "volatility": 0.0}, "volatility is 0.0"),
        (markov.regime_belief, REGIMES | {"returns": [0.1, -1.0]}, "returns fall to -1.0"),
        (markov.regime_belief, REGIMES | {"returns": [0.1, math.nan]}, "returns has 1 values"),
        (markov.regime_belief, {"returns": [0.1], "drift": 2.0, "persistence": 1.0, "volatility": -1.0},
         r"drift is 2.0.*persistence is 1.0.*volatility is -1.0"),
    ],
)  # fmt: skip
def test_refused(make, arguments, match):
    with pytest.raises(ValueError, match=match):
        make(**arguments)
