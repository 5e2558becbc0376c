"""Columns of dates and times, in whatever way a file writes them, to stamps in UTC without a timezone."""

import re

import numpy as np
import pandas as pd

from ztb_jax.errors import DataError

_DATES = (
    "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m.%d.%Y", "%d-%m-%Y", "%m-%d-%Y",
    "%d-%b-%Y", "%d %b %Y", "%b %d %Y", "%b %d, %Y",
)  # fmt: skip
_TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_FIRST, _LAST = np.datetime64("1900-01-01", "us"), np.datetime64("2100-01-01", "us")
_REMEDY = "Write ISO dates such as 2023-01-31 or 2023-01-31 04:00, or unix seconds."


def parse(column: pd.Series, rows: np.ndarray) -> np.ndarray:
    """[T] datetime64[us] in UTC of a column of dates, texts or numbers.

    Understood: typed dates; ISO dates and times with or without offset (none means UTC); unix seconds,
    milli-, micro- or nanoseconds, told apart row by row; 20230131 and 20230131235900; day-first,
    month-first and named months, where the whole column reads in one way only.

    Args:
      column: [T] as read.
      rows: [T] row numbers for messages.

    Raises:
      DataError: cells that are no date, lie outside 1900 to 2100, or could be day-first or month-first.
    """
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        stamps = pd.to_datetime(column, utc=True)
    elif pd.api.types.is_numeric_dtype(column.dtype):
        stamps = _from_numbers(column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan))
    else:
        stamps = _from_text(column.astype("str").str.strip(), rows)
    values = _naive(stamps)
    bad = np.flatnonzero(np.isnat(values) | (values < _FIRST) | (values >= _LAST))
    if bad.size:
        raise DataError(
            f"{bad.size} stamps in column {column.name!r} are no date between 1900 and 2100, first in row "
            f"{rows[bad[0]]}: {_cell(column, bad[0])}. {_REMEDY}"
        )
    return values


def is_clock(column: pd.Series) -> bool:
    """Whether every text in the column is a time of day alone, such as 04:00 or 04:00:00."""
    return bool(column.astype("str").str.strip().str.fullmatch(r"\d{1,2}:\d{2}(?::\d{2})?", na=False).all())


def _cell(column: pd.Series, place: int) -> str:
    value = column.iloc[place]
    return "an empty cell" if pd.isna(value) or value == "" else repr(str(value))


def _naive(stamps: pd.Series) -> np.ndarray:
    return stamps.dt.tz_convert(None).to_numpy(dtype="datetime64[us]")


def _from_text(text: pd.Series, rows: np.ndarray) -> pd.Series:
    if text.str.fullmatch(r"\d+(?:\.\d+)?", na=False).all():
        return _from_digits(text)
    stamps = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    if stamps.notna().any():
        return stamps
    return _from_formats(text, rows)


def _from_digits(text: pd.Series) -> pd.Series:
    """All digits: a compact date when every cell has the length of one and starts in 19 or 20, else unix."""
    widths = text.str.len().unique()
    form = _DIGITS.get(int(widths[0])) if len(widths) == 1 else None
    if form is not None and text.str.startswith(("19", "20")).all():
        return pd.to_datetime(text, format=form, utc=True, errors="coerce")
    return _from_numbers(text.to_numpy(dtype=np.float64))


def _from_numbers(values: np.ndarray) -> pd.Series:
    """Unix time; the unit of each row follows from its size, since files change it half-way."""
    if np.isin(np.floor(values / 1e6), (19, 20)).all():
        text = pd.Series(values.astype(np.int64)).astype("str")
        return pd.to_datetime(text, format="%Y%m%d", utc=True, errors="coerce")
    scale = np.select([values < 1e11, values < 1e14, values < 1e17], [1e6, 1e3, 1.0], default=1e-3)
    micro = np.where(np.isfinite(values) & (values >= 1e8), values * scale, np.nan)
    stamps = np.full(len(values), np.datetime64("NaT", "us"))
    known = micro < _LAST.astype(np.int64)
    stamps[known] = np.round(micro[known]).astype(np.int64).astype("datetime64[us]")
    return pd.Series(stamps).dt.tz_localize("UTC")


def _from_formats(text: pd.Series, rows: np.ndarray) -> pd.Series:
    """The one form that reads the column; two that read all of it differently are an ambiguity."""
    first = text[text.notna() & (text != "")].iloc[:1]
    if first.empty:
        return pd.Series(pd.NaT, index=text.index, dtype="datetime64[us, UTC]")
    forms = [date + time for date in _DATES for time in _TIMES if _reads(first, date + time)]
    readings = {form: pd.to_datetime(text, format=form, utc=True, errors="coerce") for form in forms}
    if not readings:
        return pd.Series(pd.NaT, index=text.index, dtype="datetime64[us, UTC]")
    whole = [form for form, stamps in readings.items() if stamps.notna().all()]
    if len(whole) > 1 and not readings[whole[0]].equals(readings[whole[1]]):
        raise DataError(
            f"the dates in column {text.name!r} can be read day-first or month-first throughout, e.g. row "
            f"{rows[0]}: "
            f"{text.iloc[0]!r}. {_REMEDY}"
        )
    best = max(readings, key=lambda form: readings[form].notna().sum())
    return readings[best]


def _reads(first: pd.Series, form: str) -> bool:
    pattern = re.compile(r"[A-Za-z]")
    if bool(pattern.search(first.iloc[0])) != any(code in form for code in ("%b", "%p")):
        return False
    return bool(pd.to_datetime(first, format=form, utc=True, errors="coerce").notna().all())
