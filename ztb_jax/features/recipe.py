"""Named recipes: from a frame of bars to a table of features, whole or one bar at a time.

Features are computed in float64 on the CPU whatever the caller's settings, once per market, and are causal:
row t depends on bars 0 … t. Where a recipe uses an indicator of infinite memory (EMA, MACD, RSI, ATR, ADX),
row t depends on all of them, ever more weakly: a frame that begins later gives slightly different values,
so features belong to the whole history that is loaded, never to a slice cut from it.

Axes: T bars, F features.
"""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from ztb_jax.errors import ConfigError, DataError
from ztb_jax.features import own
from ztb_jax.features.indicators import (
    Bar,
    Indicator,
    advance,
    combine,
    make_adx,
    make_atr,
    make_bollinger,
    make_ema,
    make_macd,
    make_realised_volatility,
    make_return,
    make_rsi,
    make_sma,
    make_stochastic,
    make_volume_zscore,
    start,
)


class Features(NamedTuple):
    """What a recipe made of a frame.

    Attributes:
      values: [T, F] float64; NaN while an indicator warms up.
      valid: [T] bool, every feature of the bar is finite.
      names: F names.
    """

    values: np.ndarray
    valid: np.ndarray
    names: tuple[str, ...]


class Recipe(NamedTuple):
    """A named list of features. Write your own like this, and pass it to `compute` in place of a name:

        breakout = Recipe(
            name="breakout",
            indicators=combine(range=make_atr(10), mean=make_sma(100)),
            combination=lambda bar, out: [out["range"] / bar.close, bar.close / out["mean"] - 1],
            names=("range", "distance"),
        )
        features = compute(breakout, frame)

    Divide prices by prices, so that a feature means the same at every price level, and let NaN pass:
    it marks the warm-up.

    Attributes:
      name: what a configuration calls it.
      indicators: made by `combine`.
      combination: `(bar, outputs of the indicators at this bar) -> F scalars`.
      names: one per scalar.
    """

    name: str
    indicators: Indicator
    combination: Callable[[Bar, dict[str, Any]], list[jax.Array]]
    names: tuple[str, ...]


Function = Callable[[pd.DataFrame], Any]
"""Features in pandas or NumPy: from a frame to a DataFrame with its index, an array [T, F] or `Features`."""


class Stream(NamedTuple):
    """A recipe for live use: `init() -> state`, `step(state, bar) -> (state, values [F] float64 NumPy)`."""

    init: Callable[[], Any]
    step: Callable[[Any, Bar], tuple[Any, np.ndarray]]


def find(name: str) -> Recipe | Function:
    """The built-in recipe of that name, or what `ztb_jax.features.own.load` finds.

    Raises:
      ConfigError: there is none, or it is neither a `Recipe` nor a function.
    """
    if name in RECIPES:
        return RECIPES[name]
    if own.is_own(name):
        made = own.load(name).made
        if isinstance(made, Recipe) or callable(made):
            return made
        raise ConfigError(
            f"features {name!r} are of type {type(made).__name__}: give a Recipe, or a function from a frame "
            "to a DataFrame or an array [bars, features]"
        )
    near = difflib.get_close_matches(name, RECIPES, n=3)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise ConfigError(
        f"unknown feature recipe {name!r}. {hint}There are: {', '.join(sorted(RECIPES))}; write one of your "
        f"own as {own.FORMS}."
    )


def compute(recipe: Recipe | Function | str, frame: pd.DataFrame) -> Features:
    """`Features` of every bar of a frame.

    The frame has an ascending DatetimeIndex and the columns open, high, low, close (positive, finite) and
    volume. A NaN or infinite volume makes only features of volume NaN; a volume that is always 0 is known.

    A recipe compiles once per power of two of bars, in about two seconds. A function is called with a copy of
    the frame; that it is causal is for `ztb_jax.features.causality` to say.

    Raises:
      ConfigError: no such recipe, its combination and names do not agree, or a function that raised or gave
        no table of a row for each bar.
      DataError: the frame cannot be used; all findings at once.
    """
    made = find(recipe) if isinstance(recipe, str) else recipe
    check_frame(frame)
    if not isinstance(made, Recipe):
        return _of_function(made, frame)
    if isinstance(recipe, str) and own.is_own(recipe):
        with own.blamed(f"features {recipe!r}"):
            return _of_recipe(made, frame)
    return _of_recipe(made, frame)


def _of_function(function: Function, frame: pd.DataFrame) -> Features:
    name = own.name_of(function)
    with own.blamed(f"{name} on {len(frame)} bars"):
        result = function(frame.copy())
    if isinstance(result, Features):
        values, _ = own.table_of(result.values, frame.index, name=name)
        if values.shape[1] != len(result.names) or np.shape(result.valid) != (len(frame),):
            raise ConfigError(
                f"{name} gave Features of {values.shape[1]} columns, {len(result.names)} names and valid "
                f"{list(np.shape(result.valid))} for {len(frame)} bars: they must agree"
            )
        return Features(values, np.asarray(result.valid, bool), tuple(result.names))
    values, names = own.table_of(result, frame.index, name=name)
    return Features(values, np.asarray(np.isfinite(values).all(axis=1)), names)


def _of_recipe(recipe: Recipe, frame: pd.DataFrame) -> Features:
    num_bars = len(frame)
    # Rounded up, frames of different lengths share one compiled program; the rest is not even run.
    capacity = max(2, 1 << (num_bars - 1).bit_length())
    columns = {name: np.zeros(capacity) for name in Bar._fields}
    for name, column in columns.items():
        column[:num_bars] = frame[name].to_numpy(np.float64)
    indicator = as_indicator(recipe)
    with float64_on_cpu():
        values = np.asarray(advance(indicator, start(indicator), Bar(**columns), num_bars)[1])[:num_bars]
    return Features(values, np.asarray(np.isfinite(values).all(axis=1)), recipe.names)


def stream(recipe: Recipe | str) -> Stream:
    """The same features bar by bar: bit for bit those of `compute` on all bars so far.

    Take a fresh `init()` for each instrument, and feed it the history before the first live bar.

    Raises:
      ConfigError: no such recipe, or a function of a whole frame.
    """
    made = find(recipe) if isinstance(recipe, str) else recipe
    if not isinstance(made, Recipe):
        raise ConfigError(f"features {recipe!r} are a function of a whole frame: live use needs a Recipe")
    indicator = as_indicator(made)

    def init() -> Any:
        with float64_on_cpu():
            return start(indicator)

    def step(state: Any, bar: Bar) -> tuple[Any, np.ndarray]:
        # One slot would be fused differently and round differently; the second is never run.
        slots = Bar(*(np.full(2, x, np.float64) for x in bar))
        with float64_on_cpu():
            state, values = advance(indicator, state, slots, 1)
            return state, np.asarray(values)[0]

    return Stream(init, step)


@cache
def as_indicator(recipe: Recipe) -> Indicator:
    """The recipe as one `Indicator` with value [F], to be scanned or vmapped; one object per recipe."""

    def step(state: Any, bar: Bar) -> tuple[Any, jax.Array]:
        state, outputs = recipe.indicators.step(state, bar)
        values = recipe.combination(bar, outputs)
        if len(values) != len(recipe.names):
            raise ConfigError(
                f"recipe {recipe.name!r} gives {len(values)} values for {len(recipe.names)} names"
            )
        return state, jnp.stack(values)

    return Indicator(recipe.indicators.init, step, recipe.names)


def check_frame(frame: pd.DataFrame) -> None:
    """Refuse a frame that no recipe can be computed on; all findings at once.

    Raises:
      DataError: no bars, columns missing, index not of ascending times, prices not positive and finite.
    """
    missing = [name for name in Bar._fields if name not in frame.columns]
    if missing:
        raise DataError(f"the frame lacks {', '.join(missing)}; features need {', '.join(Bar._fields)}")
    findings = []
    if len(frame) == 0:
        findings.append("the frame has no bars")
    if not isinstance(frame.index, pd.DatetimeIndex):
        findings.append(f"the frame's index holds {frame.index.dtype}, not times")
    elif not (frame.index.is_monotonic_increasing and frame.index.is_unique):
        findings.append("the frame's times do not ascend one by one; sort them and drop duplicates")
    for name in ("open", "high", "low", "close"):
        prices = frame[name].to_numpy(np.float64)
        bad = np.flatnonzero(~(np.isfinite(prices) & (prices > 0)))
        if bad.size:
            first = bad[0]
            findings.append(
                f"{bad.size} of column {name} are not positive finite prices, first at row {first} "
                f"({frame.index[first]}: {prices[first]}); drop or fill these bars"
            )
    if findings:
        raise DataError(findings)


@contextmanager
def float64_on_cpu() -> Iterator[None]:
    """Inside, jax computes in float64 on the host; outside, the caller's settings are untouched."""
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise ConfigError(
            "features are computed on the CPU, which JAX_PLATFORMS leaves out; append it, as in cuda,cpu"
        ) from error
    with jax.enable_x64(True), jax.default_device(cpu):
        yield


def _default(bar: Bar, out: dict[str, Any]) -> list[jax.Array]:
    bands = out["bollinger"]
    breadth = bands.upper - bands.lower
    return [
        out["return_1"].log,
        out["return_5"].log,
        out["rsi"] / 100 - 0.5,
        out["macd"].histogram / bar.close,
        out["atr"] / bar.close,
        jnp.where(breadth == 0, 0, (bar.close - bands.middle) / breadth),
        out["realised_volatility"],
        out["volume_zscore"],
    ]


def _extended(bar: Bar, out: dict[str, Any]) -> list[jax.Array]:
    return [
        *_default(bar, out),
        out["adx"].adx / 100,
        (out["adx"].plus_di - out["adx"].minus_di) / 100,
        out["stochastic"].k / 100 - 0.5,
        out["stochastic"].d / 100 - 0.5,
        bar.close / out["sma"] - 1,
        bar.close / out["ema"] - 1,
    ]


DEFAULT_INDICATORS = {
    "return_1": make_return(1),
    "return_5": make_return(5),
    "rsi": make_rsi(14),
    "macd": make_macd(12, 26, 9),
    "atr": make_atr(14),
    "bollinger": make_bollinger(20, 2.0),
    "realised_volatility": make_realised_volatility(20),
    "volume_zscore": make_volume_zscore(20),
}
DEFAULT_NAMES = (
    "log_return_1",
    "log_return_5",
    "rsi_14",
    "macd_histogram",
    "atr_14",
    "percent_b_20",
    "realised_volatility_20",
    "volume_zscore_20",
)
EXTENDED_INDICATORS = DEFAULT_INDICATORS | {
    "adx": make_adx(14),
    "stochastic": make_stochastic(14, 3, 3),
    "sma": make_sma(50),
    "ema": make_ema(20),
}
EXTENDED_NAMES = (
    *DEFAULT_NAMES,
    "adx_14",
    "direction_14",
    "stochastic_k_14",
    "stochastic_d_14",
    "sma_50_distance",
    "ema_20_distance",
)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("default", combine(**DEFAULT_INDICATORS), _default, DEFAULT_NAMES),
        Recipe("extended", combine(**EXTENDED_INDICATORS), _extended, EXTENDED_NAMES),
        Recipe(
            "returns",
            combine(return_1=make_return(1)),
            lambda bar, out: [out["return_1"].simple],
            ("simple_return_1",),
        ),
    )
}
"""The built-in recipes by name. All are free of the price scale."""
