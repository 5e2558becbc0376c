"""Distributions over lists of actions, and the one that fits an action space."""

from collections.abc import Sequence
from functools import partial, reduce
from itertools import accumulate
from operator import add
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Actions
from ztb_jax.keys import in_a_row
from ztb_jax.policies.continuous_distributions import beta, dirichlet, squashed_gaussian
from ztb_jax.policies.distribution import Distribution

RULED_OUT = -1e9  # a log-probability whose exponential is 0, and whose product with it is 0 instead of NaN


def masked(log_probs: jax.Array, allowed: jax.Array) -> jax.Array:
    """[..., A] log-probabilities among the actions `allowed` [..., A] alone; at least one must be.

    Sampling, log-probability and entropy of the result are those of the smaller distribution, and nothing
    flows back to an action that was ruled out.
    """
    kept = jax.nn.log_softmax(jnp.where(allowed, log_probs, RULED_OUT))
    return jnp.where(allowed, kept, RULED_OUT)


def sample(uniform: jax.Array, log_probs: jax.Array, allowed: jax.Array | None = None) -> jax.Array:
    """[...] int32 action by inversion: how many cumulative probabilities `uniform` has passed.

    Args:
      uniform: [...] in [0, 1).
      log_probs: [..., A] normalised.
      allowed: [..., A] bool, what `log_probs` were `masked` by.
    """
    cumulative = jnp.cumsum(jnp.exp(log_probs), axis=-1)[..., :-1]
    action = (uniform[..., None] >= cumulative).sum(axis=-1, dtype=jnp.int32)
    if allowed is None:
        return action
    # Rounding may leave the sum a trace below 1; a uniform above it would choose a forbidden last action.
    ruled_out = log_prob(log_probs, action) <= RULED_OUT
    return jnp.where(ruled_out, jnp.argmax(log_probs, axis=-1).astype(jnp.int32), action)


def log_prob(log_probs: jax.Array, action: jax.Array) -> jax.Array:
    """[...] log-probability of `action` [...] under `log_probs` [..., A]."""
    chosen = action[..., None] == jax.lax.broadcasted_iota(jnp.int32, log_probs.shape, log_probs.ndim - 1)
    return jnp.where(chosen, log_probs, 0.0).sum(axis=-1)


def entropy(log_probs: jax.Array) -> jax.Array:
    """[...] -sum p log p over the last axis of normalised `log_probs` [..., A], in nats."""
    return -(jnp.exp(log_probs) * log_probs).sum(axis=-1)


class Restricted(NamedTuple):
    """Parameters of a categorical from which actions were ruled out.

    A record of its own, so that programs without masks do not pay for the guard of `sample`.

    Attributes:
      log_probs: [..., A], `RULED_OUT` where an action is.
    """

    log_probs: jax.Array


def categorical(num_actions: int) -> Distribution:
    """One choice among `num_actions`; outputs are logits, parameters log-probabilities or `Restricted` ones.

    The noise is one uniform an action, turned into a choice by inversion. Raw actions are [...] int32.

    Raises:
      ValueError: no action.
    """
    if num_actions < 1:
        raise ValueError(f"num_actions ({num_actions}) must be at least 1")

    def draw(uniform, at):
        if isinstance(at, Restricted):
            return sample(uniform, at.log_probs, at.log_probs > RULED_OUT)
        return sample(uniform, at)

    return Distribution(
        size=num_actions,
        shape=(),
        draw=partial(in_a_row, jax.random.uniform),
        parameters=jax.nn.log_softmax,
        sample=draw,
        log_prob=lambda at, raw: log_prob(_log_probs(at), raw),
        entropy=lambda at: entropy(_log_probs(at)),
        mode=lambda at: jnp.argmax(_log_probs(at), axis=-1).astype(jnp.int32),
        act=lambda raw: raw,
        restrict=lambda at, allowed: Restricted(masked(_log_probs(at), allowed)),
    )


def _log_probs(at) -> jax.Array:
    return at.log_probs if isinstance(at, Restricted) else at


def multi_categorical(sizes: Sequence[int]) -> Distribution:
    """Independent choices, one among each of `sizes`; outputs are their logits, one list after the other.

    Raw actions are [..., n] int32, parameters a tuple with those of every `categorical`. Log-probability and
    entropy are sums.

    Raises:
      ValueError: no component, or one without a choice.
    """
    if not sizes:
        raise ValueError("sizes must have at least one component")
    parts = tuple(categorical(size) for size in sizes)
    ends = tuple(accumulate(sizes))

    def split(row):
        return tuple(row[..., end - size : end] for size, end in zip(sizes, ends, strict=True))

    def sample_all(uniforms, at):
        each = [part.sample(uniforms[..., i], at[i]) for i, part in enumerate(parts)]
        return jnp.stack(each, axis=-1)

    return Distribution(
        size=ends[-1],
        shape=(len(parts),),
        draw=lambda key, shape: in_a_row(jax.random.uniform, key, (*shape, len(parts))),
        parameters=lambda outputs: tuple(jax.nn.log_softmax(logits) for logits in split(outputs)),
        sample=sample_all,
        log_prob=lambda at, raw: reduce(
            add, [part.log_prob(at[i], raw[..., i]) for i, part in enumerate(parts)]
        ),
        entropy=lambda at: reduce(add, [part.entropy(one) for part, one in zip(parts, at, strict=True)]),
        mode=lambda at: jnp.stack([part.mode(one) for part, one in zip(parts, at, strict=True)], axis=-1),
        act=lambda raw: raw,
        restrict=lambda at, allowed: tuple(
            Restricted(masked(_log_probs(one), some)) for one, some in zip(at, split(allowed), strict=True)
        ),
    )


def distribution_for(actions: Actions, name: str = "auto") -> Distribution:
    """The distribution over `actions`.

    Args:
      actions: of an environment.
      name: "auto" takes a categorical for one choice, a product of them for several components, and a
        squashed Gaussian for continuous actions. "categorical", "multi_categorical", "squashed_gaussian",
        "beta" and "dirichlet" ask for one by name; the last gives long-only weights with cash, so it needs
        bounds of 0 and at least 1, and is meant for portfolios.

    Raises:
      ValueError: an unknown name, or one that does not fit the actions; it says what to take instead.
    """
    fitting = _fitting(actions)
    if not fitting:
        raise ValueError(
            f"these actions leave nothing to choose: sizes {actions.sizes}, shape {actions.shape}"
        )
    if name == "auto":
        name = next(iter(fitting))
    if name not in fitting:
        reason = ""
        if name == "dirichlet":
            reason = "; a dirichlet needs an action of shape (n,), low of 0 and high of at least 1"
        raise ValueError(
            f"{name!r} does not fit {_describe(actions)}: take one of {', '.join(fitting)}{reason}"
        )
    return fitting[name]()


def _fitting(actions: Actions):
    """Names of what fits, the usual one first, and how each is made."""
    if actions.sizes:
        if actions.shape:
            return {"multi_categorical": partial(multi_categorical, actions.sizes)}
        return {"categorical": partial(categorical, actions.sizes[0])}
    if actions.shape == (0,):
        return {}
    n = actions.shape[0] if actions.shape else None
    bounds = {"low": actions.low, "high": actions.high}
    found = {"squashed_gaussian": partial(squashed_gaussian, n, **bounds), "beta": partial(beta, n, **bounds)}
    if n is not None and actions.low == 0.0 and actions.high >= 1.0:
        found["dirichlet"] = partial(dirichlet, n)
    return found


def _describe(actions: Actions) -> str:
    if actions.sizes:
        return f"choices of sizes {actions.sizes}"
    return f"continuous actions of shape {actions.shape} in [{actions.low}, {actions.high}]"
