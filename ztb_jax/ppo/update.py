"""From a rollout to new weights: epochs of minibatches, market encoded once per minibatch.

Axes: T rollout bars, G groups, S accounts of a group, M minibatches.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ztb_jax.data.market import MarketData
from ztb_jax.optimizers import Trained, clipped, optimizer_of
from ztb_jax.policies.encoding import Contexts, encode_bars, gathered_back
from ztb_jax.policies.policy import Policy, recalled
from ztb_jax.ppo.gae import gae
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.loss import Samples, ppo_loss
from ztb_jax.ppo.minibatches import Minibatching, epoch_orders, shuffled
from ztb_jax.ppo.rollout import Rollout

TOLD = ("loss", "policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "grad_norm")
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
        grads, norm = clipped(grads, hyper.max_grad_norm)
        parts |= {"grad_norm": norm}
        finite = jnp.isfinite(norm) & jnp.isfinite(parts["loss"])
        if spec.stop:
            stopped = stopped | (parts["kl"] > 1.5 * hyper.target_kl)
        taken = finite & ~stopped
        optimizer = optimizer_of(spec.optimizer, hyper)
        changes, moments = optimizer.update(grads, trained.optimizer, trained.params)
        proposed = Trained(optax.apply_updates(trained.params, changes), moments)
        trained = jax.tree.map(lambda new, old: jnp.where(taken, new, old), proposed, trained)
        # Packed, for twelve arrays of a number each would be twelve kernels.
        told = [*(parts[name] for name in TOLD), taken, ~finite, stopped & finite]
        return (trained, stopped), jnp.stack([jnp.asarray(each, jnp.float32) for each in told])

    def update(key, trained, *, start: jax.Array, samples: Samples, data: MarketData, hyper: Hyper):
        if spec.advantage == "batch":
            samples = samples._replace(advantage=centred(samples.advantage, spec.axis_name))

        def epoch(carry, order):
            minibatches = shuffled(order, start, samples, spec.cut)
            return jax.lax.scan(lambda carry, one: descend(carry, one, data, hyper), carry, minibatches)

        orders = epoch_orders(_order_key(key, spec), epochs=spec.epochs, cut=spec.cut)
        (trained, _), told = jax.lax.scan(epoch, (trained, jnp.bool_(False)), orders)
        return trained, _summary(told)

    return update


def _order_key(key: jax.Array, spec: UpdateSpec) -> jax.Array:
    """Of the orders of a rollout's parts: each device's own, unless a minibatch is accounts of every group.

    Then all devices take the same accounts, and together the minibatch that one device would have had.
    """
    if spec.axis_name is None or spec.cut.shuffle == "accounts":
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(spec.axis_name))


def make_gradient(policy: Policy, spec: UpdateSpec) -> Callable[..., Any]:
    """(params, (start, place, samples) of a minibatch, data, hyper) -> (gradient, parts of the loss).

    The market is encoded once for the whole minibatch; the head's gradient may be taken in parts, whose
    arrays then fit a cache.
    """

    def loss_of(params, context, samples, hyper):
        account = samples.account
        if policy.memory is not None:
            account = _views(policy, params, context, samples)
        context, account, samples = _flat(context, account, samples)
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
        *_, samples = minibatch
        if spec.advantage == "minibatch":
            samples = samples._replace(advantage=centred(samples.advantage, spec.axis_name))
        if spec.axis_name is not None:
            params = jax.lax.pcast(params, spec.axis_name, to="varying")

        encode = partial(_rows, policy, spec, minibatch=minibatch, data=data)
        rows, back, at = jax.vjp(encode, params, has_aux=True)

        def of(part):
            at, samples = part
            return jax.grad(loss_of, argnums=(0, 1), has_aux=True)(params, rows[at], samples, hyper)

        if spec.accumulate == 1:
            (grads, of_contexts), told = of((at, samples))
            of_rows = gathered_back(jnp.zeros(rows.shape, jnp.float32), of_contexts, at)
        else:
            grads, of_rows, told = _accumulated(of, rows, at, samples, spec)
        of_encoder = back(of_rows.astype(rows.dtype))[0]
        result = (jax.tree.map(jnp.add, grads, of_encoder), told)
        return result if spec.axis_name is None else jax.lax.pmean(result, spec.axis_name)

    return gradient


def _rows(policy: Policy, spec: UpdateSpec, params: Any, *, minibatch: Any, data: MarketData) -> Contexts:
    """The encoded bars of a minibatch, and the row of every sample."""
    start, place, samples = minibatch
    rows, at = encode_bars(policy, params, data.features, start, bars=spec.rollout_bars, samples=place)
    return Contexts(rows, jnp.broadcast_to(at[:, :, None], samples.log_prob.shape) if place is None else at)


def _flat(context: jax.Array, account: jax.Array, samples: Samples) -> tuple[jax.Array, jax.Array, Samples]:
    """The samples on one axis, with their contexts [N, D] and account views [N, K + H]."""
    axes = samples.log_prob.ndim
    return jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[axes:]), (context, account, samples._replace(memory=None))
    )


def _views(policy: Policy, params: Any, contexts: jax.Array, samples: Samples) -> jax.Array:
    """[T, G, S, K + H] what the policy was applied to, remembered anew with the weights of now."""

    def step(memory, now):
        *seen, fresh = now
        return recalled(policy, params, memory, fresh, seen)

    assert samples.memory is not None
    return jax.lax.scan(step, samples.memory[0], (contexts, samples.account, samples.fresh))[1]


def _accumulated(
    of: Callable[[Any], Any], rows: jax.Array, at: jax.Array, samples: Samples, spec: UpdateSpec
) -> tuple[Any, jax.Array, Any]:
    """Gradients of the weights and of `rows`, and what is told, from `accumulate` equal parts in turn.

    Accounts that remember are kept whole; otherwise any steps make a part.
    """
    count, axis = spec.accumulate, 0
    if samples.memory is not None:
        axis = {"accounts": 2, "segments": 1}[spec.cut.shuffle]
    else:
        at, samples = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[at.ndim :]), (at, samples))

    def split(leaf):
        cut = leaf.reshape(*leaf.shape[:axis], count, -1, *leaf.shape[axis + 1 :])
        return jnp.moveaxis(cut, axis, 0)

    def add(total, part):
        (grads, of_contexts), told = of(part)
        added = jax.tree.map(lambda a, b: a + b / count, total[:2], (grads, told))
        return (*added, gathered_back(total[2], of_contexts / count, part[0])), None

    parts = jax.tree.map(split, (at, samples))
    (grads, _), told = jax.eval_shape(of, jax.tree.map(lambda leaf: leaf[0], parts))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (grads, told))
    nothing = (*nothing, jnp.zeros(rows.shape, jnp.float32))
    if spec.axis_name is not None:
        nothing = jax.lax.pcast(nothing, spec.axis_name, to="varying")
    (grads, told, of_rows), _ = jax.lax.scan(add, nothing, parts)
    return grads, of_rows, told


def _summary(told: jax.Array) -> dict[str, jax.Array]:
    """[] means over the steps that were taken (over all, where none was), and counts of the others.

    Args:
      told: [..., K], the numbers named `TOLD` of every gradient step, then 1 for each that was taken, that
        was broken, and that the KL stopped.
    """
    rows = told.reshape(-1, told.shape[-1])
    parts, (taken, broken, stopped) = rows[:, : len(TOLD)], rows[:, len(TOLD) :].T
    counted = jnp.where(taken.any(), taken, 1.0)
    means = jnp.where(counted[:, None] > 0.0, parts, 0.0).sum(0) / counted.sum()
    return dict(zip(TOLD, means, strict=True)) | {"skipped": broken.sum(), "stopped": stopped.sum()}
