"""Gates: reductions over a learner's metrics that can stop it before a bad update is kept."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ztb_jax.learner import Learner

HEALTHY = 0
NOT_FINITE = 1
REASONS = {NOT_FINITE: "the loss, the reward, the gradient or the weights stopped being finite numbers"}


class Gate(NamedTuple):
    """A gate.

    Attributes:
      init: () -> state.
      update: (state, metrics) -> (state, verdict [] int32), 0 while healthy.
    """

    init: Callable[[], Any]
    update: Callable[[Any, dict[str, jax.Array]], tuple[Any, jax.Array]]


class Gated(struct.PyTreeNode):
    """A learner's state behind a gate.

    Attributes:
      learner: the state of the last update that the gate let pass.
      gate: the gate's own state.
      verdict: [] int32, 0 or the code of the first failure; it stays.
    """

    learner: Any
    gate: Any
    verdict: jax.Array


def finite(*names: str) -> Gate:
    """Trips with `NOT_FINITE` when one of the named metrics is NaN or infinite."""

    def update(state, metrics):
        healthy = jnp.stack([jnp.isfinite(metrics[name]) for name in names]).all()
        return state, jnp.where(healthy, jnp.int32(HEALTHY), jnp.int32(NOT_FINITE))

    return Gate(init=lambda: (), update=update)


def gated(learner: Learner, gate: Gate) -> Learner:
    """`learner` that freezes before the first update that `gate` refuses; metrics gain `verdict`.

    A healthy gate changes no bit of the learner's state.
    """

    def init(key, data):
        return Gated(learner=learner.init(key, data), gate=gate.init(), verdict=jnp.int32(HEALTHY))

    def step(state, data):
        proposed, metrics = learner.step(state.learner, data)
        gate_state, verdict = gate.update(state.gate, metrics)
        verdict = jnp.where(state.verdict == HEALTHY, verdict, state.verdict)
        keep = verdict == HEALTHY
        kept = jax.lax.cond(keep, lambda: proposed, lambda: state.learner)
        return Gated(kept, gate_state, verdict), metrics | {"verdict": verdict}

    return learner._replace(init=init, step=step, params=lambda state: learner.params(state.learner))
