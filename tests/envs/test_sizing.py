"""Sizing rules against NumPy loops; nothing in them is later than its bar."""

import jax.numpy as jnp
import numpy as np
import pytest

from envs import sizing

RETURNS = np.random.default_rng(0).normal(1e-3, 0.01, 300).astype(np.float32)


def test_the_volatility_target_is_the_target_over_the_trailing_deviation():
    scale = np.asarray(sizing.volatility_target(jnp.asarray(RETURNS), target=0.005, window=20, most=0.6))
    assert not scale[:19].any()
    for t in range(19, 300):
        deviation = RETURNS[t - 19 : t + 1].astype(np.float64).std(ddof=1)
        assert scale[t] == pytest.approx(min(0.005 / deviation, 0.6), rel=1e-4)


def test_the_kelly_cap_is_a_share_of_mean_over_variance():
    cap = np.asarray(sizing.kelly_cap(jnp.asarray(RETURNS), fraction=0.1, window=50, most=1.0))
    assert not cap[:49].any()
    for t in range(49, 300):
        seen = RETURNS[t - 49 : t + 1].astype(np.float64)
        assert cap[t] == pytest.approx(min(0.1 * abs(seen.mean()) / seen.var(ddof=1), 1.0), rel=1e-3)


def test_a_market_that_does_not_move_gets_nothing():
    assert not np.asarray(sizing.volatility_target(jnp.zeros(50), target=0.01, window=5)).any()
    assert not np.asarray(sizing.kelly_cap(jnp.zeros(50), fraction=1.0, window=5)).any()


def test_the_future_changes_nothing():
    later = RETURNS.copy()
    later[200:] *= 9
    for rule in (
        lambda r: sizing.volatility_target(r, target=0.01, window=20),
        lambda r: sizing.kelly_cap(r, fraction=0.5, window=20),
    ):
        one, other = np.asarray(rule(jnp.asarray(RETURNS))), np.asarray(rule(jnp.asarray(later)))
        np.testing.assert_array_equal(one[:200], other[:200])
        assert (one[200:] != other[200:]).any()


def test_refuses_a_window_without_a_variance():
    with pytest.raises(ValueError, match="at least 2"):
        sizing.volatility_target(jnp.zeros(9), target=1.0, window=1)
