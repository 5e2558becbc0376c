"""From a frame to the arrays that environments and learners read."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import struct

from envs.types import Conversion, Costs, EnvParams, Market, Prices
from ztb_jax.data.frame import SECONDS_PER_YEAR, nanoseconds


class MarketData(struct.PyTreeNode):
    """One slice of one market, ready to train or evaluate on: read-only, passed as an argument.

    Attributes:
      features: [T, F] float32, scaled; nothing in it is later than the slice.
      env_params: bars and costs; `first` is the first bar with a whole window of valid features.
      reward_scale: [] float32, what a learner multiplies rewards by.
      lookback: rows that an observation takes; the first bar observed is lookback - 1.
    """

    features: jax.Array
    env_params: EnvParams
    reward_scale: jax.Array
    lookback: int = struct.field(pytree_node=False)

    @property
    def num_steps(self) -> int:
        """Bars that an account can play from the first to the last row, those that fill it up included."""
        return self.features.shape[0] - self.lookback


def check_lookback(policy: Any, data: MarketData) -> None:
    """Refuse data whose first bars lack a part of the policy's window.

    Raises:
      ValueError: the lookbacks differ.
    """
    if policy.lookback != data.lookback:
        raise ValueError(
            f"the policy looks back {policy.lookback} bars and the data were cut for {data.lookback}: give "
            "make_policy and make_market_data the same lookback"
        )


def make_market(
    frame: pd.DataFrame,
    *,
    inside: bool = False,
    tick: float | None = None,
    volatility_window: int | None = None,
    rates: tuple[np.ndarray, np.ndarray] | None = None,
    **arrays: np.ndarray,
) -> Market:
    """The bars of `frame` as returns, computed in float64 and kept in float32, and what else is asked for.

    Every array is known in time, at the close of its bar or before its open, as `envs.types.Market` says.

    Args:
      frame: [N] bars with columns open and close; with `inside` also high, low and volume, stamped in time.
      inside: add prices, depth, elapsed years and first bars of a day (by the date of the stamp).
      tick: put the prices on this grid.
      volatility_window: bars of the deviation that slippage and impact scale with; 0 before there are two.
      rates: ([N], [N]) worth of one unit of quote currency in account currency at opens and closes.
      **arrays: [N] half_spread, tradable, funding, scale or cap, as `envs.types.Market` defines them.

    Raises:
      ValueError: a column that is missing, prices that are not positive and finite, stamps that do not rise,
        an array of another length, or of a name that a market does not have; all findings at once.
    """
    _check_frame(frame, inside=inside)
    opened, closed = frame["open"].to_numpy(np.float64), frame["close"].to_numpy(np.float64)
    _check_arrays(arrays, len(frame))
    market = Market(gap=_f32(_gap(opened, closed)), body=_f32(closed / opened - 1.0))
    market = market.replace(**{name: jnp.asarray(values) for name, values in arrays.items()})
    if volatility_window is not None:
        market = market.replace(volatility=_f32(_known_deviation(closed, volatility_window)))
    if rates is not None:
        at_open, at_close = (np.asarray(rate, np.float64) for rate in rates)
        conversion = Conversion(
            gap=_f32(_gap(at_open, at_close)), body=_f32(at_close / at_open - 1.0), rate=_f32(at_open)
        )
        market = market.replace(conversion=conversion)
    if not inside:
        return market
    stamps = pd.DatetimeIndex(frame.index)
    seconds = np.diff(nanoseconds(stamps), prepend=nanoseconds(stamps)[:1]) / 1e9
    worth = 1.0 if rates is None else np.asarray(rates[1], np.float64)
    return market.replace(
        prices=_prices(frame, tick),
        depth=_f32(frame["volume"].to_numpy(np.float64) * closed * worth),
        years=_f32(seconds / SECONDS_PER_YEAR),
        new_day=jnp.asarray(np.diff(stamps.normalize().asi8, prepend=-1) != 0),
    )


def _check_frame(frame: pd.DataFrame, *, inside: bool) -> None:
    names = ["open", "high", "low", "close"] if inside else ["open", "close"]
    wrong = [f"there is no column {name}" for name in (*names, *["volume"] * inside) if name not in frame]
    for name in names:
        prices = frame[name].to_numpy(np.float64) if name in frame else np.ones(1)
        bad = np.flatnonzero(~(np.isfinite(prices) & (prices > 0)))
        if bad.size:
            wrong.append(f"{name} of bar {bad[0]} is {prices[bad[0]]}: prices must be positive and finite")
    if inside and not frame.index.is_monotonic_increasing:
        wrong.append("the stamps do not rise: sort the bars in time")
    if wrong:
        raise ValueError("; ".join(wrong))


def _check_arrays(arrays: dict[str, np.ndarray], num_bars: int) -> None:
    known = ("half_spread", "tradable", "funding", "scale", "cap")
    wrong = [f"{name} is not one of {', '.join(known)}" for name in arrays if name not in known]
    wrong += [
        f"{name} has shape {np.shape(values)} and the market {num_bars} bars"
        for name, values in arrays.items()
        if np.shape(values) != (num_bars,)
    ]
    if wrong:
        raise ValueError("; ".join(wrong))


def _f32(values: np.ndarray) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


def _gap(opened: np.ndarray, closed: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], opened[1:] / closed[:-1] - 1.0])


def _prices(frame: pd.DataFrame, tick: float | None) -> Prices:
    def grid(name: str) -> jax.Array:
        price = frame[name].to_numpy(np.float64)
        if tick is None:
            return _f32(price)
        # The product that `envs.orders.on_tick` forms, so that a price equals the order that lies on it.
        return _f32(np.round(price / tick)) * jnp.float32(tick)

    return Prices(open=grid("open"), high=grid("high"), low=grid("low"), close=grid("close"))


def _known_deviation(closed: np.ndarray, window: int) -> np.ndarray:
    """[N] deviation of the last `window` log returns before each bar, of fewer at the start."""
    moves = pd.Series(np.diff(np.log(closed), prepend=np.nan))
    return moves.rolling(window, min_periods=2).std().shift(1).fillna(0.0).to_numpy()


def make_costs(*, fee_rate: float, half_spread: float, slippage: float, **more: float) -> Costs:
    """Costs as strongly typed scalars, so that no value of theirs recompiles anything.

    Args:
      fee_rate: of the notional.
      half_spread: of the price.
      slippage: of the price.
      **more: the optional fields of `envs.types.Costs`; what is not given does not exist.

    Raises:
      ValueError: a cost is negative, not finite, or all of the notional.
      TypeError: a name that is no cost.
    """
    shares = {"fee_rate": fee_rate, "half_spread": half_spread, "slippage": slippage}
    wrong = [f"{name} is {value}" for name, value in shares.items() if not 0.0 <= value < 1.0]
    wrong += [f"{name} is {value}" for name, value in more.items() if not 0.0 <= value < np.inf]
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)}: give fractions of the notional from 0 to below 1, and the rest from 0 on"
        )
    return Costs(**{name: jnp.float32(value) for name, value in (shares | more).items()})


def reward_scale_of(*stretches: np.ndarray) -> float:
    """One over the standard deviation of close-to-close log returns within `stretches` of closes, [N] each.

    1 where nothing varies.
    """
    spread = float(np.concatenate([np.diff(np.log(closed)) for closed in stretches]).std())
    return 1.0 / spread if spread > 0 else 1.0


def make_market_data(
    frame: pd.DataFrame,
    features: np.ndarray,
    *,
    costs: Costs,
    market: Market | None = None,
    ruin_equity: float = 0.1,
    lookback: int = 1,
    start: int = 0,
    stop: int | None = None,
    **rules: Any,
) -> MarketData:
    """The bars [start, stop) of a market, with the `lookback - 1` rows of features before them.

    Rewards are scaled by the inverse standard deviation of the slice's own close-to-close log returns, so a
    learner sees numbers of order one on every market. A slice to be trained on must not hold later bars: the
    arrays are cut, not masked.

    Args:
      frame: [N] bars with columns open and close.
      features: [N, F] scaled features, finite from row start - lookback + 1 on.
      costs: the price of trading.
      market: of all N bars, with whatever the rules need; None is the plain returns of `frame`.
      ruin_equity: share of the starting equity at which an account is closed.
      lookback: rows that an observation takes.
      start: first bar that may be observed.
      stop: one past the last bar that may be reached; None is the end.
      **rules: the optional fields of `envs.types.EnvParams`: margin, financing, limits, lots, ….

    Raises:
      ValueError: features or a market of another length than the bars, a slice that is not among them, first
        windows that reach before the data, or that hold a number that is not finite.
    """
    stop = len(frame) if stop is None else stop
    begin = start - (lookback - 1)
    whole = make_market(frame) if market is None else market
    if not len(features) == len(whole.gap) == len(frame):
        raise ValueError(
            f"{len(frame)} bars need a row of features each, and a market of as many, not {len(features)} "
            f"and {len(whole.gap)}: give features of all bars, also of those before start"
        )
    if begin < 0:
        raise ValueError(
            f"bar {start} has no {lookback - 1} bars before it: start the slice at {lookback - 1}"
        )
    if not start < stop <= len(frame):
        raise ValueError(f"[{start}, {stop}) is no slice of {len(frame)} bars")
    rows = np.asarray(features[begin:stop], np.float32)
    if not np.isfinite(rows).all():
        bad = begin + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ValueError(f"features of bar {bad} are not finite: start the slice after the warm-up")
    closed = frame["close"].to_numpy(np.float64)[begin:stop]
    return MarketData(
        features=jnp.asarray(rows),
        env_params=EnvParams(
            market=jax.tree.map(lambda leaf: leaf[begin:stop], whole),
            costs=costs,
            ruin_equity=jnp.float32(ruin_equity),
            first=jnp.int32(lookback - 1),
            stop=jnp.int32(len(rows)),
            **rules,
        ),
        reward_scale=jnp.float32(reward_scale_of(closed)),
        lookback=lookback,
    )
