"""Several instruments in one account: target weights, traded at the next open, within limits of risk.

Axes: A instruments. The rules of a bar are in `docs/reference/portfolio.md`.

Datasheet
  observation  (bar [] int32, account [2 A] float32: the weights last asked for, and the weights held);
               close[bar] is the last thing known
  action       [A] float32 target weights, clipped to [low, high]: signed value over equity; cash is the rest
  mask         [A] bool, the instruments that trade at the next open; the others keep their units
  clock        observe through close[t], fit to the limits by what close[t] knows, fill at open[t+1], mark at
               close[t+1]; the old holdings earn close[t] -> open[t+1], the new ones open[t+1] -> close[t+1]
  reward       [] float32, by default log(equity after / equity before), net of every cost
  terminated   equity at or below `ruin_equity` of the start, or a bar that took 99 % of equity
  truncated    the window of `episode_bars` has been played
  fill         [A] float32 each: what every instrument traded, over the equity at the last close
  state        bar [] int32, end [] int32, account (log_equity [], gain [], exposure [A], level [A] float32),
               asked: risk of the book last asked for, before the limits, compliance: counts of steps that
               asked for too much [] int32 (both None without limits), memory of the reward
  reset        one draw for a whole batch: a uniform start bar in [first, stop - 1 - episode_bars], or among
               `starts` where they are given, and uniform weights in [low, high] / A, fitted to the limits
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs import ledger, rewards, risk_limits, terminations
from envs.checks import check_windows, value_findings
from envs.fusion import materialise, total
from envs.ledger import Account, Book
from envs.portfolio_market import PortfolioMarket
from envs.rewards import Played, Reward
from envs.risk_limits import CORRELATION, SECTOR, VAR, Exposures, Known, RiskLimits
from envs.types import Actions, Costs, Env, EnvParams, Fill, Observation, TimeStep, row
from envs.windows import num_starts, start_at


class Compliance(struct.PyTreeNode):
    """How often the account asked for more than its limits, since the episode began. [] int32 each.

    Attributes:
      steps: played.
      var: in which the book asked for was above `max_portfolio_var`.
      correlation: above `max_correlation_exposure`.
      sector: above `max_sector_allocation`.
      any: above any limit.
    """

    steps: jax.Array
    var: jax.Array
    correlation: jax.Array
    sector: jax.Array
    any: jax.Array


class State(struct.PyTreeNode):
    """Where one account stands.

    Attributes:
      bar: [] int32, the bar whose close was last seen.
      end: [] int32, the bar at which the episode is truncated.
      account: marked at close[bar]; exposure and level are [A].
      asked: risk of the book asked for in the last step, before the limits; None without limits.
      compliance: counts of the episode; None without limits.
      memory: of the reward.
    """

    bar: jax.Array
    end: jax.Array
    account: Account
    asked: Exposures | None = None
    compliance: Compliance | None = None
    memory: Any = ()


class Draw(NamedTuple):
    """The random half of a reset: start bar [] int32 and weights [A] float32.

    Drawn for `shape = (G, S)`, the start is [G] (a group shares its clock) and the weights [G, S, A].
    """

    start: jax.Array
    weights: jax.Array


class Spec(NamedTuple):
    """What `make_portfolio` was asked for."""

    space: Actions
    episode_bars: int
    reward: Reward


def make_portfolio(
    *,
    num_instruments: int,
    low: float = -1.0,
    high: float = 1.0,
    episode_bars: int = 256,
    reward: Reward | None = None,
) -> Env:
    """The portfolio environment; its parameters come from `envs.portfolio_market.make_portfolio_params`.

    Args:
      num_instruments: A.
      low: smallest weight that may be asked for.
      high: largest.
      episode_bars: steps in an episode.
      reward: of `envs.rewards`; None is the log return.

    Raises:
      ValueError: no instrument, an empty range, or a window of no bars. When called: parameters that do not
        fit the environment or one another.
    """
    if num_instruments < 1 or episode_bars < 1 or not low < high:
        raise ValueError(
            f"num_instruments ({num_instruments}) and episode_bars ({episode_bars}) must be at least 1, and "
            f"low ({low}) below high ({high})"
        )
    space = Actions(
        decode=lambda action: jnp.clip(action, low, high), shape=(num_instruments,), low=low, high=high
    )
    spec = Spec(space, episode_bars, rewards.log_return() if reward is None else reward)
    return Env(
        reset=partial(_reset, spec),
        step=partial(_step, spec),
        advance=partial(_advance, spec),
        observe=observe,
        mask=mask,
        draw=partial(_draw, spec),
        begin=partial(_begin, spec),
        reopen=partial(_reopen, spec),
        draw_axes=Draw(start=None, weights=0),  # pyright: ignore[reportArgumentType]
        account_axes=State(None, None, 0, 0, 0, 0),  # pyright: ignore[reportArgumentType]
        actions=space,
        account_size=2 * num_instruments,
        episode_bars=episode_bars,
    )


def observe(state: State) -> Observation:
    """What the agent sees of `state`."""
    return Observation(
        bar=state.bar, account=jnp.concatenate([state.account.level, state.account.exposure], axis=-1)
    )


def mask(state: State, params: EnvParams) -> jax.Array:
    """[A] bool, the instruments that trade at the next open."""
    market = _market(params)
    if market.tradable is None:
        return jnp.ones(market.num_instruments, bool)
    return row(market.tradable, state.bar + 1)


def known_at(bar: jax.Array, market: PortfolioMarket) -> Known:
    """What the limits know at close[bar]."""
    assert market.factor is not None
    assert market.correlation is not None
    return Known(row(market.factor, bar), row(market.correlation, bar), market.groups)


def _market(params: EnvParams) -> PortfolioMarket:
    shared: Any = params.market
    return shared


def _limits(params: EnvParams) -> RiskLimits | None:
    allowed: Any = params.limits
    return allowed


def _draw(spec: Spec, key, shape, params: EnvParams) -> Draw:
    check_params(params, spec.space.shape[0])
    check_windows(params, num_bars=len(params.market.gap), episode_bars=spec.episode_bars)
    start_key, weights_key = jax.random.split(key)
    space, (num,) = spec.space, spec.space.shape
    count = num_starts(params, episode_bars=spec.episode_bars)
    start = start_at(params, jax.random.randint(start_key, shape[:1], 0, count))
    weights = jax.random.uniform(
        weights_key, (*shape, num), jnp.float32, minval=space.low / num, maxval=space.high / num
    )
    return Draw(start, weights)


def _begin(spec: Spec, drawn: Draw, params: EnvParams) -> State:
    """An account that holds the drawn weights, fitted to the limits, bought free of charge."""
    check_params(params, spec.space.shape[0])
    limits, exposure, asked, compliance = _limits(params), drawn.weights, None, None
    if limits is not None:
        known = known_at(drawn.start, _market(params))
        asked = risk_limits.measure(exposure, known, limits)
        exposure = risk_limits.project(exposure, known, limits)
        compliance = Compliance(*[jnp.int32(0)] * 5)
    account = _open_account(drawn.weights, exposure)
    end = drawn.start + spec.episode_bars
    return State(drawn.start, end, account, asked, compliance, spec.reward.init())


def _reset(spec: Spec, key, params: EnvParams):
    state = _begin(spec, _draw(spec, key, (), params), params)
    return state, observe(state)


def _reopen(spec: Spec, state: State, params: EnvParams) -> State:
    del params
    nothing = jnp.zeros_like(state.account.level)
    return state.replace(account=_open_account(nothing, nothing), memory=spec.reward.init())


def _open_account(level, exposure) -> Account:
    zero = jnp.float32(0)
    return Account(log_equity=zero, gain=zero, exposure=exposure, level=level)


def _step(spec: Spec, key, state: State, action, params: EnvParams):
    del key  # orders fill without chance
    return _advance(spec, state, spec.space.decode(action), params)


def _advance(spec: Spec, state: State, weights, params: EnvParams):
    """One bar with the target `weights` [A]."""
    before, bar, market = state.account, state.bar + 1, _market(params)
    free = None if market.tradable is None else row(market.tradable, bar)
    held = _keeps(before, weights, free, params.band)
    intended = jnp.where(held, before.exposure, weights)
    planned, asked, compliance = _fit(state, intended, free, params)
    planned = materialise(planned)
    book = _finance(ledger.open_book(before), bar, params)
    book = materialise(ledger.liquidate(_mark(book, row(market.gap, bar))))
    # A book that is gone trades nothing; what is held is traded only where a limit changed it.
    open_to = ~ledger.floored(book) if free is None else free & ~ledger.floored(book)
    book, fill = _trade(book, planned, open_to & (~held | (planned != intended)), params.costs)
    book = _mark(book, row(market.body, bar)).replace(level=jnp.where(open_to, weights, before.level))
    after = ledger.close_book(before, materialise(book))
    told = Played(
        before=before,
        after=after,
        cost=total(fill.cost),
        turnover=total(jnp.abs(fill.traded)),
        value_at_risk=_value_at_risk(after, bar, params),
    )
    memory, value = spec.reward.value(state.memory, told)
    state = State(bar, state.end, after, asked, compliance, memory)
    return state, TimeStep(
        observation=observe(state),
        reward=value,
        terminated=terminations.ruined(after, params.ruin_equity),
        truncated=terminations.window_ended(bar, state.end),
        fill=fill,
        growth=after.log_equity,
    )


def _keeps(account: Account, weights, free, band):
    """[A] bool, whose units are kept: closed, or asked for as before, or for nearly what is held."""
    held = weights == account.level
    if band is not None:
        held |= jnp.abs(weights - account.exposure) < band
    return held if free is None else held | ~free


def _fit(state: State, intended, free, params: EnvParams):
    """The book that is planned, the risk of the one `intended` [A], and the counts."""
    limits = _limits(params)
    if limits is None:
        return intended, None, None
    known = known_at(state.bar, _market(params))
    asked = risk_limits.measure(intended, known, limits)
    broken = risk_limits.violations(asked, limits)
    none = jnp.zeros_like(asked.gross, bool)
    ever = none
    for one in broken.values():
        ever |= one
    counted = Compliance(
        steps=~none,
        var=broken.get(VAR, none),
        correlation=broken.get(CORRELATION, none),
        sector=broken.get(SECTOR, none),
        any=ever,
    )
    compliance = jax.tree.map(lambda count, one: count + one, state.compliance, counted)
    return risk_limits.project(intended, known, limits, free=free), asked, compliance


def _finance(book: Book, bar, params: EnvParams) -> Book:
    """Interest on the holdings at the last close: shorts borrow, longs beyond the equity are lent money."""
    rates, years = params.financing, _market(params).years
    if rates is None or years is None:
        return book
    long = total(jnp.maximum(book.value, 0.0))
    owed = ledger.interest(rates, long=long, short=long - total(book.value))
    return book.replace(gain=book.gain - row(years, bar) * owed)


def _mark(book: Book, returns) -> Book:
    """The book after prices moved by `returns` [A]."""
    move = book.value * returns
    return book.replace(gain=book.gain + total(move), value=book.value + move)


def _trade(book: Book, weights, active, costs: Costs) -> tuple[Book, Fill]:
    """The book brought to `weights` [A] x equity where `active` [A], and what that executed and cost."""
    traded = jnp.where(active, weights * (1.0 + book.gain) - book.value, 0.0)
    notional, edge = jnp.abs(traded), costs.half_spread + costs.slippage
    fee = costs.fee_rate * (notional + traded * edge)
    cost = notional * edge + fee
    paid = jnp.where(traded == 0.0, 0.0, 1.0 + jnp.sign(traded) * edge)
    book = book.replace(gain=book.gain - total(cost), value=book.value + traded)
    return book, Fill(traded=traded, cost=cost, fee=fee, price=paid)


def _value_at_risk(account: Account, bar, params: EnvParams):
    """[] of what is held at the close of `bar`; None without limits."""
    limits = _limits(params)
    if limits is None:
        return None
    known = known_at(bar, _market(params))
    return risk_limits.measure(account.exposure, known, limits).var


def check_params(params: EnvParams, num_instruments: int) -> None:
    """Refuse parameters that do not fit; numbers only where they are known, outside of any `jit`.

    Raises:
      ValueError: every finding at once.
    """
    market, limits, costs = _market(params), _limits(params), params.costs
    if not isinstance(market, PortfolioMarket) or not isinstance(limits, RiskLimits | None):
        raise ValueError("a portfolio needs a PortfolioMarket and RiskLimits: see envs.portfolio_market")
    findings = value_findings(params)
    if market.num_instruments != num_instruments:
        findings.append(f"the market has {market.num_instruments} instruments, not {num_instruments}")
    if limits is not None and market.window != limits.window:
        findings.append(f"the limits look back {limits.window} bars, the market {market.window}")
    if params.financing is not None and market.years is None:
        findings.append("financing needs market.years, which is None")
    known = ("fee_rate", "half_spread", "slippage")
    findings += [
        f"costs.{name} is not known in a portfolio"
        for name in costs.__dataclass_fields__
        if name not in known and getattr(costs, name) is not None
    ]
    for name in ("lots", "margin", "latency", "order_bars"):
        if getattr(params, name) is not None:
            findings.append(f"{name} is not known in a portfolio")
    if findings:
        raise ValueError("; ".join(findings))
