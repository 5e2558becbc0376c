"""The bars that an episode may start at."""

import jax
import jax.numpy as jnp

from envs.types import EnvParams


def num_starts(params: EnvParams, *, episode_bars: int) -> jax.Array:
    """[] int32, at how many bars a window of `episode_bars` may start."""
    if params.starts is None:
        return params.stop - episode_bars - params.first
    return jnp.int32(params.starts.shape[0]) if params.num_starts is None else params.num_starts


def start_at(params: EnvParams, index: jax.Array) -> jax.Array:
    """[...] int32, the bars that stand at `index` [...] int32 among them; each is in range."""
    if params.starts is None:
        return params.first + index
    return params.starts.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)
