"""The record that every family of action distributions fills."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Distribution(NamedTuple):
    """A family of distributions over actions.

    Nothing in it is drawn for one account at a time: random numbers come in one call for a whole rollout.

    Attributes:
      size: P, numbers that the network gives for one action.
      shape: of one raw action: () or (n,).
      draw: (key, shape) -> noise; shape is (T, ...batch), and the leaves of the noise have T in front, so
        that a scan over the steps of a rollout hands `sample` one row each.
      parameters: (outputs [..., P]) -> parameters, a pytree.
      sample: (noise of one step, parameters) -> raw action [..., *shape], which is stored and judged.
      log_prob: (parameters, raw) -> [...] float32, log-density of the environment's action.
      entropy: (parameters) -> [...] float32, in nats, of the environment's action.
      mode: (parameters) -> raw, what evaluation plays.
      act: (raw) -> the environment's action.
      restrict: (parameters, allowed [..., P] bool) -> parameters among the allowed ones; None where actions
        cannot be ruled out.
    """

    size: int
    shape: tuple[int, ...]
    draw: Callable[[jax.Array, tuple[int, ...]], Any]
    parameters: Callable[[jax.Array], Any]
    sample: Callable[[Any, Any], jax.Array]
    log_prob: Callable[[Any, jax.Array], jax.Array]
    entropy: Callable[[Any], jax.Array]
    mode: Callable[[Any], jax.Array]
    act: Callable[[jax.Array], jax.Array]
    restrict: Callable[[Any, jax.Array], Any] | None = None
