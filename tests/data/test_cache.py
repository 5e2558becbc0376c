import dataclasses
import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztb_jax.data import cache
from ztb_jax.data.frame import as_frame, content_hash
from ztb_jax.data.synthetic import gbm
from ztb_jax.errors import DataError


def store(frame, cache_dir, symbol="EURUSD", timeframe="1d", **options):
    entry = cache.make_entry(symbol, timeframe, frame, source="bars.csv", source_sha256="0" * 64)
    return cache.write(frame, entry, cache_dir=cache_dir, **options)


def test_what_is_written_is_read(good, tmp_path):
    entry = store(good, tmp_path, timeframe="D1")
    frame, read = cache.read("EURUSD", "24h", cache_dir=tmp_path)
    pd.testing.assert_frame_equal(frame, good, check_freq=False)
    assert read == entry
    assert entry.timeframe == "1d"
    assert (entry.num_rows, entry.first, entry.last) == (200, "2000-01-03 00:00:00", "2000-07-20 00:00:00")
    assert entry.content_sha256 == content_hash(good)
    assert os.listdir(tmp_path / "EURUSD") == ["1d.parquet"]


@pytest.mark.parametrize(
    "symbol", ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "-x", ".x", "x\n", "é", "a b", "x" * 65, "a\x00"]
)
def test_symbols_cannot_leave_the_cache(symbol, tmp_path):
    with pytest.raises(DataError, match="cannot name a file"):
        cache.cache_path(symbol, "1d", cache_dir=tmp_path)


@given(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"))
def test_every_allowed_symbol_stays_in_the_cache(symbol):
    path = cache.cache_path(symbol, "1d", cache_dir=Path("/cache"))
    assert path.parent.parent == Path("/cache")
    assert ".." not in path.parts


def test_other_bars_are_not_overwritten_unasked(good, tmp_path):
    entry = store(good, tmp_path)
    other = good * 2
    with pytest.raises(
        DataError, match=r"already in the cache with other bars: 200 from bars.csv.*`--replace`"
    ):
        store(other, tmp_path)
    assert cache.read("EURUSD", "1d", cache_dir=tmp_path)[1] == entry
    store(other, tmp_path, replace=True)
    assert content_hash(cache.read("EURUSD", "1d", cache_dir=tmp_path)[0]) == content_hash(other)


def test_the_same_bars_again_change_nothing(good, tmp_path):
    entry = store(good, tmp_path)
    again = dataclasses.replace(entry, source="copy.csv")
    before = (tmp_path / "EURUSD" / "1d.parquet").stat().st_mtime_ns
    assert cache.write(good, again, cache_dir=tmp_path) == entry
    assert (tmp_path / "EURUSD" / "1d.parquet").stat().st_mtime_ns == before


@pytest.mark.parametrize("crash_at", ["os.replace", "os.fsync"])
@pytest.mark.parametrize("stands", [True, False])
def test_a_crash_leaves_the_old_file(good, tmp_path, monkeypatch, crash_at, stands):
    if stands:
        store(good, tmp_path)

    def crash(*arguments):
        del arguments
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(crash_at, crash)
        with pytest.raises(KeyboardInterrupt):
            store(good * 2, tmp_path, replace=True)
    assert os.listdir(tmp_path / "EURUSD") == ["1d.parquet"] * stands
    if stands:
        assert content_hash(cache.read("EURUSD", "1d", cache_dir=tmp_path)[0]) == content_hash(good)


def test_the_file_is_synced_before_it_takes_its_place(good, tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr("os.fsync", lambda handle: (calls.append("sync"), sync(handle)))
    monkeypatch.setattr("os.replace", lambda old, new: (calls.append((old.parent, new)), replace(old, new)))
    store(good, tmp_path)
    assert calls == ["sync", (tmp_path / "EURUSD", tmp_path / "EURUSD" / "1d.parquet")]


def test_a_cache_that_is_a_file_is_refused(good, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(DataError, match=r"cannot be written: .*`--cache-dir` or ZTB_DATA__CACHE_DIR"):
        store(good, tmp_path / "cache")


def rewrite(path: Path, table: pa.Table, **changes) -> None:
    entry = json.loads(table.schema.metadata[b"ztb_jax.entry"]) | changes
    pq.write_table(table.replace_schema_metadata({b"ztb_jax.entry": json.dumps(entry).encode()}), path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path, table: path.write_bytes(path.read_bytes()[:1_000]), "Parquet magic bytes not found"),
        (lambda path, table: path.write_bytes(b""), "Parquet file size is 0"),
        (lambda path, table: pq.write_table(table.replace_schema_metadata(None), path), "was not written by"),
        (lambda path, table: rewrite(path, table.slice(1)), "do not have the hash"),
        (lambda path, table: rewrite(path, table, num_rows=7), "do not have the hash"),
        (
            lambda path, table: rewrite(path, table.drop_columns("low")),
            "its columns are time, open, high, close",
        ),
        (lambda path, table: rewrite(path, table, symbol="GBPUSD"), "it holds GBPUSD 1d"),
        (lambda path, table: rewrite(path, table, timeframe="4h"), "it holds EURUSD 4h"),
        (
            lambda path, table: pq.write_table(
                table.replace_schema_metadata({b"ztb_jax.entry": b"{}"}), path
            ),
            "description is damaged",
        ),
    ],
)
def test_a_file_that_is_not_what_was_written_is_refused(good, tmp_path, damage, reason):
    store(good, tmp_path)
    path = tmp_path / "EURUSD" / "1d.parquet"
    damage(path, pq.read_table(path))
    with pytest.raises(DataError) as error:
        cache.read("EURUSD", "1d", cache_dir=tmp_path)
    assert reason in str(error.value)
    assert f"the cache file {path} cannot be used" in str(error.value)
    assert "`ztb data load EURUSD 1d --from FILE --replace`" in str(error.value)
    store(good, tmp_path, replace=True)
    cache.read("EURUSD", "1d", cache_dir=tmp_path)


def test_a_damaged_file_is_not_overwritten_unasked(good, tmp_path):
    store(good, tmp_path)
    (tmp_path / "EURUSD" / "1d.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be used"):
        store(good, tmp_path)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_flipped_byte_is_noticed_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip")
    frame = as_frame(gbm(0, 8).index, gbm(0, 8).to_dict("series"))
    store(frame, folder)
    path = folder / "EURUSD" / "1d.parquet"
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        read, _ = cache.read("EURUSD", "1d", cache_dir=folder)
    except DataError:
        return
    assert content_hash(read) == content_hash(frame)


def test_the_listing_shows_the_sound_and_the_damaged(good, tmp_path):
    assert cache.list_entries(tmp_path / "absent") == cache.Listing((), ())
    for symbol, timeframe in (("XAUUSD", "1d"), ("EURUSD", "4h"), ("EURUSD", "1d")):
        store(good, tmp_path, symbol, timeframe)
    (tmp_path / "XAUUSD" / "1h.parquet").write_bytes(b"nothing")
    (tmp_path / "XAUUSD" / ".1d-abc.tmp").write_bytes(b"left by a crash")
    listing = cache.list_entries(tmp_path)
    assert [(entry.symbol, entry.timeframe) for entry in listing.entries] == [
        ("EURUSD", "1d"),
        ("EURUSD", "4h"),
        ("XAUUSD", "1d"),
    ]
    assert listing.damaged == (tmp_path / "XAUUSD" / "1h.parquet",)


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ZTB_DATA__CACHE_DIR", str(tmp_path))
    assert cache.default_cache_dir() == tmp_path
    monkeypatch.delenv("ZTB_DATA__CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.default_cache_dir() == tmp_path / ".cache" / "ztb_jax" / "data"
