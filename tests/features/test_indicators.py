"""Indicators equal TA-Lib, see no later bar, and are one step whether batched or live."""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from feature_oracles import (
    ODD,
    SHORTEST,
    USUAL,
    all_indicators,
    bars_of,
    by_name,
    expected,
    random_bars,
    sp500_frame,
    trailing,
    zscore,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ztb_jax.errors import ConfigError
from ztb_jax.features import indicators as ind
from ztb_jax.features.indicators import Bar

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "indicators.md"
CAPACITY = 256
SETS = {"usual": USUAL, "shortest": SHORTEST, "odd": ODD}
INDICATORS = {name: all_indicators(periods) for name, periods in SETS.items()}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def padded(bars: Bar) -> Bar:
    """The same bars in a buffer of one size, so that all lengths share one program; the rest is poison."""
    return Bar(*(np.concatenate([x, np.full(CAPACITY - len(x), -7.0)]) for x in bars))


def over(name: str, bars: Bar) -> dict[str, np.ndarray]:
    indicator = INDICATORS[name]
    count = len(bars.close)
    values = ind.advance(indicator, ind.start(indicator), padded(bars), count)[1]
    return {key: value[:count] for key, value in by_name(indicator, values).items()}


def assert_equal_talib(got: dict[str, np.ndarray], bars: Bar, periods) -> None:
    wanted = expected(bars, periods)
    assert set(got) == set(wanted)
    for key, value in wanted.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-9, atol=1e-9, equal_nan=True, err_msg=key)


@pytest.mark.parametrize("name", SETS)
@given(
    seed=st.integers(0, 2**31),
    num_bars=st.integers(1, CAPACITY),
    num_flat=st.integers(0, 3),
    num_gaps=st.integers(0, 3),
    tick=st.sampled_from([0.0, 0.25, 1.0]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equal_talib_on_random_walks(name, seed, num_bars, num_flat, num_gaps, tick):
    bars = random_bars(seed, num_bars, num_flat=num_flat, num_gaps=num_gaps, tick=tick)
    with jax.enable_x64(True):
        assert_equal_talib(over(name, bars), bars, SETS[name])


def test_equal_talib_on_the_sp500(x64):
    bars = bars_of(sp500_frame())
    assert_equal_talib(by_name(INDICATORS["usual"], ind.apply(INDICATORS["usual"], bars)), bars, USUAL)


def test_a_series_that_never_moves(x64):
    flat = Bar(*(np.full(100, x) for x in (0.1, 0.1, 0.1, 0.1, 0.0)))
    got = over("usual", flat)
    assert_equal_talib(got, flat, USUAL)
    for key in ("rsi", "atr", "adx.adx", "stochastic.k", "realised_volatility", "volume_zscore"):
        assert (got[key][40:] == 0).all(), key
    for key in ("bollinger.upper", "bollinger.lower", "sma"):
        assert (got[key][40:] == 0.1).all(), key


def test_a_range_of_rounding_errors_is_no_range(x64):
    low, high = 0.3, 0.1 + 0.2
    assert 0 < high - low < 1e-15
    bars = Bar(*(np.full(60, x) for x in (low, high, low, high, 1.0)))
    got = over("usual", bars)
    assert (got["stochastic.k"][17:] == 0).all()
    np.testing.assert_array_equal(got["stochastic.k"], expected(bars, USUAL)["stochastic.k"])


def test_float32_errors_are_as_documented():
    rows = re.findall(r"^\| `(\S+)` \| (\d+) \| (\S+) \|", DOCUMENT.read_text(), re.MULTILINE)
    documented = {name: (int(first), float(bound)) for name, first, bound in rows}
    bars = bars_of(sp500_frame())
    assert len(bars.close) == 5031
    got = by_name(INDICATORS["usual"], ind.apply(INDICATORS["usual"], bars))
    wanted = expected(bars, USUAL)
    assert set(documented) == set(wanted)
    for key, (first, bound) in documented.items():
        assert got[key].dtype == np.float32
        assert np.isnan(got[key][:first]).all(), key
        assert np.isfinite(got[key][first:]).all(), key
        error = np.abs(got[key] - wanted[key])[first:].max()
        assert error <= bound, f"{key}: {error:.1e}"


@pytest.mark.parametrize("t", [1, 40, 199])
def test_the_future_changes_no_bit(x64, t):
    bars = random_bars(3, 200, num_flat=1, num_gaps=1)
    whole = over("usual", bars)
    rng = np.random.default_rng(t)
    other = Bar(*(np.concatenate([x[:t], rng.uniform(1, 1000, 200 - t)]) for x in bars))
    poisoned = Bar(*(np.concatenate([x[:t], np.full(200 - t, np.nan)]) for x in bars))
    shorter = Bar(*(x[:t] for x in bars))
    for changed in (other, poisoned, shorter):
        for key, value in over("usual", changed).items():
            np.testing.assert_array_equal(value[:t], whole[key][:t], err_msg=key)


@pytest.mark.parametrize("t", [2, 150])
def test_an_array_of_another_length_changes_no_bit(x64, t):
    bars = random_bars(4, 200)
    whole = over("odd", bars)
    alone = ind.apply(INDICATORS["odd"], Bar(*(x[:t] for x in bars)))
    for key, value in by_name(INDICATORS["odd"], alone).items():
        np.testing.assert_array_equal(value, whole[key][:t], err_msg=key)


def test_advancing_in_pieces_equals_the_whole_bit_for_bit(x64):
    bars, indicator = random_bars(5, 200), INDICATORS["odd"]
    whole = over("odd", bars)
    state, pieces = ind.start(indicator), []
    for first in range(0, 200, 50):
        piece = padded(Bar(*(x[first : first + 50] for x in bars)))
        state, values = ind.advance(indicator, state, piece, 50)
        pieces.append(jax.tree.map(lambda x: x[:50], values))
    joined = by_name(indicator, jax.tree.map(lambda *x: np.concatenate(x), *pieces))
    for key, value in joined.items():
        np.testing.assert_array_equal(value, whole[key], err_msg=key)


def test_the_bare_step_equals_the_batch_up_to_rounding(x64):
    bars, indicator = random_bars(6, 60, num_flat=1), INDICATORS["odd"]
    step, state, values = jax.jit(indicator.step), indicator.init(), []
    for t in range(60):
        state, value = step(state, Bar(*(float(x[t]) for x in bars)))
        values.append(value)
    live = by_name(indicator, jax.tree.map(lambda *x: np.stack(x), *values))
    for key, value in over("odd", bars).items():
        np.testing.assert_allclose(live[key], value, rtol=1e-9, atol=1e-9, err_msg=key)


def test_init_is_fresh_for_every_instrument(x64):
    indicator = INDICATORS["odd"]
    before = jax.tree.map(np.asarray, indicator.init())
    ind.advance(indicator, indicator.init(), padded(random_bars(7, 100)), 100)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, indicator.init()))


def test_instruments_side_by_side_do_not_mix(x64):
    one, two = random_bars(8, 60), random_bars(9, 60)
    both = Bar(*(np.stack(pair, axis=1) for pair in zip(one, two, strict=True)))
    indicator = INDICATORS["odd"]
    values = jax.vmap(partial(ind.apply, indicator), in_axes=1, out_axes=1)(both)
    for column, alone in enumerate((one, two)):
        side = by_name(indicator, jax.tree.map(lambda x, c=column: x[:, c], values))
        for key, value in over("odd", alone).items():
            np.testing.assert_allclose(side[key], value, rtol=1e-9, atol=1e-9, err_msg=key)


def test_a_bad_volume_spoils_volume_alone_and_for_its_window_only(x64):
    bars = random_bars(10, 120)
    clean = over("usual", bars)
    for bad in (np.nan, np.inf, -np.inf):
        volume = bars.volume.copy()
        volume[60] = bad
        spoiled = over("usual", bars._replace(volume=volume))
        assert np.isnan(spoiled["volume_zscore"][60:80]).all()
        for key, value in clean.items():
            same = np.r_[:60, 80:120] if key == "volume_zscore" else np.r_[:120]
            np.testing.assert_array_equal(spoiled[key][same], value[same], err_msg=key)


def test_the_state_is_arrays_of_one_strong_float_dtype_and_traced_once():
    traces = 0
    indicator = INDICATORS["odd"]

    def counting(state, bar):
        nonlocal traces
        traces += 1
        return indicator.step(state, bar)

    step = jax.jit(counting)
    for x64, wanted in ((False, np.float32), (True, np.float64)):
        with jax.enable_x64(x64):
            traces, state = 0, indicator.init()
            for _ in range(3):
                state, _ = step(state, Bar(*(np.float64(x) for x in (1, 2, 1, 1, 5))))
            assert traces == 1
            leaves = jax.tree.leaves((indicator.init(), state))
            assert {leaf.dtype for leaf in leaves} == {np.dtype(wanted), np.dtype(np.int32)}
            assert not any(leaf.weak_type for leaf in leaves)


def test_whole_numbers_even_beyond_int32_are_read_as_numbers():
    volume = 2**31 + 1_000_000 * (np.arange(40) ** 2 - 400)
    bars = Bar(*(np.arange(1, 41) for _ in range(4)), volume)
    values = ind.apply(ind.combine(mean=ind.make_sma(3), volume=ind.make_volume_zscore(5)), bars)
    assert values["mean"].dtype == jnp.float32
    np.testing.assert_allclose(values["mean"][2:], np.arange(2, 40))
    np.testing.assert_allclose(values["volume"], trailing(volume, 5, zscore), rtol=1e-4)


def test_names_follow_the_leaves():
    combined = ind.combine(z=ind.make_sma(2), a=ind.make_return(1))
    assert combined.names == ("a.simple", "a.log", "z")
    paths = jax.tree_util.tree_leaves_with_path(combined.step(combined.init(), Bar(1, 1, 1, 1, 1))[1])
    assert [jax.tree_util.keystr(path) for path, _ in paths] == ["['a'].simple", "['a'].log", "['z']"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ind.make_sma(0),
        lambda: ind.make_ema(0),
        lambda: ind.make_rsi(1),
        lambda: ind.make_macd(26, 12, 9),
        lambda: ind.make_macd(12, 26, 0),
        lambda: ind.make_atr(0),
        lambda: ind.make_bollinger(0),
        lambda: ind.make_bollinger(20, -1.0),
        lambda: ind.make_adx(1),
        lambda: ind.make_stochastic(5, 0, 3),
        lambda: ind.make_return(0),
        lambda: ind.make_realised_volatility(1),
        lambda: ind.make_volume_zscore(0),
        ind.combine,
    ],
)
def test_periods_that_mean_nothing_are_refused(make):
    with pytest.raises(ConfigError):
        make()
