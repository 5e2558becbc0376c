"""From a file's own columns to a frame of bars: which column is which, and what was mended on the way."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from ztb_jax.data import stamps
from ztb_jax.data.frame import COLUMNS, PRICES, as_frame
from ztb_jax.data.table import Table, read_table
from ztb_jax.errors import DataError

_ALIASES = {
    "time": ("time", "datetime", "date time", "timestamp", "date", "unix", "open time", "", "index level 0"),
    "open": ("open", "open price", "o"),
    "high": ("high", "high price", "max", "h"),
    "low": ("low", "low price", "min", "l"),
    "close": ("close", "price", "close price", "last", "c", "adj close", "adjusted close", "close/last"),
    "volume": ("volume", "vol", "tickvol", "tick volume", "v"),
}
_NULLS = ("", "na", "n/a", "nan", "null", "none", "-", ".")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SHOWN = 5


class Reading(NamedTuple):
    """A file as bars, before any check.

    Attributes:
      frame: stamps in file order, or reversed where the file descends; only the columns that were found.
      rows: [T] row number in the file of each bar.
      notes: what was decided or mended, one sentence each.
      sha256: of the file's bytes.
    """

    frame: pd.DataFrame
    rows: np.ndarray
    notes: tuple[str, ...]
    sha256: str


def read_source(path: Path, *, columns: Mapping[str, str] | None = None, close_only: bool = False) -> Reading:
    """The bars in a CSV, TSV or Parquet file as they stand there; a descending file is reversed.

    Args:
      path: the file.
      columns: names of the file's columns by ours (time, open, high, low, close, volume), where detection
        errs.
      close_only: open, high and low are set to the close, so that an order decided at one close fills at the
        next: with one price a bar nothing earlier could have been traded.

    Raises:
      DataError: not a table, no time column, cells that are no numbers or dates, each with its row.
    """
    table = read_table(path)
    places = _assign(path, table.names, dict(columns or {}))
    if close_only and "close" not in places:
        raise DataError(
            f"{path} has no close column among {_listed(table.names)}. Name it with `--columns close=NAME`."
        )
    wanted = {name: table.columns[place] for name, place in places.items() if name != "time"}
    values = _numbers(path, wanted, table.rows)
    notes: list[str] = []
    second = None if columns and "volume" in columns else _second_volume(table, places)
    if second is not None and "close" in values:
        values["volume"], mended = base_volume(values["volume"], second, values["close"])
        notes += _swapped(mended, len(second))
    if close_only:
        values |= dict.fromkeys(PRICES, values["close"])
    if "volume" not in values:
        values["volume"] = np.zeros(len(table.rows))
        notes.append("no volume column: volume is 0, so volume features say nothing.")
    return _ordered(table, _stamps(path, table, places["time"]), values, notes)


def base_volume(first: np.ndarray, second: np.ndarray, close: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[T] volume in base units, and [T] where it came from the second column.

    Of two volumes of one bar, in base and in quote units, the base is the one for which base × close ≈ quote.
    Some exporters swap the two columns half-way. A row is mended only if the columns satisfy the relation
    that way round within a factor of two and not the other; if every row says the same, or the price is too
    near 1 to tell, the first column stays as it is.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, scale = np.log(first / second), np.log(close)
    straight, crossed = np.abs(ratio + scale), np.abs(scale - ratio)
    near = np.log(2.0)
    mended = (crossed < near) & (straight > 2 * near)
    if not ((straight < near) & (crossed > 2 * near)).any():
        mended = np.zeros_like(mended)
    return np.where(mended, second, first), mended


def _assign(path: Path, names: list[str], columns: dict[str, str]) -> dict[str, int]:
    """Place of each of our columns in the file; the earlier alias wins, then the earlier column."""
    wrong = [f"{name!r} is not one of time, {', '.join(COLUMNS)}" for name in columns if name not in _ALIASES]
    wrong += [
        f"{given!r} is not a column of {path}, which has {_listed(names)}{_meant(given, names)}"
        for given in columns.values()
        if given not in names
    ]
    if wrong:
        raise DataError([f"--columns: {text}." for text in wrong])
    words = [_word(name) for name in names]
    found = {name: [alias for alias in aliases if alias in words] for name, aliases in _ALIASES.items()}
    places = {name: words.index(aliases[0]) for name, aliases in found.items() if aliases}
    volumes = [i for i, word in enumerate(words) if _is_volume(word)]
    places |= {"volume": volumes[0]} if volumes else {}
    places |= {name: names.index(given) for name, given in columns.items()}
    if "time" not in places:
        raise DataError(
            f"{path} has no time column among {_listed(names)}. Name it with `--columns time=NAME`, or begin "
            "the "
            "file with a header such as `time,open,high,low,close,volume`."
        )
    return places


def _word(name: str) -> str:
    """A column name without case, brackets and separators: `<ADJ_CLOSE>` is `adj close`."""
    return re.sub(r"[\s_.]+", " ", name.strip().strip("<>").lower()).strip()


def _is_volume(word: str) -> bool:
    return word in _ALIASES["volume"] or word.startswith("volume ")


def _second_volume(table: Table, places: dict[str, int]) -> np.ndarray | None:
    """[T] another volume column that reads as numbers throughout, or None."""
    for place, name in enumerate(table.names):
        if _is_volume(_word(name)) and place != places["volume"]:
            values, bad = _to_numbers(table.columns[place])
            return None if bad.size else values
    return None


def _swapped(mended: np.ndarray, num_bars: int) -> list[str]:
    if not mended.any():
        return []
    return [
        f"two volume columns change places: in {int(mended.sum())} of {num_bars} rows base units stood in "
        "the second, "
        "found by base × close ≈ quote; volume holds base units throughout."
    ]


def _stamps(path: Path, table: Table, place: int) -> np.ndarray:
    column = table.columns[place]
    words = [_word(name) for name in table.names]
    if stamps.is_clock(column) and "date" in words:
        date = table.columns[words.index("date")].astype("str")
        column = (date + " " + column.astype("str")).rename(f"{date.name} {column.name}")
    try:
        return stamps.parse(column, table.rows)
    except DataError as error:
        raise DataError([f"{path}: {finding}" for finding in error.findings]) from error


def _numbers(path: Path, columns: dict[str, pd.Series], rows: np.ndarray) -> dict[str, np.ndarray]:
    """[T] float64 by column; all columns' bad cells are reported at once."""
    values: dict[str, np.ndarray] = {}
    findings: list[str] = []
    for name, column in columns.items():
        values[name], bad = _to_numbers(column)
        if bad.size:
            cells = ", ".join(f"row {rows[i]}: {str(column.iloc[i])!r}" for i in bad[:_SHOWN])
            findings.append(
                f"{path} column {column.name!r}: {bad.size} cells are not numbers ({cells}). Write plain "
                "decimals "
                "such as 1234.5, without thousands separators or units."
            )
    if findings:
        raise DataError(findings)
    return values


def _to_numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """[T] float64 with NaN for empty cells, and the places of the cells that are no numbers."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan), np.empty(0, np.int64)
    text = column.astype("str").str.strip()
    empty = (text.isna() | text.str.lower().isin(_NULLS)).to_numpy(dtype=bool)
    good = text.str.fullmatch(_NUMBER, na=False).to_numpy(dtype=bool)
    values = np.full(len(text), np.nan)
    values[good] = pa.array(text[good], type=pa.string()).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values, np.flatnonzero(~good & ~empty)


def _ordered(table: Table, times: np.ndarray, values: dict[str, np.ndarray], notes: list[str]) -> Reading:
    """A file that descends more often than it ascends is turned round; nothing else is moved."""
    steps = np.diff(times.astype(np.int64))
    step = -1 if (steps < 0).sum() > (steps > 0).sum() else 1
    frame = as_frame(times, {name: values[name] for name in COLUMNS if name in values})
    if step < 0:
        notes.append("the file descends: its rows were reversed.")
    return Reading(frame.iloc[::step], table.rows[::step], tuple(notes), table.sha256)


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _meant(given: str, names: list[str]) -> str:
    near = get_close_matches(given, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
