"""The gradient of gathering rows: what it is, in any order, and what GPUs are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export

from ztb_jax.policies.encoding import gathered_back, looked_up, plain_sums, whole_sums

ROWS, SIZE = 11, 3
NOTHING = jnp.zeros((ROWS, SIZE), jnp.float32)
compiled = jax.jit(whole_sums)


def drawn(seed, *, scale=1.0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    grads = jnp.asarray(scale * rng.normal(size=(40, 5, SIZE)) ** 3, dtype)
    return grads, jnp.asarray(rng.integers(0, ROWS - 1, (40, 5)))  # the last row is read by nobody


def by_numpy(grads, at):
    total = np.zeros((ROWS, SIZE))
    np.add.at(total, np.asarray(at).ravel(), np.asarray(grads, np.float64).reshape(-1, SIZE))
    return total


@pytest.mark.parametrize("sums", [plain_sums, whole_sums, gathered_back])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_sums_are_those_of_numpy(sums, dtype, scale):
    grads, at = drawn(0, scale=scale, dtype=dtype)
    total = jnp.full((ROWS, SIZE), scale, jnp.float32)
    expected = by_numpy(grads, at) + scale
    found = np.asarray(sums(total, grads, at), np.float64)
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-4, rtol=1e-5)
    np.testing.assert_array_equal(sums(total, grads, at)[-1], total[-1])


@given(st.integers(0, 2**31), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_whole_sums_have_no_order(seed, shuffle):
    grads, at = drawn(seed)
    order = np.random.default_rng(shuffle).permutation(grads.shape[0])
    np.testing.assert_array_equal(compiled(NOTHING, grads, at), compiled(NOTHING, grads[order], at[order]))


@pytest.mark.parametrize("largest", [1.0, np.nextafter(np.float32(2), np.float32(0)), 3e33])
def test_the_worst_case_does_not_overflow(largest):
    grads, at = jnp.full((4097, SIZE), largest, jnp.float32), jnp.full(4097, 3)
    sums = compiled(NOTHING, grads, at)
    np.testing.assert_allclose(sums[3], 4097.0 * largest, rtol=1e-5)
    assert not np.asarray(sums[:3]).any()


@pytest.mark.parametrize("least", [0.0, 1e-38, 1e-45])
def test_next_to_nothing_adds_nothing(least):
    grads, at = jnp.full((4, 2, SIZE), least, jnp.float32), jnp.zeros((4, 2), jnp.int32)
    np.testing.assert_array_equal(compiled(NOTHING + 1, grads, at), NOTHING + 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_stays_so(value):
    grads, at = drawn(1)
    assert not np.isfinite(compiled(NOTHING, grads.at[3, 2, 1].set(value), at)).any()


def test_members_of_a_population_have_sums_of_their_own():
    many = [drawn(seed, scale=10.0**seed) for seed in range(3)]
    grads, at = (jnp.stack(leaves) for leaves in zip(*many, strict=True))
    together = jax.vmap(whole_sums, in_axes=(None, 0, 0))(NOTHING, grads, at)
    for one, alone in zip(together, many, strict=True):
        np.testing.assert_array_equal(one, compiled(NOTHING, *alone))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_look_up_has_the_gradient_of_an_index(dtype):
    rows = jnp.asarray(np.random.default_rng(2).normal(size=(ROWS, SIZE)), dtype)
    weights, at = drawn(0, dtype=dtype)
    found, back = jax.vjp(lambda rows: looked_up(rows, at), rows)
    np.testing.assert_array_equal(found, rows[at])
    (grads,) = back(weights)
    assert grads.dtype == dtype
    rounding = 1e-5 if dtype == jnp.float32 else 4e-3
    np.testing.assert_allclose(np.asarray(grads, np.float64), by_numpy(weights, at), rtol=rounding, atol=1e-4)


@pytest.mark.parametrize(
    ("platform", "whole"), [("cuda", True), ("rocm", True), ("cpu", False), ("tpu", False)]
)
def test_only_gpus_add_whole_numbers(platform, whole):
    program = export.export(jax.jit(gathered_back), platforms=[platform])(NOTHING, *drawn(0))
    scattered = [line for line in program.mlir_module().splitlines() if "stablehlo.add" in line]
    assert any("tensor<i32>" in line for line in scattered) == whole
