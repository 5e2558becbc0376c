"""The clipped objective."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ztb_jax.policies.distribution import Distribution
from ztb_jax.ppo.hyper import Hyper


class Samples(NamedTuple):
    """What a gradient step is computed from; every leaf [...] but account, action and masks.

    Attributes:
      account: [..., K], account view acted on.
      action: [..., *shape], raw as the distribution gave it.
      log_prob: of the action when it was taken.
      value: estimated when it was taken.
      advantage: as estimated; the loss does not normalise it.
      target: return the value should have had.
      allowed: [..., A] bool, the actions that there were; None is all.
      fresh: bool, the account had just begun a life; None where nothing is remembered.
      memory: [1, ..., H], what was remembered before the first bar; None likewise.
    """

    account: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    target: jax.Array
    allowed: jax.Array | None = None
    fresh: jax.Array | None = None
    memory: jax.Array | None = None


def clipped_surrogate(ratio: jax.Array, advantage: jax.Array, *, clip: Any) -> jax.Array:
    """Elementwise min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A)."""
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


def clipped_value_error(value: jax.Array, old: jax.Array, target: jax.Array, *, clip: Any) -> jax.Array:
    """Elementwise 0.5 * max of the squared errors with and without the move from `old` clipped."""
    near = old + jnp.clip(value - old, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(near - target))


def ppo_loss(
    parameters: Any,
    value: jax.Array,
    samples: Samples,
    *,
    distribution: Distribution,
    hyper: Hyper,
    value_space: Callable[[jax.Array], jax.Array] = lambda value: value,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """[] loss to minimise and its parts.

        L = -mean(surrogate) + value_weight * mean(value error) - entropy_weight * mean(entropy)

    Args:
      parameters: of the current policy's distribution at every sample.
      value: [...] of the current critic.
      samples: the minibatch.
      distribution: of the policy.
      hyper: clip, value_clip, value_weight and entropy_weight as they are now.
      value_space: the scale on which values are compared with their targets.

    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347.
    """
    if samples.allowed is not None:
        assert distribution.restrict is not None
        parameters = distribution.restrict(parameters, samples.allowed)
    log_ratio = distribution.log_prob(parameters, samples.action) - samples.log_prob
    ratio = jnp.exp(log_ratio)
    policy_loss = -clipped_surrogate(ratio, samples.advantage, clip=hyper.clip).mean()
    estimate, target = value_space(value), value_space(samples.target)
    if hyper.value_clip is None:
        value_loss = 0.5 * jnp.square(estimate - target).mean()
    else:
        old = value_space(samples.value)
        value_loss = clipped_value_error(estimate, old, target, clip=hyper.value_clip).mean()
    entropy = distribution.entropy(parameters).mean()
    loss = policy_loss + hyper.value_weight * value_loss - hyper.entropy_weight * entropy
    parts = {
        "loss": loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        # Schulman's low-variance estimator, http://joschu.net/blog/kl-approx.html
        "kl": (ratio - 1.0 - log_ratio).mean(),
        "clip_fraction": (jnp.abs(ratio - 1.0) > hyper.clip).mean(dtype=jnp.float32),
    }
    return loss, parts
