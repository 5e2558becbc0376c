"""Instruments of different calendars on one clock: nothing from later, nothing made up."""

import numpy as np
import pandas as pd
import pytest

from ztb_jax.data.align import align
from ztb_jax.data.frame import as_frame
from ztb_jax.data.synthetic import gbm
from ztb_jax.errors import DataError


def bars(stamps, closed):
    closed = np.asarray(closed, float)
    return as_frame(pd.to_datetime(list(stamps)), {"open": closed - 0.5, "close": closed})


OLD = bars(["2020-01-01", "2020-01-02", "2020-01-05", "2020-01-06"], [1, 2, 5, 6])
YOUNG = bars(["2020-01-02", "2020-01-03", "2020-01-06"], [20, 30, 60])


def test_the_union_of_stamps_from_the_first_common_price():
    aligned = align({"old": OLD, "young": YOUNG})
    assert aligned.names == ("old", "young")
    assert [stamp.day for stamp in aligned.stamps] == [2, 3, 5, 6]
    np.testing.assert_array_equal(aligned.closed, [[2, 20], [2, 30], [5, 30], [6, 60]])
    np.testing.assert_array_equal(aligned.opened, [[1.5, 19.5], [2, 29.5], [4.5, 30], [5.5, 59.5]])
    np.testing.assert_array_equal(aligned.present, [[True, True], [False, True], [True, False], [True, True]])
    np.testing.assert_allclose(aligned.years * 365.25, [0, 1, 2, 1])


def test_a_single_instrument_is_itself():
    frame = gbm(0, 50, timeframe="4h")
    aligned = align({"one": frame})
    np.testing.assert_array_equal(aligned.closed[:, 0], frame["close"])
    np.testing.assert_array_equal(aligned.opened[:, 0], frame["open"])
    assert aligned.present.all()
    assert aligned.stamps.equals(pd.DatetimeIndex(frame.index))


def test_later_bars_change_no_earlier_row():
    rng = np.random.default_rng(0)
    frames = {name: gbm(seed, 300, timeframe="1d") for seed, name in enumerate("abc")}
    frames = {name: frame[rng.uniform(size=300) < 0.8] for name, frame in frames.items()}
    whole = align(frames)
    for row in (50, 120, 200):
        past = align({name: frame[frame.index <= whole.stamps[row]] for name, frame in frames.items()})
        for field in ("opened", "closed", "present", "years"):
            np.testing.assert_array_equal(getattr(past, field), getattr(whole, field)[: row + 1])


def test_a_row_holds_the_last_close_at_or_before_its_stamp():
    rng = np.random.default_rng(1)
    frames = {name: gbm(seed, 120, timeframe="1d") for seed, name in enumerate("ab")}
    frames = {name: frame[rng.uniform(size=120) < 0.7] for name, frame in frames.items()}
    aligned = align(frames)
    for row, stamp in enumerate(aligned.stamps):
        for column, frame in enumerate(frames.values()):
            assert aligned.closed[row, column] == frame["close"][frame.index <= stamp].iloc[-1]
            assert aligned.present[row, column] == (stamp in frame.index)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ({}, "no frame"),
        ({"a": OLD.iloc[:0]}, "a has no bars"),
        ({"a": OLD.iloc[::-1]}, "ascending"),
        ({"a": OLD[["open"]]}, "lacks the columns close"),
        ({"a": OLD.replace(5.0, np.nan)}, "not finite"),
        ({"a": OLD, "b": bars(["2021-01-01"], [1])}, "a ended before b began"),
    ],
)
def test_refuses_frames_that_cannot_be_aligned(frames, message):
    with pytest.raises(DataError, match=message):
        align(frames)
