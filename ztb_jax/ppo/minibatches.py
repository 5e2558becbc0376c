"""How a rollout is cut into minibatches, and in which order.

Axes: T rollout bars, G groups, S accounts of a group, M minibatches.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ztb_jax.keys import in_a_row
from ztb_jax.policies.encoding import choose_encoding
from ztb_jax.policies.policy import Policy

SHUFFLES = ("auto", "accounts", "segments", "full", "affine")
FREE = 0.25  # encoded rows a step up to which the market costs next to nothing


class Minibatching(NamedTuple):
    """How a rollout is cut into minibatches.

    Attributes:
      shuffle: "accounts" takes some accounts of every group with all their bars, "segments" whole groups;
        "full" and "affine" take single transitions, in a random order or in a random affine one.
      size: how many of them make a minibatch.
      total: M.
    """

    shuffle: str
    size: int
    total: int

    @property
    def whole(self) -> bool:
        """Whether accounts keep their bars in a row."""
        return self.shuffle in {"accounts", "segments"}


def choose_shuffle(
    policy: Policy,
    *,
    num_bars: int,
    num_groups: int,
    sharing: int,
    rollout_bars: int,
    num_minibatches: int,
) -> str:
    """What "auto" stands for: "accounts" where they divide and the market costs little, else "segments".

    Minibatches of accounts encode the bars of all groups, those of whole groups their own. Accounts of every
    group add no variance to the gradient; whole groups were not seen to learn worse (`benchmarks shuffles`),
    and are taken where encoding would be a large part of a step.

    Args:
      policy: whose encoder is asked for its cost.
      num_bars: of the slice.
      num_groups: G.
      sharing: S.
      rollout_bars: T.
      num_minibatches: M.

    Raises:
      ValueError: the number of minibatches divides neither.
    """
    wholes = {"accounts": sharing, "segments": num_groups}
    fitting = [name for name, whole in wholes.items() if whole % num_minibatches == 0]
    if not fitting:
        raise ValueError(
            f"{num_minibatches} minibatches divide neither {sharing} accounts of a group nor {num_groups} "
            "groups"
        )
    if len(fitting) == 1:
        return fitting[0]

    def rows(groups):
        return choose_encoding(policy, num_bars=num_bars, num_groups=groups, bars=rollout_bars).rows

    steps = num_groups * sharing * rollout_bars // num_minibatches
    every, own = rows(num_groups), rows(num_groups // num_minibatches)
    return "segments" if every > FREE * steps and 2 * own <= every else "accounts"


def choose_minibatching(
    *, num_groups: int, sharing: int, rollout_bars: int, num_minibatches: int, shuffle: str
) -> Minibatching:
    """Cut as `shuffle` says, one of `SHUFFLES` but "auto", which `choose_shuffle` settles.

    Raises:
      ValueError: an unknown shuffle, or parts that do not divide by the number of minibatches.
    """
    samples = num_groups * sharing * rollout_bars
    wholes = {"accounts": sharing, "segments": num_groups, "full": samples, "affine": samples}
    if shuffle not in wholes:
        raise ValueError(f"there is no shuffle {shuffle!r}: take one of {', '.join(SHUFFLES)}")
    if wholes[shuffle] % num_minibatches:
        raise ValueError(f"{num_minibatches} minibatches do not divide {wholes[shuffle]} {shuffle} units")
    return Minibatching(shuffle, wholes[shuffle] // num_minibatches, num_minibatches)


def epoch_orders(key: jax.Array, *, epochs: int, cut: Minibatching) -> jax.Array:
    """[epochs, size * M] int32: an order of its own for each epoch."""
    count = cut.size * cut.total
    if cut.shuffle == "affine":
        return jax.vmap(lambda key: _affine(key, count))(jax.random.split(key, epochs))
    return jnp.argsort(in_a_row(jax.random.bits, key, (epochs, count)), axis=-1)


def _affine(key: jax.Array, count: int) -> jax.Array:
    """[count] int32 (a i + b) mod count with a random a coprime to count: a permutation without a sort."""
    steps = _coprimes(count)
    step_key, shift_key = jax.random.split(key)
    step = jnp.asarray(steps)[jax.random.randint(step_key, (), 0, len(steps))]
    shift = jax.random.randint(shift_key, (), 0, count).astype(jnp.uint32)
    return (((jnp.arange(count, dtype=jnp.uint32) * step) % count + shift) % count).astype(jnp.int32)


def _coprimes(count: int) -> np.ndarray:
    """uint32 numbers coprime to `count`, at most 4,096 and small enough that their products fit 32 bits."""
    numbers = np.arange(1, max(2, min(count, 4096, 2**32 // count)), dtype=np.uint32)
    return numbers[np.gcd(numbers, count) == 1]


def shuffled(order: jax.Array, start: jax.Array, samples: Any, cut: Minibatching) -> tuple[Any, Any, Any]:
    """The rollout in M minibatches on a new leading axis.

    Args:
      order: [size * M] permutation of what minibatches are made of.
      start: [G] first bars.
      samples: leaves [T, G, S, ...].
      cut: how.

    Returns:
      First bars [M, G or size]; the place t * G + g of every sample [M, size], or None where bars are kept in
      a row; and the samples [M, ...], laid out [T, G, size], [T, size, S] or [size].
    """
    if cut.whole:
        axis = 2 if cut.shuffle == "accounts" else 1

        def deal(leaf):
            dealt = jnp.take(leaf, order, axis=axis, unique_indices=True)
            dealt = dealt.reshape(*leaf.shape[:axis], cut.total, cut.size, *leaf.shape[axis + 1 :])
            return jnp.moveaxis(dealt, axis, 0)

        starts = jnp.broadcast_to(start, (cut.total, *start.shape))
        if cut.shuffle == "segments":
            starts = start[order].reshape(cut.total, cut.size)
        return starts, None, jax.tree.map(deal, samples)

    def pick(leaf):
        flat = leaf.reshape(-1, *leaf.shape[3:])
        return jnp.take(flat, order, axis=0, unique_indices=True).reshape(
            cut.total, cut.size, *flat.shape[1:]
        )

    sharing = jax.tree.leaves(samples)[0].shape[2]
    starts = jnp.broadcast_to(start, (cut.total, *start.shape))
    return starts, (order // sharing).reshape(cut.total, cut.size), jax.tree.map(pick, samples)
