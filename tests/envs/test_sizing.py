"""Sizing rules against NumPy loops; nothing in them is later than its bar."""

import tracemalloc

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


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("growth", [0.03, -0.007])
def test_constant_growth_does_not_vary(kind, growth):
    prices = (100.0 * (1.0 + growth) ** np.arange(60)).astype(kind)
    for returns in (np.full(60, growth, kind), jnp.full(60, growth), prices[1:] / prices[:-1] - kind(1)):
        assert not np.asarray(sizing.volatility_target(returns, target=0.01, window=20)).any()
        assert not np.asarray(sizing.kelly_cap(returns, fraction=0.5, window=20)).any()


@pytest.mark.parametrize("window", [2, 7, 100, 299, 300])
def test_moments_are_exact_beside_returns_a_million_times_as_large(window):
    returns = RETURNS.astype(np.float64)
    returns[100], returns[200:203] = 1e4, 0.0
    mean, deviation = sizing._moments(returns, window)
    seen = np.lib.stride_tricks.sliding_window_view(returns, window)
    np.testing.assert_allclose(mean[window - 1 :], seen.mean(axis=1), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(deviation[window - 1 :], seen.std(axis=1, ddof=1), rtol=1e-9, atol=1e-9)
    assert not mean[: window - 1].any()
    assert not deviation[: window - 1].any()


def test_fewer_returns_than_the_window_size_nothing():
    assert not np.asarray(sizing.volatility_target(RETURNS[:5], target=0.01, window=20)).any()


def test_memory_grows_with_the_bars_and_not_with_the_window():
    returns = np.random.default_rng(1).normal(size=100_000)
    tracemalloc.start()
    sizing.volatility_target(returns, target=0.01, window=1440)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * returns.nbytes


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
