"""From a rollout to new weights: epochs of minibatches, market encoded once per minibatch.

Axes: T rollout bars, G groups, S accounts of a group, M minibatches.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ztb_jax.data.market import MarketData
from ztb_jax.policies.policy import Policy
from ztb_jax.ppo.gae import gae
from ztb_jax.ppo.loss import Samples, ppo_loss
from ztb_jax.ppo.rollout import Rollout, encode_bars


class Minibatching(NamedTuple):
    """How a rollout is cut into minibatches.

    Attributes:
      axis: "account" takes some accounts of every group, "group" takes whole groups.
      size: how many of them make a minibatch.
      total: M.
    """

    axis: str
    size: int
    total: int


def choose_minibatching(*, num_groups: int, sharing: int, num_minibatches: int) -> Minibatching:
    """Accounts of every group where they divide evenly, else whole groups.

    The former adds no gradient variance of its own, since every minibatch sees every bar.

    Raises:
      ValueError: neither divides by the number of minibatches.
    """
    for axis, whole in (("account", sharing), ("group", num_groups)):
        if whole % num_minibatches == 0:
            return Minibatching(axis, whole // num_minibatches, num_minibatches)
    raise ValueError(
        f"{num_minibatches} minibatches divide neither {sharing} accounts of a group nor {num_groups} groups"
    )


def samples_of(rollout: Rollout, *, gamma: float, lam: float) -> Samples:
    """The rollout's samples [T, G, S] with advantages and targets.

    A window ends only with the rollout, where `final_value` is the value of what came out of the last step,
    so truncation needs no mark of its own.
    """
    next_value = jnp.concatenate([rollout.value[1:], rollout.final_value[None]])
    # After a termination the next row is another life: `terminated` cuts both terms there.
    never = jnp.zeros_like(rollout.terminated)
    advantage = gae(
        rollout.reward, rollout.value, next_value, rollout.terminated, never, gamma=gamma, lam=lam
    )
    return Samples(
        account=rollout.account,
        action=rollout.action,
        log_prob=rollout.log_prob,
        value=rollout.value,
        advantage=advantage,
        target=advantage + rollout.value,
        allowed=rollout.allowed,
    )


def epoch_orders(key: jax.Array, *, epochs: int, cut: Minibatching) -> jax.Array:
    """[epochs, size * M] int32: an order of its own for each epoch."""
    return jax.vmap(lambda key: jax.random.permutation(key, cut.size * cut.total))(
        jax.random.split(key, epochs)
    )


def shuffled(order: jax.Array, start: jax.Array, samples: Samples, cut: Minibatching) -> tuple[Any, Samples]:
    """The samples in M minibatches on a new leading axis, and each one's group starts [M, ...].

    Args:
      order: [size * M] permutation of what minibatches are made of.
      start: [G] first bars.
      samples: leaves [T, G, S, ...].
      cut: how.
    """
    axis = 2 if cut.axis == "account" else 1

    def deal(leaf):
        dealt = jnp.take(leaf, order, axis=axis, unique_indices=True)
        dealt = dealt.reshape(*leaf.shape[:axis], cut.total, cut.size, *leaf.shape[axis + 1 :])
        return jnp.moveaxis(dealt, axis, 0)

    if cut.axis == "account":
        starts = jnp.broadcast_to(start, (cut.total, *start.shape))
    else:
        starts = start[order].reshape(cut.total, cut.size)
    return starts, jax.tree.map(deal, samples)


def make_update(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    cut: Minibatching,
    *,
    epochs: int,
    clip: float,
    value_clip: float | None,
    value_weight: float,
    normalise_advantage: bool,
) -> Callable[..., tuple[Any, Any, dict[str, jax.Array]]]:
    """The gradient half of PPO.

    Returns:
      (key, params, optimizer_state, *, start [G], samples, data, learning_rate [], entropy_weight [])
      -> (params, optimizer_state, metrics averaged over all gradient steps).
    """

    def loss_of(params, start, samples, data, entropy_weight):
        shape = samples.action.shape
        rows, at = encode_bars(policy, params, data.features, start, bars=shape[0])
        context = rows[jnp.broadcast_to(at[:, :, None], shape).reshape(-1)]
        samples = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), samples)
        log_probs, value = policy.apply(params, context, samples.account)
        if normalise_advantage:
            centred = samples.advantage - samples.advantage.mean()
            samples = samples._replace(advantage=centred / (samples.advantage.std() + 1e-8))
        return ppo_loss(
            log_probs,
            value,
            samples,
            clip=clip,
            value_clip=value_clip,
            value_weight=value_weight,
            entropy_weight=entropy_weight,
        )

    def update(
        key,
        params,
        optimizer_state,
        *,
        start: jax.Array,
        samples: Samples,
        data: MarketData,
        learning_rate: jax.Array,
        entropy_weight: jax.Array,
    ):
        def descend(carry, minibatch):
            params, optimizer_state = carry
            starts, minibatch_samples = minibatch
            grads, parts = jax.grad(loss_of, has_aux=True)(
                params, starts, minibatch_samples, data, entropy_weight
            )
            direction, optimizer_state = optimizer.update(grads, optimizer_state, params)
            params = optax.apply_updates(params, jax.tree.map(lambda d: -learning_rate * d, direction))
            return (params, optimizer_state), parts | {"grad_norm": optax.tree.norm(grads)}

        def epoch(carry, order):
            return jax.lax.scan(descend, carry, shuffled(order, start, samples, cut))

        orders = epoch_orders(key, epochs=epochs, cut=cut)
        carry, parts = jax.lax.scan(epoch, (params, optimizer_state), orders)
        return *carry, jax.tree.map(jnp.mean, parts)

    return update
