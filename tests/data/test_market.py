"""Bars and features that would be taken for others are refused."""

import numpy as np
import pytest

from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market, make_market_data

FRAME = synthetic.gbm(0, 50)
FREE = make_costs(fee_rate=0.0, half_spread=0.0, slippage=0.0)


def changed(row, name, value):
    frame = FRAME.copy()
    frame.loc[frame.index[row], name] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (changed(7, "close", np.nan), "close of bar 7 is nan"),
        (changed(0, "open", -1.0), "open of bar 0 is -1.0"),
        (changed(3, "high", np.inf), "high of bar 3 is inf"),
        (FRAME[::-1], "the stamps do not rise"),
        (FRAME.drop(columns=["volume", "low"]), "no column low; there is no column volume"),
    ],
)
def test_a_market_is_made_of_bars_in_time_with_prices(frame, told):
    with pytest.raises(ValueError, match=told):
        make_market(frame, inside=True)
    assert make_market(FRAME[["open", "close"]]).gap.shape == (50,)


@pytest.mark.parametrize(
    ("rows", "start", "stop", "told"),
    [
        (40, 0, 50, "50 bars need a row of features each"),
        (60, 0, 50, "50 bars need a row of features each"),
        (50, 0, 51, r"\[0, 51\) is no slice of 50 bars"),
        (50, 20, 20, r"\[20, 20\) is no slice of 50 bars"),
    ],
)
def test_features_are_a_row_for_each_bar_and_slices_lie_among_them(rows, start, stop, told):
    with pytest.raises(ValueError, match=told):
        make_market_data(FRAME, np.zeros((rows, 1)), costs=FREE, start=start, stop=stop)
    with pytest.raises(ValueError, match="and a market of as many"):
        make_market_data(FRAME, np.zeros((50, 1)), costs=FREE, market=make_market(FRAME[:40]))
