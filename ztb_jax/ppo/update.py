"""From a rollout to new weights: epochs of minibatches, market encoded once per minibatch.

Axes: T rollout bars, G groups, S accounts of a group, M minibatches.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ztb_jax.data.market import MarketData
from ztb_jax.optimizers import Trained, clipped, optimizer_of
from ztb_jax.policies.encoding import encode_bars
from ztb_jax.policies.policy import Policy, recalled
from ztb_jax.ppo.gae import gae
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.loss import Samples, ppo_loss
from ztb_jax.ppo.minibatches import Minibatching, epoch_orders, shuffled
from ztb_jax.ppo.rollout import Rollout

ADVANTAGES = ("minibatch", "batch", "none")


class UpdateSpec(NamedTuple):
    """What an update is built from.

    Attributes:
      cut: minibatches.
      rollout_bars: T.
      epochs: passes over a rollout.
      optimizer: "adam" or "muon".
      advantage: "minibatch", "batch" or "none": over what advantages get mean 0 and deviation 1.
      accumulate: parts of a minibatch whose gradients are computed one after the other.
      stop: no step is taken once a minibatch's KL has passed 1.5 `target_kl`.
      axis_name: mesh axis whose devices hold a part of every minibatch each.
    """

    cut: Minibatching
    rollout_bars: int
    epochs: int = 4
    optimizer: str = "adam"
    advantage: str = "minibatch"
    accumulate: int = 1
    stop: bool = False
    axis_name: str | None = None


def samples_of(rollout: Rollout, *, gamma: Any, lam: Any) -> Samples:
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
    fresh = memory = None
    if rollout.memory is not None:
        fresh, memory = jnp.concatenate([rollout.fresh[None], rollout.terminated[:-1]]), rollout.memory[None]
    return Samples(
        account=rollout.account,
        action=rollout.action,
        log_prob=rollout.log_prob,
        value=rollout.value,
        advantage=advantage,
        target=advantage + rollout.value,
        allowed=rollout.allowed,
        fresh=fresh,
        memory=memory,
    )


def centred(advantage: jax.Array, axis_name: str | None = None) -> jax.Array:
    """`advantage` with mean 0 and deviation 1, over all devices of a mesh axis."""
    mean = advantage.mean()
    if axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)
    variance = jnp.square(advantage - mean).mean()
    if axis_name is not None:
        variance = jax.lax.pmean(variance, axis_name)
    return (advantage - mean) / (jnp.sqrt(variance) + 1e-8)


def make_update(policy: Policy, spec: UpdateSpec) -> Callable[..., Any]:
    """The gradient half of PPO.

    Returns:
      (key, trained, *, start [G], samples, data, hyper) -> (trained, metrics): means over the gradient steps
      taken, and how many of them were `skipped` because a number was not finite, or `stopped` by the KL.
    """
    gradient = make_gradient(policy, spec)

    def descend(carry, minibatch, data, hyper):
        trained, stopped = carry
        grads, parts = gradient(trained.params, minibatch, data, hyper)
        norm = optax.tree.norm(grads)
        parts |= {"grad_norm": norm}
        finite = jnp.isfinite(norm) & jnp.isfinite(parts["loss"])
        if spec.stop:
            stopped = stopped | (parts["kl"] > 1.5 * hyper.target_kl)
        taken = finite & ~stopped
        optimizer = optimizer_of(spec.optimizer, hyper)
        changes, moments = optimizer.update(
            clipped(grads, norm, hyper.max_grad_norm), trained.optimizer, trained.params
        )
        proposed = Trained(optax.apply_updates(trained.params, changes), moments)
        trained = jax.tree.map(lambda new, old: jnp.where(taken, new, old), proposed, trained)
        return (trained, stopped), (parts, taken, ~finite, stopped)

    def update(key, trained, *, start: jax.Array, samples: Samples, data: MarketData, hyper: Hyper):
        if spec.advantage == "batch":
            samples = samples._replace(advantage=centred(samples.advantage, spec.axis_name))

        def epoch(carry, order):
            minibatches = shuffled(order, start, samples, spec.cut)
            return jax.lax.scan(lambda carry, one: descend(carry, one, data, hyper), carry, minibatches)

        orders = epoch_orders(_order_key(key, spec), epochs=spec.epochs, cut=spec.cut)
        (trained, _), told = jax.lax.scan(epoch, (trained, jnp.bool_(False)), orders)
        return trained, _summary(*told)

    return update


def _order_key(key: jax.Array, spec: UpdateSpec) -> jax.Array:
    """Of the orders of a rollout's parts: each device's own, unless a minibatch is accounts of every group.

    Then all devices take the same accounts, and together the minibatch that one device would have had.
    """
    if spec.axis_name is None or spec.cut.shuffle == "accounts":
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(spec.axis_name))


def make_gradient(policy: Policy, spec: UpdateSpec) -> Callable[..., Any]:
    """(params, (start, place, samples) of a minibatch, data, hyper) -> (gradient, parts of the loss)."""

    def loss_of(params, minibatch, data, hyper):
        context, account, samples = _inputs(policy, params, minibatch, data.features, spec.rollout_bars)
        parameters, value = policy.apply(params, context, account)
        return ppo_loss(
            parameters,
            value,
            samples,
            distribution=policy.distribution,
            hyper=hyper,
            value_space=lambda value: policy.value_space(params, value),
        )

    def gradient(params, minibatch, data, hyper):
        start, place, samples = minibatch
        if spec.advantage == "minibatch":
            samples = samples._replace(advantage=centred(samples.advantage, spec.axis_name))
        if spec.axis_name is not None:
            params = jax.lax.pcast(params, spec.axis_name, to="varying")

        def of(part):
            return jax.grad(loss_of, has_aux=True)(params, part, data, hyper)

        if spec.accumulate == 1:
            result = of((start, place, samples))
        else:
            parts = jax.lax.map(of, _pieces(start, place, samples, spec))
            result = jax.tree.map(lambda each: each.mean(axis=0), parts)
        return result if spec.axis_name is None else jax.lax.pmean(result, spec.axis_name)

    return gradient


def _inputs(
    policy: Policy, params: Any, minibatch: Any, features: jax.Array, rollout_bars: int
) -> tuple[jax.Array, jax.Array, Samples]:
    """What the policy is applied to: context [N, D], account view [N, K + H], and the samples [N, ...]."""
    start, place, samples = minibatch
    rows, at = encode_bars(policy, params, features, start, bars=rollout_bars, samples=place)
    shape, account = samples.log_prob.shape, samples.account
    if place is None:
        at = jnp.broadcast_to(at[:, :, None], shape)
        if policy.memory is not None:
            account = _views(policy, params, rows[at], samples)
    flat = jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[len(shape) :]), samples._replace(memory=None)
    )
    return rows[at.reshape(-1)], account.reshape(-1, account.shape[-1]), flat


def _views(policy: Policy, params: Any, contexts: jax.Array, samples: Samples) -> jax.Array:
    """[T, G, S, K + H] what the policy was applied to, remembered anew with the weights of now."""

    def step(memory, now):
        *seen, fresh = now
        return recalled(policy, params, memory, fresh, seen)

    assert samples.memory is not None
    return jax.lax.scan(step, samples.memory[0], (contexts, samples.account, samples.fresh))[1]


def _pieces(start: Any, place: Any, samples: Samples, spec: UpdateSpec) -> tuple[Any, Any, Samples]:
    """A minibatch in `accumulate` equal parts on a new leading axis, cut as minibatches are."""
    parts = spec.accumulate
    axis = {"accounts": 2, "segments": 1}.get(spec.cut.shuffle, 0)

    def split(leaf):
        cut = leaf.reshape(*leaf.shape[:axis], parts, leaf.shape[axis] // parts, *leaf.shape[axis + 1 :])
        return jnp.moveaxis(cut, axis, 0)

    if spec.cut.shuffle == "segments":
        starts = start.reshape(parts, -1)
    else:
        starts = jnp.broadcast_to(start, (parts, *start.shape))
    places = None if place is None else place.reshape(parts, -1)
    return starts, places, jax.tree.map(split, samples)


def _summary(parts: dict[str, jax.Array], taken: Any, broken: Any, stopped: Any) -> dict[str, jax.Array]:
    """[] means over the steps that were taken (over all, where none was), and counts of the others."""
    counted = taken | ~taken.any()
    weight = counted.sum(dtype=jnp.float32)
    means = {name: jnp.where(counted, each, 0.0).sum() / weight for name, each in parts.items()}
    return means | {
        "skipped": broken.sum(dtype=jnp.float32),
        "stopped": (stopped & ~broken).sum(dtype=jnp.float32),
    }
