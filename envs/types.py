"""The records every environment speaks.

Axes: T bars, G groups of accounts that share one clock, S accounts in a group. An environment is written for
one account (every leaf a scalar); `envs.transforms.vectorise` adds the axes.

What is None is absent, and costs nothing: which optional parts are there is part of a record's structure, so
it is settled when a program is traced. The rules are in `docs/reference/simulator.md`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
from flax import struct

Part = TypeVar("Part")


def given(part: Part | None) -> Part:
    """A part that `envs.checks.check_params` has made sure is there."""
    assert part is not None
    return part


class Prices(struct.PyTreeNode):
    """Prices in quote currency, for whatever looks inside a bar. Axes: [T] float32 each.

    Attributes:
      open: first trade of the bar.
      high: highest.
      low: lowest.
      close: last.
    """

    open: jax.Array
    high: jax.Array
    low: jax.Array
    close: jax.Array


class Conversion(struct.PyTreeNode):
    """What one unit of quote currency is worth in account currency. Axes: [T] float32 each.

    Attributes:
      gap: change from the last close to the open, as a fraction.
      body: change from the open to the close, as a fraction.
      rate: at the open.
    """

    gap: jax.Array
    body: jax.Array
    rate: jax.Array


class Market(struct.PyTreeNode):
    """The exogenous half of the state: one instrument's bars, shared and read-only.

    Returns are kept beside prices because they lose nothing in float32 and make results independent of the
    price scale. All leaves [T]; float32 unless told otherwise.

    Attributes:
      gap: open[t] / close[t-1] - 1; zero at bar 0.
      body: close[t] / open[t] - 1.
      prices: needed by orders inside the bar, brackets, margin, lots and fees per lot.
      half_spread: half the quoted spread over the price, on top of `Costs.half_spread`.
      volatility: deviation of a bar's log return as known before open[t].
      depth: notional that the bar traded, in account currency: volume x price.
      tradable: bool, orders may fill in this bar; published beforehand, as a calendar is.
      new_day: bool, the first bar of a trading day.
      years: time since the last close, in years.
      funding: what a long holding pays at the open, and a short one gets, over its value.
      scale: multiplies the level asked for at close[t]; see `envs.sizing`.
      cap: largest absolute exposure that may be asked for at close[t].
      conversion: into account currency; None where they are the same.
    """

    gap: jax.Array
    body: jax.Array
    prices: Prices | None = None
    half_spread: jax.Array | None = None
    volatility: jax.Array | None = None
    depth: jax.Array | None = None
    tradable: jax.Array | None = None
    new_day: jax.Array | None = None
    years: jax.Array | None = None
    funding: jax.Array | None = None
    scale: jax.Array | None = None
    cap: jax.Array | None = None
    conversion: Conversion | None = None

    def at(self, bar: jax.Array) -> "Market":
        """Every leaf at `bar` []."""
        return jax.tree.map(lambda leaf: row(leaf, bar), self)


def row(table: jax.Array, bar: jax.Array) -> jax.Array:
    """`table[bar]` for a `bar` [] in range, as every bar of an episode is, so nothing is spent on a check."""
    return table.at[bar].get(mode="promise_in_bounds", wrap_negative_indices=False)


class Costs(struct.PyTreeNode):
    """What a trade costs; every leaf is [] float32 and can be vmapped.

    Attributes:
      fee_rate: commission over the notional at the fill price, once per side; the taker's, if they differ.
      half_spread: distance from the mid price to the quoted side, over the price.
      slippage: further adverse distance of the fill, over the price.
      maker_rate: commission on fills of limit orders; None charges `fee_rate`.
      fee_per_lot: account currency, for each lot.
      fee_minimum: account currency, the least that an order is charged.
      volatility_slippage: adverse distance in units of `Market.volatility`.
      impact: adverse distance in units of `Market.volatility` x sqrt(traded / `Market.depth`).
      volume_cap: largest share of a bar's `Market.depth` that an order may take.
    """

    fee_rate: jax.Array
    half_spread: jax.Array
    slippage: jax.Array
    maker_rate: jax.Array | None = None
    fee_per_lot: jax.Array | None = None
    fee_minimum: jax.Array | None = None
    volatility_slippage: jax.Array | None = None
    impact: jax.Array | None = None
    volume_cap: jax.Array | None = None


class Lots(struct.PyTreeNode):
    """The grid that quantities and prices lie on. [] float32 each.

    Attributes:
      size: units in a lot; holdings are whole lots.
      tick: step of prices, in quote currency, that limits and stops are rounded to; None for any price.
    """

    size: jax.Array
    tick: jax.Array | None = None


class Margin(struct.PyTreeNode):
    """What a leveraged account must keep. [] float32 each.

    Attributes:
      max_leverage: largest absolute exposure that may be asked for: one over the initial margin.
      maintenance: equity over the holding's value at which the account is liquidated.
      penalty: charged on the notional of a liquidation; None is nothing.
    """

    max_leverage: jax.Array
    maintenance: jax.Array
    penalty: jax.Array | None = None


class Financing(struct.PyTreeNode):
    """Simple annual rates; they need `Market.years`. [] float32 each.

    Attributes:
      borrow_rate: paid on the value of a short holding.
      loan_rate: paid on what a long holding exceeds the equity by.
      cash_rate: earned on equity that is not invested.
    """

    borrow_rate: jax.Array
    loan_rate: jax.Array
    cash_rate: jax.Array


class Limits(struct.PyTreeNode):
    """Losses that flatten the account and lock it. [] float32 each; 1 never binds.

    Attributes:
      daily_loss: share of the equity before the day; locks to the end of the day. Needs `Market.new_day`.
      drawdown: share of the highest equity at a close; locks to the end of the episode.
    """

    daily_loss: jax.Array
    drawdown: jax.Array


class EnvParams(struct.PyTreeNode):
    """Everything numeric that an environment reads and does not change.

    Attributes:
      market: the bars.
      costs: the price of trading.
      ruin_equity: [] float32, an account at or below this share of its starting equity is closed.
      first: [] int32, first bar that may be observed.
      stop: [] int32, one past the last bar that may be reached.
      capital: [] float32, starting equity in account currency; needed by lots, fees in money and depth, and
        told by adapters.
      lots: the grid of quantities and prices.
      margin: leverage and liquidation.
      financing: interest and borrowing.
      limits: losses that end trading.
      latency: [] int32, whole bars between a decision and the first open it can fill at, beyond the next.
      order_bars: [] int32, bars that an unfilled limit or stop stays good for; None is one.
      band: [] float32, trades of a smaller share of equity are not made.
      starts: [S] int32, the bars that a window may start at, drawn alike; None is every bar that leaves it an
        episode before `stop`. Where the bars are several stretches in a row, those from which a window stays
        in its own.
      num_starts: [] int32, the first so many of `starts` count, the others fill up; None is all of them.
    """

    market: Market
    costs: Costs
    ruin_equity: jax.Array
    first: jax.Array
    stop: jax.Array
    capital: jax.Array | None = None
    lots: Lots | None = None
    margin: Margin | None = None
    financing: Financing | None = None
    limits: Limits | None = None
    latency: jax.Array | None = None
    order_bars: jax.Array | None = None
    band: jax.Array | None = None
    starts: jax.Array | None = None
    num_starts: jax.Array | None = None


class Observation(NamedTuple):
    """What an agent sees: an index into the market and its own account.

    Attributes:
      bar: [] int32; everything up to and including close[bar] is known.
      account: [K] float32, the environment's account view.
    """

    bar: jax.Array
    account: jax.Array


class Order(NamedTuple):
    """What an action asks for: a target exposure, by which kind of order, and what protects it afterwards.

    A part that is None does not exist in this program; a distance of infinity means none for this order.

    Attributes:
      level: [] float32, target exposure as a fraction of equity, before sizing.
      kind: [] int32, one of `envs.orders.MARKET`, `LIMIT`, `STOP`, `STOP_LIMIT`; None is MARKET.
      limit: [] float32, how much better than close[t] the limit is, as a fraction; negative is worse.
      stop: [] float32, how much worse than close[t] the stop is, as a fraction.
      stop_loss: [] float32, distance of the protective stop from the fill price, as a fraction.
      take_profit: [] float32, distance of the target from the fill price.
      trail: [] float32, distance of the trailing stop from the best price since the fill.
      label: [] int32, tells orders of different parts from one another.
      asks: [] int32, one of `envs.orders.LEVEL`, `NOTHING` (all stays as it is: what is held, rests or is on
        its way) and `WITHDRAWAL` (what rests with this label is gone); None is LEVEL.
    """

    level: jax.Array
    kind: jax.Array | None = None
    limit: jax.Array | None = None
    stop: jax.Array | None = None
    stop_loss: jax.Array | None = None
    take_profit: jax.Array | None = None
    trail: jax.Array | None = None
    label: jax.Array | None = None
    asks: jax.Array | None = None


class Fill(NamedTuple):
    """What was executed in a bar; all zero when nothing was.

    Attributes:
      traded: [] float32, signed notional bought, at the price before spread and slippage, over the equity at
        the last close.
      cost: [] float32, spread, slippage and fee paid, in the same unit.
      fee: [] float32, the fee alone.
      price: [] float32, price paid or got over the bar's open.
    """

    traded: jax.Array
    cost: jax.Array
    fee: jax.Array
    price: jax.Array


class TimeStep(NamedTuple):
    """The outcome of one step.

    Attributes:
      observation: what is seen after the step and before any reset: the right one to bootstrap from.
      reward: [] float32.
      terminated: [] bool, the account is closed; nothing follows.
      truncated: [] bool, the window or the data ended; the value goes on.
      fill: what the agent's order executed.
      exit: what a protective order or a liquidation executed, after `fill` where there are both; None in an
        environment without them.
      reason: [] int32, why: one of `envs.protection.NONE`, `STOP`, `TARGET`, `TRAIL`, `LIQUIDATION`.
      episode: return and length of the episode so far, under `envs.transforms.record`.
      growth: [] float32, log of the equity over what the episode began with; None where nobody tells it.
    """

    observation: Observation
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    fill: Fill
    exit: Fill | None = None
    reason: jax.Array | None = None
    episode: Any = None
    growth: jax.Array | None = None


class Actions(NamedTuple):
    """An action space and what its members mean.

    Attributes:
      decode: (action) -> Order, or target weights in a portfolio.
      sizes: number of choices of each discrete component; () for a continuous space.
      shape: shape of one action: () for a single choice, (n,) for n components.
      low: smallest value of a continuous action.
      high: largest value.
      levels: target exposure of each choice where actions are a list of levels, else (). One that asks for
        nothing comes after them.
      protects: orders may carry a stop or a target.
      trails: orders may carry a trailing stop; then they protect, too.
      rests: orders may be limits or stops, which wait for their price.
      holds: orders may ask for nothing, or for a withdrawal, also on their way. Without latency any may.
    """

    decode: Callable[[jax.Array], Any]
    sizes: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    low: float = -1.0
    high: float = 1.0
    levels: tuple[float, ...] = ()
    protects: bool = False
    trails: bool = False
    rests: bool = False
    holds: bool = False


class Env(NamedTuple):
    """An environment: functions of explicit state, and its sizes.

    Attributes:
      reset: (key, params) -> (state, observation), a random start.
      step: (key, state, action, params) -> (state, timestep).
      advance: (state, order, params) -> (state, timestep): a step by an `Order` instead of an action.
      observe: (state) -> observation.
      mask: (state, params) -> [num_actions] bool, the actions that are allowed, or None where `params` rule
        nothing out; None itself where actions are not a list.
      draw: (key, shape, params) -> draw, every random number of `shape` resets in one call.
      begin: (draw, params) -> state, the deterministic rest of a reset.
      reopen: (state, params) -> state with a fresh, flat account at the same bar.
      draw_axes: the draw with 0 where a leaf belongs to an account and None where to the clock.
      account_axes: the state with 0 where a leaf belongs to an account and None where to the clock.
      actions: the action space.
      account_size: K, the length of the account view.
      episode_bars: steps in an episode that nothing ends early.
      max_latency: the largest `EnvParams.latency` that there is room for; 0 takes none.
    """

    reset: Callable[..., tuple[Any, Observation]]
    step: Callable[..., tuple[Any, TimeStep]]
    advance: Callable[..., tuple[Any, TimeStep]]
    observe: Callable[[Any], Observation]
    mask: Callable[..., jax.Array | None] | None
    draw: Callable[..., Any]
    begin: Callable[..., Any]
    reopen: Callable[..., Any]
    draw_axes: Any
    account_axes: Any
    actions: Actions
    account_size: int
    episode_bars: int
    max_latency: int = 0

    @property
    def levels(self) -> tuple[float, ...]:
        """The target exposure of each choice, where actions are levels."""
        return self.actions.levels

    @property
    def num_actions(self) -> int:
        """How many choices a single-choice action has; 0 for any other space."""
        return self.actions.sizes[0] if self.actions.shape == () and self.actions.sizes else 0
