"""Our environment behind the interfaces of the peers in JAX, as fast as we can make it for them.

The market's windows are a table, so that an observation is one row of it; an ended account restarts before it
is observed, so that no row is read twice.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from benchmarks.peers.task import Task
from envs.adapters import LARGEST
from envs.single import make_single
from envs.types import Costs, EnvParams, Market, row


class Params(NamedTuple):
    """Every array that the environment reads.

    Attributes:
      env: bars and costs.
      table: [T, W] float32, what is seen of the market.
      reward_scale: [] float32.
    """

    env: EnvParams
    table: jax.Array
    reward_scale: jax.Array


def params_of(task: Task, *, lookback: int) -> Params:
    """The arrays of `task`, seen through windows of `lookback` bars."""
    env = EnvParams(
        market=Market(gap=jnp.asarray(task.gap), body=jnp.asarray(task.body)),
        costs=Costs(*map(jnp.asarray, task.costs)),
        ruin_equity=jnp.asarray(task.ruin_equity),
        first=jnp.asarray(task.first),
        stop=jnp.asarray(task.stop),
    )
    return Params(env, jnp.asarray(task.windows(lookback)), jnp.asarray(task.reward_scale))


class Trading:
    """One account, with the methods of a gymnax environment that learners call; `step` restarts."""

    def __init__(self, task: Task, *, lookback: int | None = None):
        self.env = make_single(levels=tuple(map(float, task.levels)), episode_bars=int(task.episode_bars))
        self.default_params = params_of(task, lookback=int(task.lookback) if lookback is None else lookback)
        self.size = self.default_params.table.shape[1] + self.env.account_size

    def reset(self, key: jax.Array, params: Params):
        """The first observation [W + 2], and the state."""
        state, _ = self.env.reset(key, params.env)
        return self.observe(state, params), state

    def step(self, key: jax.Array, state: Any, action: jax.Array, params: Params):
        """Observation [W + 2], state, scaled reward, done and no information."""
        state, out = self.env.step(key, state, action, params.env)
        done = out.terminated | out.truncated
        fresh, _ = self.env.reset(key, params.env)
        state = jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, state)
        return self.observe(state, params), state, out.reward * params.reward_scale, done, {}

    def observe(self, state: Any, params: Params) -> jax.Array:
        """[W + 2] the row of the bar, then level and exposure."""
        seen = self.env.observe(state)
        return jnp.concatenate([row(params.table, seen.bar), seen.account])

    def action_space(self, params: Params | None = None) -> Any:
        """One choice."""
        del params
        return spaces.Discrete(self.env.num_actions)

    def observation_space(self, params: Params | None = None) -> Any:
        """Whatever is finite."""
        del params
        return spaces.Box(-LARGEST, LARGEST, (self.size,), jnp.float32)
