"""What a frame of bars is, and what can be said of it without a model.

A frame is a pandas DataFrame with a DatetimeIndex named `time` (timezone-naive UTC, ascending, unique) and
the float64 columns open, high, low, close (quote currency) and volume (base units). A bar covers the stretch
up to the next stamp or before it, as the source has it; nothing here moves stamps.
"""

import hashlib
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ztb_jax.errors import DataError

PRICES = ("open", "high", "low", "close")
COLUMNS = (*PRICES, "volume")

SECONDS_PER_YEAR = 365.25 * 86_400
SECONDS_PER_MONTH = SECONDS_PER_YEAR / 12
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_UNITS = {
    "s": ("s", "sec", "second", "seconds"),
    "m": ("m", "min", "minute", "minutes"),
    "h": ("h", "hour", "hours"),
    "d": ("d", "day", "days"),
    "w": ("w", "week", "weeks"),
    "mo": ("mo", "mn", "month", "months"),
}
_UNIT_OF = {word: unit for unit, words in _UNITS.items() for word in words}
_TIMEFRAME = re.compile(r"(?:(\d{1,4})\s?([A-Za-z]+))|(?:([A-Za-z]+)(\d{1,4}))", re.ASCII)


def as_frame(stamps: ArrayLike | pd.DatetimeIndex, columns: Mapping[str, ArrayLike]) -> pd.DataFrame:
    """A frame of the given stamps [T] and columns [T] each, as float64; nothing is sorted or checked."""
    index = pd.DatetimeIndex(np.asarray(stamps, dtype="datetime64[us]"), name="time")
    return pd.DataFrame({name: np.asarray(value, np.float64) for name, value in columns.items()}, index=index)


def canonical_timeframe(text: str) -> str:
    """The one spelling of a timeframe: a count and one of s, m, h, d, w, mo.

    `H4`, `4h` and `240min` give `4h`; `D1`, `1day` and `24h` give `1d`; `M15` gives `15m`; `MN1` gives `1mo`.
    A capital M after the count (`1M`) is refused, since it is minutes to some and months to others.

    Raises:
      DataError: not a timeframe; the message lists the forms.
    """
    match = _TIMEFRAME.fullmatch(text.strip())
    count, word = (match[1] or match[4], match[2] or match[3]) if match else ("0", "")
    unit = _UNIT_OF.get(word.lower())
    if unit is None or int(count) < 1 or (match and match[2] == "M"):
        raise DataError(
            f"timeframe {text!r} is not understood. Write a count and a unit such as 1m, 15m, 1h, 4h, 1d, "
            "1w, 1mo, "
            "or the MetaTrader form M15, H4, D1, W1, MN1."
        )
    return f"{int(count)}mo" if unit == "mo" else name_of_seconds(int(count) * _SECONDS[unit])


def name_of_seconds(seconds: int) -> str:
    """The canonical timeframe of a whole number of seconds, in the largest unit that divides it."""
    unit = next(unit for unit in ("w", "d", "h", "m", "s") if seconds % _SECONDS[unit] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def timeframe_seconds(timeframe: str) -> float:
    """Seconds between two bars of a timeframe in any accepted form; a month is a twelfth of 365.25 days."""
    count, unit = re.findall(r"\d+|\D+", canonical_timeframe(timeframe))
    return int(count) * (SECONDS_PER_MONTH if unit == "mo" else _SECONDS[unit])


def nanoseconds(index: pd.DatetimeIndex) -> np.ndarray:
    """[T] int64 nanoseconds since 1970, whatever unit the index is kept in."""
    return index.to_numpy(dtype="datetime64[ns]").astype(np.int64)


def bars_per_year(*stretches: pd.DatetimeIndex) -> float:
    """Bars in a year of 365.25 days, by the instrument's own stamps: (n - 1) / elapsed years.

    Of several stretches of bars, sums of both; the time between two of them does not count.

    This is what annualises a Sharpe ratio: about 252 for a stock's days, 365.25 for a market without
    closing hours.

    Raises:
      DataError: fewer than two bars, or no time between the first and the last.
    """
    known = [index for index in stretches if len(index) > 1]
    elapsed = sum((index[-1] - index[0]).total_seconds() / SECONDS_PER_YEAR for index in known)
    if elapsed <= 0:
        raise DataError(
            f"{sum(map(len, stretches))} bars span no time, so bars per year are undefined. Give two bars or "
            "more in one stretch."
        )
    return sum(len(index) - 1 for index in known) / elapsed


def content_hash(frame: pd.DataFrame) -> str:
    """Hex sha256 over the stamps (int64 nanoseconds), the column names and the float64 values.

    Equal for equal bars however they were stored; different when any stamp, value, name or order differs.
    """
    digest = hashlib.sha256(f"{len(frame)}:{','.join(frame.columns)}:".encode())
    digest.update(nanoseconds(pd.DatetimeIndex(frame.index)).astype("<i8").tobytes())
    for name in frame.columns:
        digest.update(frame[name].to_numpy(dtype="<f8").tobytes())
    return digest.hexdigest()
