"""Recipes: causal, free of the price scale, float64 on the CPU, and the same live as in a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from feature_oracles import USUAL, bars_of, expected, frame_of, random_bars, sp500_frame

from ztb_jax.errors import ConfigError, DataError
from ztb_jax.features import indicators, recipe
from ztb_jax.features.indicators import Bar, combine, make_atr, make_bollinger, make_ema, make_sma
from ztb_jax.features.recipe import Recipe, compute, find, stream

WARM_UP = {"returns": 1, "default": 33, "extended": 49}


@pytest.fixture(scope="module")
def frame():
    return frame_of(random_bars(1, 200, num_flat=1, num_gaps=1))


@pytest.mark.parametrize("name", WARM_UP)
def test_shapes_names_and_warm_up(name):
    market = sp500_frame()
    features = compute(name, market)
    assert features.values.shape == (5031, len(features.names))
    assert features.values.dtype == np.float64
    assert features.valid.dtype == bool
    np.testing.assert_array_equal(features.valid, np.arange(5031) >= WARM_UP[name])
    np.testing.assert_array_equal(features.valid, np.isfinite(features.values).all(axis=1))
    assert (
        len(set(features.names)) == len(features.names) == {"returns": 1, "default": 8, "extended": 14}[name]
    )
    assert name in recipe.RECIPES


def test_each_feature_is_its_formula():
    market = sp500_frame()
    features = compute("extended", market)
    bars = bars_of(market)
    raw, close = expected(bars, USUAL), bars.close
    logs = pd.Series(np.log(close))
    sma_50 = pd.Series(close).rolling(50).mean().to_numpy()
    wanted = {
        "log_return_1": logs.diff(1).to_numpy(),
        "log_return_5": logs.diff(5).to_numpy(),
        "rsi_14": raw["rsi"] / 100 - 0.5,
        "macd_histogram": raw["macd.histogram"] / close,
        "atr_14": raw["atr"] / close,
        "percent_b_20": (close - raw["bollinger.lower"]) / (raw["bollinger.upper"] - raw["bollinger.lower"])
        - 0.5,
        "realised_volatility_20": raw["realised_volatility"],
        "volume_zscore_20": raw["volume_zscore"],
        "adx_14": raw["adx.adx"] / 100,
        "direction_14": (raw["adx.plus_di"] - raw["adx.minus_di"]) / 100,
        "stochastic_k_14": raw["stochastic.k"] / 100 - 0.5,
        "stochastic_d_14": raw["stochastic.d"] / 100 - 0.5,
        "sma_50_distance": close / sma_50 - 1,
        "ema_20_distance": close / raw["ema"] - 1,
    }
    assert features.names == tuple(wanted)
    for column, (name, value) in enumerate(wanted.items()):
        np.testing.assert_allclose(features.values[:, column], value, atol=1e-9, rtol=1e-9, err_msg=name)
    simple = compute("returns", market).values[:, 0]
    np.testing.assert_allclose(simple, market.close.pct_change(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["default", "extended"])
def test_the_price_scale_does_not_matter(frame, name):
    dear = frame.copy()
    dear[["open", "high", "low", "close"]] *= 1000
    np.testing.assert_allclose(compute(name, dear).values, compute(name, frame).values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("t", [1, 2, 100, 129, 199])
def test_the_past_alone_gives_the_same_bits(frame, t):
    whole = compute("extended", frame)
    past = compute("extended", frame[:t])
    np.testing.assert_array_equal(past.values, whole.values[:t])
    np.testing.assert_array_equal(past.valid, whole.valid[:t])
    other = frame.copy()
    other.iloc[t:] = np.random.default_rng(t).uniform(1, 1e6, other.iloc[t:].shape)
    np.testing.assert_array_equal(compute("extended", other).values[:t], whole.values[:t])


# Products of sums, which a step compiled apart from the batch is seen to round differently.
DELICATE = Recipe(
    "delicate",
    combine(bands=make_bollinger(20), ema=make_ema(20)),
    lambda bar, out: [out["bands"].middle, out["bands"].middle * out["ema"] + bar.close * out["bands"].upper],
    ("middle", "products"),
)


@pytest.mark.parametrize("of", [*WARM_UP, DELICATE], ids=[*WARM_UP, "delicate"])
def test_live_equals_batch_bit_for_bit_for_two_interleaved_instruments(frame, of):
    second = frame_of(random_bars(2, 200))
    live, columns = stream(of), list(Bar._fields)
    states, rows = [live.init(), live.init()], ([], [])
    for t in range(200):
        for side, market in enumerate((frame, second)):
            states[side], values = live.step(states[side], Bar(*market[columns].to_numpy()[t]))
            assert values.dtype == np.float64
            rows[side].append(values)
    for side, market in enumerate((frame, second)):
        np.testing.assert_array_equal(np.stack(rows[side]), compute(of, market).values)


def test_a_feed_without_volumes_still_gives_valid_rows(frame):
    features = compute("default", frame.assign(volume=0.0))
    np.testing.assert_array_equal(features.valid, np.arange(200) >= 33)
    assert (features.values[33:, features.names.index("volume_zscore_20")] == 0).all()


def test_bad_volumes_spoil_their_own_feature_only(frame):
    clean = compute("extended", frame)
    volume = clean.names.index("volume_zscore_20")
    for bad in (np.nan, np.inf):
        dirty = frame.copy()
        dirty.iloc[100, dirty.columns.get_loc("volume")] = bad
        features = compute("extended", dirty)
        others = np.delete(np.arange(len(clean.names)), volume)
        np.testing.assert_array_equal(features.values[:, others], clean.values[:, others])
        np.testing.assert_array_equal(np.flatnonzero(~features.valid[49:]) + 49, np.arange(100, 120))


def test_prices_that_stand_still_give_zeros():
    still = frame_of(Bar(*(np.full(80, x) for x in (0.1, 0.1, 0.1, 0.1, 7.0))))
    features = compute("default", still)
    assert features.valid[33:].all()
    row = dict(zip(features.names, features.values[-1], strict=True))
    assert row.pop("rsi_14") == -0.5
    np.testing.assert_allclose(list(row.values()), 0, atol=1e-15)


@pytest.mark.parametrize("x64", [False, True])
def test_the_settings_of_the_caller_are_untouched(frame, x64):
    with jax.enable_x64(x64):
        before = jax.config.jax_enable_x64, jax.config.jax_default_device, jnp.ones(()).dtype
        values = compute("default", frame).values
        live = stream("default")
        live.step(live.init(), Bar(1.0, 1.0, 1.0, 1.0, 1.0))
        with pytest.raises(DataError):
            compute("default", frame[:0])
        assert (jax.config.jax_enable_x64, jax.config.jax_default_device, jnp.ones(()).dtype) == before
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, compute("default", frame).values)


def test_without_a_cpu_the_remedy_is_named(frame, monkeypatch):
    def absent(*, backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", absent)
    with pytest.raises(ConfigError, match="JAX_PLATFORMS"):
        compute("default", frame)


def test_one_program_serves_frames_of_similar_length(frame):
    compute("returns", frame)
    compiled = indicators._advance._cache_size()
    for length in (129, 150, 200):
        compute("returns", frame[:length])
    assert indicators._advance._cache_size() == compiled


def test_a_recipe_of_ones_own(frame):
    breakout = Recipe(
        name="breakout",
        indicators=combine(range=make_atr(10), mean=make_sma(100)),
        combination=lambda bar, out: [out["range"] / bar.close, bar.close / out["mean"] - 1],
        names=("range", "distance"),
    )
    features = compute(breakout, frame)
    mean = frame.close.rolling(100).mean()
    np.testing.assert_allclose(features.values[:, 1], frame.close / mean - 1, atol=1e-9)
    assert features.valid.argmax() == 99
    with pytest.raises(ConfigError, match="2 values for 1 names"):
        compute(breakout._replace(names=("range",)), frame)


def test_an_unknown_recipe_is_refused_with_the_nearest_and_the_list():
    with pytest.raises(ConfigError, match=r"Did you mean default\?.*default, extended, returns"):
        find("defualt")
    with pytest.raises(ConfigError, match=r"unknown feature recipe 'xyzzy'\. There are"):
        stream("xyzzy")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns=["high", "volume"]), "lacks high, volume"),
        (lambda f: f[:0], "no bars"),
        (lambda f: f.reset_index(drop=True), "not times"),
        (lambda f: f[::-1], "ascend"),
        (lambda f: pd.concat([f, f[-1:]]), "ascend"),
        (lambda f: f.assign(low=f.low.where(f.index != f.index[7], np.nan)), "column low.*row 7"),
        (lambda f: f.assign(close=f.close.where(f.index != f.index[9], -1.0)), "column close.*row 9"),
    ],
)
def test_a_frame_that_cannot_be_used_is_refused(frame, spoil, message):
    with pytest.raises(DataError, match=message):
        compute("returns", spoil(frame))


def test_all_findings_come_at_once(frame):
    with pytest.raises(DataError) as caught:
        compute("returns", frame[::-1].assign(open=0.0, low=np.inf))
    assert len(caught.value.findings) == 3
