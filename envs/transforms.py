"""Env -> Env: many accounts at once, and episodes that follow one another.

Axes: G groups, S accounts in a group. The accounts of a group share one clock, so whatever depends on the bar
alone is computed once for all of them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from envs.types import Env, EnvParams, Observation, TimeStep


def vectorise(env: Env, *, num_groups: int, sharing: int = 1, varied: Sequence[str] = ()) -> Env:
    """`env` for G x S accounts: state leaves gain [G] (clock) or [G, S] (account), actions are [G, S, ...].

    Every reset of the batch comes out of one random draw.

    Args:
      env: for one account.
      num_groups: G.
      sharing: S.
      varied: names of the parts of `EnvParams` whose leaves are [G, S], a value for every account.
    """
    shape = (num_groups, sharing)
    axis_of: Any = {name: 0 if name in varied else None for name in EnvParams.__dataclass_fields__}
    ours: Any = EnvParams(**axis_of)
    seen: Any = Observation(bar=None, account=0)  # pyright: ignore[reportArgumentType]
    out: Any = TimeStep(seen, reward=0, terminated=0, truncated=None, fill=0, exit=0, reason=0, episode=0)  # pyright: ignore[reportArgumentType]
    axes = env.account_axes

    def over(function, in_axes, out_axes):
        inner = jax.vmap(function, in_axes=in_axes, out_axes=out_axes)
        outer_in = tuple(axis if axis is None or axis is ours else 0 for axis in in_axes)
        return jax.vmap(inner, in_axes=outer_in)

    begin = over(env.begin, (env.draw_axes, ours), axes)
    observe = over(env.observe, (axes,), seen)

    def reset(key, params):
        state = begin(env.draw(key, shape, params), params)
        return state, observe(state)

    return env._replace(
        reset=reset,
        step=over(env.step, (None, axes, 0, ours), (axes, out)),
        advance=over(env.advance, (axes, 0, ours), (axes, out)),
        observe=observe,
        mask=None if env.mask is None else over(env.mask, (axes, ours), 0),
        begin=begin,
        reopen=over(env.reopen, (axes, ours), axes),
    )


def autoreset(env: Env) -> Env:
    """`env`, vectorised, whose closed accounts reopen flat and whose ended windows start anew elsewhere.

    The time step still describes the episode that ended; only the state moves on. New starts are drawn in a
    branch that is taken in the steps in which something ends, so all other steps pay nothing for it.
    """

    def step(key, state, action, params):
        state, out = env.step(key, state, action, params)

        def restart(state):
            reopened = _select(out.terminated, env.reopen(state, params), state)
            fresh = env.begin(env.draw(key, out.terminated.shape, params), params)
            return _select(out.truncated, fresh, reopened)

        ended = out.truncated.any() | out.terminated.any()
        return jax.lax.cond(ended, restart, lambda state: state, state), out

    return env._replace(step=step)


def _select(mask, chosen, other):
    """`chosen` where `mask` [G] or [G, S], else `other`, whatever trailing axes a leaf has."""

    def pick(a, b):
        trailing = (1,) * (a.ndim - mask.ndim)
        return jnp.where(mask.reshape(mask.shape + trailing), a, b) if a.ndim >= mask.ndim else a

    return jax.tree.map(pick, chosen, other)
