"""Optimisers whose numbers are arrays, so that they can differ between the members of a population."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

Number = float | jax.Array
Numbers = TypeVar("Numbers")

OPTIMIZERS = ("adam", "muon")
ANY = float("inf")
FINITE = float(np.finfo(np.float32).max)
SLOWEST_DECAY = 0.999999  # of a moment; at 1 its correction for the start at zero divides by zero


class Trained(struct.PyTreeNode):
    """What gradient steps change.

    Attributes:
      params: weights.
      optimizer: the optimiser's moments.
    """

    params: Any
    optimizer: Any


def as_arrays(hyper: Numbers) -> Numbers:
    """`hyper`, a record of numbers, as strongly typed float32, so that programs compile once."""
    record: Any = hyper
    knots = {name: jnp.asarray(getattr(record, name), jnp.float32) for name in schedules_of(record)}
    return jax.tree.map(jnp.float32, record.replace(**dict.fromkeys(knots))).replace(**knots)


def schedules_of(hyper: Any) -> list[str]:
    """The names of the schedules in a record of numbers."""
    return [name for name in hyper.__dataclass_fields__ if name.endswith("_schedule")]


def out_of_range(hyper: Any, ranges: dict[str, tuple[float, float]]) -> list[str]:
    """Findings on numbers outside of `ranges`, ends included, and on schedules empty or not finite."""
    findings = []
    for name, (low, high) in ranges.items():
        value = getattr(hyper, name)
        if value is None:
            continue
        numbers = np.asarray(value, np.float64)
        if not ((numbers >= low) & (numbers <= high)).all():
            findings.append(f"{name} must be within [{low:g}, {high:g}], got {value}")
    for name in schedules_of(hyper):
        knots = np.asarray(getattr(hyper, name), np.float64)
        if knots.size == 0 or not np.isfinite(knots).all():
            findings.append(f"{name} needs one finite value or more, got {getattr(hyper, name)}")
    return findings


def interpolated(knots: jax.Array, progress: jax.Array) -> jax.Array:
    """[] the schedule `knots` [N] at `progress` [] from 0 to 1, linear in between."""
    if knots.shape[0] == 1:
        return knots[0]
    place = jnp.clip(progress, 0.0, 1.0) * (knots.shape[0] - 1)
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(place - jnp.arange(knots.shape[0], dtype=jnp.float32)))
    return (weights * knots).sum()


def optimizer_of(name: str, hyper: Any) -> optax.GradientTransformation:
    """From clipped gradients to changes of weights; its state has the same structure for any numbers.

    Args:
      name: "adam", or "muon" for matrices with Adam for the rest.
      hyper: has learning_rate, beta1, beta2, epsilon and weight_decay, which may be traced.
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
    # Flat, for a CPU takes longer to start a sum than to do one of a few thousand numbers.
    parts: list[Any] = [optax.flatten(optax.scale_by_adam(b1=hyper.beta1, b2=hyper.beta2, eps=hyper.epsilon))]
    if hyper.weight_decay is not None:
        parts.append(optax.add_decayed_weights(decay, mask=_matrices))
    return optax.chain(*parts, optax.scale(-1.0 * hyper.learning_rate))


def _matrices(params: Any) -> Any:
    """Which leaves decay: matrices do; biases and statistics do not."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def clipped(grads: Any, largest: Number) -> tuple[Any, jax.Array]:
    """`grads` scaled down to a global norm of at most `largest`, and the norm [] that they had.

    As one vector, like the moments in `optimizer_of`: a kernel instead of one for every leaf.
    """
    flat, restore = ravel_pytree(grads)
    norm = optax.tree.norm(flat)
    return restore(flat * jnp.minimum(1.0, largest / jnp.maximum(norm, 1e-12))), norm
