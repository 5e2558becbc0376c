"""What an agent sees of its account, and the dense observation for learners that need one."""

import jax
import jax.numpy as jnp

from envs.ledger import Account

ACCOUNT_SIZE = 2


def account_view(account: Account) -> jax.Array:
    """[2] float32: the level last asked for, and the exposure it has drifted to."""
    return jnp.stack([account.level, account.exposure], axis=-1)


def dense(features: jax.Array, bar: jax.Array, account: jax.Array, *, lookback: int) -> jax.Array:
    """The observation as one vector: the last `lookback` rows of features, oldest first, then the account.

    Args:
      features: [T, F].
      bar: [] int32, at least `lookback - 1`.
      account: [K].
      lookback: rows to take.

    Returns:
      [lookback * F + K].
    """
    window = jax.lax.dynamic_slice_in_dim(features, bar - (lookback - 1), lookback)
    return jnp.concatenate([window.reshape(-1), account])
