"""Where bars come from: a file, the sets shipped with `arch`, a generator or the cache. Never a network."""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import pandas as pd

from ztb_jax.data import cache
from ztb_jax.data.frame import COLUMNS, as_frame, canonical_timeframe
from ztb_jax.data.source import read_source
from ztb_jax.data.synthetic import GENERATORS
from ztb_jax.errors import DataError

EMBEDDED = {("SP500", "1d"): "sp500", ("NASDAQ", "1d"): "nasdaq"}
SYNTHETIC = "synthetic/"
_SHOWN = 12


def read_file(
    path: Path | str, *, columns: Mapping[str, str] | None = None, close_only: bool = False
) -> pd.DataFrame:
    """The bars in a CSV, TSV or Parquet file, as they stand there; a descending file is reversed.

    Kind, delimiter, columns and dates are detected. The result is not checked: it may lack price columns,
    repeat stamps or hold NaN, which `ztb_jax.data.validate.check` finds. A file without volume gets 0.

    Args:
      path: the file.
      columns: names of the file's columns by ours, where detection errs, e.g. `{"close": "Settle"}`.
      close_only: set open, high and low to the close.

    Raises:
      DataError: no table of bars; the message names row and remedy.
    """
    return read_source(Path(path), columns=columns, close_only=close_only).frame


def load_bars(
    symbol: str,
    timeframe: str,
    *,
    cache_dir: Path,
    start: str | None = None,
    end: str | None = None,
    synthetic_bars: int = 20_000,
    seed: int = 0,
) -> pd.DataFrame:
    """The frame of a symbol and timeframe, from start (inclusive) to end (exclusive).

    `SP500` and `NASDAQ` at 1d are embedded; `synthetic/NAME` is generated with synthetic_bars and seed;
    everything else is read from the cache. Nothing is ever downloaded.

    Args:
      symbol: e.g. `SP500`, `synthetic/ar1` or what was imported.
      timeframe: in any accepted form, e.g. `H4`.
      cache_dir: the folder of the cache.
      start: ISO date or time, UTC.
      end: ISO date or time, UTC.
      synthetic_bars: how many bars to generate.
      seed: of the generator.

    Raises:
      DataError: nothing of that name, with the command that would import it and what there is; a damaged
        cache file; no bar between start and end.
    """
    timeframe = canonical_timeframe(timeframe)
    if symbol.startswith(SYNTHETIC):
        frame = _generate(symbol, timeframe, num_bars=synthetic_bars, seed=seed)
    elif (symbol, timeframe) in EMBEDDED:
        frame = _embedded(EMBEDDED[symbol, timeframe])
    elif cache.cache_path(symbol, timeframe, cache_dir=cache_dir).is_file():
        frame, _ = cache.read(symbol, timeframe, cache_dir=cache_dir)
    else:
        raise _missing(symbol, timeframe, cache_dir)
    return _between(frame, _stamp("start", start), _stamp("end", end))


def _generate(symbol: str, timeframe: str, *, num_bars: int, seed: int) -> pd.DataFrame:
    name = symbol.removeprefix(SYNTHETIC)
    if name not in GENERATORS:
        raise DataError(
            f"there is no {symbol}. Choose one of {', '.join(SYNTHETIC + name for name in GENERATORS)}."
        )
    return GENERATORS[name](seed, num_bars, timeframe=timeframe)


def _embedded(name: str) -> pd.DataFrame:
    data = import_module(f"arch.data.{name}").load()
    return as_frame(data.index, {column: data[column.capitalize()] for column in COLUMNS})


def _missing(symbol: str, timeframe: str, cache_dir: Path) -> DataError:
    """What to run, and what there is instead, the likeliest first."""
    wanted = f"{symbol} {timeframe}"
    listing = cache.list_entries(cache_dir)
    cached = [f"{entry.symbol} {entry.timeframe}" for entry in listing.entries]
    there = cached + [" ".join(pair) for pair in EMBEDDED] + [SYNTHETIC + name for name in GENERATORS]
    folded = {name.lower(): name for name in there}
    near = [folded[match] for match in get_close_matches(wanted.lower(), folded, n=_SHOWN, cutoff=0.5)]
    there = near + [name for name in there if name not in near]
    return DataError(
        [
            f"there are no bars of {wanted} in the cache {cache_dir}. Import them with "
            f"`ztb data load {wanted} --from FILE`.",
            f"There are: {', '.join(there[:_SHOWN])}{', …' * (len(there) > _SHOWN)} (`ztb data list` shows "
            "all).",
        ]
    )


def _stamp(name: str, text: str | None) -> pd.Timestamp | None:
    if text is None:
        return None
    try:
        stamp = pd.to_datetime(text, format="ISO8601", utc=True)
    except ValueError as error:
        raise DataError(f"{name} {text!r} is no date. Write it as 2015-01-31 or 2015-01-31 04:00.") from error
    return stamp.tz_convert(None)


def _between(frame: pd.DataFrame, start: pd.Timestamp | None, end: pd.Timestamp | None) -> pd.DataFrame:
    index = pd.DatetimeIndex(frame.index)
    first = 0 if start is None else index.searchsorted(start)
    last = len(index) if end is None else index.searchsorted(end)
    if first >= last:
        raise DataError(
            f"no bar lies from {start or 'the beginning'} to before {end or 'the end'}: the bars go from "
            f"{index[0]} to "
            f"{index[-1]}. Choose a start and an end among them."
        )
    return frame.iloc[first:last]
