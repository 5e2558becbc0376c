"""Reward terms: pure functions of the account before and after a step."""

import jax
import jax.numpy as jnp

from envs.ledger import Account


def log_return(before: Account, after: Account) -> jax.Array:
    """[] log(equity after / equity before); adds up to the log growth of the episode."""
    del before
    return jnp.log1p(after.gain)
