"""The categorical distribution over actions, in a form that is cheap on every device."""

import jax
import jax.numpy as jnp

RULED_OUT = -1e9  # a log-probability whose exponential is 0, and whose product with it is 0 instead of NaN


def masked(log_probs: jax.Array, allowed: jax.Array) -> jax.Array:
    """[..., A] log-probabilities among the actions `allowed` [..., A] alone; at least one must be.

    Sampling, log-probability and entropy of the result are those of the smaller distribution, and nothing
    flows back to an action that was ruled out.
    """
    kept = jax.nn.log_softmax(jnp.where(allowed, log_probs, RULED_OUT))
    return jnp.where(allowed, kept, RULED_OUT)


def sample(uniform: jax.Array, log_probs: jax.Array, allowed: jax.Array | None = None) -> jax.Array:
    """[...] int32 action by inversion: how many cumulative probabilities `uniform` has passed.

    Args:
      uniform: [...] in [0, 1).
      log_probs: [..., A] normalised.
      allowed: [..., A] bool, what `log_probs` were `masked` by.
    """
    cumulative = jnp.cumsum(jnp.exp(log_probs), axis=-1)[..., :-1]
    action = (uniform[..., None] >= cumulative).sum(axis=-1, dtype=jnp.int32)
    if allowed is None:
        return action
    # Rounding may leave the sum a trace below 1; a uniform above it would choose a forbidden last action.
    ruled_out = log_prob(log_probs, action) <= RULED_OUT
    return jnp.where(ruled_out, jnp.argmax(log_probs, axis=-1).astype(jnp.int32), action)


def log_prob(log_probs: jax.Array, action: jax.Array) -> jax.Array:
    """[...] log-probability of `action` [...] under `log_probs` [..., A]."""
    chosen = action[..., None] == jax.lax.broadcasted_iota(jnp.int32, log_probs.shape, log_probs.ndim - 1)
    return jnp.where(chosen, log_probs, 0.0).sum(axis=-1)


def entropy(log_probs: jax.Array) -> jax.Array:
    """[...] -sum p log p over the last axis of normalised `log_probs` [..., A], in nats."""
    return -(jnp.exp(log_probs) * log_probs).sum(axis=-1)
