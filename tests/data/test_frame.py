import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztb_jax.data.frame import (
    COLUMNS,
    as_frame,
    bars_per_year,
    canonical_timeframe,
    content_hash,
    name_of_seconds,
    nanoseconds,
    timeframe_seconds,
)
from ztb_jax.errors import DataError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("H4", "4h"), ("4h", "4h"), ("4H", "4h"), ("240min", "4h"), ("D1", "1d"), ("1d", "1d"), ("24h", "1d"),
        ("M15", "15m"), ("15m", "15m"), ("15min", "15m"), ("M1", "1m"), ("W1", "1w"), ("7d", "1w"),
        ("MN1", "1mo"), ("1mo", "1mo"), ("30s", "30s"), ("60m", "1h"), (" 1 day ", "1d"), ("90m", "90m"),
    ],
)  # fmt: skip
def test_every_spelling_of_a_timeframe_has_one_name(text, canonical):
    assert canonical_timeframe(text) == canonical
    assert canonical_timeframe(canonical) == canonical


@pytest.mark.parametrize(
    "text", ["", "h", "4", "0h", "-1h", "1M", "15M", "4x", "4h4", "H4h", "four hours", "4h\n5"]
)
def test_what_is_no_timeframe_is_refused_with_the_forms(text):
    with pytest.raises(DataError, match=r"Write a count and a unit such as .*M15, H4"):
        canonical_timeframe(text)


@given(st.integers(1, 9_999), st.sampled_from(["s", "m", "h", "d", "w"]))
def test_a_name_keeps_its_seconds(count, unit):
    seconds = count * {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}[unit]
    assert timeframe_seconds(f"{count}{unit}") == seconds
    assert timeframe_seconds(name_of_seconds(seconds)) == seconds


def test_a_month_is_a_twelfth_of_the_year():
    assert timeframe_seconds("12mo") == pytest.approx(365.25 * 86_400)


def test_bars_per_year_come_from_the_stamps():
    days = pd.date_range("2000-01-01", "2020-01-01", freq="D")
    weekdays = days[days.day_of_week < 5]
    assert bars_per_year(days) == pytest.approx(365.25)
    assert bars_per_year(weekdays) == pytest.approx(260.9, abs=0.1)
    assert bars_per_year(days[:2]) == 365.25


@pytest.mark.parametrize("stamps", [[], ["2000-01-01"], ["2000-01-01", "2000-01-01"]])
def test_bars_without_a_span_have_no_rate(stamps):
    with pytest.raises(DataError, match="span no time"):
        bars_per_year(pd.DatetimeIndex(stamps))


def test_stamps_are_counted_in_nanoseconds_whatever_their_unit():
    index = pd.DatetimeIndex(["2000-01-03 00:00:01"])
    for unit in ("s", "ms", "us", "ns"):
        assert nanoseconds(index.as_unit(unit))[0] == 946_857_601_000_000_000


def test_a_frame_has_microseconds_and_float64(good):
    frame = as_frame(good.index.as_unit("ns"), {name: good[name].astype("float32") for name in COLUMNS})
    assert frame.index.dtype == "datetime64[us]"
    assert frame.index.name == "time"
    assert (frame.dtypes == np.float64).all()


def test_the_hash_ignores_storage_and_sees_every_change(good):
    whole = content_hash(good)
    assert content_hash(good.copy().set_index(good.index.as_unit("ns"))) == whole
    assert content_hash(good.iloc[::-1]) != whole
    assert content_hash(good.iloc[:-1]) != whole
    assert content_hash(good.rename(columns={"open": "high", "high": "open"})) != whole
    assert content_hash(good[[*COLUMNS[1:], COLUMNS[0]]]) != whole
    moved = good.set_index(good.index + pd.Timedelta(1, "us"))
    assert content_hash(moved) != whole


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 199), st.sampled_from(COLUMNS))
def test_the_hash_sees_one_ulp_in_one_cell(row, column):
    frame = as_frame(np.arange(200), {name: np.linspace(1, 2, 200) for name in COLUMNS})
    changed = frame.copy()
    changed.loc[changed.index[row], column] = np.nextafter(frame[column].iloc[row], 3)
    assert content_hash(changed) != content_hash(frame)
