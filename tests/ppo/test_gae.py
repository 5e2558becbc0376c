"""GAE against a float64 loop, its limits, and what ends a trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztb_jax.ppo.gae import gae


def loop(reward, value, next_value, terminated, truncated, gamma, lam):
    advantage, later = np.zeros(len(reward)), 0.0
    for t in reversed(range(len(reward))):
        bootstrap = 0.0 if terminated[t] else next_value[t]
        delta = reward[t] + gamma * bootstrap - value[t]
        later = delta + (0.0 if terminated[t] or truncated[t] else gamma * lam * later)
        advantage[t] = later
    return advantage


def arrays(seed, length=32):
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, length))
    terminated = rng.uniform(size=length) < 0.15
    truncated = rng.uniform(size=length) < 0.15
    return reward, value, next_value, terminated, truncated


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), gamma=st.floats(0, 1), lam=st.floats(0, 1))
def test_equals_the_loop_with_terminations_and_truncations_mixed(seed, gamma, lam):
    given_arrays = arrays(seed)
    expected = loop(*given_arrays, gamma, lam)
    result = gae(*(jnp.asarray(x) for x in given_arrays), gamma=gamma, lam=lam)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_lambda_zero_is_the_td_error():
    reward, value, next_value, terminated, _ = arrays(0)
    result = gae(*(jnp.asarray(x) for x in arrays(0)), gamma=0.9, lam=0.0)
    expected = reward + 0.9 * np.where(terminated, 0, next_value) - value
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_lambda_one_is_the_discounted_return_less_the_value():
    reward, value, _, _, _ = arrays(1)
    never = np.zeros(32, bool)
    next_value = np.append(value[1:], 0.5)
    result = gae(*(jnp.asarray(x) for x in (reward, value, next_value, never, never)), gamma=0.9, lam=1.0)
    returns = [sum(0.9**k * r for k, r in enumerate(reward[t:])) + 0.9 ** (32 - t) * 0.5 for t in range(32)]
    np.testing.assert_allclose(result, np.array(returns) - value, rtol=1e-4, atol=1e-5)


def test_vmap_and_jit_change_nothing():
    batch = [jnp.stack([jnp.asarray(arrays(seed)[i]) for seed in range(3)]) for i in range(5)]
    together = jax.jit(jax.vmap(lambda *x: gae(*x, gamma=0.9, lam=0.8)))(*batch)
    for row in range(3):
        np.testing.assert_allclose(
            together[row], gae(*(x[row] for x in batch), gamma=0.9, lam=0.8), rtol=1e-6
        )


def test_refuses_shapes_that_differ():
    with pytest.raises(AssertionError):
        gae(
            jnp.zeros(3),
            jnp.zeros(3),
            jnp.zeros(4),
            jnp.zeros(3, bool),
            jnp.zeros(3, bool),
            gamma=0.9,
            lam=0.9,
        )
