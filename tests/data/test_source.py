import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztb_jax.data.frame import COLUMNS, PRICES, content_hash
from ztb_jax.data.source import base_volume, read_source
from ztb_jax.errors import DataError

HEADER = "time,open,high,low,close,volume\n"
TWO = HEADER + "2020-01-01,1,2,0.5,1.5,10\n2020-01-02,1.5,2,1,1.25,20\n"


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_the_delimiter_is_detected(good, save, separator):
    assert content_hash(read_source(save(good, sep=separator)).frame) == content_hash(good)


@pytest.mark.parametrize("encode", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_line_ends(save, encode, newline):
    frame = read_source(save(TWO.replace("\n", newline).encode(encode))).frame
    assert frame["close"].tolist() == [1.5, 1.25]
    assert frame.index.name == "time"


@pytest.mark.parametrize(
    "header",
    [
        "Time,Open,High,Low,Close,Volume", "DATE,OPEN,HIGH,LOW,PRICE,VOL", "unix,o,h,l,c,v",
        "<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<TICKVOL>",
        "Timestamp,open_price,High Price,low,Adj Close,Tick_Volume",
        ",open,high,low,Close/Last,volume",
    ],
)  # fmt: skip
def test_column_names_are_detected(save, header):
    frame = read_source(save(TWO.replace(HEADER.strip(), header))).frame
    assert frame.columns.tolist() == list(COLUMNS)
    assert frame.iloc[0].tolist() == [1, 2, 0.5, 1.5, 10]


def test_a_close_is_preferred_to_an_adjusted_one(save):
    frame = read_source(save("adj close,close,price,date\n1,2,3,2020-01-01\n")).frame
    assert frame["close"].tolist() == [2]


def test_date_and_time_of_day_in_two_columns_are_joined(save):
    header = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\n"
    text = header + "2020.01.02\t04:00:00\t1\t2\t1\t2\t7\t0\n"
    frame = read_source(save(text)).frame
    assert str(frame.index[0]) == "2020-01-02 04:00:00"
    assert frame["volume"].tolist() == [7]


def test_columns_can_be_named(save):
    path = save("when,first,high,low,settle,close\n2020-01-01,1,2,1,2,9\n")
    frame = read_source(path, columns={"time": "when", "open": "first", "close": "settle"}).frame
    assert frame.iloc[0].tolist() == [1, 2, 1, 2, 0]


def test_wrong_names_are_all_reported(save):
    with pytest.raises(DataError) as error:
        read_source(save(TWO), columns={"opening": "open", "high": "hihg"})
    assert len(error.value.findings) == 2
    assert "'opening' is not one of time, open" in error.value.findings[0]
    assert "did you mean 'high'?" in error.value.findings[1]


def test_a_descending_file_is_reversed_and_keeps_its_rows(good, save):
    reading = read_source(save(good.iloc[::-1]))
    assert content_hash(reading.frame) == content_hash(good)
    assert reading.rows.tolist() == list(range(201, 1, -1))
    assert any("descends" in note for note in reading.notes)


def test_one_stray_row_does_not_turn_a_file_round(good, save):
    order = np.arange(200)
    order[[10, 11]] = [11, 10]
    frame = read_source(save(good.iloc[order])).frame
    assert frame.index[0] == good.index[0]
    assert not frame.index.is_monotonic_increasing


def test_rows_are_counted_as_an_editor_counts_lines(save):
    reading = read_source(save("\n" + TWO.replace("\n2020-01-02", "\n\n2020-01-02")))
    assert reading.rows.tolist() == [3, 5]


def test_without_a_volume_it_is_zero_and_said(save):
    reading = read_source(save("time,open,high,low,close\n2020-01-01,1,1,1,1\n"))
    assert reading.frame["volume"].tolist() == [0]
    assert any("no volume column" in note for note in reading.notes)


def test_close_only_sets_every_price(save):
    frame = read_source(save("Date,Price\n2020-01-01,3\n2020-01-02,4\n"), close_only=True).frame
    for name in PRICES:
        assert frame[name].tolist() == [3, 4]
    missing = read_source(save("Date,Price\n2020-01-01,3\n2020-01-02,4\n")).frame
    assert missing.columns.tolist() == ["close", "volume"]


def test_close_only_without_a_close_is_refused(save):
    with pytest.raises(DataError, match=r"no close column among 'time', 'open'.*`--columns close=NAME`"):
        read_source(save("time,open\n2020-01-01,1\n"), close_only=True)


def test_empty_cells_are_nan_and_words_are_refused(save):
    text = "time,open,high,low,close,volume\n2020-01-01,,NA, . ,null,-\n2020-01-02,1e3,+2, 3 ,-4,.5\n"
    frame = read_source(save(text)).frame
    assert frame.iloc[0].isna().all()
    assert frame.iloc[1].tolist() == [1000, 2, 3, -4, 0.5]
    with pytest.raises(DataError) as error:
        read_source(save('time,open,close\n2020-01-01,"1,234.5",2\n2020-01-02,1,12.3K\n2020-01-03,inf,1_0\n'))
    assert len(error.value.findings) == 2
    assert "'open': 2 cells are not numbers (row 2: '1,234.5', row 4: 'inf')" in error.value.findings[0]
    assert "row 3: '12.3K', row 4: '1_0'" in error.value.findings[1]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_exactly(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("exact") / "x.csv"
    path.write_text(f"time,close\n2020-01-01,{value!r}\n")
    assert read_source(path).frame["close"].iloc[0] == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty. Give a file with a header"),
        (b" \n\n ", "is empty"),
        (HEADER.encode(), "has a header and no rows"),
        (b"\x00\x01\x02,\x03\n", "is binary"),
        (bytes(range(128, 256)) * 4, "is not text: byte 0"),
        (b"\x1f\x8b\x08 rest", "is a gzip file"),
        (b"PK\x03\x04 rest", "is a zip (or a spreadsheet) file"),
        (b"PAR1 but not really", "is a damaged Parquet file"),
        (b"\xff\xfe\x00", "is not text"),
        (b"hello world\nthis is prose\n", "has no columns: its first line 'hello world'"),
        (b"2020-01-01,1,2,1,2,10\n2020-01-02,1,2,1,2,10\n", "has no time column among '2020-01-01', '1'"),
        (TWO.replace("2020-01-02,1.5", "2020-01-02").encode(), "row 3 has 5 cells where the header has 6"),
        ((TWO + "2020-01-03,1,2,3,4,5,6\n").encode(), "row 4 has 7 cells where the header has 6"),
        (TWO.replace("2020-01-02", "soon").encode(), "row 3: 'soon'"),
    ],
)
def test_what_is_no_table_is_refused_with_place_and_remedy(save, content, message):
    path = save(content)
    with pytest.raises(DataError) as error:
        read_source(path)
    assert message in str(error.value)
    assert all(str(path) in finding for finding in error.value.findings)


def test_ragged_rows_are_all_counted(save):
    with pytest.raises(DataError) as error:
        read_source(save(HEADER + "2020-01-01,1\n" * 8 + TWO.removeprefix(HEADER)))
    assert len(error.value.findings) == 6
    assert error.value.findings[-1] == "and 3 more rows of the wrong length."


@pytest.mark.parametrize("name", ["absent.csv", "."])
def test_what_cannot_be_opened_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"cannot be read: .*Give the path"):
        read_source(tmp_path / name)


@pytest.mark.parametrize("form", ["index", "column", "seconds", "text", "berlin"])
def test_parquet_of_every_kind_of_time(good, save, form):
    stored = good.astype({"volume": "float32"}) if form == "index" else good.reset_index()
    if form == "seconds":
        stored["time"] = stored["time"].astype("datetime64[s]").astype("int64")
    elif form == "text":
        stored["time"] = stored["time"].astype("str")
    elif form == "berlin":
        stored["time"] = stored["time"].dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    buffer = io.BytesIO()
    stored.to_parquet(buffer)
    reading = read_source(save(buffer.getvalue(), "bars.parquet"))
    assert content_hash(reading.frame[list(PRICES)]) == content_hash(good[list(PRICES)])
    assert reading.rows[0] == 1


def test_parquet_with_an_unnamed_index_and_missing_values(good, save):
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(
            {"__index_level_0__": pa.array(good.index), "close": pa.array([None, *range(199)], pa.int64())}
        ),
        buffer,
    )
    frame = read_source(save(buffer.getvalue(), "bars.parquet")).frame
    assert np.isnan(frame["close"].iloc[0])
    assert frame["close"].iloc[-1] == 198


def test_swapped_volume_columns_are_put_right(save):
    close = np.linspace(9_000, 12_000, 300)
    base = np.random.default_rng(0).uniform(0.5, 50, 300)
    swapped = np.arange(300) >= 120
    table = pd.DataFrame({"close": close, "volume": base, "Volume USD": base * close * 1.01})
    table.loc[swapped, ["volume", "Volume USD"]] = table.loc[swapped, ["Volume USD", "volume"]].to_numpy()
    table.insert(0, "date", pd.date_range("2020-01-01", periods=300, freq="h"))
    reading = read_source(save(table, index=False))
    np.testing.assert_array_equal(reading.frame["volume"], base)
    assert any("in 180 of 300 rows" in note for note in reading.notes)
    named = read_source(save(table, index=False), columns={"volume": "Volume USD"})
    np.testing.assert_array_equal(named.frame["volume"], table["Volume USD"])


def test_consistent_volumes_stay_as_they_are():
    close = np.linspace(9_000, 12_000, 300)
    base = np.linspace(1, 2, 300)
    for first, second in ((base, base * close), (base * close, base), (base, base)):
        volume, mended = base_volume(first, second, close)
        np.testing.assert_array_equal(volume, first)
        assert not mended.any()


def test_near_a_price_of_one_nothing_is_guessed():
    close = np.full(300, 1.1)
    first = np.where(np.arange(300) < 100, 1.0, 1.1)
    volume, mended = base_volume(first, 2.1 - first, close)
    np.testing.assert_array_equal(volume, first)
    assert not mended.any()


def test_a_price_that_leaves_one_changes_no_volume():
    close = np.linspace(1.1, 10, 300)
    first = np.full(300, 5.0)
    np.testing.assert_array_equal(base_volume(first, first * close, close)[0], first)


def test_bars_without_trades_do_not_disturb_the_volume():
    close, base = np.full(4, 1e4), np.array([1.0, 0.0, 2.0, 0.0])
    first, second = np.array([1.0, 0.0, 2e4, 0.0]), np.array([1e4, 0.0, 2.0, 0.0])
    np.testing.assert_array_equal(base_volume(first, second, close)[0], base)


def test_the_awkward_file(real_data):
    path = real_data / "awkward" / "BTC_USD-Hourly.csv"
    reading = read_source(path)
    raw = pd.read_csv(path).iloc[::-1].reset_index(drop=True)
    assert reading.frame.index.is_monotonic_increasing
    assert (reading.frame.index == pd.DatetimeIndex(raw["date"])).all()
    assert any("20143 of 33259" in note for note in reading.notes)
    np.testing.assert_array_equal(reading.frame["volume"], raw[["volume", "Volume USD"]].min(axis=1))
