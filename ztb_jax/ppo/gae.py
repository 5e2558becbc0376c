"""Generalised advantage estimation with terminations and truncations told apart."""

import chex
import jax
import jax.numpy as jnp


def gae(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    *,
    gamma: float,
    lam: float,
) -> jax.Array:
    """[T] advantages of one trajectory, which may hold several episodes.

        delta[t] = r[t] + gamma * (0 if terminated[t] else V(s'[t])) - V(s[t])
        A[t]     = delta[t] + gamma * lam * (0 if terminated[t] or truncated[t] else A[t+1])

    A termination is worth nothing afterwards; a truncation is worth the value of the state it cut off, but no
    advantage flows back from the episode that follows. lam = 0 is the one-step TD error; lam = 1 the
    discounted return less the value.

    Args:
      reward: [T].
      value: [T], of the observation acted on.
      next_value: [T], of the observation that came out of the step, before any reset.
      terminated: [T] bool.
      truncated: [T] bool.
      gamma: discount of a bar.
      lam: the trace's decay.

    Source: Schulman et al. 2015, https://arxiv.org/abs/1506.02438; truncation as in Pardo et al. 2018.
    """
    chex.assert_equal_shape([reward, value, next_value, terminated, truncated])
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value

    def back(later, now):
        delta_t, ends_t = now
        advantage = delta_t + gamma * lam * jnp.where(ends_t, 0.0, later)
        return advantage, advantage

    _, advantages = jax.lax.scan(
        back, jnp.zeros_like(delta[0]), (delta, terminated | truncated), reverse=True
    )
    return advantages
