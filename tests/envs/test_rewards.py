"""Reward terms against float64 loops over a played account."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import rewards
from envs.ledger import Account
from envs.rewards import Played

RNG = np.random.default_rng(3)
GAINS = RNG.normal(2e-4, 0.01, 400)
TRADED, COSTS = np.abs(RNG.normal(size=400)), RNG.uniform(0, 1e-3, 400)
EQUITY = np.concatenate([[1.0], np.cumprod(1 + GAINS)])


def account(n, exposure=0.5):
    gain = GAINS[n - 1] if n else 0.0
    numbers = (np.log(EQUITY[n]), gain, exposure, 0.0)
    return Account(*(jnp.asarray(x, jnp.float32) for x in numbers))


def collect(reward, exposure=0.5):
    memory, values = reward.init(), []
    value = jax.jit(reward.value)
    for n in range(len(GAINS)):
        before, after = account(n), account(n + 1, exposure)
        memory, one = value(memory, Played(before, after, jnp.float32(COSTS[n]), jnp.float32(TRADED[n])))
        values.append(float(one))
    return np.array(values)


def moments(gains, decay):
    first = second = 0.0
    for gain in gains:
        yield gain, first, second
        first += decay * (gain - first)
        second += decay * (gain**2 - second)


def sharpe_loop(decay=0.01, floor=1e-8):
    for gain, a, b in moments(GAINS, decay):
        variance = b - a * a
        yield (b * (gain - a) - 0.5 * a * (gain**2 - b)) / variance**1.5 if variance > floor else 0.0


def sortino_loop(decay=0.01, floor=1e-8):
    a = d = 0.0
    for gain in GAINS:
        if d <= floor:
            yield 0.0
        elif gain > 0:
            yield (gain - a / 2) / d**0.5
        else:
            yield (d * (gain - a / 2) - a * gain**2 / 2) / d**1.5
        a, d = a + decay * (gain - a), d + decay * (min(gain, 0.0) ** 2 - d)


PEAK = np.maximum.accumulate(EQUITY)
DEPTH = 1 - EQUITY / PEAK


def shortfall_loop(target, year, free, decay=0.01):
    a = b = 0.0
    for gain in GAINS:
        a, b = a + decay * (gain - a), b + decay * (gain**2 - b)
        yield -max(target * max(b - a * a, 0.0) ** 0.5 / year**0.5 + free / year - a, 0.0)


@pytest.mark.parametrize(
    ("reward", "expected", "scale"),
    [
        (rewards.log_return(), np.log1p(GAINS), 1e-2),
        (rewards.pnl(), np.diff(EQUITY), 1e-2),
        (rewards.turnover(), -TRADED, 1.0),
        (rewards.cost(), -COSTS, 1e-3),
        (rewards.downside(hurdle=1e-4), -0.5 * np.minimum(GAINS - 1e-4, 0) ** 2, 1e-4),
        (rewards.drawdown(limit=0.02), -np.maximum(DEPTH[1:] - 0.02, 0), 1e-2),
        (rewards.differential_sharpe(), list(sharpe_loop()), 1.0),
        (rewards.differential_sortino(), list(sortino_loop()), 1.0),
        # One bar of the deviation leaves 0.1 x 0.02 x 0.02 in the moments.
        (rewards.differential_sharpe(decay=0.1, deviation=0.02), list(sharpe_loop(0.1, 4e-5)), 1.0),
        (rewards.differential_sortino(decay=0.1, deviation=0.02), list(sortino_loop(0.1, 4e-5)), 1.0),
        (
            rewards.sharpe_shortfall(target=2.0, bars_per_year=252, risk_free_rate=0.02),
            list(shortfall_loop(2.0, 252, 0.02)),
            1e-3,
        ),
    ],
)
def test_a_term_equals_its_formula(reward, expected, scale):
    expected = np.array(expected)
    np.testing.assert_allclose(collect(reward), expected, rtol=2e-3, atol=1e-4 * scale)
    assert np.abs(expected).max() > 0, "a term that is always zero tests nothing"


def test_log_return_adds_up_to_the_growth_and_pnl_to_the_return():
    assert collect(rewards.log_return()).sum() == pytest.approx(np.log(EQUITY[-1]), abs=1e-5)
    assert collect(rewards.pnl()).sum() == pytest.approx(EQUITY[-1] - 1, abs=1e-5)


@pytest.mark.parametrize(
    ("exposure", "herfindahl"), [(0.0, 0.0), (-0.7, 1.0), ([0.5, 0.5], 0.5), ([0.3, -0.3, 0.3], 1 / 3)]
)
def test_concentration_is_the_sum_of_squared_shares(exposure, herfindahl):
    held = np.any(exposure)
    one = collect(rewards.concentration(), exposure)[0]
    assert one == pytest.approx(-herfindahl)
    assert collect(rewards.diversification(), exposure)[0] == pytest.approx(1 - herfindahl if held else 0)


def test_value_at_risk_is_charged_beyond_its_limit_and_refused_where_it_is_not_measured():
    term = rewards.value_at_risk(limit=0.02)
    told = Played(account(0), account(1), jnp.float32(0), jnp.float32(0), jnp.float32(0.05))
    assert float(term.value((), told)[1]) == pytest.approx(-0.03)
    with pytest.raises(ValueError, match="measures no value at risk"):
        collect(term)


def test_a_weighted_sum_is_one_and_leaves_out_what_weighs_nothing():
    both = rewards.weighted({"a": (2.0, rewards.log_return()), "b": (0.5, rewards.drawdown())})
    expected = 2 * np.log1p(GAINS) - 0.5 * DEPTH[1:]
    np.testing.assert_allclose(collect(both), expected, rtol=1e-3, atol=1e-6)
    assert set(rewards.weighted({"a": (1.0, rewards.pnl()), "b": (0.0, rewards.pnl())}).init()) == {"a"}
    with pytest.raises(ValueError, match="at least one"):
        rewards.weighted({"a": (0.0, rewards.pnl())})


def test_the_risk_adjusted_reward_is_the_documented_sum():
    year = 252
    reward = rewards.risk_adjusted(bars_per_year=year, transaction_cost_weight=1.5, max_drawdown_target=0.05)
    expected = (
        np.log1p(GAINS)
        - 0.5 * COSTS
        + np.array(list(shortfall_loop(2.0, year, 0.02)))
        - np.maximum(DEPTH[1:] - 0.05, 0) / year
        - 0.5 * np.minimum(GAINS - 0.02 / year, 0) ** 2
    )
    np.testing.assert_allclose(collect(reward), expected, rtol=2e-3, atol=2e-6)
    spread = collect(reward, exposure=[0.5, 0.5])
    np.testing.assert_allclose(spread - collect(reward), 0.5 * 0.5 / year, rtol=1e-2, atol=1e-6)


def test_costs_are_counted_once_by_default():
    reward = rewards.risk_adjusted(bars_per_year=252, risk_penalty_weight=0, downside_volatility_weight=0)
    np.testing.assert_allclose(collect(reward), np.log1p(GAINS), atol=1e-7)
