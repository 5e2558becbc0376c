"""Losses that flatten the account and lock it: for the day, or for the rest of the episode."""

import jax
import jax.numpy as jnp
from flax import struct

from envs.types import Limits

OPEN, DAY, EPISODE = 0, 1, 2


class Guard(struct.PyTreeNode):
    """What losses are measured from, and whether trading is over.

    Attributes:
      day: [] float32, log equity before the day's first bar.
      peak: [] float32, highest log equity at a close of the episode, its start included.
      lock: [] int32, `OPEN`, `DAY` or `EPISODE`.
    """

    day: jax.Array
    peak: jax.Array
    lock: jax.Array


def open_guard(log_equity: jax.Array) -> Guard:
    """The guard of a fresh account."""
    return Guard(day=log_equity, peak=log_equity, lock=jnp.full_like(log_equity, OPEN, jnp.int32))


def watch(
    guard: Guard, limits: Limits, *, before: jax.Array, after: jax.Array, new_day: jax.Array | None
) -> Guard:
    """The guard at a close.

    Args:
      guard: at the last close.
      limits: shares of equity that may be lost.
      before: [] log equity at the last close.
      after: [] log equity now.
      new_day: [] bool, the bar was the first of its day; None is one endless day.
    """
    fresh = False if new_day is None else new_day
    day = jnp.where(fresh, before, guard.day)
    peak = jnp.maximum(guard.peak, after)
    lock = jnp.where(fresh & (guard.lock == DAY), OPEN, guard.lock)
    lost_day = after <= day + jnp.log1p(-limits.daily_loss)
    lost_all = after <= peak + jnp.log1p(-limits.drawdown)
    lock = jnp.where(lost_day, jnp.maximum(lock, DAY), lock)
    return Guard(day=day, peak=peak, lock=jnp.where(lost_all, EPISODE, lock))
