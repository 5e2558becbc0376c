"""The slope of the reward against float64 NumPy, up to ten million samples in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_gates import LENGTH, judged
from ztb_jax import gates
from ztb_jax.training import eval_gates

TREND = gates.falling_reward(env_steps=1, after_steps=0, z=3.0)
TEN_MILLION = 10_000_000
OFFSET = 1 << 20


def hashed(number, xp):
    """Whole numbers 0 to 4095 that look like noise, in unsigned arithmetic that any library does alike."""
    mixed = number * xp.uint32(2654435761)
    mixed = mixed ^ (mixed >> 15)
    mixed = mixed * xp.uint32(2246822519)
    return (mixed ^ (mixed >> 13)) >> 20


def test_a_slope_is_right_at_ten_million_samples():
    """Values are whole numbers under 2^24, so float32 holds them and only the sums are on trial."""

    def values(number, noisy, fall, xp):
        moved = (number >> 20).astype(xp.int32) * fall
        return OFFSET + xp.where(noisy, hashed(number, xp).astype(xp.int32), 0) - moved

    @jax.jit
    def run(noisy, fall):
        def one(number, carry):
            trend, _ = carry
            value = values(number.astype(jnp.uint32), noisy, fall, jnp)
            return TREND.update(trend, {"reward": value.astype(jnp.float32)})

        return jax.lax.fori_loop(0, TEN_MILLION, one, (TREND.init(), jnp.int32(0)))

    number = np.arange(TEN_MILLION, dtype=np.uint32)
    place = np.arange(TEN_MILLION) - 0.5 * (TEN_MILLION - 1)
    spread = TEN_MILLION * (TEN_MILLION**2 - 1) / 12
    for noisy, fall in ((True, 0), (True, 1), (True, -1), (False, 1), (False, -1)):
        trend, verdict = run(noisy, fall)
        with np.errstate(over="ignore"):
            value = values(number, noisy, fall, np).astype(np.float64)
        off = value - value.mean()
        product, square = place @ off, off @ off
        error = np.sqrt((square - product**2 / spread) / (TEN_MILLION - 2) / spread)
        found = np.asarray(trend.high, np.float64) + np.asarray(trend.low, np.float64)
        np.testing.assert_allclose(found[0], value.mean(), rtol=1e-11)
        np.testing.assert_allclose(found[1] / spread, product / spread, atol=1e-4 * error, rtol=1e-5)
        np.testing.assert_allclose(found[2], square, rtol=1e-5)
        assert (product / spread < -3.0 * error) == (fall == 1)
        assert int(verdict) == (gates.FALLING_REWARD if fall == 1 else gates.HEALTHY)


@functools.cache
def plain_rule():
    return judged(gates.falling_reward(env_steps=100, after_steps=1_050, z=0.0))


@settings(max_examples=40, deadline=None)
@given(rewards=st.lists(st.integers(-8, 8), min_size=LENGTH, max_size=LENGTH))
def test_without_standard_errors_it_is_the_documents_rule(rewards):
    steps = 100 * np.arange(1, LENGTH + 1)
    told = []
    for count in range(1, LENGTH + 1):
        late = np.asarray(rewards[:count], np.float64)[steps[:count] >= 1_050]
        place = np.arange(late.size) - 0.5 * (late.size - 1)
        slope = place @ (late - late.mean()) if late.size > 1 else 0.0
        told.append(np.sign(round(slope, 6)))
        said = eval_gates.reward_trend(rewards[:count], steps[:count], threshold_steps=1_050).status
        if late.size > 1 and told[-1]:
            assert said == (eval_gates.GateStatus.FAIL if told[-1] < 0 else eval_gates.GateStatus.PASS)
    found = plain_rule()(reward=rewards)
    for sign, verdict in zip(told, found, strict=True):
        if sign:  # where float64 itself rounds to 0, either is right
            assert verdict == (gates.FALLING_REWARD if sign < 0 else gates.HEALTHY)
    assert not any(found[:11])


def falls(values, z):
    """[N] bool in float64, of what is finite."""
    found = []
    for count in range(1, len(values) + 1):
        late = np.asarray(values[:count], np.float64)
        late = late[np.isfinite(late)]
        if len(late) < 30:
            found.append(False)
            continue
        place = np.arange(len(late)) - 0.5 * (len(late) - 1)
        off = late - late.mean()
        slope = place @ off / (place @ place)
        error = np.sqrt((off @ off - slope * (place @ off)) / (len(late) - 2) / (place @ place))
        found.append(slope < -z * error)
    return found


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (-3e3, 1e-2), (1e-4, 1e-5), (1e15, 1e12)])
def test_a_reward_falls_when_its_slope_is_below_its_noise(offset, scale):
    run = judged(TREND)
    for seed, slope in enumerate([0.0, 0.01, -0.01, -0.05, -0.2]):
        noise = np.random.default_rng(seed).normal(size=200)
        values = (offset + scale * (noise + slope * np.arange(200))).astype(np.float32)
        values[[3, 50]] = np.nan, np.inf
        told = falls(values.astype(np.float64), 3.0)
        assert [bool(code) for code in run(reward=values)] == told
        assert any(told) == (slope <= -0.01)


def test_a_constant_reward_does_not_fall():
    assert not any(judged(TREND)(reward=[0.1] * 100))
    assert not any(judged(gates.falling_reward(env_steps=1, after_steps=0, z=0.0))(reward=[0.1] * 100))
    line = 1.0 - np.arange(100) / 128
    assert judged(TREND)(reward=line) == [0] * 29 + [gates.FALLING_REWARD] * 71
