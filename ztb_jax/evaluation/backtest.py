"""One account through a whole slice: a policy's, or a given path of levels or of weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs import portfolio
from envs.checks import check_unbroken
from envs.orders import LEVEL
from envs.single import Draw, make_single
from envs.types import Env, EnvParams, Fill, Order, row
from ztb_jax.data.market import MarketData, check_lookback
from ztb_jax.policies.policy import Policy, check_actions, mask_of, nothing_remembered, recalled


class Trace(NamedTuple):
    """What one account did and earned over the N steps of a slice.

    In a portfolio of A instruments level, exposure and the parts of fill are [N, A].

    Attributes:
      level: [N] float32, asked for at bar first + n and filled at the next open; the account's where nothing
        was asked for.
      exposure: [N] float32, signed holding over equity at the next close.
      gain: [N] float32, simple net return of the bar.
      fill: [N] each, what the order of that bar executed; in units of the equity at the last close.
      exit: [N] each, what closed the holding later in the bar; None in an environment without such orders.
      ruined: [N] bool, the account was closed in this step or before; nothing changes after.
    """

    level: jax.Array
    exposure: jax.Array
    gain: jax.Array
    fill: Fill
    exit: Fill | None
    ruined: jax.Array


def axes_of(record: type, **where: Any) -> Any:
    """`in_axes` for a record of arrays: None, hence shared, but for the parts that are named."""
    return record(**dict.fromkeys(record.__dataclass_fields__) | where)


def start_of(env: Env, params: EnvParams) -> Any:
    """A flat account at the first bar of the slice, whose window never ends.

    Raises:
      ValueError: the bars are several stretches in a row.
    """
    check_unbroken(params)
    return _endless(env.begin(Draw(params.first, jnp.float32(0)), params))


def _endless(state: Any) -> Any:
    return state.replace(end=jnp.int32(np.iinfo(np.int32).max))


def _step(env: Env, carry, order: Order | jax.Array, params: EnvParams):
    """One bar with an order, or with a portfolio's target weights [A]."""
    state, dead = carry
    moved, out = env.advance(state, order, params)
    # A closed account holds nothing, pays nothing and stays at what it had.
    frozen = env.reopen(state, params)
    frozen = frozen.replace(account=frozen.account.replace(log_equity=state.account.log_equity))
    kept = jax.tree.map(lambda stopped, on: jnp.where(dead, stopped, on), frozen, moved)
    kept = kept.replace(bar=moved.bar, end=moved.end)
    fill, closing = jax.tree.map(lambda value: jnp.where(dead, 0.0, value), (out.fill, out.exit))
    level = order.level if isinstance(order, Order) else order
    if isinstance(order, Order) and order.asks is not None:
        level = jnp.where(order.asks == LEVEL, level, state.account.level)
    level = jnp.where(dead, 0.0, level)
    dead = dead | out.terminated
    account = kept.account
    trace = Trace(level, account.exposure, account.gain, fill, closing, dead)
    return (kept, dead), trace


def make_policy_backtest(policy: Policy, env: Env) -> Callable[[Any, MarketData], Trace]:
    """(params, data) -> Trace of the most probable action at every bar; compiles once for each length.

    Args:
      policy: the network.
      env: what it was trained in.

    Raises:
      ValueError: the policy has other actions; and, when called, the data another lookback.
    """
    check_actions(policy, env)

    def run(params: Any, data: MarketData) -> Trace:
        contexts = contexts_of(policy, params, data)
        return play_policy(
            policy, env, params, data.env_params, lambda n: row(contexts, n), num_steps=len(contexts)
        )

    return jax.jit(run)


def contexts_of(policy: Policy, params: Any, data: MarketData) -> jax.Array:
    """[N, D] what `policy` makes of the bars at which the N steps of a slice are decided.

    Raises:
      ValueError: the data were cut for another lookback.
    """
    check_lookback(policy, data)
    return policy.encode(params, data.features)[data.lookback - 1 : -1]


def play_policy(
    policy: Policy,
    env: Env,
    params: Any,
    env_params: EnvParams,
    context_at: Callable[[jax.Array], jax.Array],
    *,
    num_steps: int,
) -> Trace:
    """The most probable action at every bar of a slice; the part that a caller may vmap.

    Args:
      policy: the network.
      env: the rules.
      params: weights.
      env_params: bars and costs.
      context_at: (n []) -> [D], the row of `contexts_of` for step n.
      num_steps: N.
    """
    family = policy.distribution

    def step(carry, n):
        account, memory = carry
        state, _ = account
        context = context_at(n)
        seen = (context, env.observe(state).account)
        memory, view = recalled(policy, params, memory, jnp.bool_(False), seen)
        parameters, _ = policy.apply(params, context, view)
        allowed = mask_of(policy, env, state, env_params)
        if allowed is not None:
            parameters = family.restrict(parameters, allowed)  # pyright: ignore[reportOptionalCall]
        order = env.actions.decode(family.act(family.mode(parameters)))
        account, trace = _step(env, account, order, env_params)
        return (account, memory), trace

    start = (start_of(env, env_params), jnp.bool_(False))
    return jax.lax.scan(step, (start, nothing_remembered(policy, ())), jnp.arange(num_steps))[1]


def make_path_backtest(env: Env | None = None) -> Callable[[jax.Array, EnvParams], Trace]:
    """(levels [N], params) -> Trace of asking for `levels[n]` at bar first + n, in the same simulator.

    Args:
      env: whose rules to play by, at the market and unprotected; None is the plain single-instrument one.
    """
    env = make_single() if env is None else env

    def run(path, params):
        start = (start_of(env, params), jnp.bool_(False))
        return jax.lax.scan(lambda carry, level: _step(env, carry, Order(level), params), start, path)[1]

    return jax.jit(run)


def make_weights_backtest(env: Env) -> Callable[[jax.Array, EnvParams], Trace]:
    """(weights [N, A], params) -> Trace of asking for `weights[n]` at bar first + n, from a flat account.

    Limits of risk are applied as they are to a policy; weights that are asked for again keep the units.

    Args:
      env: of `envs.portfolio.make_portfolio`; the parameters are those of its market.
    """

    def run(path, params):
        nothing = portfolio.Draw(params.first, jnp.zeros(env.actions.shape, jnp.float32))
        start = (_endless(env.begin(nothing, params)), jnp.bool_(False))
        return jax.lax.scan(lambda carry, weights: _step(env, carry, weights, params), start, path)[1]

    return jax.jit(run)
