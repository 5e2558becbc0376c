"""Env -> Env: many accounts at once, and episodes that follow one another.

Axes: G groups, S accounts in a group. The accounts of a group share one clock, so whatever depends on the bar
alone is computed once for all of them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from envs.types import Env, Observation, TimeStep


def vectorise(env: Env, *, num_groups: int, sharing: int = 1) -> Env:
    """`env` for G x S accounts: state leaves gain [G] (clock) or [G, S] (account), actions are [G, S].

    Every reset of the batch comes out of one random draw.
    """
    shape = (num_groups, sharing)
    seen: Any = Observation(bar=None, account=0)  # pyright: ignore[reportArgumentType]
    out_axes: Any = TimeStep(seen, reward=0, terminated=0, truncated=None, fill=0)  # pyright: ignore[reportArgumentType]
    per_account = jax.vmap(
        env.step, in_axes=(None, env.account_axes, 0, None), out_axes=(env.account_axes, out_axes)
    )
    per_group = jax.vmap(per_account, in_axes=(None, 0, 0, None))
    observe = jax.vmap(jax.vmap(env.observe, in_axes=(env.account_axes,), out_axes=seen))

    def reset(key, params):
        state = env.begin(env.draw(key, shape, params), params)
        return state, observe(state)

    return env._replace(reset=reset, step=per_group, observe=observe)


def autoreset(env: Env) -> Env:
    """`env`, vectorised, whose closed accounts reopen flat and whose ended windows start anew elsewhere.

    The time step still describes the episode that ended; only the state moves on. New starts are drawn in a
    branch that is taken in the steps in which some window ends, so all other steps pay nothing for it.
    """

    def step(key, state, action, params):
        state, out = env.step(key, state, action, params)
        state = _select(out.terminated, env.reopen(state), state)

        def restart(state):
            fresh = env.begin(env.draw(key, action.shape, params), params)
            return _select(out.truncated, fresh, state)

        return jax.lax.cond(out.truncated.any(), restart, lambda state: state, state), out

    return env._replace(step=step)


def _select(mask, chosen, other):
    """`chosen` where `mask` [G] or [G, S], else `other`, whatever trailing axes a leaf has."""

    def pick(a, b):
        trailing = (1,) * (a.ndim - mask.ndim)
        return jnp.where(mask.reshape(mask.shape + trailing), a, b) if a.ndim >= mask.ndim else a

    return jax.tree.map(pick, chosen, other)
