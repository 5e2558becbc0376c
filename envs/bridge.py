"""The simulator as a broker: orders in, bars in, fills out, for paper trading and for replaying a policy.

`PaperBroker` plays each bar with the `advance` of the environment that the policy was trained in, on a market
of two bars: the last one and the new one. So the rules are the training's, nothing is compiled twice, and a
policy that is replayed bar by bar has bit for bit the account of a scan of `advance` over the same bars.

The account is kept in float32 as in training; what is told (units, prices, money) is float64.
"""

import math
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.bar import State
from envs.bridge_bars import Bar, Rejected, make_bar
from envs.bridge_orders import checked, complete
from envs.limits import OPEN
from envs.orders import LEVEL, NO_LABEL, NOTHING, WITHDRAWAL
from envs.protection import LIQUIDATION, TARGET, TRAIL
from envs.protection import STOP as STOPPED
from envs.single import Draw
from envs.types import Env, EnvParams, Fill, Market, Order, Prices, TimeStep

__all__ = ["Execution", "OpenOrder", "PaperBroker", "Position", "Rejected"]
REASONS = {STOPPED: "stop", TARGET: "target", TRAIL: "trail", LIQUIDATION: "liquidation"}
_OWN_LABELS = 1_000_000  # labels of orders that bring none; those of an action space are small


class Execution(NamedTuple):
    """What was bought or sold.

    Attributes:
      order: id of the order; None for what nobody ordered.
      bar: number of the bar, the first that the broker saw being 0.
      time: as given with the bar.
      units: bought, negative if sold.
      price: paid or got, with spread and slippage, in quote currency.
      fee: in account currency.
      cost: spread, slippage and fee, in account currency.
      reason: `order`, `lock` (a limit on losses), `stop`, `target`, `trail` or `liquidation`.
    """

    order: int | None
    bar: int
    time: Any
    units: float
    price: float
    fee: float
    cost: float
    reason: str


class OpenOrder(NamedTuple):
    """An order that may still fill.

    Attributes:
      id: as `submit` told it.
      order: with every part that the action space has.
      status: `new` (waits for the next bar), `delayed` (by latency), `resting` (waits for its price) or
        `leaving` (rests until its withdrawal arrives).
    """

    id: int
    order: Order
    status: str


class Position(NamedTuple):
    """What is held.

    Attributes:
      units: negative if short.
      price: last close that the account was marked at, in quote currency.
      value: in account currency.
      level: target exposure that was reached last.
    """

    units: float
    price: float
    value: float
    level: float


# The state comes from a program that returns nothing else: beside more results, XLA contracts other products
# and sums to fused multiply-adds, and the last bit of some differs from that in a scan of `advance`.
@partial(jax.jit, static_argnums=0)
def _advance(env: Env, state: Any, order: Order, params: EnvParams) -> Any:
    return env.advance(state, order, params)[0]


@partial(jax.jit, static_argnums=0)
def _report(env: Env, state: Any, order: Order, params: EnvParams) -> TimeStep:
    return env.advance(state, order, params)[1]


@partial(jax.jit, static_argnums=0)
def _observe(env: Env, state: Any) -> Any:
    return env.observe(state).account


@partial(jax.jit, static_argnums=0)
def _begin(env: Env, level: Any, params: EnvParams) -> Any:
    return env.begin(Draw(start=jnp.int32(0), level=level), params)


class PaperBroker:
    """One account at a simulated broker.

    `submit` before a bar, `on_bar` when it has closed. The first bar opens the account at its close. A bar
    without a new order leaves what is held, rests or is on its way as it is. A market order lives for one
    bar: what a closed market or a volume cap left unfilled has to be submitted again.

    Attributes:
      state: the environment's, as numpy scalars; `bar` is always 0 in it.
      closed: the account was ruined or liquidated; later bars change nothing.
      bar: number of the last bar; -1 before the first.
    """

    def __init__(self, env: Env, params: EnvParams, *, level: float = 0.0):
        """An account with `params.capital`.

        Args:
          env: of `make_single`, for one account.
          params: costs and rules; of its `market` only which arrays it has is read: a bar must bring as many.
          level: what the account holds at the first close.

        Raises:
          ValueError: another environment, no capital, or parameters that do not fit.
        """
        if not isinstance(env.account_axes, State):
            raise ValueError(
                "the broker trades one instrument: give an environment of make_single, not recorded"
            )
        if params.capital is None:
            raise ValueError("params.capital is None: units and fees need a starting equity")
        self._env, self._params, self._capital = env, params, float(params.capital)
        self._level: Any = np.float32(level)
        market = params.market
        self._names = {name for name in market.__dataclass_fields__ if getattr(market, name) is not None}
        # Parameters that do not fit are refused here rather than at the first bar.
        jax.eval_shape(partial(_begin, env), self._level, _priced(params))
        # An action's order has every part that the space knows.
        no_action: Any = np.zeros(env.actions.shape, np.int32)
        self._parts = env.actions.decode(no_action)._replace(asks=np.int32(LEVEL))
        self.state: Any = None
        self.closed, self.bar = False, -1
        self._bar: Bar | None = None
        self._marked: Bar | None = None
        self._asked: dict[int, Order] = {}
        self._sent = 0
        self._new: int | None = None
        self._resting: int | None = None
        self._leaving = self._to_withdraw = False
        self._line: list[int | None] = []

    def submit(self, order: Order) -> int:
        """Send `order`, and return its id. It works in the next bar, and replaces one sent before it.

        Args:
          order: a target exposure and how to get there; see `envs.types.Order`. One without a label is new
            each time; one with the label of the resting order leaves that one where it is.

        Raises:
          Rejected: before the first bar, a closed or locked account, or a number that makes no sense.
        """
        self._check_open()
        if self.closed:
            raise Rejected("the account is closed")
        number = self._sent + 1
        asked = checked(order, self._parts, label=_OWN_LABELS + number)
        if self._locked and asked.asks == LEVEL and asked.level != 0:
            raise Rejected(f"the account is locked by its limits: level {asked.level} may not be asked for")
        self._asked.pop(self._new or 0, None)
        self._sent = self._new = number
        self._asked[number] = asked
        return number

    def cancel(self, number: int) -> None:
        """Withdraw an order: a new one at once, a resting one with the next bar, and late by the latency.

        Raises:
          Rejected: an order that is not open, or is on its way.
        """
        if number == self._new:
            self._new = None
            del self._asked[number]
        elif number == self._resting and not self._leaving:
            self._leaving = self._to_withdraw = True
        elif number in self._line:
            raise Rejected(f"order {number} is on its way, as latency has it: send one that undoes it")
        else:
            raise Rejected(f"order {number} is not open; open are {[one.id for one in self.orders()]}")

    def on_bar(
        self,
        open: float,
        high: float,
        low: float,
        close: float,
        *,
        volume: float | None = None,
        time: datetime | None = None,
        **known: Any,
    ) -> list[Execution]:
        """Play one bar that has closed, and return what was executed in it, in order.

        Args:
          open: in quote currency, as the next three.
          high: highest.
          low: lowest.
          close: last.
          volume: units traded, for `Market.depth`.
          time: when the bar closed, for `Market.years` and `Market.new_day`, the first bar of a date.
          known: any other array that `params.market` has, at this bar, or in the place of one worked out from
            `volume` and `time`; `conversion` is (rate at the open, rate at the close).

        Raises:
          Rejected: prices that are no bar, a time not after the last, or a number that is missing.
        """
        prices = Prices(*map(float, (open, high, low, close)))  # pyright: ignore[reportArgumentType]
        new = make_bar(self._bar, prices, names=self._names, volume=volume, time=time, known=known)
        before, self._bar = self._bar, new
        self.bar += 1
        if not self.closed:
            self._marked = new
        if before is None:
            self._open_account()
        return [] if before is None or self.closed else self._play(before)

    def equity(self) -> float:
        """In account currency, at the last close."""
        grown = 0.0 if self.state is None else float(self.state.account.log_equity)
        return self._capital * math.exp(grown)

    def positions(self) -> tuple[Position, ...]:
        """What is held at the last close: one position, or none; of a closed account, when it was closed."""
        bar = self._marked
        if bar is None or self.state.account.exposure == 0:
            return ()
        value = float(self.state.account.exposure) * self.equity()
        units = self._whole(value / (bar.close * bar.rates[1]))
        return (Position(units, bar.close, value, float(self.state.account.level)),)

    def orders(self) -> tuple[OpenOrder, ...]:
        """What may still fill, oldest first."""
        status = {number: "delayed" for number in self._line if number is not None}
        if self._resting is not None and not (self._leaving and not self._line):
            status[self._resting] = "leaving" if self._leaving else "resting"
        if self._new is not None:
            status[self._new] = "new"
        return tuple(OpenOrder(number, self._asked[number], status[number]) for number in sorted(status))

    def account_view(self) -> np.ndarray:
        """[K] float32, what a policy sees of its account at the last close.

        Raises:
          Rejected: before the first bar.
        """
        self._check_open()
        return np.asarray(_observe(self._env, self.state))

    def mask(self, *, tradable: bool = True) -> np.ndarray | None:
        """[num_actions] bool, what may be asked for now, if the next bar is `tradable`; None if all may."""
        if self._env.mask is None or self._bar is None:
            return None
        row = self._bar.row
        ahead = row if row.tradable is None else row.replace(tradable=np.bool_(tradable))
        allowed = self._env.mask(self.state, self._params_of(row, ahead))
        return None if allowed is None else np.asarray(allowed)

    def _check_open(self) -> None:
        if self.state is None:
            raise Rejected("no bar has been seen yet: the first one opens the account")

    @property
    def _locked(self) -> bool:
        return self.state.guard is not None and int(self.state.guard.lock) != OPEN

    def _params_of(self, last: Market, new: Market) -> EnvParams:
        return self._params.replace(market=jax.tree.map(lambda *leaves: np.stack(leaves), last, new))

    def _open_account(self) -> None:
        assert self._bar is not None
        state = _begin(self._env, self._level, self._params_of(self._bar.row, self._bar.row))
        self.state = jax.device_get(state).replace(end=np.int32(np.iinfo(np.int32).max))
        queue = self.state.queue
        if queue is not None:  # what is on its way may ask for nothing, also where an action cannot
            nothing = np.full_like(queue.order.level, NOTHING, np.int32)
            self.state = self.state.replace(queue=queue.replace(order=queue.order._replace(asks=nothing)))
            self._line = [None] * int(np.asarray(self._params.latency))

    def _play(self, before: Bar) -> list[Execution]:
        """The new bar, after `before`."""
        assert self._bar is not None
        asked = self._env, self.state, self._next_order(), self._params_of(before.row, self._bar.row)
        out, state = jax.device_get((_report(*asked), _advance(*asked)))
        working, reason = self._working()
        told = [self._told(working, out.fill, reason)]
        if out.exit is not None:
            told.append(self._told(None, out.exit, REASONS.get(int(out.reason), "")))
        # Rows are always 0 and 1; nothing but the window's end would depend on the number of the bar.
        self.state, self.closed = state.replace(bar=np.int32(0)), bool(out.terminated)
        self._settle(working)
        return [execution for execution in told if execution.units != 0]

    def _next_order(self) -> Order:
        """What is sent in this bar: a new order, a withdrawal, or word that there is nothing new."""
        if self._new is not None:
            return self._asked[self._new]
        asks: Any = NOTHING
        label: Any = NO_LABEL
        if self._to_withdraw and self._resting is not None:
            asks, label = WITHDRAWAL, self._asked[self._resting].label
        return complete(Order(level=self.state.account.level, asks=asks), self._parts, label=label)

    def _working(self) -> tuple[int | None, str]:
        """The order that works in this bar, by rules 2 to 4 of the simulator, and the reason of its fill."""
        new = self._new if self._new is not None and self._asked[self._new].asks == LEVEL else None
        line = [new, *self._line]
        due, self._line = line[-1], line[:-1]
        if self._locked:
            return None, "lock"
        if due is None:
            return self._resting, "order"
        goes_on = self._resting is not None and self.state.resting.order.label == self._asked[due].label
        return self._resting if goes_on else due, "order"

    def _settle(self, working: int | None) -> None:
        """Who rests now, and whose story is over."""
        self._to_withdraw &= self._new is not None  # else it has just been sent
        rests = self.state.resting is not None and self.state.resting.left > 0
        before, self._new, self._resting = self._resting, None, working if rests else None
        if self._resting != before:
            self._leaving = self._to_withdraw = False
        waiting = {self._resting, *self._line}
        self._asked = {number: order for number, order in self._asked.items() if number in waiting}

    def _told(self, number: int | None, fill: Fill, reason: str) -> Execution:
        assert self._bar is not None
        bar, equity, traded = self._bar, self.equity(), float(fill.traded)
        price, fee, cost = float(fill.price) * bar.open, float(fill.fee) * equity, float(fill.cost) * equity
        units = 0.0
        if traded:  # notional is at the price before spread and slippage, which the cost beside the fee tells
            edge = math.copysign((cost - fee) / (abs(traded) * equity), traded)
            units = traded * equity / (price / (1.0 + edge) * bar.rates[0])
        return Execution(number, self.bar, bar.time, self._whole(units), price, fee, cost, reason)

    def _whole(self, units: float) -> float:
        """`units`, in whole lots where there are lots: float32 is off by a part in ten million."""
        if self._params.lots is None:
            return units
        size = float(self._params.lots.size)
        return round(units / size) * size


def _priced(params: EnvParams) -> EnvParams:
    """`params` with prices, whatever they are: a bar always has them."""
    return params.replace(market=params.market.replace(prices=Prices(*[params.market.gap] * 4)))
