"""The clipped objective against NumPy, and its gradient against finite differences."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ztb_jax.policies.distributions import categorical
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.loss import Samples, ppo_loss

CLIP, VALUE_CLIP, VALUE_WEIGHT, ENTROPY_WEIGHT = 0.2, 0.3, 0.5, 0.01


def batch(seed=0, size=64):
    rng = np.random.default_rng(seed)
    samples = Samples(
        account=rng.normal(size=(size, 2)),
        action=rng.integers(0, 3, size).astype(np.int32),
        log_prob=rng.normal(-1.1, 0.3, size),
        value=rng.normal(size=size),
        advantage=rng.normal(size=size),
        target=rng.normal(size=size),
    )
    return rng.normal(size=(size, 3)), rng.normal(size=size), samples


def numpy_loss(logits, value, samples, value_clip):
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    terms = []
    for i in range(len(value)):
        p = probabilities[i]
        ratio = p[samples.action[i]] / np.exp(samples.log_prob[i])
        a = samples.advantage[i]
        policy = -min(ratio * a, np.clip(ratio, 1 - CLIP, 1 + CLIP) * a)
        error = (value[i] - samples.target[i]) ** 2
        if value_clip is not None:
            near = samples.value[i] + np.clip(value[i] - samples.value[i], -value_clip, value_clip)
            error = max(error, (near - samples.target[i]) ** 2)
        entropy = -(p * np.log(p)).sum()
        terms.append(policy + VALUE_WEIGHT * 0.5 * error - ENTROPY_WEIGHT * entropy)
    return np.mean(terms)


def loss_of(logits, value, samples, value_clip=VALUE_CLIP):
    return ppo_loss(
        jax.nn.log_softmax(logits),
        value,
        samples,
        distribution=categorical(3),
        hyper=Hyper(
            clip=CLIP, value_clip=value_clip, value_weight=VALUE_WEIGHT, entropy_weight=ENTROPY_WEIGHT
        ),
    )


@pytest.mark.parametrize("value_clip", [VALUE_CLIP, None])
@pytest.mark.parametrize("seed", range(5))
def test_equals_numpy(seed, value_clip):
    logits, value, samples = batch(seed)
    loss, _ = loss_of(jnp.asarray(logits), jnp.asarray(value), jax.tree.map(jnp.asarray, samples), value_clip)
    np.testing.assert_allclose(loss, numpy_loss(logits, value, samples, value_clip), rtol=1e-5)


def test_gradients_equal_finite_differences():
    logits, value, samples = batch(3, size=8)
    with jax.enable_x64(True):
        samples = jax.tree.map(jnp.asarray, samples)
        chex.assert_numerical_grads(
            jax.jit(lambda logits, value: loss_of(logits, value, samples)[0]),
            (jnp.asarray(logits), jnp.asarray(value)),
            order=1,
        )


def test_an_unchanged_policy_has_ratio_one_and_no_divergence():
    logits, value, samples = batch(4)
    log_probs = jax.nn.log_softmax(jnp.asarray(logits))
    same = samples._replace(
        log_prob=np.take_along_axis(np.asarray(log_probs), samples.action[:, None], 1)[:, 0]
    )
    loss, parts = loss_of(jnp.asarray(logits), jnp.asarray(value), jax.tree.map(jnp.asarray, same))
    assert float(parts["kl"]) == 0.0
    assert float(parts["clip_fraction"]) == 0.0
    np.testing.assert_allclose(parts["policy_loss"], -samples.advantage.mean(), rtol=1e-5)
    assert np.isfinite(loss)
