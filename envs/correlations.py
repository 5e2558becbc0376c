"""Correlation followed bar by bar, and how far it is from what it used to be."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs import risk

NORMAL, SPIKE, BREAKDOWN = 0, 1, 2
REGIMES = ("normal", "correlation_spike", "correlation_breakdown")
MIN_MATRICES = 10
CHANGE = 0.3


class Tracked(struct.PyTreeNode):
    """What a tracker remembers.

    Attributes:
      returns: [window, A] float32, the last ones, oldest first.
      count: [] int32, returns seen.
      matrices: [] int32, full windows seen.
      mean: [] float32, mean over those of their mean absolute correlation.
    """

    returns: jax.Array
    count: jax.Array
    matrices: jax.Array
    mean: jax.Array


class Reading(NamedTuple):
    """What a tracker tells of a bar.

    Attributes:
      matrix: [A, A] float32 correlation of the last window; the identity before the first full one.
      mean: [] float32, mean |rho| of different instruments; 0 before.
      regime: [] int32: `SPIKE` or `BREAKDOWN` where `mean` is more than 30 % above or below its history's
        mean, which needs 10 earlier matrices; else `NORMAL`. `REGIMES` has the names.
    """

    matrix: jax.Array
    mean: jax.Array
    regime: jax.Array


class CorrelationTracker(NamedTuple):
    """init() -> state; step(state, returns [A]) -> (state, reading)."""

    init: Callable[[], Tracked]
    step: Callable[[Tracked, jax.Array], tuple[Tracked, Reading]]


def make_correlation_tracker(*, num_instruments: int, window: int = 100) -> CorrelationTracker:
    """A tracker of the correlation of the last `window` returns.

    Raises:
      ValueError: a window of fewer than 2 bars. In `step`: not one return for each instrument.
    """
    if window < 2:
        raise ValueError(f"window must be at least 2 bars, got {window}")
    same = jnp.eye(num_instruments)
    num_pairs = max(num_instruments * (num_instruments - 1), 1)

    def init():
        nothing = jnp.zeros((window, num_instruments), jnp.float32)
        return Tracked(returns=nothing, count=jnp.int32(0), matrices=jnp.int32(0), mean=jnp.float32(0))

    def step(state, returns):
        if returns.shape != (num_instruments,):
            raise ValueError(f"expected {num_instruments} returns, got shape {returns.shape}")
        seen = jnp.concatenate([state.returns[1:], returns[None]])
        count = state.count + 1
        full = count >= window
        matrix = jnp.where(full, risk.correlation(risk.covariance(seen)), same)
        mean = (jnp.abs(matrix).sum() - num_instruments) / num_pairs
        matrices = state.matrices + full
        history = state.mean + jnp.where(full, (mean - state.mean) / jnp.maximum(matrices, 1), 0.0)
        regime = jnp.where(
            mean > (1.0 + CHANGE) * state.mean,
            SPIKE,
            jnp.where(mean < (1.0 - CHANGE) * state.mean, BREAKDOWN, NORMAL),
        )
        known = full & (state.matrices >= MIN_MATRICES)
        moved = Tracked(returns=seen, count=count, matrices=matrices, mean=history)
        return moved, Reading(matrix=matrix, mean=mean, regime=jnp.where(known, regime, NORMAL))

    return CorrelationTracker(init=init, step=step)
