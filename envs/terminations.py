"""When an episode ends, and whether anything follows."""

import jax
import jax.numpy as jnp

from envs.ledger import MAX_LOSS, Account


def ruined(account: Account, ruin_equity: jax.Array) -> jax.Array:
    """[] bool: equity fell to `ruin_equity` of its start, or lost all that a bar may take. Terminates."""
    return (account.log_equity <= jnp.log(ruin_equity)) | (account.gain <= -MAX_LOSS)


def window_ended(bar: jax.Array, end: jax.Array) -> jax.Array:
    """[] bool: the episode's last bar was reached. Truncates: the market goes on."""
    return bar >= end
