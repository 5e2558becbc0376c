"""Windowed and recursive building blocks as `(init, step)` pairs.

A `Rolling` knows one series; batch it with `jax.vmap`, run it over time with `jax.lax.scan`. `init()` makes
its state in the default float dtype (float64 where x64 is enabled, float32 otherwise) and `step` keeps to the
state's dtype, so that a scan is traced once.

Windows are kept whole and their statistics recomputed at every bar: the error of a value depends on its n
inputs only, never on how many bars came before. A window is NaN until n values arrived, therefore so is every
statistic of it. A NaN or infinity among the inputs leaves after n bars.

Axes: n window length, oldest first.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ztb_jax.errors import ConfigError


class Rolling(NamedTuple):
    """A causal function of one series: `init() -> state`, `step(state, x) -> (state, value)`."""

    init: Callable[[], Any]
    step: Callable[[Any, ArrayLike], tuple[Any, jax.Array]]


class Smoothed(NamedTuple):
    """State of `make_recursive`.

    Attributes:
      seen: [] int32, number of inputs so far, at most one more than the seed needs.
      total: [] sum of the seeding values.
      value: [] the latest value, NaN before the seed.
    """

    seen: jax.Array
    total: jax.Array
    value: jax.Array


def mean_of(window: jax.Array) -> jax.Array:
    """[] mean of window [n]; exactly the value where all are equal.

    Taken around the newest value, so that a high price level costs no precision and a flat window does not
    round.
    """
    newest = window[-1]
    return newest + jnp.mean(window - newest)


def std_of(window: jax.Array, *, ddof: int = 0) -> jax.Array:
    """[] standard deviation of window [n] with divisor n - ddof; exactly 0 where all values are equal."""
    offset = window - window[-1]
    deviation = offset - jnp.mean(offset)
    return jnp.sqrt(jnp.sum(deviation * deviation) / (window.shape[0] - ddof))


def make_window(length: int) -> Rolling:
    """The last `length` values themselves, [n] with the oldest first, NaN where none has arrived yet."""
    check_at_least(1, length=length)

    def init() -> jax.Array:
        return jnp.full((length,), math.nan, dtype=jnp.result_type(float))

    def step(window: jax.Array, x: ArrayLike) -> tuple[jax.Array, jax.Array]:
        newest = jnp.asarray(x, dtype=window.dtype)
        window = jnp.concatenate([window[1:], newest[None]])
        return window, window

    return Rolling(init, step)


def make_rolling(length: int, reduce: Callable[[jax.Array], jax.Array]) -> Rolling:
    """Any function `reduce(window [n]) -> []` of the last `length` values."""
    window = make_window(length)

    def step(state: jax.Array, x: ArrayLike) -> tuple[jax.Array, jax.Array]:
        state, values = window.step(state, x)
        return state, reduce(values)

    return Rolling(window.init, step)


def make_rolling_sum(length: int) -> Rolling:
    """Sum of the last `length` values; NaN for the first `length - 1`."""
    return make_rolling(length, jnp.sum)


def make_rolling_mean(length: int) -> Rolling:
    """Mean of the last `length` values; NaN for the first `length - 1`."""
    return make_rolling(length, mean_of)


def make_rolling_std(length: int, *, ddof: int = 0) -> Rolling:
    """Deviation of the last `length` values (divisor `length - ddof`); NaN for the first `length - 1`."""
    check_at_least(ddof + 1, length=length)
    return make_rolling(length, lambda window: std_of(window, ddof=ddof))


def make_rolling_min(length: int) -> Rolling:
    """Smallest of the last `length` values; NaN for the first `length - 1`."""
    return make_rolling(length, jnp.min)


def make_rolling_max(length: int) -> Rolling:
    """Largest of the last `length` values; NaN for the first `length - 1`."""
    return make_rolling(length, jnp.max)


def make_exponential_mean(length: int, *, skip: int = 0) -> Rolling:
    """Exponential mean of weight 2 / (length + 1), seeded by the plain mean of `length` values.

    Its memory is infinite: every value depends on the whole history. The first `skip` inputs are ignored and
    may be NaN; the first value comes with input `skip + length` (counted from 1).
    """
    check_at_least(1, length=length)
    weight = 2.0 / (length + 1.0)
    return make_recursive(gain=weight, fade=1.0, num_seed=length, seed_divisor=length, skip=skip)


def make_wilder_mean(length: int, *, skip: int = 0) -> Rolling:
    """Wilder's mean: like `make_exponential_mean` with weight 1 / length."""
    check_at_least(1, length=length)
    weight = 1.0 / length
    return make_recursive(gain=weight, fade=1.0, num_seed=length, seed_divisor=length, skip=skip)


def make_wilder_sum(length: int, *, skip: int = 0) -> Rolling:
    """Wilder's decaying sum: the sum of `length - 1` values, then S - S / length + x."""
    check_at_least(2, length=length)
    return make_recursive(gain=1.0, fade=1.0 / length, num_seed=length - 1, seed_divisor=1, skip=skip)


def make_recursive(*, gain: float, fade: float, num_seed: int, seed_divisor: int, skip: int = 0) -> Rolling:
    """The recursion y += gain * (x - fade * y), seeded by the sum of `num_seed` values over `seed_divisor`.

    Written as a correction to y, it rounds less in float32 than a weighted sum of y and x would.
    The first `skip` inputs are ignored and may be NaN; y is NaN before the seed is complete. A NaN input
    after that stays for ever.
    """
    seeded_at = skip + num_seed

    def init() -> Smoothed:
        dtype = jnp.result_type(float)
        return Smoothed(jnp.zeros((), jnp.int32), jnp.zeros((), dtype), jnp.full((), math.nan, dtype))

    def step(state: Smoothed, x: ArrayLike) -> tuple[Smoothed, jax.Array]:
        newest = jnp.asarray(x, dtype=state.value.dtype)
        seen = jnp.minimum(state.seen + 1, seeded_at + 1)
        seeding = (seen > skip) & (seen <= seeded_at)
        total = jnp.where(seeding, state.total + newest, state.total)
        value = jnp.where(
            seen == seeded_at, total / seed_divisor, state.value + gain * (newest - fade * state.value)
        )
        return Smoothed(seen, total, value), value

    return Rolling(init, step)


def check_at_least(least: int, **lengths: int) -> None:
    """Refuse lengths below `least`, all at once, each by its name."""
    bad = [
        f"{name} = {value!r} must be a whole number, at least {least}"
        for name, value in lengths.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < least
    ]
    if bad:
        raise ConfigError(bad)
