"""Technical indicators as `(init, step)` pairs: the batch is a loop over the very step that runs live.

An `Indicator` knows one instrument and one bar at a time. `init()` makes a fresh state in the default float
dtype (float64 where x64 is enabled, float32 otherwise); `step` casts the bar to it. A value depends on bars
up to its own only. Until enough bars arrived it is NaN, never zero. Definitions, first valid bars and edge
cases are those of TA-Lib, see `docs/indicators.md`.

EMA, MACD, RSI, ATR and ADX have infinite memory: their values depend on the whole history before them, fading
geometrically, and a NaN price stays in them for ever. The others forget after their window.

Axes: T bars.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ztb_jax.errors import ConfigError
from ztb_jax.features.rolling import (
    Rolling,
    check_at_least,
    make_exponential_mean,
    make_rolling,
    make_rolling_max,
    make_rolling_mean,
    make_rolling_min,
    make_wilder_mean,
    make_wilder_sum,
    make_window,
    mean_of,
    std_of,
)

ROUNDING = 1e-14
"""A range of prices below this fraction of them is none, as TA-Lib has it."""


class Bar(NamedTuple):
    """One bar of scalars, or bars with the time axis first. Prices in quote currency, volume in any unit.

    Give floats: jax narrows NumPy's int64 to int32, and a day's volume can be more than that holds.
    """

    open: ArrayLike
    high: ArrayLike
    low: ArrayLike
    close: ArrayLike
    volume: ArrayLike


class Indicator(NamedTuple):
    """A causal function of bars.

    Attributes:
      init: `() -> state`, a pytree of arrays; call it afresh for every instrument.
      step: `(state, bar) -> (state, value)`, the value a scalar or a NamedTuple of scalars.
      names: what the value holds, one name per scalar.
    """

    init: Callable[[], Any]
    step: Callable[[Any, Bar], tuple[Any, Any]]
    names: tuple[str, ...]


class Macd(NamedTuple):
    """Fast minus slow EMA, its EMA, and their difference; price units."""

    line: jax.Array
    signal: jax.Array
    histogram: jax.Array


class Bands(NamedTuple):
    """Moving average and the lines `width` deviations above and below; price units."""

    upper: jax.Array
    middle: jax.Array
    lower: jax.Array


class Directional(NamedTuple):
    """Strength of the trend and its two directed parts, each in 0 … 100."""

    adx: jax.Array
    plus_di: jax.Array
    minus_di: jax.Array


class Stochastic(NamedTuple):
    """Smoothed place of the close in the recent range and its average, in 0 … 100."""

    k: jax.Array
    d: jax.Array


class Return(NamedTuple):
    """The same move as a fraction of the earlier close and as a logarithm."""

    simple: jax.Array
    log: jax.Array


def advance(indicator: Indicator, state: Any, bars: Bar, count: jax.Array | int) -> tuple[Any, Any]:
    """State after the first `count` of bars [T], and their values [T, …]; rows from `count` on are NaN.

    This is `jax.lax.scan` with an early stop. A live feed and a whole history then run one and the same
    compiled loop body, which is what makes them equal bit for bit: a step compiled on its own contracts
    other products and sums into fused multiply-adds. Compiled once for each T, whatever `count` is.
    """
    # Before jit, which would wrap volumes above 2**31 when it narrows int64 to int32.
    bars = Bar(*(jnp.asarray(x, jnp.result_type(float)) for x in bars))
    return _advance(indicator, state, bars, count)


@partial(jax.jit, static_argnums=0)
def start(indicator: Indicator) -> Any:
    """A fresh state, made by one compiled call rather than array by array."""
    return indicator.init()


def apply(indicator: Indicator, bars: Bar) -> Any:
    """Values [T, …] of a fresh indicator over bars [T]; NaN while it warms up.

    For several instruments: `jax.vmap(partial(apply, indicator), in_axes=1, out_axes=1)` over bars [T, A].
    """
    return advance(indicator, start(indicator), bars, jnp.shape(bars.close)[0])[1]


@partial(jax.jit, static_argnums=0)
def _advance(indicator: Indicator, state: Any, bars: Bar, count: jax.Array | int) -> tuple[Any, Any]:
    num_bars = jnp.shape(bars.close)[0]
    value = jax.eval_shape(indicator.step, state, jax.tree.map(lambda x: x[0], bars))[1]
    values = jax.tree.map(lambda x: jnp.full((num_bars, *x.shape), jnp.nan, x.dtype), value)

    def body(t, carry):
        state, values = carry
        state, value = indicator.step(state, jax.tree.map(lambda x: x[t], bars))
        return state, jax.tree.map(lambda all_, one: all_.at[t].set(one), values, value)

    return jax.lax.fori_loop(0, jnp.minimum(count, num_bars), body, (state, values))


def combine(**indicators: Indicator) -> Indicator:
    """Several indicators over the same bars as one: its state and value are dicts by keyword.

    Its names are the keyword, or `keyword.part` for an indicator of several parts, sorted by keyword: the
    order in which `jax.tree.leaves` yields the values.
    """
    if not indicators:
        raise ConfigError("combine() needs at least one indicator, e.g. combine(rsi=make_rsi(14))")
    indicators = dict(sorted(indicators.items()))

    def init() -> dict[str, Any]:
        return {name: indicator.init() for name, indicator in indicators.items()}

    def step(state: dict[str, Any], bar: Bar) -> tuple[dict[str, Any], dict[str, Any]]:
        pairs = {name: indicator.step(state[name], bar) for name, indicator in indicators.items()}
        return {name: pair[0] for name, pair in pairs.items()}, {
            name: pair[1] for name, pair in pairs.items()
        }

    names = tuple(
        name if len(indicator.names) == 1 else f"{name}.{part}"
        for name, indicator in indicators.items()
        for part in indicator.names
    )
    return Indicator(init, step, names)


def make_sma(period: int) -> Indicator:
    """Simple moving average of the close. First valid bar `period - 1`; TA-Lib SMA."""
    return _of_close(make_rolling_mean(period), "sma")


def make_ema(period: int) -> Indicator:
    """Exponential moving average of the close, weight 2 / (period + 1), seeded by the SMA of `period` bars.

    First valid bar `period - 1`; TA-Lib EMA. Infinite memory.
    """
    return _of_close(make_exponential_mean(period), "ema")


def make_macd(fast: int = 12, slow: int = 26, signal: int = 9) -> Indicator:
    """`Macd` of the close; `fast` < `slow`. First valid bar `slow + signal - 2` for all three; TA-Lib MACD.

    The fast EMA is seeded late, by the `fast` bars that end where the slow one is seeded. Infinite memory.
    """
    check_at_least(1, fast=fast, slow=slow, signal=signal)
    if fast >= slow:
        raise ConfigError(f"make_macd: fast = {fast} must be shorter than slow = {slow}")
    short = make_exponential_mean(fast, skip=slow - fast)
    long = make_exponential_mean(slow)
    average = make_exponential_mean(signal, skip=slow - 1)

    def step(state, bar):
        fast_state, fast_mean = short.step(state[0], bar.close)
        slow_state, slow_mean = long.step(state[1], bar.close)
        line = fast_mean - slow_mean
        signal_state, smooth = average.step(state[2], line)
        line = jnp.where(jnp.isnan(smooth), jnp.nan, line)
        return (fast_state, slow_state, signal_state), Macd(line, smooth, line - smooth)

    return Indicator(lambda: (short.init(), long.init(), average.init()), step, Macd._fields)


def make_rsi(period: int = 14) -> Indicator:
    """Relative strength 100 * gain / (gain + loss) in Wilder's means of the rises and falls of the close.

    First valid bar `period`; 0 where gain + loss is 0, as in a flat series; TA-Lib RSI (Wilder 1978).
    Infinite memory.
    """
    check_at_least(2, period=period)
    closes = make_window(2)
    mean = make_wilder_mean(period, skip=1)

    def step(state, bar):
        window, (before, now) = closes.step(state[0], bar.close)
        rise, gain = mean.step(state[1], jnp.maximum(now - before, 0))
        fall, loss = mean.step(state[2], jnp.maximum(before - now, 0))
        return (window, rise, fall), _percent(gain, gain + loss)

    return Indicator(lambda: (closes.init(), mean.init(), mean.init()), step, ("rsi",))


def make_atr(period: int = 14) -> Indicator:
    """Average true range: Wilder's mean of max(high, last close) - min(low, last close), price units.

    First valid bar `period`; TA-Lib ATR. Infinite memory.
    """
    closes = make_window(2)
    mean = make_wilder_mean(period, skip=1)

    def step(state, bar):
        window, (before, _) = closes.step(state[0], bar.close)
        smooth, value = mean.step(state[1], _true_range(bar, before))
        return (window, smooth), value

    return Indicator(lambda: (closes.init(), mean.init()), step, ("atr",))


def make_bollinger(period: int = 20, width: float = 2.0) -> Indicator:
    """`Bands` of SMA(period) and `width` standard deviations (ddof 0) of the close either side.

    First valid bar `period - 1`; TA-Lib BBANDS. With zero deviation the three lines are exactly equal.
    """
    if not 0 < width < math.inf:
        raise ConfigError(f"make_bollinger: width = {width} must be a positive number of deviations")
    closes = make_window(period)

    def step(state, bar):
        state, window = closes.step(state, bar.close)
        middle, reach = mean_of(window), width * std_of(window)
        return state, Bands(middle + reach, middle, middle - reach)

    return Indicator(closes.init, step, Bands._fields)


def make_adx(period: int = 14) -> Indicator:
    """`Directional`: +DI and -DI are 100 * DM / TR in Wilder's decaying sums, ADX is Wilder's mean of DX.

    DX = 100 * |+DI - -DI| / (+DI + -DI), TR is the true range of `make_atr`, DM the larger of the two
    excursions beyond the last bar with 0 for the other direction. First valid bars
    `period` (DI) and `2 * period - 1` (ADX); TA-Lib ADX, PLUS_DI, MINUS_DI: DI is 0 where the true range
    sums to 0, DX is 0 where both DI are. Infinite memory.
    """
    bars = make_window(2)
    decaying = make_wilder_sum(period, skip=1)
    mean = make_wilder_mean(period, skip=period)

    def init():
        last = (bars.init(), bars.init(), bars.init())
        return last, (decaying.init(), decaying.init(), decaying.init()), mean.init()

    def step(state, bar):
        last, sums, strength = state
        moves = [bars.step(s, x) for s, x in zip(last, (bar.high, bar.low, bar.close), strict=True)]
        (high0, high1), (low0, low1), (close0, _) = (window for _, window in moves)
        up, down = high1 - high0, low0 - low1
        plus = jnp.where((up > 0) & (up > down), up, 0)
        minus = jnp.where((down > 0) & (down > up), down, 0)
        true_range = _true_range(bar, close0)
        smooth = [decaying.step(s, x) for s, x in zip(sums, (plus, minus, true_range), strict=True)]
        plus_sum, minus_sum, range_sum = (value for _, value in smooth)
        # TA-Lib's first DI already holds one recursion after the seed.
        range_sum = jnp.where(jnp.isnan(sums[2].value), jnp.nan, range_sum)
        plus_di, minus_di = _percent(plus_sum, range_sum), _percent(minus_sum, range_sum)
        directed = plus_di + minus_di
        strength, adx = mean.step(strength, _percent(jnp.abs(plus_di - minus_di), directed))
        state = tuple(s for s, _ in moves), tuple(s for s, _ in smooth), strength
        return state, Directional(adx, plus_di, minus_di)

    return Indicator(init, step, Directional._fields)


def make_stochastic(k: int = 5, slow_k: int = 3, d: int = 3) -> Indicator:
    """`Stochastic`: %K is the SMA(slow_k) of 100 * (close - low_k) / (high_k - low_k), %D the SMA(d) of %K.

    low_k and high_k are the extremes of the last `k` bars. First valid bar `k + slow_k + d - 3` for both;
    TA-Lib STOCH with SMA smoothing: the raw value is 0 where the range is 0 but for rounding.
    """
    lowest, highest = make_rolling_min(k), make_rolling_max(k)
    slow, slower = make_rolling_mean(slow_k), make_rolling_mean(d)

    def step(state, bar):
        low_state, low = lowest.step(state[0], bar.low)
        high_state, high = highest.step(state[1], bar.high)
        flat = high - low <= ROUNDING * (jnp.abs(high) + jnp.abs(low))
        raw = jnp.where(flat, 0, _percent(jnp.asarray(bar.close, low.dtype) - low, high - low))
        slow_state, slow_k_value = slow.step(state[2], raw)
        slower_state, slow_d_value = slower.step(state[3], slow_k_value)
        slow_k_value = jnp.where(jnp.isnan(slow_d_value), jnp.nan, slow_k_value)
        return (low_state, high_state, slow_state, slower_state), Stochastic(slow_k_value, slow_d_value)

    def init():
        return lowest.init(), highest.init(), slow.init(), slower.init()

    return Indicator(init, step, Stochastic._fields)


def make_return(bars: int = 1) -> Indicator:
    """`Return` of the close over the last `bars` bars, as fractions. First valid bar `bars`; TA-Lib ROCP."""
    check_at_least(1, bars=bars)
    closes = make_window(bars + 1)

    def step(state, bar):
        state, window = closes.step(state, bar.close)
        simple = (window[-1] - window[0]) / window[0]
        return state, Return(simple, jnp.log1p(simple))

    return Indicator(closes.init, step, Return._fields)


def make_realised_volatility(period: int = 20) -> Indicator:
    """Standard deviation (ddof 1) of the last `period` one-bar log returns, per bar: not annualised.

    First valid bar `period`; 0 in a flat series.
    """
    check_at_least(2, period=period)
    closes = make_window(2)
    returns = make_rolling(period, partial(std_of, ddof=1))

    def step(state, bar):
        window, (before, now) = closes.step(state[0], bar.close)
        series, value = returns.step(state[1], jnp.log1p((now - before) / before))
        return (window, series), value

    return Indicator(lambda: (closes.init(), returns.init()), step, ("realised_volatility",))


def make_volume_zscore(period: int = 20) -> Indicator:
    """Volume in standard deviations (ddof 0) from its mean, both over the last `period` bars.

    The newest bar is one of them. First valid bar `period - 1`. 0 where the deviation is 0, as where a feed
    has no volumes. NaN for `period` bars from a NaN or infinite volume on.
    """

    def zscore(window):
        deviation = std_of(window)
        return jnp.where(deviation == 0, 0, (window[-1] - mean_of(window)) / deviation)

    volumes = make_rolling(period, zscore)
    return Indicator(volumes.init, lambda state, bar: volumes.step(state, bar.volume), ("volume_zscore",))


def _of_close(rolling: Rolling, name: str) -> Indicator:
    """A `Rolling` applied to the close."""
    return Indicator(rolling.init, lambda state, bar: rolling.step(state, bar.close), (name,))


def _true_range(bar: Bar, close_before: jax.Array) -> jax.Array:
    """[] reach of the bar including the gap from the last close; NaN on the first bar."""
    high, low = jnp.asarray(bar.high, close_before.dtype), jnp.asarray(bar.low, close_before.dtype)
    return jnp.maximum(high, close_before) - jnp.minimum(low, close_before)


def _percent(part: jax.Array, whole: jax.Array) -> jax.Array:
    """[] 100 * part / whole, 0 where the whole is 0."""
    return jnp.where(whole == 0, 0, 100 * (part / whole))
