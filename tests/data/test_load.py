import numpy as np
import pandas as pd
import pytest

from ztb_jax.data import cache
from ztb_jax.data.frame import COLUMNS, bars_per_year, content_hash
from ztb_jax.data.load import load_bars, read_file
from ztb_jax.data.synthetic import GENERATORS, ar1
from ztb_jax.data.validate import check
from ztb_jax.errors import DataError


@pytest.mark.parametrize("symbol", ["SP500", "NASDAQ"])
def test_the_embedded_sets_are_sound(symbol, tmp_path):
    frame = load_bars(symbol, "D1", cache_dir=tmp_path / "absent")
    assert check(frame, timeframe="1d") == []
    assert (len(frame), str(frame.index[0]), str(frame.index[-1])) == (
        5_031,
        "1999-01-04 00:00:00",
        "2018-12-31 00:00:00",
    )
    assert frame.columns.tolist() == list(COLUMNS)
    assert bars_per_year(frame.index) == pytest.approx(251.6, abs=0.5)
    assert not (tmp_path / "absent").exists()


def test_the_embedded_prices_are_unscaled(tmp_path):
    first = load_bars("SP500", "1d", cache_dir=tmp_path).iloc[0]
    np.testing.assert_allclose(
        first, [1229.22998, 1248.810059, 1219.099976, 1228.099976, 877_000_000], rtol=1e-9
    )


def test_synthetic_bars_take_their_size_and_seed(tmp_path):
    frame = load_bars("synthetic/ar1", "H1", cache_dir=tmp_path, synthetic_bars=300, seed=7)
    assert content_hash(frame) == content_hash(ar1(7, 300))
    assert len(load_bars("synthetic/ar1", "1h", cache_dir=tmp_path)) == 20_000


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_has_its_symbol(name, tmp_path):
    assert (
        check(load_bars(f"synthetic/{name}", "15m", cache_dir=tmp_path, synthetic_bars=500), timeframe="15m")
        == []
    )


def test_an_unknown_generator_lists_the_known(tmp_path):
    with pytest.raises(
        DataError, match=r"there is no synthetic/arl. Choose one of synthetic/gbm, synthetic/ar1"
    ):
        load_bars("synthetic/arl", "1h", cache_dir=tmp_path)


def test_a_miss_names_the_command_and_what_there_is(good, tmp_path):
    for symbol in ("XAUUSD", "GBPUSD"):
        entry = cache.make_entry(symbol, "1d", good, source="bars.csv", source_sha256="")
        cache.write(good, entry, cache_dir=tmp_path)
    with pytest.raises(DataError) as error:
        load_bars("gbpusd", "D1", cache_dir=tmp_path)
    command, there = error.value.findings
    assert "Import them with `ztb data load gbpusd 1d --from FILE`." in command
    assert there.startswith("There are: GBPUSD 1d, ")
    assert "XAUUSD 1d" in there
    with pytest.raises(DataError, match=r"There are: SP500 1d, "):
        load_bars("SP500", "4h", cache_dir=tmp_path)


def test_a_long_listing_is_cut(good, tmp_path):
    for i in range(20):
        entry = cache.make_entry(f"X{i}", "1d", good, source="bars.csv", source_sha256="")
        cache.write(good, entry, cache_dir=tmp_path)
    with pytest.raises(DataError, match=r", … \(`ztb data list` shows all\)"):
        load_bars("Y", "1d", cache_dir=tmp_path)


@pytest.mark.parametrize("symbol", ["../x", "a/b", ""])
def test_a_symbol_is_no_path(symbol, tmp_path):
    with pytest.raises(DataError, match=r"cannot name a file"):
        load_bars(symbol, "1d", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [
        (None, None, "1999-01-04", "2018-12-31"),
        ("2010-01-01", "2011-01-03", "2010-01-04", "2010-12-31"),
        ("2010-01-04", None, "2010-01-04", "2018-12-31"),
        ("2010-01-04T00:00:01+00:00", "2099-01-01", "2010-01-05", "2018-12-31"),
    ],
)
def test_a_range_holds_its_start_and_not_its_end(tmp_path, start, end, first, last):
    index = load_bars("SP500", "1d", cache_dir=tmp_path, start=start, end=end).index
    assert [str(index[0].date()), str(index[-1].date())] == [first, last]


def test_ranges_that_hold_nothing_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no bar lies from 2030.*the bars go from 1999-01-04"):
        load_bars("SP500", "1d", cache_dir=tmp_path, start="2030-01-01")
    with pytest.raises(DataError, match=r"no bar lies"):
        load_bars("SP500", "1d", cache_dir=tmp_path, start="2010-01-01", end="2009-01-01")
    with pytest.raises(DataError, match=r"end 'soon' is no date. Write it as 2015-01-31"):
        load_bars("SP500", "1d", cache_dir=tmp_path, end="soon")


def test_a_file_is_read_unchecked(save):
    frame = read_file(str(save("Date;Price\n2020-01-02;1\n2020-01-02;-1\n")))
    assert frame["close"].tolist() == [1, -1]
    assert isinstance(frame.index, pd.DatetimeIndex)
    assert (
        read_file(save("a;b\n2020-01-02;1\n"), columns={"time": "a", "close": "b"}, close_only=True)[
            "open"
        ].item()
        == 1
    )
