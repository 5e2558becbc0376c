import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztb_jax.data.frame import COLUMNS, PRICES
from ztb_jax.data.source import read_source
from ztb_jax.data.synthetic import gbm
from ztb_jax.data.validate import RULES, check, drop_rows, likely_timeframe
from ztb_jax.errors import DataError


def only(findings):
    assert len(findings) == 1, [str(finding) for finding in findings]
    return findings[0]


def broken(frame: pd.DataFrame, rows, **cells: float) -> pd.DataFrame:
    frame = frame.copy()
    for name, value in cells.items():
        frame.iloc[rows, list(COLUMNS).index(name)] = value
    return frame


def test_sound_bars_have_no_findings(good):
    assert check(good, timeframe="D1") == []
    assert check(good.iloc[:100], timeframe="D1") == []


def test_missing_columns(good):
    finding = only(check(good.drop(columns=["open", "low"]), timeframe="1d"))
    assert finding.rule == "missing_columns"
    assert "open, low" in finding.message
    assert "`--columns open=NAME low=NAME`, or take one price a bar with `--close-only`" in finding.remedy
    assert "--close-only" not in only(check(good.drop(columns="close"), timeframe="1d")).remedy


def test_too_few_rows(good):
    finding = only(check(good.iloc[:99], timeframe="1d"))
    assert finding.rule == "too_few_rows"
    assert "99 rows, at least 100" in finding.message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_few_empty_cells_can_be_dropped(good, value):
    bad = broken(good, slice(7, 17), high=np.nan)
    bad = broken(bad, [3], volume=value)
    finding = only(check(bad, timeframe="1d"))
    assert (finding.rule, finding.count, finding.rows) == ("nan", 11, (3, 7, 8, 9, 10))
    assert finding.stamps[0] == "2000-01-06 00:00:00"
    assert "--drop nan" in finding.remedy
    assert len(drop_rows(bad, ["nan"], timeframe="1d")) == 189


def test_many_empty_cells_cannot(good):
    bad = broken(good, slice(0, 11), open=np.nan)
    finding = only(check(bad, timeframe="1d"))
    assert finding.rule == "nan"
    assert not finding.droppable
    assert "11 of 200 cells of open are empty or infinite (5.5%" in finding.message
    assert "first at 2000-01-03" in finding.message
    assert len(drop_rows(bad, ["nan"], timeframe="1d")) == 200


def test_high_below_low(good):
    finding = only(check(broken(good, [4], high=1, low=2), timeframe="1d"))
    assert (finding.rule, finding.rows) == ("high_low", (4,))


@pytest.mark.parametrize(("name", "value"), [("open", 1e6), ("close", 1e6), ("open", 1e-6), ("close", 1e-6)])
def test_open_and_close_lie_within_the_range(good, name, value):
    finding = only(check(broken(good, [4, 9], **{name: value}), timeframe="1d"))
    assert (finding.rule, finding.count) == ("range", 2)


def test_rounding_of_single_precision_is_no_finding(good):
    flat = broken(good, slice(None), open=100, high=100, low=100, close=100 * (1 + 6e-8))
    assert check(flat, timeframe="1d") == []
    assert only(check(flat.assign(close=100 * (1 + 1e-5)), timeframe="1d")).rule == "range"


@pytest.mark.parametrize("name", PRICES)
@pytest.mark.parametrize("value", [0.0, -37.63])
def test_prices_are_positive(good, name, value):
    findings = check(broken(good, [8], **{name: value}), timeframe="1d")
    assert "non_positive" in [finding.rule for finding in findings]
    assert (
        check(drop_rows(broken(good, [8], **{name: value}), ["non_positive"], timeframe="1d"), timeframe="1d")
        == []
    )


def test_volume_is_not_negative(good):
    assert only(check(broken(good, [8], volume=-1), timeframe="1d")).rule == "negative_volume"
    assert check(broken(good, slice(None), volume=0), timeframe="1d") == []


def test_duplicates_keep_the_first(good):
    bad = pd.concat([good.iloc[:50], good.iloc[49:50] * 2, good.iloc[50:]])
    finding = only(check(bad, timeframe="1d"))
    assert (finding.rule, finding.rows) == ("duplicate", (50,))
    pd.testing.assert_frame_equal(drop_rows(bad, ["duplicate"], timeframe="1d"), good)


def test_a_dropped_row_is_not_the_first_of_its_duplicates(good):
    bad = pd.concat([good.iloc[:50], broken(good, slice(None), high=np.nan).iloc[50:51], good.iloc[50:]])
    pd.testing.assert_frame_equal(drop_rows(bad, ["duplicate", "nan"], timeframe="1d"), good)


def test_unordered_rows(good):
    order = np.arange(200)
    order[[20, 25]] = order[[25, 20]]
    finding = only(check(good.iloc[order], timeframe="1d"))
    assert (finding.rule, finding.rows) == ("unordered", (21, 22, 23, 24, 25))
    assert drop_rows(good.iloc[order], ["unordered"], timeframe="1d").index.is_monotonic_increasing


def daily(weekend_range: float, *, timeframe: str = "1d") -> pd.DataFrame:
    """700 bars 4 % wide, and weekend_range of that on Saturdays and Sundays."""
    close = gbm(0, 700, timeframe=timeframe)["close"]
    half = np.where(close.index.day_of_week >= 5, weekend_range, 1.0) * 0.02
    columns = {"open": close, "high": close * (1 + half), "low": close * (1 - half), "close": close}
    return pd.DataFrame(columns | {"volume": 1.0})


def test_stub_sessions_are_named_with_their_day():
    frame = daily(0.4)
    finding = only(check(frame, timeframe="1d"))
    assert (finding.rule, finding.count) == ("stub_session", 200)
    assert "100 Saturdays" in finding.message
    finding = only(check(frame[frame.index.day_of_week != 5], timeframe="1d"))
    assert (finding.rule, finding.count) == ("stub_session", 100)
    assert "100 Sundays: row 5 (2000-01-09 00:00:00)" in finding.message
    assert check(daily(0.6), timeframe="1d") == []


def test_seven_equal_days_are_no_stubs(real_data):
    assert check(daily(1.0), timeframe="1d") == []
    assert check(gbm(1, 700, timeframe="1d"), timeframe="1d") == []
    hourly = read_source(real_data / "awkward" / "BTC_USD-Hourly.csv").frame
    rules = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    assert check(hourly.resample("1D").agg(rules), timeframe="1d") == []


def test_stubs_are_sought_in_days_only(real_data):
    assert check(daily(0.1, timeframe="4h"), timeframe="4h") == []
    assert check(read_source(real_data / "EURUSD_H4.csv").frame, timeframe="4h") == []


def test_weeks_stamped_on_sundays_are_no_stubs():
    frame = gbm(0, 200, timeframe="1w")
    assert check(frame.set_index(frame.index - pd.Timedelta(days=1)), timeframe="1w") == []


def test_one_price_a_day_makes_no_stubs(good):
    flat = good.assign(**dict.fromkeys(PRICES, good["close"]))
    assert check(flat, timeframe="1d") == []


@pytest.mark.parametrize(
    ("name", "stubs"),
    [("EURUSD_D1", 835), ("GBPUSD_D1", 834), ("USDJPY_D1", 836), ("XAUUSD_D1", 858), ("USA30IDXUSD_D1", 342)],
)
def test_the_real_stubs_are_found(real_data, name, stubs):
    frame = read_source(real_data / f"{name}.csv").frame
    finding = only(check(frame, timeframe="1d"))
    assert (finding.rule, finding.count) == ("stub_session", stubs)
    assert check(drop_rows(frame, ["stub_session"], timeframe="1d"), timeframe="1d") == []


@pytest.mark.parametrize("name", ["USA500IDXUSD_D1", "USATECHIDXUSD_D1", "BRENTCMDUSD_D1"])
def test_real_days_without_stubs_are_sound(real_data, name):
    assert check(read_source(real_data / f"{name}.csv").frame, timeframe="1d") == []


@pytest.mark.parametrize(("said", "likely"), [("1h", "1d"), ("1w", "1d"), ("23h", None), ("1d", None)])
def test_the_timeframe_is_held_to_the_spacing(good, said, likely):
    findings = check(good, timeframe=said)
    if likely is None:
        assert findings == []
    else:
        assert only(findings).rule == "timeframe"
        assert only(findings).remedy == f"Import it as {likely}."


def test_months_vary_and_are_months():
    frame = gbm(0, 200, timeframe="1d").set_index(pd.date_range("1990-01-01", periods=200, freq="MS"))
    assert check(frame, timeframe="MN1") == []
    assert likely_timeframe(frame.index) == "1mo"
    assert only(check(frame, timeframe="1w")).remedy == "Import it as 1mo."


def test_all_findings_come_at_once_with_the_file_rows(good):
    bad = broken(good, [3], high=np.nan)
    bad = broken(bad, [5], low=-1)
    bad = broken(bad, [7], close=1e6).drop(columns="volume")
    bad = pd.concat([bad.iloc[:99], bad.iloc[10:11]])
    bad = pd.concat([bad, bad.iloc[-1:]])
    findings = check(bad, timeframe="1h", rows=np.arange(2, 103))
    rules = [finding.rule for finding in findings]
    assert rules == ["missing_columns", "timeframe", "nan", "non_positive", "range", "unordered", "duplicate"]
    by_rule = {finding.rule: finding for finding in findings}
    assert by_rule["nan"].rows == (5,)
    assert "row 5 (2000-01-06 00:00:00)" in str(by_rule["nan"])
    assert by_rule["unordered"].rows == (101, 102)


def test_frames_without_rows_are_found_not_crashed_on(good):
    assert only(check(good.iloc[:0], timeframe="1d")).rule == "too_few_rows"
    assert only(check(good.iloc[:1], timeframe="1d")).rule == "too_few_rows"


def test_unknown_rules_and_timeframes_are_refused(good):
    with pytest.raises(DataError) as error:
        drop_rows(good, ["nan", "stubs", "too_few_rows"], timeframe="1d")
    assert len(error.value.findings) == 2
    assert "'stubs'. Rules that can: nan, non_positive" in error.value.findings[0]
    with pytest.raises(DataError, match="not understood"):
        check(good, timeframe="often")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_what_was_dropped_is_found_no_more(data):
    frame = gbm(0, 150, timeframe="1d")
    for _ in range(data.draw(st.integers(0, 6))):
        row, name = data.draw(st.integers(0, 149)), data.draw(st.sampled_from(COLUMNS))
        frame = broken(frame, [row], **{name: data.draw(st.sampled_from([np.nan, -1.0, 0.0, 1e9, np.inf]))})
    order = data.draw(st.lists(st.integers(0, 149), max_size=3))
    frame = pd.concat([frame, frame.iloc[order]])
    rules = data.draw(st.sets(st.sampled_from(list(RULES))))
    left = {finding.rule for finding in check(drop_rows(frame, rules, timeframe="1d"), timeframe="1d")}
    assert not left & rules


def test_two_hundred_thousand_rows_take_no_time():
    frame = broken(gbm(0, 200_000), slice(10, 3_000), high=np.nan)
    began = time.perf_counter()
    assert only(check(frame, timeframe="1h")).count == 2_990
    assert time.perf_counter() - began < 1.0
