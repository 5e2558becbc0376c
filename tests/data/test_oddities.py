"""Jumps and holes: planted ones are told with their place, real markets are left alone."""

import numpy as np
import pytest

from ztb_jax.data import synthetic
from ztb_jax.data.imports import import_file
from ztb_jax.data.oddities import oddities

FRAME = synthetic.gbm(0, 500, timeframe="1d")


def altered(change):
    frame = FRAME.copy()
    return change(frame)


def divide_bar(frame):
    frame.iloc[100, :4] /= 100
    return frame


def raise_high(frame):
    frame.iloc[100, 1] *= 3
    return frame


def lower_low(frame):
    frame.iloc[100, 2] /= 3
    return frame


def split(frame):
    frame.iloc[100:, :4] /= 10
    return frame


@pytest.mark.parametrize(
    ("change", "count"),
    [(divide_bar, "2 bars move"), (raise_high, "one bar"), (lower_low, "one bar"), (split, "one bar")],
)
def test_a_jump_is_told_with_its_stamp(change, count):
    (told,) = oddities(altered(change))
    assert count in told
    assert str(FRAME.index[100]) in told


def test_a_hole_is_told_with_its_width():
    (told,) = oddities(FRAME.drop(FRAME.index[200:260]))
    assert "a hole" in told
    assert "61 days" in told
    assert str(FRAME.index[199].date()) in told


def test_clean_bars_are_left_alone():
    assert oddities(FRAME) == []
    assert oddities(FRAME.drop(FRAME.index[5::7])) == []


@pytest.mark.parametrize(
    "name", ["EURUSD_H4.csv", "USDJPY_H4.csv", "USA500IDXUSD_D1.csv", "BRENTCMDUSD_D1.csv"]
)
def test_real_markets_are_left_alone(real_data, tmp_path, name):
    symbol, timeframe = name.removesuffix(".csv").split("_")
    summary = import_file(symbol, timeframe, real_data / name, cache_dir=tmp_path)
    assert not [note for note in summary.notes if "hole" in note or "move" in note]


def test_the_import_tells_them(tmp_path):
    path = tmp_path / "odd.csv"
    split(FRAME.copy()).to_csv(path)
    summary = import_file("ODD", "1d", path, cache_dir=tmp_path / "cache")
    assert any("factor of 2" in note for note in summary.notes)
    assert np.isfinite(summary.entry.num_rows)
