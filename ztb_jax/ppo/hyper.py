"""The numbers of PPO, as arrays: whatever is here can differ between the members of a population."""

from typing import Any

import jax
from flax import struct

from ztb_jax.optimizers import ANY, FINITE, SLOWEST_DECAY, Number, interpolated


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


RANGES = {
    "learning_rate": (0.0, FINITE),
    "gamma": (0.0, 1.0),
    "lam": (0.0, 1.0),
    "clip": (0.0, ANY),
    "value_clip": (0.0, ANY),
    "value_weight": (0.0, FINITE),
    "entropy_weight": (-FINITE, FINITE),
    "max_grad_norm": (0.0, ANY),
    "weight_decay": (0.0, FINITE),
    "target_kl": (0.0, ANY),
    "beta1": (0.0, SLOWEST_DECAY),
    "beta2": (0.0, SLOWEST_DECAY),
    "epsilon": (0.0, FINITE),
}

SCHEDULES = ("learning_rate_schedule", "entropy_schedule", "clip_schedule")


def scheduled_at(hyper: Hyper, progress: jax.Array) -> Hyper:
    """`hyper` at `progress` [] from 0 to 1: learning rate, entropy weight and clips times their schedules."""
    rate, entropy, clip = (interpolated(getattr(hyper, name), progress) for name in SCHEDULES)
    return hyper.replace(
        learning_rate=hyper.learning_rate * rate,
        entropy_weight=hyper.entropy_weight * entropy,
        clip=hyper.clip * clip,
        value_clip=None if hyper.value_clip is None else hyper.value_clip * clip,
    )
