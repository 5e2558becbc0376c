"""The clipped objective."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ztb_jax.policies import distributions


class Samples(NamedTuple):
    """What a gradient step is computed from; every leaf [...] but the account [..., K].

    Attributes:
      account: account view acted on.
      action: int32.
      log_prob: of the action when it was taken.
      value: estimated when it was taken.
      advantage: as estimated; the loss does not normalise it.
      target: return the value should have had.
      allowed: [..., A] bool, the actions that there were; None is all.
    """

    account: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    target: jax.Array
    allowed: jax.Array | None = None


def clipped_surrogate(ratio: jax.Array, advantage: jax.Array, *, clip: float) -> jax.Array:
    """Elementwise min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A)."""
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


def clipped_value_error(value: jax.Array, old: jax.Array, target: jax.Array, *, clip: float) -> jax.Array:
    """Elementwise 0.5 * max of the squared errors with and without the move from `old` clipped."""
    near = old + jnp.clip(value - old, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(near - target))


def ppo_loss(
    log_probs: jax.Array,
    value: jax.Array,
    samples: Samples,
    *,
    clip: float,
    value_clip: float | None,
    value_weight: float,
    entropy_weight: float | jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """[] loss to minimise and its parts.

        L = -mean(surrogate) + value_weight * mean(value error) - entropy_weight * mean(entropy)

    Args:
      log_probs: [..., A] of the current policy.
      value: [...] of the current critic.
      samples: the minibatch.
      clip: how far the ratio may move.
      value_clip: how far the value may move, or None for the plain squared error.
      value_weight: weight of the value error.
      entropy_weight: [] weight of the entropy.

    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347.
    """
    if samples.allowed is not None:
        log_probs = distributions.masked(log_probs, samples.allowed)
    log_ratio = distributions.log_prob(log_probs, samples.action) - samples.log_prob
    ratio = jnp.exp(log_ratio)
    policy_loss = -clipped_surrogate(ratio, samples.advantage, clip=clip).mean()
    if value_clip is None:
        value_loss = 0.5 * jnp.square(value - samples.target).mean()
    else:
        value_loss = clipped_value_error(value, samples.value, samples.target, clip=value_clip).mean()
    entropy = distributions.entropy(log_probs).mean()
    loss = policy_loss + value_weight * value_loss - entropy_weight * entropy
    parts = {
        "loss": loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        # Schulman's low-variance estimator, http://joschu.net/blog/kl-approx.html
        "kl": (ratio - 1.0 - log_ratio).mean(),
        "clip_fraction": (jnp.abs(ratio - 1.0) > clip).mean(dtype=jnp.float32),
    }
    return loss, parts
