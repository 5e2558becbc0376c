import hashlib
import shlex

import numpy as np
import pandas as pd
import pytest

from ztb_jax.cli.data import main
from ztb_jax.data import cache
from ztb_jax.data.frame import bars_per_year, content_hash
from ztb_jax.data.imports import check_file, import_file, mending_options
from ztb_jax.data.load import load_bars
from ztb_jax.data.synthetic import gbm
from ztb_jax.data.validate import check
from ztb_jax.errors import DataError


def refusal(*arguments, **options) -> list[str]:
    with pytest.raises(DataError) as error:
        import_file(*arguments, **options)
    return error.value.findings


def test_an_import_is_loaded_as_it_was(good, save, tmp_path):
    path = save(good)
    summary = import_file("GOOD", "D1", path, cache_dir=tmp_path / "cache")
    assert summary.path.is_file()
    assert (summary.entry.source, summary.entry.num_rows) == ("bars.csv", 200)
    assert summary.entry.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert content_hash(load_bars("GOOD", "1d", cache_dir=tmp_path / "cache")) == content_hash(good)


def test_a_refused_file_leaves_nothing(good, save, tmp_path):
    folder = tmp_path / "cache"
    lines = refusal("BAD", "1d", save(pd.concat([good, good.iloc[-1:]])), cache_dir=folder)
    assert "is refused as BAD 1d, 1 finding:" in lines[0]
    assert "duplicate: 1 of 201 rows repeat the stamp of an earlier row: row 202 (2000-07-20" in lines[1]
    assert not folder.exists()


def test_the_suggested_command_works(good, save, tmp_path):
    bad = good.copy()
    bad.iloc[[3, 4], 1] = [np.nan, -1]
    bad.iloc[9, 3] = 1e6
    bad = pd.concat([bad, bad.iloc[-1:], bad.iloc[150:151]])
    path = save(bad, "with space.csv")
    folder = tmp_path / "cache"
    lines = refusal("BAD", "1d", path, cache_dir=folder)
    assert len(lines) == 2 + 6
    command = lines[-1].split("`")[1]
    assert "--drop nan non_positive high_low range unordered duplicate" in command
    assert main([*shlex.split(command)[2:], "--cache-dir", str(folder)]) == 0
    assert cache.read("BAD", "1d", cache_dir=folder)[1].num_rows == 197


def test_a_suggestion_repeats_what_was_given(good, save, tmp_path):
    bad = good.rename(columns={"close": "settle"}).drop(columns=["open", "high", "low"])
    bad.iloc[5, 0] = -1
    options = {"columns": {"close": "settle"}, "close_only": True, "replace": True}
    lines = refusal("BAD", "1d", save(bad), cache_dir=tmp_path, **options)
    assert lines[-1].endswith("--columns close=settle --close-only --replace --drop non_positive`.")


def test_nothing_is_suggested_that_would_not_do(good, save, tmp_path):
    few = good.iloc[:100].copy()
    few.iloc[5, 0] = np.nan
    lines = refusal("BAD", "1d", save(few), cache_dir=tmp_path)
    assert len(lines) == 2
    assert "It imports with" not in lines[-1]
    assert mending_options(few, timeframe="1d") is None
    assert "too_few_rows" in refusal("BAD", "1d", save(few), cache_dir=tmp_path, drop=["nan"])[1]


def test_one_rule_can_lay_another_bare():
    close = gbm(0, 700, timeframe="1d")["close"]
    weekend = close.index.day_of_week >= 5
    half = np.where(weekend, 0.001, 0.02)
    bad = pd.DataFrame({"open": close, "high": close * (1 + half), "low": close * (1 - half), "close": close})
    bad["volume"] = 1.0
    bad.loc[weekend & (np.arange(700) % 5 < 3), "low"] = -1.0
    assert [finding.rule for finding in check(bad, timeframe="1d")] == ["non_positive"]
    assert mending_options(bad, timeframe="1d") == "--drop non_positive stub_session"


def test_dropped_rows_are_counted_by_rule(good, save, tmp_path):
    bad = good.copy()
    bad.iloc[[3, 4], 1] = [np.nan, -1]
    bad = pd.concat([bad, bad.iloc[-1:]])
    rules = ["duplicate", "nan", "non_positive", "range", "high_low"]
    summary = import_file("BAD", "1d", save(bad), cache_dir=tmp_path / "cache", drop=rules)
    assert summary.dropped == {"nan": 1, "non_positive": 1, "high_low": 0, "range": 0, "duplicate": 1}


def test_rows_keep_their_number_when_others_are_dropped(good, save, tmp_path):
    bad = good.copy()
    bad.iloc[3, 1] = np.nan
    bad.iloc[9, 4] = -1
    lines = refusal("BAD", "1d", save(bad), cache_dir=tmp_path, drop=["nan"])
    assert "negative_volume: 1 of 199 rows have a volume below zero: row 11 (2000-01-12" in lines[1]


def test_a_wrong_timeframe_names_the_right_one(good, save, tmp_path):
    lines = refusal("GOOD", "4h", save(good), cache_dir=tmp_path)
    assert lines[1] == "timeframe: the median spacing of the stamps is that of 1d, not 4h. Import it as 1d."
    assert len(lines) == 2


def test_bad_requests_are_refused_before_reading(good, save, tmp_path):
    absent = tmp_path / "absent.csv"
    assert "cannot name a file" in refusal("../x", "1d", absent, cache_dir=tmp_path)[0]
    assert "not understood" in refusal("X", "soon", absent, cache_dir=tmp_path)[0]
    assert "embedded" in refusal("SP500", "D1", absent, cache_dir=tmp_path)[0]
    assert "'dup'" in refusal("X", "1d", save(good), cache_dir=tmp_path, drop=["dup"])[0]


def test_other_bars_are_replaced_only_when_asked(good, save, tmp_path):
    folder = tmp_path / "cache"
    import_file("X", "1d", save(good), cache_dir=folder)
    import_file("X", "1d", save(good), cache_dir=folder)
    assert "`--replace`" in refusal("X", "1d", save(good * 2), cache_dir=folder)[0]
    assert import_file("X", "1d", save(good * 2), cache_dir=folder, replace=True).entry.num_rows == 200


def test_check_file_reads_without_importing(good, save):
    reading, findings = check_file(save(good.drop(columns="open")), "1d")
    assert len(reading.frame) == 200
    assert [finding.rule for finding in findings] == ["missing_columns"]


@pytest.mark.parametrize(
    ("name", "timeframe", "num_rows", "yearly"),
    [
        ("EURUSD_H4.csv", "4h", 25_847, 1_613),
        ("XAUUSD_H4.csv", "H4", 26_630, 1_603),
        ("USATECHIDXUSD_D1.csv", "D1", 2_667, 259),
        ("awkward/BTC_USD-Hourly.csv", "1h", 33_259, 8_766),
    ],
)
def test_real_files_import(real_data, tmp_path, name, timeframe, num_rows, yearly):
    summary = import_file("REAL", timeframe, real_data / name, cache_dir=tmp_path)
    frame = load_bars("REAL", timeframe, cache_dir=tmp_path)
    assert summary.entry.num_rows == len(frame) == num_rows
    assert frame.index.is_monotonic_increasing
    assert frame.index.is_unique
    assert bars_per_year(frame.index) == pytest.approx(yearly, rel=0.01)


def test_real_days_with_stubs_import_without_them(real_data, tmp_path):
    path = real_data / "EURUSD_D1.csv"
    lines = refusal("EURUSD", "D1", path, cache_dir=tmp_path)
    assert "835 Sundays: row 6 (2007-09-09 00:00:00)" in lines[1]
    assert lines[-1].endswith("--drop stub_session`.")
    summary = import_file("EURUSD", "D1", path, cache_dir=tmp_path, drop=["stub_session"])
    assert summary.dropped == {"stub_session": 835}
    assert summary.entry.num_rows == 5_013 - 835


def test_the_real_close_only_file_imports_when_told(real_data, tmp_path):
    path = real_data / "WTI_D1_close_only.csv"
    lines = refusal("WTI", "D1", path, cache_dir=tmp_path)
    assert "missing_columns: no column for open, high, low." in lines[1]
    assert "row 8645 (2020-04-20 00:00:00)" in lines[2]
    assert lines[-1].endswith("--close-only --drop non_positive`.")
    summary = import_file("WTI", "D1", path, cache_dir=tmp_path, close_only=True, drop=["non_positive"])
    assert summary.entry.num_rows == 10_225
    frame = load_bars("WTI", "D1", cache_dir=tmp_path)
    assert (frame["open"] == frame["close"]).all()
