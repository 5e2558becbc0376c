"""Policy -> Policy: other numbers, other scales, less memory, or no thought at all."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from envs.types import Actions
from ztb_jax.policies.distribution import Distribution
from ztb_jax.policies.encoders import windows
from ztb_jax.policies.heads import rescale_value
from ztb_jax.policies.moments import merged, no_moments
from ztb_jax.policies.policy import Policy

WIDEST = 10.0  # deviations that a normalised observation is clipped to


def normalised(
    policy: Policy, *, num_features: int, account_size: int, axis_name: str | None = None
) -> Policy:
    """`policy` that sees features and account in running means and deviations of what was played.

    The statistics are weights that no gradient moves (`params["seen"]`); they change between updates, so a
    rollout and its gradient steps see the same numbers. The encoder's absent rows stay absent: a row of zeros
    before the slice is the mean.

    Args:
      policy: the network.
      num_features: F.
      account_size: K.
      axis_name: mesh axis over which accounts are spread.
    """

    def init(key):
        seen = {"features": no_moments((num_features,)), "account": no_moments((account_size,))}
        return policy.init(key) | {"seen": seen}

    def encode(params, features, first=0):
        return policy.encode(params, _standard(features, params["seen"]["features"]), first)

    def shown(params, account):
        """The account view normalised; what is remembered behind it is left as it is."""
        view = _standard(account[..., :account_size], params["seen"]["account"])
        return jnp.concatenate([view, account[..., account_size:]], axis=-1)

    def adapt(params, features, account, target):
        seen = params["seen"]
        fresh = {
            "features": merged(seen["features"], features, axis_name=axis_name),
            "account": merged(seen["account"], account.reshape(-1, account_size), axis_name=axis_name),
        }
        params = params | {"seen": fresh}
        return params if policy.adapt is None else policy.adapt(params, features, account, target)

    memory = policy.memory
    if memory is not None:
        inner = memory.step
        memory = memory._replace(
            step=lambda params, before, context, account: inner(
                params, before, context, shown(params, account)
            )
        )
    return policy._replace(
        init=init,
        encode=encode,
        apply=lambda params, context, account: policy.apply(params, context, shown(params, account)),
        memory=memory,
        adapt=adapt,
    )


def _standard(values: jax.Array, moments: Any) -> jax.Array:
    moments = jax.lax.stop_gradient(moments)
    shape = (1,) * (values.ndim - 1) + (-1,)
    centred = (values - moments.mean.reshape(shape)) / moments.deviation.reshape(shape)
    return jnp.clip(centred, -WIDEST, WIDEST)


def symlog(x: jax.Array) -> jax.Array:
    """sign(x) log(1 + |x|), https://arxiv.org/abs/2301.04104."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: jax.Array) -> jax.Array:
    """Inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def symlog_values(policy: Policy) -> Policy:
    """`policy` whose critic is fitted on the symmetric logarithm of returns, so that large ones are tame.

    It estimates symexp(E[symlog(return)]), which is the mean only where returns vary little.
    """

    def apply(params, context, account):
        parameters, value = policy.apply(params, context, account)
        return parameters, symexp(value)

    return policy._replace(apply=apply, value_space=lambda params, value: symlog(value))


def popart_values(policy: Policy, *, axis_name: str | None = None) -> Policy:
    """`policy` whose critic is fitted on returns of mean 0 and deviation 1, whatever their scale.

    When the statistics move, the last layer moves against them, so that no estimate changes.

    Source: van Hasselt et al. 2016, https://arxiv.org/abs/1602.07714.
    """

    def init(key):
        return policy.init(key) | {"returns": no_moments()}

    def apply(params, context, account):
        parameters, value = policy.apply(params, context, account)
        returns = jax.lax.stop_gradient(params["returns"])
        return parameters, returns.mean + returns.deviation * value

    def adapt(params, features, account, target):
        old = params["returns"]
        new = merged(old, target.reshape(-1), axis_name=axis_name)
        slope, shift = old.deviation / new.deviation, (old.mean - new.mean) / new.deviation
        params = params | {"returns": new, "head": rescale_value(params["head"], slope, shift)}
        return params if policy.adapt is None else policy.adapt(params, features, account, target)

    def value_space(params, value):
        returns = jax.lax.stop_gradient(params["returns"])
        return (value - returns.mean) / returns.deviation

    return policy._replace(init=init, apply=apply, adapt=adapt, value_space=value_space)


def in_precision(policy: Policy, dtype: Any) -> Policy:
    """`policy` that computes in `dtype`, usually bfloat16; weights, distributions and values stay float32."""

    def low(tree):
        return jax.tree.map(
            lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
        )

    def encode(params, features, first=0):
        return policy.encode(low(params), low(features), first)

    def apply(params, context, account):
        return policy.apply(low(params), low(context), low(account))

    memory = policy.memory
    if memory is not None:
        inner = memory.step
        memory = memory._replace(
            step=lambda params, *seen: inner(low(params), *low(seen)).astype(jnp.float32)
        )
    return policy._replace(encode=encode, apply=apply, memory=memory)


def rematerialised(policy: Policy) -> Policy:
    """`policy` whose gradient computes the layers again instead of keeping them: less memory, more work."""
    memory, inner = policy.memory, jax.checkpoint(policy.encode, static_argnums=2)
    if memory is not None:
        memory = memory._replace(step=jax.checkpoint(memory.step))
    return policy._replace(
        encode=lambda params, features, first=0: inner(params, features, first),
        apply=jax.checkpoint(policy.apply),
        memory=memory,
    )


def per_account(policy: Policy, *, num_features: int) -> Policy:
    """`policy` that encodes the window of every account and step by itself, as if no bar were shared.

    It computes what `policy` does, where that has no grid, at the cost of `lookback` bars for every step, as
    learners do that know nothing of a shared market.
    """

    def encode(params, features, first=0):
        del params
        return windows(features, policy.lookback, first)

    def context_of(params, row):
        return policy.encode(params, row.reshape(policy.lookback, num_features), policy.lookback - 1)[0]

    def apply(params, context, account):
        shape = jnp.broadcast_shapes(context.shape[:-1], account.shape[:-1])
        rows = jnp.broadcast_to(context, (*shape, context.shape[-1])).reshape(-1, context.shape[-1])
        contexts = jax.vmap(context_of, in_axes=(None, 0))(params, rows)
        return policy.apply(params, contexts.reshape(*shape, -1), account)

    return policy._replace(encode=encode, apply=apply, grid=0, window_cost=1.0)


def uniform(policy: Policy, space: Actions) -> Policy:
    """`policy` that acts at random: any choice that there is, or any number between the bounds, alike.

    Its weights are made and kept, and not read.

    Args:
      policy: the network.
      space: of the environment's actions.
    """
    family = policy.distribution if space.sizes else _between(space)

    def apply(params, context, account):
        outputs = jnp.zeros((*account.shape[:-1], family.size), jnp.float32)
        return family.parameters(outputs), outputs[..., 0]

    return policy._replace(
        encode=lambda params, features, first=0: features[first:],
        apply=apply,
        memory=None,
        distribution=family,
    )


def _between(space: Actions) -> Distribution:
    """Uniform between the bounds, which nothing shifts."""
    low, high = space.low, space.high
    nats = math.log(high - low) * math.prod(space.shape)

    def constant(parameters, value):
        return jnp.full(parameters.shape[:-1], value)

    return Distribution(
        size=1,
        shape=space.shape,
        draw=lambda key, shape: jax.random.uniform(key, (*shape, *space.shape), jnp.float32, low, high),
        parameters=lambda outputs: outputs,
        sample=lambda noise, parameters: noise,
        log_prob=lambda parameters, raw: constant(parameters, -nats),
        entropy=lambda parameters: constant(parameters, nats),
        mode=lambda parameters: jnp.full((*parameters.shape[:-1], *space.shape), 0.5 * (low + high)),
        act=lambda raw: raw,
    )
