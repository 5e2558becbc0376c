"""The numbers of PPO, as arrays: whatever is here can differ between the members of a population."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

Number = float | jax.Array


class Hyper(struct.PyTreeNode):
    """Float hyperparameters, [] each; a part that is None does not exist in the program.

    Schedules are [N] multipliers at equal distances over the run, linear in between: (1, 0) falls to zero,
    (1,) is constant, (0, 1, 1, 0) warms up and cools down.

    Attributes:
      learning_rate: of the optimiser.
      gamma: discount of a bar.
      lam: decay of the advantage trace.
      clip: how far the probability ratio may move.
      value_clip: how far the value may move, or None for the plain squared error.
      value_weight: of the value loss.
      entropy_weight: of the entropy bonus.
      max_grad_norm: global norm above which gradients are scaled down.
      weight_decay: of matrices, decoupled, a multiple of the learning rate; None is none.
      target_kl: of an update, for stopping or adapting by it; None is neither.
      beta1: decay of the first moment; of Muon's momentum.
      beta2: decay of the second moment.
      epsilon: added to the root of the second moment.
      learning_rate_schedule: [N].
      entropy_schedule: [N].
      clip_schedule: [N], of both clips.
    """

    learning_rate: Number = 3e-4
    gamma: Number = 0.95
    lam: Number = 0.9
    clip: Number = 0.2
    value_clip: Number | None = None
    value_weight: Number = 0.5
    entropy_weight: Number = 0.01
    max_grad_norm: Number = 0.5
    weight_decay: Number | None = None
    target_kl: Number | None = None
    beta1: Number = 0.9
    beta2: Number = 0.999
    epsilon: Number = 1e-5
    learning_rate_schedule: Any = (1.0, 0.0)
    entropy_schedule: Any = (1.0, 0.0)
    clip_schedule: Any = (1.0,)


SCHEDULES = ("learning_rate_schedule", "entropy_schedule", "clip_schedule")


def as_arrays(hyper: Hyper) -> Hyper:
    """`hyper` with every number as strongly typed float32, so that programs compile once."""
    knots = {name: jnp.asarray(getattr(hyper, name), jnp.float32) for name in SCHEDULES}
    return jax.tree.map(jnp.float32, hyper.replace(**dict.fromkeys(SCHEDULES))).replace(**knots)


def out_of_range(hyper: Hyper) -> list[str]:
    """Findings on numbers that PPO cannot work with."""
    findings = []
    for name, (low, high) in RANGES.items():
        value = getattr(hyper, name)
        if value is None:
            continue
        numbers = np.asarray(value, np.float64)
        if not ((numbers >= low) & (numbers <= high)).all():
            findings.append(f"{name} must be within [{low:g}, {high:g}], got {value}")
    findings += [f"{name} has no value" for name in SCHEDULES if np.size(getattr(hyper, name)) == 0]
    return findings


ANY = float("inf")
RANGES = {
    "learning_rate": (0.0, ANY),
    "gamma": (0.0, 1.0),
    "lam": (0.0, 1.0),
    "clip": (0.0, ANY),
    "value_clip": (0.0, ANY),
    "value_weight": (0.0, ANY),
    "entropy_weight": (-ANY, ANY),
    "max_grad_norm": (0.0, ANY),
    "weight_decay": (0.0, ANY),
    "target_kl": (0.0, ANY),
    "beta1": (0.0, 1.0),
    "beta2": (0.0, 1.0),
    "epsilon": (0.0, ANY),
}


def scheduled_at(hyper: Hyper, progress: jax.Array) -> Hyper:
    """`hyper` at `progress` [] from 0 to 1: learning rate, entropy weight and clips times their schedules."""
    rate, entropy, clip = (_interpolated(getattr(hyper, name), progress) for name in SCHEDULES)
    return hyper.replace(
        learning_rate=hyper.learning_rate * rate,
        entropy_weight=hyper.entropy_weight * entropy,
        clip=hyper.clip * clip,
        value_clip=None if hyper.value_clip is None else hyper.value_clip * clip,
    )


def _interpolated(knots: jax.Array, progress: jax.Array) -> jax.Array:
    if knots.shape[0] == 1:
        return knots[0]
    place = jnp.clip(progress, 0.0, 1.0) * (knots.shape[0] - 1)
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(place - jnp.arange(knots.shape[0], dtype=jnp.float32)))
    return (weights * knots).sum()


OPTIMIZERS = ("adam", "muon")


def optimizer_of(name: str, hyper: Hyper) -> optax.GradientTransformation:
    """From clipped gradients to changes of weights; its state has the same structure for any numbers.

    Args:
      name: "adam", or "muon" for matrices with Adam for the rest.
      hyper: numbers, which may be traced.
    """
    decay = 0.0 if hyper.weight_decay is None else hyper.weight_decay
    if name == "muon":
        return optax.contrib.muon(
            hyper.learning_rate,
            beta=hyper.beta1,
            weight_decay=decay,
            adam_b1=hyper.beta1,
            adam_b2=hyper.beta2,
            consistent_rms=0.2,
        )
    parts = [optax.scale_by_adam(b1=hyper.beta1, b2=hyper.beta2, eps=hyper.epsilon)]
    if hyper.weight_decay is not None:
        parts.append(optax.add_decayed_weights(decay, mask=_matrices))
    return optax.chain(*parts, optax.scale(-1.0 * hyper.learning_rate))


def _matrices(params: Any) -> Any:
    """Which leaves decay: matrices do; biases and statistics do not."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def clipped(grads: Any, norm: jax.Array, largest: Number) -> Any:
    """`grads` scaled down to a global norm of `largest` where `norm` is above it."""
    scale = jnp.minimum(1.0, largest / jnp.maximum(norm, 1e-12))
    return jax.tree.map(lambda grad: grad * scale, grads)
