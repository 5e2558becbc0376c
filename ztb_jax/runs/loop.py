"""The one loop: windows of updates under one jit, and the host's work between them."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ztb_jax.learner import Learner

WindowFunction = Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]


class Window(NamedTuple):
    """What one window brought.

    Attributes:
      number: from 0.
      metrics: [K] float32 by name, one value an update; empty where the window brought none.
      seconds: wall time on the device, transfer included.
    """

    number: int
    metrics: dict[str, np.ndarray]
    seconds: float


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache, so that the next run of the same sizes starts at once.

    `JAX_COMPILATION_CACHE_DIR` names another folder, or none when it is empty.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "ztb_jax" / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def initialise(learner: Learner, seed: int, data: Any) -> Any:
    """The learner's first state; compiled whole, which takes a tenth of the time of doing it op by op."""
    return jax.jit(learner.init)(jax.random.key(seed), data)


def compile_window(learner: Learner, state: Any, data: Any, *, num_updates: int) -> jax.stages.Compiled:
    """`num_updates` updates as one program that consumes its first argument.

    Args:
      learner: whose step it repeats.
      state: the learner's, or its shapes: nothing runs here.
      data: the market, or its shapes.
      num_updates: steps in a window.

    Returns:
      (state, data) -> (state, metrics [num_updates] by name); the state passed in is donated.
    """

    return lower_window(learner, state, data, num_updates).compile()


def lower_window(learner: Learner, state: Any, data: Any, num_updates: int) -> jax.stages.Lowered:
    """The same before it is compiled."""
    return jax.jit(repeated(learner, num_updates), donate_argnums=0).lower(state, data)


def repeated(learner: Learner, num_updates: int) -> WindowFunction:
    """(state, data) -> (state, metrics [num_updates] by name), a window as a function."""

    def window(state, data):
        return jax.lax.scan(lambda state, _: learner.step(state, data), state, length=num_updates)

    return window


def planned_bytes(program: jax.stages.Compiled) -> int | None:
    """Memory that one call of `program` holds at the most, its arguments included; None if it is not told."""
    plan = program.memory_analysis()
    if plan is None:
        return None
    held = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return held + plan.temp_size_in_bytes


def run_windows(
    window: WindowFunction,
    state: Any,
    data: Any,
    *,
    count: int,
    first: int = 0,
    after: Callable[[Any, Window], str | None],
    calls: Callable[[int], int] = lambda number: 1,
    around: Callable[[int], AbstractContextManager[Any]] = lambda number: nullcontext(),
) -> tuple[Any, str | None]:
    """Run the windows `first` to `count - 1`, or as many as it takes until `after` says stop.

    Args:
      window: from `compile_window`.
      state: consumed.
      data: the market.
      count: windows of the whole run.
      first: the number of the next window.
      after: called after each with the new state; a text ends the loop and says why.
      calls: of a window's number, how often `window` is called in it; 0 brings no update.
      around: of a window's number, what is open while the device plays it, such as a trace.

    Returns:
      The last state, and why the loop ended early or None.
    """
    for number in range(first, count):
        with around(number):
            started = time.perf_counter()
            told = []
            for _ in range(calls(number)):
                state, metrics = window(state, data)
                told.append(metrics)
            host = _in_a_row(jax.device_get(told))
            seconds = time.perf_counter() - started
        reason = after(state, Window(number, host, seconds))
        if reason is not None:
            return state, reason
    return state, None


def _in_a_row(told: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Metrics of one call after the other."""
    if not told:
        return {}
    return {name: np.concatenate([np.asarray(each[name]) for each in told]) for name in told[0]}
