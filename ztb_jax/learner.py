"""The record that one loop trains: PPO, and every learner after it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Metrics = dict[str, jax.Array]


class Learner(NamedTuple):
    """Two functions and two numbers.

    Attributes:
      init: (key, data) -> state. The state is the whole carry: what it lacks cannot be resumed.
      step: (state, data) -> (state, metrics), one update; metrics are [] float32 by name.
      params: (state) -> the weights that a policy is evaluated with.
      env_steps: environment steps in one update.
    """

    init: Callable[[jax.Array, Any], Any]
    step: Callable[[Any, Any], tuple[Any, Metrics]]
    params: Callable[[Any], Any]
    env_steps: int


def scheduled(learner: Learner, change: Callable[[Any, jax.Array], Any], *, num_updates: int) -> Learner:
    """`learner` whose environment changes as it learns: a curriculum of costs, latency or markets.

    Args:
      learner: its state counts `updates`, and its data hold `env_params`.
      change: (env_params, progress [] float32 from 0 to 1) -> env_params, such as `envs.transforms.cheapen`.
        Only training sees them; evaluations play with the true ones.
      num_updates: updates after which progress is 1.
    """

    def step(state, data):
        progress = jnp.clip(state.updates.astype(jnp.float32) / num_updates, 0.0, 1.0)
        return learner.step(state, data.replace(env_params=change(data.env_params, progress)))

    return learner._replace(step=step)
