"""Several instruments' bars on one clock: the union of their stamps."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from ztb_jax.data.frame import SECONDS_PER_YEAR
from ztb_jax.errors import DataError


class Aligned(NamedTuple):
    """Bars of A instruments at T stamps; float64 in quote currency.

    Attributes:
      names: of the instruments, in the order of the columns.
      stamps: [T] ascending, unique.
      opened: [T, A] opens; where there is no bar, the last close before.
      closed: [T, A] closes; where there is no bar, the last close before.
      present: [T, A] bool, the instrument has a bar at the stamp.
      years: [T] time since the stamp before, in years of 365.25 days; 0 at the first.
    """

    names: tuple[str, ...]
    stamps: pd.DatetimeIndex
    opened: np.ndarray
    closed: np.ndarray
    present: np.ndarray
    years: np.ndarray


def align(frames: Mapping[str, pd.DataFrame]) -> Aligned:
    """`frames` at every stamp that any of them has, from the first one at which all have a price.

    A row holds what is available at its stamp: a bar of that stamp, or the last close before it. Nothing is
    filled backwards; the rows before the youngest instrument's first bar are dropped.

    Args:
      frames: bars by instrument, with columns open and close, ascending unique stamps and finite prices.

    Raises:
      DataError: no frame, an empty or disordered one, one that lacks a column or a price, or frames that do
        not overlap.
    """
    _check(frames)
    stamps = pd.DatetimeIndex(
        np.unique(np.concatenate([frame.index.to_numpy() for frame in frames.values()]))
    )
    stamps = stamps[stamps >= max(frame.index[0] for frame in frames.values())]
    columns = [_as_of(frame, stamps) for frame in frames.values()]
    opened, closed, present = (np.stack(parts, axis=1) for parts in zip(*columns, strict=True))
    elapsed = np.diff(stamps.to_numpy(), prepend=stamps.to_numpy()[:1]) / np.timedelta64(1, "s")
    return Aligned(tuple(frames), stamps, opened, closed, present, elapsed / SECONDS_PER_YEAR)


def _as_of(frame: pd.DataFrame, stamps: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Open, close and presence [T] of the last bar at or before each stamp."""
    row = frame.index.searchsorted(stamps, side="right") - 1
    present = frame.index.to_numpy()[row] == stamps.to_numpy()
    closed = frame["close"].to_numpy(np.float64)[row]
    return np.where(present, frame["open"].to_numpy(np.float64)[row], closed), closed, present


def _check(frames: Mapping[str, pd.DataFrame]) -> None:
    if not frames:
        raise DataError("there is no frame to align: give at least one instrument.")
    findings = [f"{name} {wrong}" for name, frame in frames.items() if (wrong := _wrong(frame))]
    if findings:
        raise DataError(findings)
    youngest = max(frames, key=lambda name: frames[name].index[0])
    ended = [name for name, frame in frames.items() if frame.index[-1] < frames[youngest].index[0]]
    if ended:
        raise DataError(f"{', '.join(ended)} ended before {youngest} began: leave one of them out.")


def _wrong(frame: pd.DataFrame) -> str:
    """What makes a frame unfit to be aligned; empty where nothing does."""
    lacking = [column for column in ("open", "close") if column not in frame]
    if lacking:
        return f"lacks the columns {', '.join(lacking)}."
    if len(frame) == 0:
        return "has no bars."
    if not (frame.index.is_monotonic_increasing and frame.index.is_unique):
        return "has stamps that are not ascending and unique: import it first."
    if not np.isfinite(frame[["open", "close"]].to_numpy(np.float64)).all():
        return "has prices that are not finite: import it first."
    return ""
