"""Rolling statistics equal NumPy over each window, however many bars came before."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from feature_oracles import trailing
from hypothesis import given, settings
from hypothesis import strategies as st

from ztb_jax.errors import ConfigError
from ztb_jax.features import rolling
from ztb_jax.features.rolling import Rolling

LENGTH = 5
CAPACITY = 64
STATISTICS = {
    "sum": (rolling.make_rolling_sum(LENGTH), np.sum),
    "mean": (rolling.make_rolling_mean(LENGTH), np.mean),
    "std": (rolling.make_rolling_std(LENGTH), np.std),
    "sample std": (rolling.make_rolling_std(LENGTH, ddof=1), partial(np.std, ddof=1)),
    "min": (rolling.make_rolling_min(LENGTH), np.min),
    "max": (rolling.make_rolling_max(LENGTH), np.max),
}


@partial(jax.jit, static_argnums=0)
def over(series_of: Rolling, series: np.ndarray) -> jax.Array:
    return jax.lax.scan(series_of.step, series_of.init(), series)[1]


@pytest.mark.parametrize("name", STATISTICS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_equals_numpy_on_every_window(name, data):
    statistic, reduce = STATISTICS[name]
    series = np.array(data.draw(st.lists(st.floats(-1e3, 1e3), min_size=CAPACITY, max_size=CAPACITY)))
    with jax.enable_x64(True):
        got = np.asarray(over(statistic, series))
    np.testing.assert_allclose(got, trailing(series, LENGTH, reduce), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_value_leaves_with_its_window(bad):
    series = np.arange(20.0)
    series[8] = bad
    for name, (statistic, _) in STATISTICS.items():
        got = np.asarray(over(statistic, series))
        assert np.isfinite(got[4:8]).all(), name
        assert np.isfinite(got[13:]).all(), name
        if np.isnan(bad):
            assert np.isnan(got[8:13]).all(), name


def test_equal_values_have_exactly_their_mean_and_no_deviation():
    series = np.full(9, 0.1, np.float32)
    assert (np.asarray(over(STATISTICS["mean"][0], series))[4:] == np.float32(0.1)).all()
    assert (np.asarray(over(STATISTICS["std"][0], series))[4:] == 0).all()


def test_a_million_bars_at_a_high_level_leave_no_drift_in_float32():
    series = 1e4 + np.random.default_rng(0).normal(0, 1, 1_000_000).astype(np.float32)
    both = rolling.make_rolling(
        LENGTH, lambda window: jnp.stack([rolling.mean_of(window), rolling.std_of(window)])
    )
    mean, std = np.asarray(over(both, series))[LENGTH - 1 :].T
    windows = np.lib.stride_tricks.sliding_window_view(series.astype(np.float64), LENGTH)
    np.testing.assert_allclose(mean, windows.mean(axis=1), rtol=2e-7)
    np.testing.assert_allclose(std, windows.std(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [rolling.make_exponential_mean, rolling.make_wilder_mean])
def test_recursive_means_equal_the_loop(make):
    series = np.random.default_rng(1).normal(0, 1, 40)
    weight = 2 / (LENGTH + 1) if make is rolling.make_exponential_mean else 1 / LENGTH
    for skip in (0, 3):
        wanted = np.full(40, np.nan)
        first = skip + LENGTH - 1
        wanted[first] = series[skip : first + 1].mean()
        for t in range(first + 1, 40):
            wanted[t] = (1 - weight) * wanted[t - 1] + weight * series[t]
        with_nan = np.where(np.arange(40) < skip, np.nan, series)
        with jax.enable_x64(True):
            np.testing.assert_allclose(over(make(LENGTH, skip=skip), with_nan), wanted, rtol=1e-12)


def test_wilder_sum_equals_the_loop():
    series = np.random.default_rng(2).normal(0, 1, 40)
    wanted = np.full(40, np.nan)
    wanted[LENGTH - 2] = series[: LENGTH - 1].sum()
    for t in range(LENGTH - 1, 40):
        wanted[t] = wanted[t - 1] - wanted[t - 1] / LENGTH + series[t]
    with jax.enable_x64(True):
        np.testing.assert_allclose(over(rolling.make_wilder_sum(LENGTH), series), wanted, rtol=1e-12)


def test_state_keeps_its_dtype_and_is_strongly_typed():
    for x64, wanted in ((False, jnp.float32), (True, jnp.float64)):
        with jax.enable_x64(x64):
            for pair in (rolling.make_window(3), rolling.make_exponential_mean(3)):
                leaves = jax.tree.leaves((pair.init(), pair.step(pair.init(), 1)[0]))
                assert not any(leaf.weak_type for leaf in leaves)
                assert {leaf.dtype for leaf in leaves} <= {jnp.dtype(wanted), jnp.dtype(jnp.int32)}


def test_a_wider_input_does_not_widen_the_state():
    for pair in (rolling.make_window(3), rolling.make_exponential_mean(3)):
        narrow = pair.init()
        with jax.enable_x64(True):
            state, _ = pair.step(narrow, np.float64(0.1))
        assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, narrow)


@pytest.mark.parametrize("length", [0, -1, 2.5, True])
def test_lengths_that_make_no_window_are_refused_by_name(length):
    with pytest.raises(ConfigError, match="length = "):
        rolling.make_window(length)


def test_a_deviation_needs_more_values_than_ddof():
    with pytest.raises(ConfigError, match="at least 2"):
        rolling.make_rolling_std(1, ddof=1)
