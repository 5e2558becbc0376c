"""The record that one loop trains: PPO, and every learner after it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

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
