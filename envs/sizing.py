"""How large a level becomes: per-bar multipliers and caps, worked out once per market from past returns.

Whatever a rule reads at bar t is known at close[t]. The results are `Market.scale` and `Market.cap`; a fixed
fraction is a level list, and a largest position a constant cap. Axes: T bars.
"""

import jax
import jax.numpy as jnp


def volatility_target(returns: jax.Array, *, target: float, window: int, most: float = jnp.inf) -> jax.Array:
    """[T] target / deviation of the last `window` returns: an exposure of constant risk.

    Before the window is full, and where returns do not vary, the scale is 0: nothing is known of the risk.

    Args:
      returns: [T] simple returns of the bars, returns[t] known at close[t].
      target: deviation of a bar's return that is aimed at.
      window: bars.
      most: largest multiplier.
    """
    mean, variance = _moments(returns, window)
    del mean
    deviation = jnp.sqrt(variance)
    known = deviation > 1e-9
    return jnp.where(known, jnp.minimum(target / jnp.where(known, deviation, 1.0), most), 0.0)


def kelly_cap(returns: jax.Array, *, fraction: float, window: int, most: float = 1.0) -> jax.Array:
    """[T] fraction x |mean| / variance of the last `window` returns, at most `most`.

    The growth-optimal exposure to independent returns of mean m and variance v is m / v; a fraction of it is
    held because the mean is known badly (Kelly 1956; Thorp 2006). Before the window is full the cap is 0.

    Args:
      returns: [T] simple returns.
      fraction: share of the full Kelly exposure.
      window: bars.
      most: largest cap.
    """
    mean, variance = _moments(returns, window)
    known = variance > 1e-18
    full = fraction * jnp.abs(mean) / jnp.where(known, variance, 1.0)
    return jnp.where(known, jnp.minimum(full, most), 0.0)


def _moments(returns: jax.Array, window: int) -> tuple[jax.Array, jax.Array]:
    """([T], [T]) mean and unbiased variance of the last `window` returns; zero before there are as many."""
    if window < 2:
        raise ValueError(f"a window of {window} has no variance: give at least 2 bars")
    num_bars = returns.shape[0]
    at = jnp.arange(num_bars)[:, None] - jnp.arange(window)[None, :]
    rows = returns[jnp.maximum(at, 0)]
    full = jnp.arange(num_bars) >= window - 1
    return jnp.where(full, rows.mean(axis=1), 0.0), jnp.where(full, rows.var(axis=1, ddof=1), 0.0)
