"""From an episode as arrays to the frames of its replay. Axes: T bars, K account view, F features."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from envs import protection
from ztb_jax.evaluation.episodes import Frames

REASONS = {
    protection.STOP: "stop",
    protection.TARGET: "target",
    protection.TRAIL: "trail",
    protection.LIQUIDATION: "liquidation",
}


class Summary(NamedTuple):
    """What came of one episode.

    Attributes:
      steps: bars that were played.
      return_total: sum of the rewards.
      return_percent: simple return of the equity.
      survival: share of the episode that the account lived.
      terminated: the account was closed.
      truncated: the episode was cut off.
    """

    steps: int
    return_total: float
    return_percent: float
    survival: float
    terminated: bool
    truncated: bool


def summary_of(played: Frames) -> Summary:
    """Of one episode, leaves [T] of NumPy."""
    ends = np.flatnonzero(played.terminated)
    whole = len(played.terminated)
    steps = int(ends[0]) + 1 if ends.size else whole
    return Summary(
        steps=steps,
        return_total=float(played.reward[:steps].sum(dtype=np.float64)),
        return_percent=100.0 * math.expm1(float(played.log_equity[steps - 1])),
        survival=(steps - 1) / whole if ends.size else 1.0,  # it did not live through the bar that closed it
        terminated=bool(ends.size),
        truncated=not ends.size,
    )


def frames_of(
    played: Frames,
    *,
    bars: pd.DataFrame,
    features: np.ndarray,
    capital: float,
    include_info: bool = True,
) -> Iterator[dict[str, Any]]:
    """Every frame of one episode, a `ztb_jax.runs.artifacts.ReplayFrame` each, made as it is asked for.

    Args:
      played: one episode, leaves [T] of NumPy.
      bars: prices of every row of the data that it was played on, stamped.
      features: [rows, F] of the same rows, as the policy saw them.
      capital: money at the start.
      include_info: tell what the policy thought and what the bar cost.
    """
    steps = summary_of(played).steps
    equity = capital * np.exp(played.log_equity[:steps].astype(np.float64))
    before = np.append(capital, equity[:-1])
    peaks = np.maximum(np.maximum.accumulate(equity), capital)
    rows = np.asarray(played.bar)[:steps] + 1
    prices = {name: bars[name].to_numpy(np.float64)[rows] for name in ("open", "high", "low", "close")}
    stamps = [_stamp(stamp) for stamp in pd.DatetimeIndex(bars.index)[rows]]
    whole = len(played.reward)
    for t in range(steps):
        closed = bool(played.terminated[t])
        frame = {
            "schema_version": 1,
            "frame_index": t,
            "t": t + 1,
            "dt": 1,
            "action": played.action[t].tolist(),
            "reward": float(played.reward[t]),
            "terminated": closed,
            "truncated": bool(played.truncated[t]) and not closed,
            "render_state": {
                "time": stamps[t],
                "bar": {name: float(values[t]) for name, values in prices.items()},
                "observation": [*played.account[t].tolist(), *features[rows[t] - 1].tolist()],
                "position": float(played.exposure[t]),
                "equity": float(equity[t]),
                "net_profit": float(equity[t] - capital),
                "drawdown": float(1.0 - equity[t] / peaks[t]),
                "survival": 0.0 if closed else 1.0,
                "time_remaining": whole - t - 1,
            },
            "events": _events(played, t, opened=prices["open"][t], equity=before[t]),
        }
        if include_info:
            frame["info"] = _info(played, t, equity=before[t], net_profit=float(equity[t] - capital))
        yield frame


def _stamp(stamp: pd.Timestamp) -> str:
    """A date where there is no time of the day in it."""
    return stamp.date().isoformat() if stamp == stamp.normalize() else stamp.isoformat()


def _events(played: Frames, t: int, *, opened: float, equity: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if played.asked[t] != played.level[t]:
        found.append({"type": "order", "level": float(played.asked[t])})
    for kind, fill in (("fill", played.fill), ("exit", played.exit)):
        if fill is None or fill.traded[t] == 0.0:
            continue
        event = {
            "type": kind,
            "side": "buy" if fill.traded[t] > 0 else "sell",
            "size": float(abs(fill.traded[t])),
            "price": float(opened * fill.price[t]),
            "cost": float(fill.cost[t] * equity),
        }
        if kind == "exit" and played.reason is not None:
            event["reason"] = REASONS[int(played.reason[t])]
        found.append(event)
    if played.terminated[t]:
        found.append({"type": "ruin"})
    return found


def _info(played: Frames, t: int, *, equity: float, net_profit: float) -> dict[str, Any]:
    fills = [fill for fill in (played.fill, played.exit) if fill is not None]
    return {
        "dt": 1,
        "invalid_action": bool(played.invalid[t]),
        "net_profit": net_profit,
        "survival": 0.0 if played.terminated[t] else 1.0,
        "turnover": float(sum(abs(fill.traded[t]) for fill in fills)),
        "cost": float(sum(fill.cost[t] for fill in fills) * equity),
        "value": float(played.value[t]),
        "log_prob": float(played.log_prob[t]),
    }
