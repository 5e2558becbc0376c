"""Planted leaks are found, each with its feature, row and reach; what is causal passes to the bit."""

import numpy as np
import pandas as pd
import pytest
from feature_oracles import frame_of, random_bars

from ztb_jax.errors import ConfigError, DataError
from ztb_jax.features.causality import KINDS, VALID, check_causality, require_causality
from ztb_jax.features.indicators import combine, make_atr, make_ema
from ztb_jax.features.recipe import Features, Recipe

COUNT = 400
FRAME = frame_of(random_bars(3, COUNT))
FRAME.iloc[200:205, FRAME.columns.get_loc("volume")] = np.nan


def causal(frame):
    moves = np.log(frame.close).diff()
    return pd.DataFrame(
        {
            "mean": moves.rolling(20).mean(),
            "size": moves.ewm(span=50).std(),
            "place": (frame.close - frame.low.cummin()) / (frame.high.cummax() - frame.low.cummin()),
            "volume": frame.volume.ffill(),
            "hour": frame.index.hour,
            "sum": moves.cumsum(),
        }
    )


# Each with the first row that looks ahead, and by how many bars the one does that does most.
PLANTED = {
    "shift": (lambda f: f.close.shift(-1), 0, 1),
    "centred": (lambda f: f.close.rolling(5, center=True).mean(), 2, 2),
    "standardised": (lambda f: (f.close - f.close.mean()) / f.close.std(), 0, COUNT - 1),
    "filled_back": (lambda f: f.close.rolling(20).mean().bfill(), 0, 19),
    "hole_filled_back": (lambda f: f.volume.bfill(), 200, 5),
    "merged": (lambda f: f.close.groupby(f.index.floor("D")).transform("last") / f.close, 0, 23),
    "scaled": (lambda f: (f.close - f.low.min()) / (f.high.max() - f.low.min()), 0, COUNT - 1),
    "shape": (lambda f: (f.close / f.open).shift(-1), 0, 1),
    "direction": (lambda f: np.sign(f.close.shift(-1) - f.close).fillna(0.0), 0, 1),
    "late": (lambda f: f.close.where(np.arange(len(f)) < 300, f.close.shift(-2)), 300, 2),
}


def planted(frame):
    return causal(frame).assign(**{name: make(frame) for name, (make, _, _) in PLANTED.items()})


def facts(found) -> dict:
    return {leak.feature: (leak.bar, leak.ahead) for leak in found.leaks}


def test_each_planted_leak_is_found_with_its_row_and_reach_and_nothing_else():
    found = check_causality(planted, FRAME)
    assert facts(found) == {name: (bar, ahead) for name, (_, bar, ahead) in PLANTED.items()}
    assert found.names == (*causal(FRAME).columns, *PLANTED)
    assert all(leak.difference > 0.01 for leak in found.leaks)
    gaps = {leak.feature for leak in found.leaks if leak.gaps}
    assert {"shift", "centred"} <= gaps
    assert not gaps & {"standardised", "merged", "scaled", "direction"}
    shift = found.leaks[0]
    assert shift.shown_by == KINDS
    (sentence, *_) = found.sentences(FRAME.index)
    assert "feature shift looks ahead: its row 0 (2020-01-01 00:00:00)" in sentence


@pytest.mark.parametrize("behind", [0, 3])
@pytest.mark.parametrize("ahead", [0, 1, 2, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_reach_of_a_window_is_its_own(behind, ahead, seed):
    weights = np.random.default_rng(seed).normal(size=behind + ahead + 1)

    def windowed(frame):
        known = np.lib.stride_tricks.sliding_window_view(frame.close.to_numpy(), len(weights))
        out = np.full(len(frame), np.nan)
        out[behind : len(frame) - ahead] = (known * weights).sum(axis=1)
        return out

    found = check_causality(windowed, FRAME, seed=seed, points=4)
    assert facts(found) == ({"windowed_0": (behind, ahead)} if ahead else {})


def test_what_looks_ahead_at_a_single_bar_is_found_when_every_bar_is_tried():
    def single(frame):
        out = frame.close.copy()
        if len(out) > 138:
            out.iloc[137] = out.iloc[138]
        return pd.DataFrame({"single": out, "long": frame.close.rolling(150).mean()})

    frame = FRAME.iloc[:200]
    found = check_causality(single, frame, points=len(frame))
    assert found.bars == tuple(range(199))
    assert facts(found) == {"single": (137, 1)}


def test_what_only_the_end_of_the_frame_tells_is_found():
    def to_next(frame):
        return frame.index.to_series().diff().shift(-1).dt.total_seconds()

    (leak,) = check_causality(to_next, FRAME).leaks
    assert (leak.ahead, leak.shown_by, leak.difference, leak.gaps) == (1, ("left out",), 0.0, True)


def test_only_high_futures_move_what_a_cap_hides():
    def capped(frame):
        return np.full(len(frame), float(frame.close.max() > 1e4))

    (leak,) = check_causality(capped, FRAME).leaks
    assert leak.shown_by == ("raised",)
    assert (leak.bar, leak.ahead) == (0, COUNT - 1)


def test_a_valid_flag_that_looks_ahead_is_a_leak_of_its_own():
    def flagged(frame):
        values = frame[["close"]].to_numpy()
        return Features(values, np.append(values[1:, 0] > 100.0, True), ("close",))

    assert facts(check_causality(flagged, FRAME)) == {VALID: (0, 1)}


@pytest.mark.parametrize("name", ["default", "extended", "returns"])
def test_built_in_recipes_are_causal_to_the_bit(name):
    found = check_causality(name, FRAME.iloc[:120], points=3)
    assert not found.leaks
    assert found.bars[0] == 0
    assert found.bars[-1] == 118


def test_a_recipe_of_ones_own_is_checked_as_it_is():
    mine = Recipe(
        "mine",
        combine(range=make_atr(5), mean=make_ema(9)),
        lambda bar, out: [out["range"] / bar.close, bar.close / out["mean"] - 1],
        ("range", "distance"),
    )
    assert not check_causality(mine, FRAME.iloc[:200], points=2).leaks


def rounded(frame):
    """The close by way of a transform over all bars: itself but for rounding."""
    return np.fft.irfft(np.fft.rfft(frame.close.to_numpy()), len(frame))


def test_rounding_is_a_leak_unless_it_is_tolerated():
    (leak,) = check_causality(rounded, FRAME).leaks
    assert 0 < leak.difference < 1e-9
    assert "a tolerance of 1e-09" in check_causality(rounded, FRAME).sentences(FRAME.index)[0]
    assert not check_causality(rounded, FRAME, tolerance=1e-9).leaks
    assert facts(check_causality(PLANTED["shift"][0], FRAME, tolerance=1e-9))
    require_causality(rounded, FRAME)


def test_what_looks_ahead_is_refused_with_a_sentence_for_each():
    require_causality(causal, FRAME)
    with pytest.raises(ConfigError) as caught:
        require_causality(lambda frame: planted(frame)[["mean", "shift", "late"]], FRAME)
    assert [finding.split()[1] for finding in caught.value.findings] == ["shift", "late"]
    assert "compute each row from its own and earlier bars" in caught.value.findings[0]


def test_equal_seeds_find_the_same_and_bars_are_spread_after_the_warm_up():
    late = PLANTED["late"][0]
    one = check_causality(late, FRAME, points=5, seed=1)
    assert one == check_causality(late, FRAME, points=5, seed=1)
    other = check_causality(late, FRAME, points=5, seed=2)
    assert other.bars != one.bars
    assert facts(other) == facts(one)
    assert {0, 3, 15, 63, 200, 255, 398} <= set(one.bars)


def test_every_frame_has_valid_bars_and_only_later_ones_are_other():
    seen = []

    def watch(frame):
        seen.append(frame.copy())
        frame["close"] = -1.0  # a copy: nobody else sees it
        return np.zeros(len(frame))

    before = FRAME.copy()
    found = check_causality(watch, FRAME)
    pd.testing.assert_frame_equal(FRAME, before)
    assert not found.leaks
    changed = 0
    for frame in seen:
        assert frame.index.equals(FRAME.index[: len(frame)])
        prices = frame[["open", "high", "low", "close"]].to_numpy()
        assert (prices > 0).all()
        assert (prices.max(axis=1) == prices[:, 1]).all()
        assert (prices.min(axis=1) == prices[:, 2]).all()
        same = (frame == FRAME.iloc[: len(frame)]) | frame.isna()
        rows = np.flatnonzero(~same.all(axis=1))
        if rows.size:
            changed += 1
            assert rows[0] - 1 in found.bars
            assert not same.iloc[rows[0] :, :4].any(axis=None)
    assert changed == 4 * len(found.bars)
    lengths = sorted({len(frame) for frame in seen})
    assert lengths[-2:] == [COUNT - 1, COUNT]
    assert len(lengths) == 8 + 2


def test_what_differs_from_call_to_call_is_refused():
    draws = np.random.default_rng(0)

    def drawn(frame):
        return pd.DataFrame({"fixed": 1.0, "drawn": draws.normal(size=len(frame))}, frame.index)

    with pytest.raises(ConfigError, match="feature drawn is not deterministic: row 0") as caught:
        check_causality(drawn, FRAME)
    assert len(caught.value.findings) == 1
    calls = []

    def renamed(frame):
        calls.append(1)
        return pd.Series(1.0, frame.index, name=f"feature {len(calls)}")

    with pytest.raises(ConfigError, match="other names in a second computation"):
        check_causality(renamed, FRAME)


def test_features_that_come_and_go_with_the_future_are_refused():
    def chosen(frame):
        return frame[["close"]].rename(columns={"close": f"up to {frame.close.max():.0f}"})

    with pytest.raises(ConfigError, match="give the same ones on every frame"):
        check_causality(chosen, FRAME)


@pytest.mark.parametrize("options", [{"points": 0}, {"tolerance": -1.0}, {"tolerance": float("nan")}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="must"):
        check_causality(causal, FRAME, **options)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME.iloc[:2], "too few"),
        (FRAME.assign(sector="tech"), "columns sector of the frame are no numbers"),
        (FRAME.drop(columns="low"), "lacks low"),
    ],
)
def test_a_frame_whose_future_cannot_be_changed_is_refused(frame, message):
    with pytest.raises(DataError, match=message):
        check_causality(causal, frame)


def test_further_columns_are_changed_too_and_whole_numbers_are_as_good():
    frame = FRAME.assign(rate=np.arange(COUNT), volume=1000)
    assert not check_causality(lambda f: f.rate / (1.0 + f.volume), frame).leaks
    (leak,) = check_causality(lambda f: f.rate.shift(-1), frame).leaks
    assert (leak.bar, leak.ahead) == (0, 1)


def test_any_difference_counts_however_wide_a_feature_varies():
    def wide(frame):
        out = np.where(np.arange(len(frame)) % 2, 1e308, -1e308)
        out[0] = frame.close.iloc[min(5, len(frame) - 1)]
        return out

    (leak,) = check_causality(wide, FRAME).leaks
    assert (leak.bar, leak.ahead, leak.gaps) == (0, 5, False)


def test_three_bars_are_enough():
    frame = FRAME.iloc[:3]
    assert facts(check_causality(lambda f: f.close.shift(-1), frame)) == {"close": (0, 1)}
    assert not check_causality(lambda f: f.close.diff(), frame).leaks
