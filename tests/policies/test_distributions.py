"""Masked categoricals: the distribution over what is allowed, and nothing of what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ztb_jax.policies import distributions

LOGITS = jax.random.normal(jax.random.key(0), (50, 5))
LOG_PROBS = jax.nn.log_softmax(LOGITS)
ALLOWED = jax.random.bernoulli(jax.random.key(1), 0.5, (50, 5)).at[:, 2].set(True)


def test_masking_renormalises_what_is_allowed():
    masked = np.asarray(distributions.masked(LOG_PROBS, ALLOWED), np.float64)
    kept = np.where(ALLOWED, np.exp(np.asarray(LOG_PROBS, np.float64)), 0.0)
    expected = kept / kept.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(masked), expected, atol=1e-6)
    entropy = -np.where(expected > 0, expected * np.log(np.where(expected > 0, expected, 1)), 0).sum(-1)
    np.testing.assert_allclose(distributions.entropy(jnp.asarray(masked, jnp.float32)), entropy, atol=1e-5)


def test_with_everything_allowed_nothing_changes():
    whole = distributions.masked(LOG_PROBS, jnp.ones_like(ALLOWED))
    np.testing.assert_allclose(whole, LOG_PROBS, atol=1e-6)


@pytest.mark.parametrize("uniform", [0.0, 0.3, 0.999, float(np.float32(1) - np.float32(2**-24))])
def test_a_forbidden_action_is_never_sampled(uniform):
    masked = distributions.masked(LOG_PROBS, ALLOWED)
    action = distributions.sample(jnp.full(50, uniform, jnp.float32), masked, ALLOWED)
    assert np.asarray(ALLOWED)[np.arange(50), np.asarray(action)].all()


def test_a_sum_below_one_does_not_let_a_forbidden_last_action_through():
    allowed = jnp.array([True, True, False])
    short = jnp.log(jnp.array([0.5, 0.49999, 0.0])).at[2].set(distributions.RULED_OUT)
    assert int(distributions.sample(jnp.float32(0.99999), short)) == 2, "the case that the guard is for"
    assert int(distributions.sample(jnp.float32(0.99999), short, allowed)) == 0


def test_no_gradient_reaches_a_forbidden_logit():
    def loss(logits):
        masked = distributions.masked(jax.nn.log_softmax(logits), ALLOWED)
        return distributions.entropy(masked).sum() + distributions.log_prob(masked, jnp.full(50, 2)).sum()

    grads = np.asarray(jax.grad(loss)(LOGITS))
    assert np.isfinite(grads).all()
    assert np.abs(grads[~np.asarray(ALLOWED)]).max() < 1e-6
    assert np.abs(grads[np.asarray(ALLOWED)]).max() > 1e-3
