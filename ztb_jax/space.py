"""What trials differ in: settings by dotted key, and the values that they may take. Imports no jax."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import yaml

from ztb_jax.config import flat
from ztb_jax.errors import ConfigError
from ztb_jax.settings import Config

FIXED = (
    "seed",
    "preset",
    "data.",
    "features.recipe",
    "features.lookback",
    "run.",
    "replays.",
    "sinks.",
    "gates.",
)
"""What all trials of a study share: the same bars, the same length, the same rules of ending."""
MOST_POINTS = 10_000


class Axis(NamedTuple):
    """One setting that differs.

    Attributes:
      key: dotted.
      values: those to try; empty where a range is given.
      low: of the range.
      high: of the range, which belongs to it.
      log: whether the range is even in its logarithm.
      whole: whether its values are whole numbers.
    """

    key: str
    values: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    whole: bool = False


def parse_axes(texts: Sequence[str]) -> tuple[Axis, ...]:
    """Axes from texts such as `ppo.gamma=0.9,0.95`, `ppo.epochs=1..8` or `ppo.learning_rate=1e-4..1e-2:log`.

    Lists are read as YAML, so `env.levels=[0,1],[-1,0,1]` has two values.

    Raises:
      ConfigError: with every finding: a text of another form, a key that is no setting or that all trials
        share, a key or a value that stands twice, a range of what is no number.
    """
    known, axes, findings = flat(Config()), [], []
    for text in texts:
        key, found, wanted = text.partition("=")
        key = key.strip()
        if not found or not wanted.strip():
            findings.append(f"{text!r}: write a setting and its values, such as ppo.gamma=0.9,0.95")
        elif key not in known:
            findings.append(
                f"{text!r}: there is no setting {key!r}; docs/reference/configuration.md has them all"
            )
        elif key.startswith(FIXED):
            findings.append(f"{text!r}: all trials share {key}; vary it by studies of their own")
        elif any(axis.key == key for axis in axes):
            findings.append(f"{text!r}: {key} stands a second time: write all values after one")
        else:
            try:
                axes.append(_axis(key, wanted.strip(), known[key]))
            except ValueError as error:
                findings.append(f"{text!r}: {error}")
    if findings:
        raise ConfigError(findings)
    return tuple(axes)


def _axis(key: str, wanted: str, default: Any) -> Axis:
    if ".." in wanted:
        return _range(key, wanted, default)
    try:
        found = yaml.safe_load(f"[{wanted}]")
    except yaml.YAMLError:
        raise ValueError("these are no values separated by commas") from None
    values = tuple(map(_value, found))
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        raise ValueError("a value is not finite")
    if len(set(map(repr, values))) < len(values):
        raise ValueError("a value stands twice")
    return Axis(key, values)


def _value(found: Any) -> Any:
    """As the settings have it: YAML takes 1e-3, without a dot, for a text."""
    if isinstance(found, list):
        return tuple(map(_value, found))
    try:
        number = float(found) if isinstance(found, str) else math.nan
    except ValueError:
        return found
    return number if math.isfinite(number) else found


def _range(key: str, wanted: str, default: Any) -> Axis:
    if isinstance(default, bool | str | tuple | list):
        raise ValueError("a range is of numbers; give this setting values separated by commas")
    span, colon, scale = wanted.partition(":")
    try:
        low, high = (float(end) for end in span.split("..", 1))
    except ValueError:
        raise ValueError("a range has two numbers, such as 0.9..0.99") from None
    if colon and scale != "log":
        raise ValueError(f"after a range comes nothing or :log, not :{scale}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (scale and low <= 0.0):
        raise ValueError("a range rises, and one in logarithms begins above 0")
    whole = isinstance(default, int)
    if whole and not (low.is_integer() and high.is_integer()):
        raise ValueError("this setting takes whole numbers")
    return Axis(key, low=low, high=high, log=bool(scale), whole=whole)


def ends(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Every value and both ends of every range, one at a time: what can be checked before it is drawn."""
    return [
        {axis.key: value}
        for axis in axes
        for value in axis.values or map(int if axis.whole else float, (axis.low, axis.high))
    ]


def grid(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Every combination of the values, the last axis fastest; one without anything for no axis.

    Raises:
      ConfigError: an axis is a range, or there are more than `MOST_POINTS`.
    """
    ranges = [axis.key for axis in axes if not axis.values]
    if ranges:
        raise ConfigError(
            f"{', '.join(ranges)}: a grid needs values; `ztb sweep --method random` draws from ranges"
        )
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST_POINTS:
        raise ConfigError(
            f"the grid has {count:,} points, and the most is {MOST_POINTS:,}: give fewer values"
        )
    points = itertools.product(*(axis.values for axis in axes))
    return [dict(zip((axis.key for axis in axes), point, strict=True)) for point in points]


def random(axes: Sequence[Axis], count: int, *, seed: int) -> list[dict[str, Any]]:
    """`count` independent draws: evenly from a range (or its logarithm), one of the values otherwise."""
    rng = np.random.default_rng(seed)
    return [{axis.key: _drawn(axis, rng) for axis in axes} for _ in range(count)]


def _drawn(axis: Axis, rng: np.random.Generator) -> Any:
    if axis.values:
        return axis.values[int(rng.integers(len(axis.values)))]
    if axis.whole and not axis.log:
        return int(rng.integers(int(axis.low), int(axis.high) + 1))
    low, high = (math.log(axis.low), math.log(axis.high)) if axis.log else (axis.low, axis.high)
    value = float(rng.uniform(low, high))
    value = math.exp(value) if axis.log else value
    return round(value) if axis.whole else value


def described(point: Mapping[str, Any]) -> str:
    """A point in a line, such as `ppo.gamma 0.9, ppo.epochs 4`; "as configured" for one without anything."""
    return ", ".join(f"{key} {_short(value)}" for key, value in point.items()) or "as configured"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
