"""How large a level becomes: per-bar multipliers and caps, worked out once per market from past returns.

Whatever a rule reads at bar t is known at close[t]. The results are `Market.scale` and `Market.cap`; a fixed
fraction is a level list, and a largest position a constant cap. Moments are taken on the host in float64: in
float32 the rounding of a mean passes for a deviation. Axes: T bars, N windows, W bars of a window.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

# A deviation below this, or below this share of the mean, is rounding of the prices that returns are made of.
_STILL = 1e-9
_STILL_SHARE = 1e-5


def volatility_target(returns: ArrayLike, *, target: float, window: int, most: float = math.inf) -> jax.Array:
    """[T] target / deviation of the last `window` returns: an exposure of constant risk.

    Before the window is full, and where returns do not vary, the scale is 0: nothing is known of the risk.

    Args:
      returns: [T] simple returns of the bars, returns[t] known at close[t]; not traced.
      target: deviation of a bar's return that is aimed at.
      window: bars.
      most: largest multiplier.
    """
    _, deviation = _moments(returns, window)
    known = deviation > 0.0
    return jnp.asarray(
        np.where(known, np.minimum(target / np.where(known, deviation, 1.0), most), 0.0), jnp.float32
    )


def kelly_cap(returns: ArrayLike, *, fraction: float, window: int, most: float = 1.0) -> jax.Array:
    """[T] fraction x |mean| / variance of the last `window` returns, at most `most`.

    The growth-optimal exposure to independent returns of mean m and variance v is m / v; a fraction of it is
    held because the mean is known badly (Kelly 1956; Thorp 2006). Before the window is full, and where
    returns do not vary, the cap is 0.

    Args:
      returns: [T] simple returns; not traced.
      fraction: share of the full Kelly exposure.
      window: bars.
      most: largest cap.
    """
    mean, deviation = _moments(returns, window)
    known = deviation > 0.0
    full = fraction * np.abs(mean) / np.where(known, deviation, 1.0) ** 2
    return jnp.asarray(np.where(known, np.minimum(full, most), 0.0), jnp.float32)


def _moments(returns: ArrayLike, window: int) -> tuple[np.ndarray, np.ndarray]:
    """([T], [T]) mean and unbiased deviation of the last `window` returns in O(T) time and memory.

    Both are zero before there are as many, and so is the deviation where nothing but rounding varies. Every
    window is the end of one stretch of W bars and the beginning of the next, so sums over the future never
    enter, nor do errors of bars that have left the window.
    """
    if window < 2:
        raise ValueError(f"a window of {window} has no variance: give at least 2 bars")
    values = np.asarray(returns, np.float64)
    num_bars = len(values)
    stretches = np.pad(values, (0, -num_bars % window)).reshape(-1, window)
    mean, square = _running(stretches)
    ends = (part[:, ::-1] for part in _running(stretches[:, ::-1]))
    mean_before, square_before = (_of_the_stretch_before(part) for part in ends)
    count = np.arange(1, window + 1)
    between = (mean - mean_before) ** 2 * count * (window - count) / window
    variance = (square + square_before + between) / (window - 1)
    whole = (count * mean + (window - count) * mean_before) / window
    mean, deviation = whole.ravel()[:num_bars], np.sqrt(variance).ravel()[:num_bars]
    full = np.arange(num_bars) >= window - 1
    varies = deviation > np.maximum(_STILL, _STILL_SHARE * np.abs(mean))
    return np.where(full, mean, 0.0), np.where(full & varies, deviation, 0.0)


def _running(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([N, W], [N, W]) mean and sum of squared deviations of each row up to each place."""
    anchor = rows[:, :1]  # of every sum, so that no cancellation is worse than the spread itself
    moved = rows - anchor
    total = np.cumsum(moved, axis=1)
    mean = total / np.arange(1, rows.shape[1] + 1)
    return anchor + mean, np.maximum(np.cumsum(moved**2, axis=1) - total * mean, 0.0)


def _of_the_stretch_before(ends: np.ndarray) -> np.ndarray:
    """[N, W] what the stretch before says from one place further on; zero where it has nothing to say."""
    before = np.zeros_like(ends)
    before[1:, :-1] = ends[:-1, 1:]
    return before
