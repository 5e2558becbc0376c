"""A scaler knows the training slice alone, and comes back from JSON as it was."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztb_jax.errors import ConfigError, DataError
from ztb_jax.features.scaling import Scaler, fit, from_dict


def table(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    values = np.random.default_rng(seed).normal([1.0, -2.0, 1e-6], [3.0, 0.5, 1e-7], (60, 3))
    values[:5] = np.nan
    return values, np.isfinite(values).all(axis=1)


@given(start=st.integers(0, 40), num_bars=st.integers(10, 20), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_slice_has_mean_zero_and_deviation_one(start, num_bars, seed):
    values, valid = table(seed)
    scaler = fit(values, valid, start, start + num_bars, limit=100.0)
    rows = values[start : start + num_bars][valid[start : start + num_bars]]
    scaled = scaler.apply(rows)
    np.testing.assert_allclose(scaled, (rows - rows.mean(axis=0)) / rows.std(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-9)


def test_nothing_outside_the_slice_is_read():
    values, valid = table()
    changed = values.copy()
    changed[:10], changed[30:] = 1e9, np.nan
    one, two = (fit(v, valid, 10, 30) for v in (values, changed))
    np.testing.assert_array_equal(one.mean, two.mean)
    np.testing.assert_array_equal(one.scale, two.scale)


def test_rows_that_are_not_valid_are_not_read():
    values, valid = table()
    values[12], valid[12] = 1e9, False
    assert fit(values, valid, 10, 30).mean[0] < 10


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e-9, 1e12])
def test_a_constant_feature_becomes_zero(constant):
    values = np.full((30, 1), constant)
    scaler = fit(values, np.ones(30, bool), 0, 30)
    assert scaler.scale[0] == 1
    np.testing.assert_allclose(scaler.apply(values), 0, atol=1e-3)


def test_values_are_clipped_and_nan_stays():
    scaler = Scaler(mean=np.array([0.0, 1.0]), scale=np.array([1.0, 2.0]), limit=5.0)
    far = np.array([[100.0, -100.0], [np.nan, 3.0], [np.inf, 1.0]])
    np.testing.assert_array_equal(scaler.apply(far), [[5, -5], [np.nan, 1], [5, 0]])


def test_one_row_a_table_and_a_traced_table_are_scaled_alike():
    values, valid = table()
    scaler = fit(values, valid, 0, 60)
    whole = scaler.apply(values)
    assert whole.dtype == np.float64
    np.testing.assert_array_equal(scaler.apply(values[30]), whole[30])
    for scale in (scaler.apply, jax.jit(scaler.apply)):
        on_device = scale(jnp.asarray(values, jnp.float32))
        assert on_device.dtype == jnp.float32
        np.testing.assert_allclose(on_device, whole, atol=1e-4)
    as_argument = jax.jit(lambda scaler, values: scaler.apply(values))(
        scaler, jnp.asarray(values, jnp.float32)
    )
    np.testing.assert_allclose(as_argument, whole, atol=1e-4)


def test_json_brings_back_every_bit():
    values, valid = table()
    scaler = fit(values, valid, 0, 60, limit=4.1)
    again = from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert again.mean.tobytes() == scaler.mean.tobytes()
    assert again.scale.tobytes() == scaler.scale.tobytes()
    assert again.limit == scaler.limit == 4.1


@pytest.mark.parametrize("bounds", [(-1, 10), (10, 10), (20, 10), (0, 61)])
def test_a_slice_outside_the_bars_is_refused(bounds):
    with pytest.raises(DataError, match="training slice"):
        fit(*table(), *bounds)


def test_a_slice_of_warm_up_is_refused_with_the_remedy():
    with pytest.raises(DataError, match="more bars"):
        fit(*table(), 0, 5)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ConfigError, match="limit"):
        fit(*table(), 0, 60, limit=limit)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [1.0]},
        {"scale": [1.0, 0.0]},
        {"scale": [1.0, float("nan")]},
        {"limit": -1.0},
        {"mean": [[1.0, 2.0]]},
    ],
)
def test_a_damaged_scaler_is_refused(change):
    good = {"mean": [1.0, 2.0], "scale": [1.0, 2.0], "limit": 5.0}
    assert from_dict(good).limit == 5
    with pytest.raises(DataError, match="damaged"):
        from_dict(good | change)
    with pytest.raises(DataError, match="lacks"):
        from_dict({key: value for key, value in good.items() if key not in change})
