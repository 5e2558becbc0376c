"""The categorical distribution over actions, in a form that is cheap on every device."""

import jax
import jax.numpy as jnp


def sample(uniform: jax.Array, log_probs: jax.Array) -> jax.Array:
    """[...] int32 action by inversion: how many cumulative probabilities `uniform` has passed.

    Args:
      uniform: [...] in [0, 1).
      log_probs: [..., A] normalised.
    """
    cumulative = jnp.cumsum(jnp.exp(log_probs), axis=-1)[..., :-1]
    return (uniform[..., None] >= cumulative).sum(axis=-1, dtype=jnp.int32)


def log_prob(log_probs: jax.Array, action: jax.Array) -> jax.Array:
    """[...] log-probability of `action` [...] under `log_probs` [..., A]."""
    chosen = action[..., None] == jax.lax.broadcasted_iota(jnp.int32, log_probs.shape, log_probs.ndim - 1)
    return jnp.where(chosen, log_probs, 0.0).sum(axis=-1)


def entropy(log_probs: jax.Array) -> jax.Array:
    """[...] -sum p log p over the last axis of normalised `log_probs` [..., A], in nats."""
    return -(jnp.exp(log_probs) * log_probs).sum(axis=-1)
