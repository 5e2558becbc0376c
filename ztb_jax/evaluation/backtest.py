"""One account through a whole slice: a policy's, or a given path of levels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs import ledger, single
from envs.types import Env, EnvParams
from ztb_jax.data.market import MarketData, check_lookback
from ztb_jax.policies.policy import Policy


class Trace(NamedTuple):
    """What one account did and earned over the N steps of a slice.

    Attributes:
      level: [N] float32, asked for at bar first + n and filled at the next open.
      exposure: [N] float32, signed holding over equity at the next close.
      gain: [N] float32, simple net return of the bar.
      traded: [N] float32, signed notional over equity at the last close.
      cost: [N] float32, spread, slippage and fee, same unit.
      fee: [N] float32, the fee alone, same unit.
      ruined: [N] bool, the account was closed in this step or before; nothing changes after.
    """

    level: jax.Array
    exposure: jax.Array
    gain: jax.Array
    traded: jax.Array
    cost: jax.Array
    fee: jax.Array
    ruined: jax.Array


def start_of(params: EnvParams, shape: tuple[int, ...] = ()) -> single.State:
    """A flat account at the first bar of the slice, whose window never ends."""
    account = ledger.open_account(jnp.zeros(shape, jnp.float32))
    return single.State(bar=params.first, end=jnp.int32(np.iinfo(np.int32).max), account=account)


def _step(carry, level, params: EnvParams):
    state, dead = carry
    level = jnp.where(dead, 0.0, level)
    moved, out = single.advance(state, level, params)
    # A closed account holds nothing, pays nothing and stays at what it had.
    frozen = ledger.open_account(jnp.zeros_like(level)).replace(log_equity=state.account.log_equity)
    account = jax.tree.map(lambda stopped, on: jnp.where(dead, stopped, on), frozen, moved.account)
    fill = jax.tree.map(lambda value: jnp.where(dead, 0.0, value), out.fill)
    dead = dead | out.terminated
    trace = Trace(level, account.exposure, account.gain, fill.traded, fill.cost, fill.fee, dead)
    return (moved.replace(account=account), dead), trace


def make_policy_backtest(policy: Policy, env: Env) -> Callable[[Any, MarketData], Trace]:
    """(params, data) -> Trace of the most probable action at every bar; compiles once for each length.

    Args:
      policy: the network.
      env: what it was trained in.

    Raises:
      ValueError: the policy has another number of actions; and, when called, the data another lookback.
    """
    if policy.num_actions != env.num_actions:
        raise ValueError(f"the policy has {policy.num_actions} actions and the environment {env.num_actions}")

    def run(params: Any, data: MarketData) -> Trace:
        check_lookback(policy, data)
        contexts = policy.encode(params, data.features)[data.lookback - 1 : -1]
        table = jnp.asarray(env.levels, jnp.float32)

        def step(carry, context):
            log_probs, _ = policy.apply(params, context, single.observe(carry[0]).account)
            return _step(carry, table[jnp.argmax(log_probs)], data.env_params)

        start = (start_of(data.env_params), jnp.bool_(False))
        return jax.lax.scan(step, start, contexts)[1]

    return jax.jit(run)


def make_path_backtest() -> Callable[[jax.Array, EnvParams], Trace]:
    """(levels [N], params) -> Trace of asking for `levels[n]` at bar first + n, in the same simulator."""

    def run(path, params):
        start = (start_of(params), jnp.bool_(False))
        return jax.lax.scan(lambda carry, level: _step(carry, level, params), start, path)[1]

    return jax.jit(run)
