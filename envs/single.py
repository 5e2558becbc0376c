"""One instrument: target exposures by market, limit and stop orders, at the open or inside the bar.

Datasheet
  observation  (bar [] int32, account [K] float32); close[bar] is the last thing known. Account columns: level
               and exposure; with brackets the return since entry and the distances to stop and target; with
               resting orders their level and the bars they have left; with limits the drawdown, the day's
               return and whether the account is locked (`envs.observations.columns`)
  action       [] int32, an index into a list of levels or a grid of orders; or [n] int32 by components; or
               [] float32, a target exposure. All are fractions of equity (`envs.actions`)
  mask         [num_actions] bool: closed bars, locks and lots rule actions out; None when nothing can
  clock        observe through close[t], fill at open[t+1] or inside bar t+1, mark at close[t+1]; the old
               position earns close[t] -> fill, the new one fill -> close[t+1]
  reward       [] float32, by default log(equity after / equity before), net of every cost
  terminated   equity at or below `ruin_equity` of the start, a margin call, or a bar that took 99 % of equity
  truncated    the window of `episode_bars` has been played
  state        bar [] int32, end [] int32, account (log_equity, gain, exposure, level) [] float32, and the
               optional parts of `envs.bar.State`
  reset        one draw for a whole batch: a uniform start bar in [first, stop - 1 - episode_bars], or among
               `starts` where they are given, and a uniform initial level

The rules of a bar are in `docs/reference/simulator.md`.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs import actions as spaces
from envs import execution, ledger, limits, observations, orders, protection, rewards, terminations
from envs.bar import State, due, play
from envs.checks import check_params, check_windows
from envs.masks import allowed
from envs.orders import Ticket
from envs.rewards import Played, Reward
from envs.types import Actions, Env, EnvParams, Observation, Order, TimeStep, given
from envs.windows import num_starts, start_at


class Draw(NamedTuple):
    """The random half of a reset: start bar [] int32 and initial level [] float32.

    Drawn for `shape = (G, S)`, the start is [G] (a group shares its clock) and the level [G, S].
    """

    start: jax.Array
    level: jax.Array


class Spec(NamedTuple):
    """What `make_single` was asked for."""

    space: Actions
    episode_bars: int
    max_latency: int
    guarded: bool
    reward: Reward


def make_single(
    *,
    levels: Sequence[float] = (-1.0, 0.0, 1.0),
    episode_bars: int = 256,
    actions: Actions | None = None,
    reward: Reward | None = None,
    guarded: bool = False,
    max_latency: int = 0,
) -> Env:
    """The single-instrument environment.

    What else there is (lots, margin, financing, …) is settled by the `EnvParams` that it is called with.

    Args:
      levels: distinct target exposures, one for each action; unused when `actions` are given.
      episode_bars: steps in an episode.
      actions: the action space, of `envs.actions`.
      reward: of `envs.rewards`; None is the log return.
      guarded: accounts obey `EnvParams.limits`, and see what is left to them.
      max_latency: largest `EnvParams.latency` that will be asked for, in bars; 0 has none.

    Raises:
      ValueError: wrong levels, a window of no bars, or a negative latency. When called: parameters that lack
        what this environment or another parameter needs.
    """
    wrong = {"episode_bars": episode_bars >= 1, "max_latency": max_latency >= 0}
    if not all(wrong.values()):
        raise ValueError(f"episode_bars ({episode_bars}) must be at least 1, max_latency ({max_latency}) 0")
    spec = Spec(
        space=spaces.levels(levels) if actions is None else actions,
        episode_bars=episode_bars,
        max_latency=max_latency,
        guarded=guarded,
        reward=rewards.log_return() if reward is None else reward,
    )
    space, everything = spec.space, 0
    clock: Any = State(None, None, *[everything] * 7)  # pyright: ignore[reportArgumentType]
    return Env(
        reset=partial(_reset, spec),
        step=partial(_step, spec),
        advance=partial(_advance, spec),
        observe=observe,
        mask=partial(_mask, space) if space.levels else None,
        draw=partial(_draw, spec),
        begin=partial(_begin, spec),
        reopen=partial(_reopen, spec),
        draw_axes=Draw(start=None, level=0),  # pyright: ignore[reportArgumentType]
        account_axes=clock,
        actions=space,
        account_size=len(observations.columns(protects=space.protects, rests=space.rests, guards=guarded)),
        episode_bars=episode_bars,
        max_latency=max_latency,
    )


def observe(state: State) -> Observation:
    """What the agent sees of `state`."""
    return Observation(bar=state.bar, account=observations.account_view(state))


def _mask(space: Actions, state: State, params: EnvParams):
    return allowed(state, space.levels, params, holds=space.holds)


def _draw(spec: Spec, key, shape, params: EnvParams) -> Draw:
    check_windows(params, num_bars=len(params.market.gap), episode_bars=spec.episode_bars)
    space, groups = spec.space, shape[:1]
    clocks = math.prod(groups)
    # One call for all: every call to the generator is a loop of its own, compiled anew.
    bits = jax.random.bits(key, (clocks + math.prod(shape),))
    span = jnp.uint32(num_starts(params, episode_bars=spec.episode_bars))
    start = start_at(params, (bits[:clocks].reshape(groups) % span).astype(jnp.int32))
    bits = bits[clocks:].reshape(shape)
    if not space.levels:
        share = (bits >> 8).astype(jnp.float32) * 2.0**-24
        return Draw(start, space.low + (space.high - space.low) * share)
    index = (bits % len(space.levels)).astype(jnp.int32)
    return Draw(start, spaces.choose(index, space.levels))


def _begin(spec: Spec, drawn: Draw, params: EnvParams) -> State:
    check_params(params, spec.space, guarded=spec.guarded, max_latency=spec.max_latency)
    return _fresh(spec, drawn.start, drawn.start + spec.episode_bars, drawn.level, params)


def _reset(spec: Spec, key, params: EnvParams):
    state = _begin(spec, _draw(spec, key, (), params), params)
    return state, observe(state)


def _reopen(spec: Spec, state: State, params: EnvParams) -> State:
    return _fresh(spec, state.bar, state.end, jnp.zeros_like(state.account.level), params)


def _fresh(spec: Spec, bar, end, level, params: EnvParams) -> State:
    """An account that holds `level`, sized and free of charge, at the close of `bar`."""
    exposure = execution.sized(level, params.market, params, bar)
    account = ledger.open_account(level, exposure)
    ask = orders.at_market(_whole(spec, Order(level=level), None), level)
    held = None
    if spec.space.protects:
        held = protection.unprotected(
            given(params.market.prices).close[bar], protection.sign_of(exposure), trails=spec.space.trails
        )
    return State(
        bar=bar,
        end=end,
        account=account,
        close=None if held is None else held.entry,
        protection=held,
        resting=ask if spec.space.rests else None,
        queue=_queue(spec, ask),
        guard=limits.open_guard(account.log_equity) if spec.guarded else None,
        memory=spec.reward.init(),
    )


def _queue(spec: Spec, ask: Ticket) -> Ticket | None:
    """What is on its way to a fresh account."""
    if not spec.max_latency:
        return None
    if spec.space.holds:
        nothing = jnp.full_like(ask.order.level, orders.NOTHING, jnp.int32)
        ask = ask.replace(order=ask.order._replace(asks=nothing))
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * spec.max_latency), ask)


def _whole(spec: Spec, order: Order, queue: Ticket | None) -> Order:
    """`order` with every part that it needs beside those in `queue`."""
    space, asks = spec.space, order.asks if queue is None else queue.order.asks
    has = {"protects": space.protects, "trails": space.trails, "rests": space.rests}
    return orders.complete(order, **has, holds=asks is not None)


def _ticket(state: State, order: Order, params: EnvParams) -> Ticket:
    """Rule 1: the order with its prices."""
    if order.kind is None:
        return Ticket(order=order, side=None, left=None)
    exposure = execution.sized(order.level, params.market, params, state.bar)
    return orders.price_order(
        order,
        given(params.market.prices).close[state.bar],
        buys=exposure > state.account.exposure,
        lots=params.lots,
        bars=params.order_bars,
    )


def _step(spec: Spec, key, state: State, action, params: EnvParams):
    del key  # orders fill without chance
    return _advance(spec, state, spec.space.decode(action), params)


def _advance(spec: Spec, state: State, order: Order, params: EnvParams):
    ticket, queue = due(state, _ticket(state, _whole(spec, order, state.queue), params), params)
    played = play(state, ticket, params)
    before, after = state.account, ledger.close_book(state.account, played.book)
    fills = (played.fill,) if played.exit is None else (played.fill, played.exit)
    told = Played(
        before=before,
        after=after,
        cost=sum(fill.cost for fill in fills),  # pyright: ignore[reportArgumentType]
        turnover=sum(jnp.abs(fill.traded) for fill in fills),  # pyright: ignore[reportArgumentType]
    )
    memory, value = spec.reward.value(state.memory, told)
    terminated = terminations.ruined(after, params.ruin_equity)
    if played.reason is not None:
        terminated |= played.reason == protection.LIQUIDATION
    bar = state.bar + 1
    state = State(
        bar=bar,
        end=state.end,
        account=after,
        close=None if state.close is None else given(params.market.prices).close[bar],
        protection=played.protection,
        resting=played.resting,
        queue=queue,
        guard=_watch(state, after.log_equity, params),
        memory=memory,
    )
    return state, TimeStep(
        observation=observe(state),
        reward=value,
        terminated=terminated,
        truncated=terminations.window_ended(bar, state.end),
        fill=played.fill,
        exit=played.exit,
        reason=played.reason,
        growth=after.log_equity,
    )


def _watch(state: State, log_equity, params: EnvParams):
    """Rule 13."""
    if state.guard is None:
        return None
    new_day = None if params.market.new_day is None else params.market.new_day[state.bar + 1]
    return limits.watch(
        state.guard, given(params.limits), before=state.account.log_equity, after=log_equity, new_day=new_day
    )
