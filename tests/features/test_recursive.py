"""The history that features need is what theory says of their weights."""

import math

import numpy as np
import pandas as pd
import pytest
from feature_oracles import frame_of, random_bars

from ztb_jax.errors import ConfigError, DataError
from ztb_jax.features.indicators import combine, make_ema
from ztb_jax.features.recipe import Recipe
from ztb_jax.features.recursive import CLOSE, ENDS, NEAR, check_recursive

COUNT = 2000
FRAME = frame_of(random_bars(5, COUNT))
CLOSES = FRAME.close.to_numpy()
STARTS = (50, 100, 200, 400)
FADE = 1 - 2 / 51  # of an EMA over 50


def by_name(found) -> dict:
    return {memory.feature: memory for memory in found.memories}


def unrolled(first: float, values: np.ndarray) -> np.ndarray:
    """y[0] = first, y += (1 - FADE) (x - y), as a loop in float64."""
    out = [first]
    for value in values[1:]:
        out.append(out[-1] + (1 - FADE) * (value - out[-1]))
    return np.array(out)


def test_an_exponential_mean_forgets_its_first_bar_as_its_weights_say():
    def mean(frame):
        return frame.close.ewm(span=50, adjust=False).mean()

    found = check_recursive(mean, FRAME, starts=STARTS)
    whole = unrolled(CLOSES[0], CLOSES)
    wanted = [
        max(FADE ** (start - 1) * abs(CLOSES[end + 1 - start] - whole[end + 1 - start]) for end in found.bars)
        for start in STARTS
    ]
    (memory,) = found.memories
    np.testing.assert_allclose(memory.differences, np.array(wanted) / whole.std(), rtol=1e-6, atol=1e-13)
    assert len(found.bars) == ENDS
    assert found.bars[-1] == COUNT - 1
    assert found.bars[0] == 799


def test_our_own_exponential_mean_forgets_its_seed():
    ema = Recipe("ema", combine(ema=make_ema(50)), lambda bar, out: [out["ema"]], ("ema",))
    starts = (60, 120, 250)
    found = check_recursive(ema, FRAME, starts=starts)
    whole = np.concatenate([np.full(49, np.nan), unrolled(CLOSES[:50].mean(), CLOSES[49:])])
    wanted = []
    for start in starts:
        seeds = [end + 1 - start for end in found.bars]
        apart = [FADE ** (start - 50) * abs(CLOSES[s : s + 50].mean() - whole[s + 49]) for s in seeds]
        wanted.append(max(apart) / np.nanstd(whole))
    np.testing.assert_allclose(found.memories[0].differences, wanted, rtol=1e-6)


def of_kinds(frame):
    close = frame.close
    moves = np.log(close).diff()
    padded = np.append(np.full(59, np.nan), close)
    sma = np.lib.stride_tricks.sliding_window_view(padded, 60).mean(axis=1)
    return pd.DataFrame(
        {
            "sma": sma,
            "rolling": moves.rolling(20).mean(),
            "sum": moves.cumsum(),
            "expanding": close.expanding().mean(),
            "since": np.arange(len(frame)),
            "ahead": close.shift(-1),
            "constant": 1.0,
        },
        frame.index,
    )


def test_windows_are_exact_and_sums_never_settle():
    found = check_recursive(of_kinds, FRAME, starts=(400, 50, 100, 200, 100))
    assert found.starts == STARTS
    memories = by_name(found)
    assert memories["sma"].differences == (math.inf, 0.0, 0.0, 0.0)
    assert (memories["sma"].near, memories["sma"].close) == (100, 100)
    assert max(memories["rolling"].differences) < 1e-10
    assert memories["rolling"].near == memories["constant"].near == 50
    assert {memory.feature for memory in found.unsettled} == {"sum", "expanding", "since", "ahead"}
    for name in ("sum", "expanding", "since"):
        assert memories[name].differences[-1] > 0.05
        assert memories[name].near is memories[name].close is None
    deviation = np.arange(COUNT).std()
    last = COUNT - 1
    np.testing.assert_allclose(
        memories["since"].differences, [(last - (start - 1)) / deviation for start in STARTS]
    )
    told = {line.split()[1]: line for line in found.sentences()}
    assert "does not settle within 400 bars" in told["sum"]
    assert "check whether it looks ahead" in told["ahead"]


def test_the_default_recipe_settles_and_more_history_is_never_worse():
    found = check_recursive("default", FRAME.iloc[:1000], starts=STARTS)
    assert not found.unsettled
    for memory in found.memories:
        assert memory.differences[-1] < CLOSE
        assert memory.close is not None
        assert memory.near is not None
        assert memory.near <= memory.close
    memories = by_name(found)
    assert memories["log_return_1"].differences == (0.0,) * 4
    assert memories["percent_b_20"].differences == (0.0,) * 4
    rsi = memories["rsi_14"].differences  # Wilder's weights fall by 13 / 14 a bar
    assert NEAR > rsi[2] > 0
    # Orders of magnitude: the averages of gains and losses fade alike, their ratio does roughly.
    assert 0.1 < rsi[2] / rsi[1] / (13 / 14) ** 100 < 10


def test_settled_is_said_of_the_length_from_which_on_all_agree():
    def odd(frame):
        return frame.close * (2.0 if len(frame) == 100 else 1.0)

    (memory,) = check_recursive(odd, FRAME, starts=STARTS).memories
    assert memory.differences[0] == 0.0
    assert memory.near == memory.close == 200


@pytest.mark.parametrize("starts", [(), (0, 50)])
def test_no_histories_are_refused(starts):
    with pytest.raises(ConfigError, match="give lengths in bars"):
        check_recursive(of_kinds, FRAME, starts=starts)


def test_histories_that_are_nearly_all_there_is_are_refused():
    with pytest.raises(DataError, match=r"needs 1600 to be compared with and there are 1500.*up to 750"):
        check_recursive(of_kinds, FRAME.iloc[:1500])
    assert check_recursive(of_kinds, FRAME.iloc[:800], starts=STARTS).bars == (799,)


def test_what_differs_from_call_to_call_is_refused():
    draws = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="not deterministic"):
        check_recursive(lambda frame: draws.normal(size=len(frame)), FRAME, starts=(50,))
