"""One bar at a time as the environment reads it; what is wrong with a bar is told before anything changes."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import jax
import numpy as np

from envs.types import Conversion, Market

YEAR_SECONDS = 365.25 * 86_400
ALWAYS = {"gap", "body", "prices"}
FLAGS = {"tradable", "new_day"}


class Rejected(ValueError):
    """An order or a bar that is refused; nothing has changed."""


class Bar(NamedTuple):
    """A bar as the environment reads it, and in float64 what the next one is measured from.

    Attributes:
      row: every leaf [].
      open: in quote currency.
      close: the same.
      rates: (at the open, at the close) what one unit of quote currency is worth in account currency.
      time: of the close, if it was given.
    """

    row: Market
    open: float
    close: float
    rates: tuple[float, float]
    time: datetime | None


def make_bar(
    last: Bar | None,
    prices: Any,
    *,
    names: set[str],
    volume: float | None,
    time: datetime | None,
    known: Mapping[str, Any],
) -> Bar:
    """The bar after `last`: returns worked out in float64 and kept in float32, as a market's are.

    Args:
      last: the bar before; None for the first, whose gap is 0.
      prices: `Prices` of Python floats, in quote currency.
      names: the arrays that the market has.
      volume: units traded.
      time: of the close.
      known: arrays of the market at this bar; `conversion` as (rate at the open, rate at the close).

    Raises:
      Rejected: prices or rates that are none, a time that is not later than the last, or a number that is
        missing, not a number, or not known.
    """
    given = dict(known)
    rates = given.get("conversion", (1.0, 1.0))
    _check_numbers(prices, volume, rates)
    _check_time(last, time)
    found = _worked_out(last, prices.close * rates[1], volume=volume, time=time) | given
    _check_known(found, given, names)
    row: dict[str, Any] = {name: found[name] for name in names - ALWAYS}
    row |= {name: np.bool_(row[name]) for name in FLAGS & names}
    if "conversion" in names:
        gap: Any = 0.0 if last is None else rates[0] / last.rates[1] - 1.0
        row["conversion"] = Conversion(gap=gap, body=rates[1] / rates[0] - 1.0, rate=rates[0])
    row["gap"] = 0.0 if last is None else prices.open / last.close - 1.0
    row["body"] = prices.close / prices.open - 1.0
    market = Market(**row, prices=prices)
    strong = jax.tree.map(
        lambda x: np.asarray(x, np.bool_ if isinstance(x, np.bool_) else np.float32), market
    )
    return Bar(strong, float(prices.open), float(prices.close), (float(rates[0]), float(rates[1])), time)


def _check_numbers(prices: Any, volume: float | None, rates: Any) -> None:
    named = {name: getattr(prices, name) for name in ("open", "high", "low", "close")}
    wrong = [f"{name} is {price}" for name, price in named.items() if not 0.0 < price < math.inf]
    if not wrong and prices.low > min(prices.open, prices.close):
        wrong.append(f"low {prices.low} is above open {prices.open} or close {prices.close}")
    if not wrong and prices.high < max(prices.open, prices.close):
        wrong.append(f"high {prices.high} is below open {prices.open} or close {prices.close}")
    if volume is not None and not 0.0 <= volume < math.inf:
        wrong.append(f"volume is {volume}")
    if np.shape(rates) != (2,) or not all(0.0 < rate < math.inf for rate in rates):
        wrong.append(f"conversion is {rates}: give two rates above 0")
    if wrong:
        raise Rejected(f"this is no bar: {'; '.join(wrong)}")


def _check_time(last: Bar | None, time: datetime | None) -> None:
    if last is None or (last.time is None and time is None):
        return
    if last.time is None or time is None:
        raise Rejected("give a time with every bar, or with none")
    if time <= last.time:
        raise Rejected(f"time {time} is not after the last bar's, {last.time}")


def _worked_out(last: Bar | None, price: float, *, volume, time: datetime | None) -> dict[str, Any]:
    """Arrays that follow from `volume`, the close in account currency, and `time`."""
    found: dict[str, Any] = {"tradable": True}
    if volume is not None:
        found["depth"] = volume * price
    if time is not None:
        before = time if last is None or last.time is None else last.time
        found["years"] = (time - before).total_seconds() / YEAR_SECONDS
        found["new_day"] = time.date() != before.date()
    return found


def _check_known(found: Mapping[str, Any], given: Mapping[str, Any], names: set[str]) -> None:
    """Whether the bar brings what the market has, and nothing else."""
    wanted = names - ALWAYS
    wrong = [f"{name} is missing" for name in sorted(wanted - set(found))]
    wrong += [f"{name} is not an array of this market" for name in sorted(set(given) - wanted)]
    wrong += [
        f"{name} is {found[name]}" for name in sorted(wanted & set(found)) if np.isnan(found[name]).any()
    ]
    if wrong:
        raise Rejected(f"the bar does not fit the market: {'; '.join(wrong)}")
