"""A meta-controller over specialists, on the portfolio environment: who gets how much, and what comes of it.

Axes: A instruments, S specialists, L bars of lookback. The rules are in `docs/reference/hierarchy.md`; those
of a bar, and of the limits of risk, in `docs/reference/portfolio.md`. Parameters come from
`envs.portfolio_market.make_portfolio_params`; the market of the meta environment has signals
(`envs.hierarchy_market`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs import portfolio, reports, rewards
from envs.hierarchy_market import HierarchyMarket
from envs.hierarchy_state import Decision, History, Message, State, capital, observe, open_state, send
from envs.rewards import Reward
from envs.risk_limits import RiskLimits
from envs.specialists import Partition, account_layout
from envs.types import Actions, Env, EnvParams, TimeStep


class Spec(NamedTuple):
    """What a factory was asked for."""

    inner: Env
    partition: Partition
    space: Actions
    update_freq: int
    lookback: int
    weigh: Callable[[State, Message, Decision, EnvParams], jax.Array]
    together: bool  # the reward is the team's


def make_meta(
    partition: Partition,
    *,
    episode_bars: int = 1000,
    allocation_update_freq: int = 10,
    performance_lookback: int = 20,
    temperature: float = 0.2,
    bars_per_year: float = 252.0,
    reward: Reward | None = None,
) -> Env:
    """The meta-controller's environment: it allocates among fixed specialists.

    Datasheet
      observation  (bar [] int32, account [L + 4 + 4 S + 2 A] float32: `envs.specialists.View`)
      action       [S + 1] float32, clipped to [0, 1]: a logit for each specialist, then the risk appetite.
                   The allocation is softmax(logits / temperature)
      weights      risk x allocation of the instrument's specialist / its number of instruments x
                   `market.signals[t]`; so gross is at most the risk appetite. Then the limits of risk
      mask         [A] bool, the instruments that trade at the next open
      clock        the portfolio's: observe through close[t], fill at open[t+1], mark at close[t+1]. An
                   allocation is in force for `allocation_update_freq` bars; actions within change nothing
      reward       [] float32, by default `rewards.risk_adjusted`, net of every cost
      terminated   equity at or below `ruin_equity` of the start, or a bar that took 99 % of equity
      truncated    the window of `episode_bars` has been played
      state        portfolio (`envs.portfolio.State`), message, report and history, as described above
      reset        the portfolio's: a uniform start bar, random holdings within the limits; no history, equal
                   allocations and no risk in force, the first action allocates

    Args:
      partition: who trades what, in the order of the market's columns.
      episode_bars: steps in an episode.
      allocation_update_freq: bars that an allocation lasts.
      performance_lookback: L.
      temperature: of the softmax: 0.2 lets one specialist have e^5 times the share of another.
      bars_per_year: of the default reward.
      reward: of `envs.rewards`.

    Raises:
      ValueError: a number that is not positive. When called: parameters that do not fit, or lack signals.
    """
    team = len(partition.specialists)
    _check(allocation_update_freq, performance_lookback, temperature)

    def decode(action) -> Decision:
        return _allocate(jnp.clip(action, 0.0, 1.0), team, temperature)

    def weigh(state: State, message: Message, decision: Decision, params: EnvParams):
        del decision
        signals = _signals(params)
        return capital(message, partition) * signals[state.portfolio.bar]

    reward = rewards.risk_adjusted(bars_per_year=bars_per_year) if reward is None else reward
    return _make(
        Spec(
            inner=_portfolio(partition, episode_bars, reward),
            partition=partition,
            space=Actions(decode=decode, shape=(team + 1,), low=0.0, high=1.0),
            update_freq=allocation_update_freq,
            lookback=performance_lookback,
            weigh=weigh,
            together=False,
        ),
        needs=_signals,
    )


def make_joint(
    partition: Partition,
    *,
    episode_bars: int = 1000,
    allocation_update_freq: int = 10,
    performance_lookback: int = 20,
    temperature: float = 0.2,
    threshold: float = 0.1,
    reward: Reward | None = None,
) -> Env:
    """The whole hierarchy's environment: meta-controller and specialists act in one step.

    Datasheet
      observation  as the meta environment's, column by column; `envs.specialists.specialist_columns` has each
                   specialist's part of it
      action       [S + 1 + A] float32, clipped to [-1, 1]. The first S + 1 are the meta environment's action,
                   stretched: (x + 1) / 2. The rest are the specialists' signals, one for each instrument
      weights      an instrument whose |signal| is at most `threshold` keeps its units. Others are asked for
                   at risk x allocation of the specialist / its number of instruments x sign(signal) x
                   (|signal| - threshold) / (1 - threshold). Then the limits of risk
      mask         [A] bool, the instruments that trade at the next open
      clock        as the meta environment's; signals are heard at every bar
      reward       [] float32, by default `envs.reports.team_reward`, which needs limits of value at risk
                   and of correlation
      terminated   equity at or below `ruin_equity` of the start, or a bar that took 99 % of equity
      truncated    the window of `episode_bars` has been played
      state        as the meta environment's
      reset        as the meta environment's

    Args:
      partition: who trades what, in the order of the market's columns.
      episode_bars: steps in an episode.
      allocation_update_freq: bars that an allocation lasts.
      performance_lookback: L.
      temperature: of the softmax.
      threshold: largest |signal| that asks for nothing, from 0 to below 1.
      reward: of `envs.rewards`, in place of the team's.

    Raises:
      ValueError: a number out of its range. When called: parameters that do not fit, or lack limits.
    """
    team = len(partition.specialists)
    _check(allocation_update_freq, performance_lookback, temperature)
    if not 0.0 <= threshold < 1.0:
        raise ValueError(f"threshold ({threshold}) must be from 0 to below 1")

    def decode(action) -> Decision:
        action = jnp.clip(action, -1.0, 1.0)
        decision = _allocate(0.5 * (action[: team + 1] + 1.0), team, temperature)
        return decision._replace(signals=action[team + 1 :])

    def weigh(state: State, message: Message, decision: Decision, params: EnvParams):
        del params
        assert decision.signals is not None
        size = jnp.abs(decision.signals)
        exposure = jnp.sign(decision.signals) * (size - threshold) / (1.0 - threshold)
        return jnp.where(size > threshold, capital(message, partition) * exposure, state.account.level)

    return _make(
        Spec(
            inner=_portfolio(partition, episode_bars, reward),
            partition=partition,
            space=Actions(decode=decode, shape=(team + 1 + len(partition.instruments),)),
            update_freq=allocation_update_freq,
            lookback=performance_lookback,
            weigh=weigh,
            together=reward is None,
        ),
        needs=_team_limits if reward is None else None,
    )


def _check(update_freq: int, lookback: int, temperature: float) -> None:
    if update_freq < 1 or lookback < 2 or not temperature > 0.0:
        raise ValueError(
            f"allocation_update_freq ({update_freq}) must be at least 1, performance_lookback ({lookback}) "
            f"2, and temperature ({temperature}) positive"
        )


def _portfolio(partition: Partition, episode_bars: int, reward: Reward | None) -> Env:
    return portfolio.make_portfolio(
        num_instruments=len(partition.instruments), episode_bars=episode_bars, reward=reward
    )


def _allocate(action, team: int, temperature: float) -> Decision:
    """The decision of logits and risk [S + 1], each in [0, 1]."""
    return Decision(jax.nn.softmax(action[:team] / temperature), action[team])


def _signals(params: EnvParams) -> jax.Array:
    market: Any = params.market
    if not isinstance(market, HierarchyMarket) or market.signals is None:
        raise ValueError(
            "the meta environment needs the fixed specialists' signals: envs.hierarchy_market.with_signals"
        )
    return market.signals


def _team_limits(params: EnvParams) -> RiskLimits:
    limits: Any = params.limits
    if limits is None or limits.max_portfolio_var is None or limits.max_correlation_exposure is None:
        raise ValueError(
            "the team's reward measures value at risk and correlation: give RiskLimits with "
            "max_portfolio_var and max_correlation_exposure, or another reward"
        )
    return limits


def _make(spec: Spec, *, needs: Callable[[EnvParams], Any] | None) -> Env:
    inner, see = spec.inner, partial(observe, update_freq=spec.update_freq)
    layout = account_layout(spec.partition, performance_lookback=spec.lookback)

    def reopen(state, params):
        again = inner.reopen(state.portfolio, params)
        return open_state(again, spec.partition, lookback=spec.lookback)

    def begin(drawn, params):
        state = open_state(inner.begin(drawn, params), spec.partition, lookback=spec.lookback)
        if needs is not None:
            needs(params)
        return state

    def reset(key, params):
        state = begin(inner.draw(key, (), params), params)
        return state, see(state)

    def step(key, state, action, params):
        del key  # orders fill without chance
        return _advance(spec, state, spec.space.decode(action), params)

    axes: Any = State(inner.account_axes, *[0] * 3)  # pyright: ignore[reportArgumentType]
    assert inner.mask is not None
    return inner._replace(
        reset=reset,
        step=step,
        advance=partial(_advance, spec),
        observe=see,
        mask=partial(_inner_mask, inner.mask),
        begin=begin,
        reopen=reopen,
        account_axes=axes,
        actions=spec.space,
        account_size=layout.exposure.stop,
    )


def _inner_mask(mask, state: State, params: EnvParams):
    return mask(state.portfolio, params)


def _advance(spec: Spec, state: State, decision: Decision, params: EnvParams) -> tuple[State, TimeStep]:
    """One bar: the message is sent, the book it means is played, and the report comes back."""
    message = send(state.message, decision, spec.update_freq)
    weights = spec.weigh(state, message, decision, params)
    inner, out = spec.inner.advance(state.portfolio, weights, params)
    each = reports.earned(state.account, out.fill, params.market, inner.bar)
    earned = jnp.matmul(each, spec.partition.membership, precision=jax.lax.Precision.HIGHEST)
    history = History(
        returns=jnp.append(state.history.returns[1:], inner.account.gain),
        earnings=jnp.concatenate([state.history.earnings[:, 1:], earned[:, None]], axis=1),
        peak=jnp.maximum(state.history.peak, inner.account.log_equity),
    )
    moved = State(inner, message, reports.make_report(history.earnings), history)
    if spec.together:
        out = out._replace(reward=_team_reward(spec, moved, params))
    return moved, out._replace(observation=observe(moved, update_freq=spec.update_freq))


def _team_reward(spec: Spec, moved: State, params: EnvParams):
    assert moved.portfolio.asked is not None
    return reports.team_reward(
        moved.report,
        allocation=moved.message.allocation,
        exposure=moved.account.exposure,
        asked=moved.portfolio.asked,
        limits=_team_limits(params),
        membership=spec.partition.membership,
    )
