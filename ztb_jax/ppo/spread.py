"""Groups of accounts spread over the devices of a mesh axis, such that all together play what one would.

Randomness is drawn for all groups on every device, and each takes its own part. So a run on n devices is the
run on one up to the rounding of sums; the price is n times the drawing, which is a small part of a step.
"""

from collections.abc import Callable
from typing import Any

import jax

from envs.types import Env

SUMS = ("episodes", "episode_return", "episode_length", "episode_profit", "ruined")


def share_of(groups: int, axis_name: str) -> int:
    """The groups of one device.

    Raises:
      ValueError: the devices do not divide them.
    """
    devices = jax.lax.axis_size(axis_name)
    if groups % devices:
        raise ValueError(
            f"{groups} groups of accounts cannot be spread evenly over {devices} devices: take num_accounts "
            f"of a multiple of {devices} times sharing"
        )
    return groups // devices


def draw_spread(draw: Callable[[Any], Any], shape: Any, *, axis: int, axis_name: str | None) -> Any:
    """What `draw` gives for the groups of all devices, cut to those of this one.

    Args:
      draw: (shape) -> leaves with the groups on `axis`.
      shape: of this device's part, such as (G, S).
      axis: of the groups.
      axis_name: mesh axis; None is a single device.
    """
    if axis_name is None:
        return draw(shape)
    groups = shape[axis]
    first = jax.lax.axis_index(axis_name) * groups
    whole = (*shape[:axis], groups * jax.lax.axis_size(axis_name), *shape[axis + 1 :])
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, groups, axis), draw(whole))


def drawn_whole(env: Env, axis_name: str) -> Env:
    """`env`, of one account, whose draws for a batch [G, S] are this device's part of those for all."""

    def draw(key, shape, params):
        return draw_spread(lambda shape: env.draw(key, shape, params), shape, axis=0, axis_name=axis_name)

    return env._replace(draw=draw)


def gathered(told: dict[str, jax.Array], axis_name: str | None) -> dict[str, jax.Array]:
    """Metrics of one device as those of all: counts added up, means averaged."""
    if axis_name is None:
        return told
    return {
        name: (jax.lax.psum if name in SUMS else jax.lax.pmean)(value, axis_name)
        for name, value in told.items()
    }
