"""Market orders trade for trade beside backtesting.py and vectorbt: they get prices, levels and costs.

What differs in convention, and how each peer is driven to the same rules:

* backtesting.py decides at a close and sizes at it; a bar is given as two ticks, its open and its close, and
  an order placed at the open's tick fills there (`trade_on_close`), sized by the peer's equity at the open.
* backtesting.py trades whole units; a large capital makes the rounding a part in 10^8.
* backtesting.py charges its spread on entries only: spread and slippage are compared with vectorbt alone.
* vectorbt buys for cash, so a level of one could not pay its fee; a free loan lies beside the equity.
* Neither caps the loss of a bar; no path here comes near the liquidation that our rules have.
* A resized position is one lot at the average price for vectorbt; backtesting.py closes its lots first in,
  first out. Our fills are matched either way, from the notional, cost and fee that the environment tells.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from arch.data import sp500

from tests.envs.test_single import Rules, follow, make_params

BARS = 2500
SERIES = ("SP500", "EURUSD_H4", "XAUUSD_D1", "USA500IDXUSD_D1")
UNIT, FRACTIONAL = (-1.0, 0.0, 1.0), (-1.0, -0.5, 0.0, 0.25, 1.0, 1.5)
WHOLE_UNITS, CAPITAL, LOAN = 1e12, 1e6, 9e6
COLUMNS = ["entry_bar", "exit_bar", "size", "entry_price", "exit_price", "pnl"]


@pytest.fixture(params=SERIES)
def prices(request) -> pd.DataFrame:
    """Opens and closes of one series."""
    if request.param == "SP500":
        frame = sp500.load()
    else:
        frame = pd.read_csv(request.getfixturevalue("real_data") / f"{request.param}.csv", sep="\t")
    return frame[["Open", "Close"]].rename(columns=str.lower).reset_index(drop=True)


def drawn(prices, choices, seed):
    """A stretch of `BARS` bars and a level for each, kept for six bars on average, flat at both ends."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, len(prices) - BARS + 1)
    levels = rng.choice(choices, BARS)
    for t in np.flatnonzero(rng.uniform(size=BARS) < 5 / 6):
        levels[t] = levels[t - 1]
    levels[0] = levels[-1] = 0.0
    return prices.iloc[start : start + BARS].reset_index(drop=True), levels


def ours(frame, levels, *, fee_rate, edge):
    """Our fills and the equity at every close, in units of the starting equity."""
    params = make_params(frame, Rules(fee_rate, edge / 2, edge / 2, ruin_equity=0.0))
    path = jnp.asarray(levels[1:], jnp.float32)
    account, out = jax.device_get(follow(path, jnp.int32(0), jnp.float32(0), params))
    equity = np.exp(np.concatenate([[0.0], account.log_equity.astype(np.float64)]))
    bar = 1 + np.flatnonzero(out.fill.traded)
    traded, cost, fee = (
        x.astype(np.float64)[bar - 1] for x in (out.fill.traded, out.fill.cost, out.fill.fee)
    )
    opened = frame["open"].to_numpy()[bar]
    fills = pd.DataFrame(
        {
            "bar": bar,
            "size": traded * equity[bar - 1] / opened,
            "price": opened * (1.0 + (cost - fee) / traded),
            "fee": fee * equity[bar - 1],
        }
    )
    return fills, equity


def round_trips(fills, *, averaged):
    """Fills matched first in, first out; `averaged` lots are merged into one as they are bought."""
    lots, trips = [], []
    for bar, size, price, fee in fills.itertuples(index=False):
        left, each = size, fee / abs(size)
        while lots and left * lots[0][1] < 0:
            entry_bar, held, entry_price, entry_fee = lots.pop(0)
            closed = np.sign(held) * min(abs(held), abs(left))
            if abs(closed - held) < 1e-5 * abs(size):  # float32 left a crumb of the lot
                closed = held
            paid = abs(closed) * (entry_fee + each)
            gained = closed * (price - entry_price)
            trips.append((entry_bar, bar, closed, entry_price, price, gained - paid))
            if closed != held:
                lots.insert(0, (entry_bar, held - closed, entry_price, entry_fee))
            left = left + closed if abs(left + closed) > 1e-5 * abs(size) else 0.0
        if left:
            lots.append((bar, left, price, each))
        if averaged and len(lots) > 1:
            (first, a, *one), (_, b, *other) = lots
            lots = [(first, a + b, *((a * x + b * y) / (a + b) for x, y in zip(one, other, strict=True)))]
    assert not lots, "the path ends flat"
    return pd.DataFrame(trips, columns=COLUMNS)


def play_backtesting(frame, levels, *, fee_rate):
    """The trades and the equity at every close of backtesting.py, in units of its starting cash."""
    from backtesting import Backtest, Strategy

    class Follow(Strategy):
        def init(self):
            pass

        def next(self):
            bar, closing = divmod(len(self.data) - 1, 2)
            if closing or levels[bar] == levels[bar - 1]:
                return
            size = round(levels[bar] * self.equity / self.data.Close[-1]) - self.position.size
            (self.buy if size > 0 else self.sell)(size=abs(size))

    ticks = frame.to_numpy().ravel()  # open, close, open, close, …
    table = pd.DataFrame({name: ticks for name in ("Open", "High", "Low", "Close")})
    run = Backtest(
        table, Follow, cash=WHOLE_UNITS, commission=fee_rate, margin=0.1, trade_on_close=True
    ).run()
    told = run["_trades"]
    trades = pd.DataFrame(
        {
            "entry_bar": told["EntryBar"] // 2,
            "exit_bar": told["ExitBar"] // 2,
            "size": told["Size"] / WHOLE_UNITS,
            "entry_price": told["EntryPrice"],
            "exit_price": told["ExitPrice"],
            "pnl": told["PnL"] / WHOLE_UNITS,
        }
    )
    return trades, run["_equity_curve"]["Equity"].to_numpy()[1::2] / WHOLE_UNITS


def play_vectorbt(frame, levels, *, fee_rate, edge):
    """The orders, trades and equity at every close of vectorbt, in units of its capital."""
    import vectorbt
    from vectorbt.portfolio.enums import SizeType
    from vectorbt.portfolio.nb import order_nb, order_nothing_nb

    def value_at_open(context, opened):
        context.last_val_price[context.from_col] = opened[context.i]
        return ()

    def order(context, opened):
        bar = context.i
        if bar == 0 or levels[bar] == levels[bar - 1]:
            return order_nothing_nb()
        return order_nb(
            size=levels[bar] * (context.value_now - LOAN) / opened[bar],
            size_type=SizeType.TargetAmount,
            price=opened[bar],
            fees=fee_rate,
            slippage=edge,
            raise_reject=True,
        )

    opened = frame["open"].to_numpy()
    portfolio: Any = vectorbt.Portfolio.from_order_func(
        frame["close"],
        order,
        opened,
        init_cash=CAPITAL + LOAN,
        pre_segment_func_nb=value_at_open,
        pre_segment_args=(opened,),
        use_numba=False,
    )
    orders, trades = portfolio.orders.records, portfolio.exit_trades.records
    fills = pd.DataFrame(
        {
            "bar": orders["idx"],
            "size": np.where(orders["side"] == 0, 1, -1) * orders["size"] / CAPITAL,
            "price": orders["price"],
            "fee": orders["fees"] / CAPITAL,
        }
    )
    trades["size"] *= np.where(trades["direction"] == 0, 1, -1) / CAPITAL
    trades["pnl"] /= CAPITAL
    trades = trades.rename(columns={"entry_idx": "entry_bar", "exit_idx": "exit_bar"})[COLUMNS]
    return fills, trades, (portfolio.value().to_numpy() - LOAN) / CAPITAL


def assert_same(one, other, *, price_rtol):
    """Equal rows: bars and sides exactly, prices to `price_rtol`, the rest to float32 of the equity."""
    assert len(one) == len(other) > 100
    np.testing.assert_array_equal(np.sign(one["size"]), np.sign(other["size"]))
    price = other["price" if "price" in other else "entry_price"].to_numpy()
    for name in one.columns:
        mine, theirs = one[name].to_numpy(), other[name].to_numpy()
        rtol, atol = {
            "size": (1e-5, 5e-6 / price),  # a few millionths of the starting equity
            "pnl": (1e-5, 5e-7),
            "fee": (1e-5, 0.0),
        }.get(name, (price_rtol if name.endswith("price") else 0.0, 0.0))
        excess = np.abs(mine - theirs) - (rtol * np.abs(theirs) + atol)
        worst = int(np.argmax(excess))
        assert excess[worst] <= 0, f"{name} of row {worst}: {mine[worst]} ours, {theirs[worst]} theirs"


def in_order(trades):
    return trades.sort_values(["exit_bar", "entry_bar"], kind="stable").reset_index(drop=True)


@pytest.mark.filterwarnings("ignore:Data index is not datetime")
@pytest.mark.parametrize(("choices", "seed"), [(UNIT, 0), (UNIT, 1), (FRACTIONAL, 2), (FRACTIONAL, 3)])
def test_equals_backtesting_trade_for_trade(prices, choices, seed):
    frame, levels = drawn(prices, choices, seed)
    fills, equity = ours(frame, levels, fee_rate=5e-4, edge=0.0)
    theirs, their_equity = play_backtesting(frame, levels, fee_rate=5e-4)
    assert_same(in_order(round_trips(fills, averaged=False)), in_order(theirs), price_rtol=0.0)
    np.testing.assert_allclose(equity, their_equity, rtol=5e-6)


@pytest.mark.parametrize(
    ("choices", "seed", "edge"),
    [(UNIT, 0, 0.0), (UNIT, 1, 3e-4), (FRACTIONAL, 2, 0.0), (FRACTIONAL, 3, 3e-4)],
)
def test_equals_vectorbt_order_for_order_and_trade_for_trade(prices, choices, seed, edge):
    frame, levels = drawn(prices, choices, seed)
    fills, equity = ours(frame, levels, fee_rate=5e-4, edge=edge)
    their_fills, theirs, their_equity = play_vectorbt(frame, levels, fee_rate=5e-4, edge=edge)
    assert_same(fills, their_fills, price_rtol=0.0 if edge == 0.0 else 1e-9)
    # An average price is as exact as the sizes it is weighted by.
    averaged = round_trips(fills, averaged=True)
    assert_same(in_order(averaged), in_order(theirs), price_rtol=1e-9 if choices is UNIT else 1e-7)
    np.testing.assert_allclose(equity, their_equity, rtol=5e-6)
