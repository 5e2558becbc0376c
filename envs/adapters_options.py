"""The parts of an environment's draw that a caller fixes by `reset(options=…)`.

Axes: N accounts, each with a clock of its own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.types import Actions, EnvParams


def fixed(
    drawn: Any, options: Mapping[str, Any], space: Actions, params: EnvParams, *, episode_bars: int
) -> dict[str, np.ndarray]:
    """The parts of `drawn` that `options` name, [N, …] or one for all, in the draw's shapes and types.

    Args:
      drawn: a draw of N groups of one account.
      options: parts of it by name.
      space: whose levels, or bounds, a holding at the start must keep; no holding is always allowed.
      params: whose window the start must leave an episode in.
      episode_bars: steps of an episode.

    Raises:
      ValueError: every part that is not known, of another shape, or out of range.
    """
    wrong = [
        f"{name} is not known: there are {list(drawn._fields)}"
        for name in options
        if name not in drawn._fields
    ]
    parts = {name: value for name, value in options.items() if name in drawn._fields}
    whole = {}
    for name, value in parts.items():
        leaf = getattr(drawn, name)
        shape = leaf.shape[:1] + leaf.shape[2:]  # without the axis of accounts that share a clock
        try:
            whole[name] = np.broadcast_to(np.asarray(value, np.float64), shape)
        except (TypeError, ValueError):
            wrong.append(f"{name} must be numbers of shape {shape}, or one for all, got {value!r}")
            continue
        if name == "start":
            last = int(params.stop) - 1 - episode_bars
            finding = _start_wrong(whole[name], int(params.first), last) or _not_a_start(whole[name], params)
        else:
            finding = _holding_wrong(whole[name], space)
        wrong += [f"{name} must be {finding}, got {value}"] if finding else []
    if wrong:
        raise ValueError(f"options do not fit: {'; '.join(wrong)}")
    return {
        name: part.astype(getattr(drawn, name).dtype).reshape(getattr(drawn, name).shape)
        for name, part in whole.items()
    }


def _start_wrong(start: np.ndarray, first: int, last: int) -> str:
    # NaN fails every comparison.
    fits = (first <= start) & (start <= last) & (start == np.floor(start))
    return "" if fits.all() else f"whole numbers between {first} and {last}"


def _not_a_start(start: np.ndarray, params: EnvParams) -> str:
    if params.starts is None:
        return ""
    most = None if params.num_starts is None else int(params.num_starts)
    return "" if np.isin(start, np.asarray(params.starts)[:most]).all() else "among params.starts"


def _holding_wrong(held: np.ndarray, space: Actions) -> str:
    """What a level, or weights, must be; empty if they are."""
    near = held.astype(np.float32)  # as levels and bounds are kept
    if space.levels:
        levels = np.asarray(space.levels, np.float32)
        return "" if np.isin(near, [*levels, 0.0]).all() else f"one of {sorted({*space.levels, 0.0})}"
    low, high = space.low, space.high
    if space.shape != held.shape[1:] and held.ndim > 1:
        # Actions that are no weights: the specialists' signals make them, with either sign.
        high = max(abs(low), abs(high))
        low = -high
    low, high = min(low, 0.0), max(high, 0.0)
    fits = (np.float32(low) <= near) & (near <= np.float32(high))
    return "" if fits.all() else f"from {low} to {high}"
