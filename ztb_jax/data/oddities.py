"""What is possible in a market and more often an error in a file: told on import, never refused."""

import numpy as np
import pandas as pd

JUMP = 2.0  # a price of twice or half its neighbour within one bar
HOLE = 20.0  # median spacings without a bar; a weekend in hourly bars is 50, so days are counted, too
HOLE_DAYS = 10.0


def oddities(frame: pd.DataFrame) -> list[str]:
    """Sentences on jumps and holes of checked bars [T]: columns open, high, low, close, ascending stamps.

    A jump is a close twice or half the close before, or a high or low that far from both open and close: a
    wrong digit, or a split that the prices were not adjusted for. A hole is more than ten days, and more than
    twenty bars, without a bar: it also lowers the bars a year by which figures are annualised.
    """
    return [*_jumps(frame), *_holes(pd.DatetimeIndex(frame.index))]


def _jumps(frame: pd.DataFrame) -> list[str]:
    opened, high, low, closed = (
        frame[name].to_numpy(np.float64) for name in ("open", "high", "low", "close")
    )
    moved = np.abs(np.diff(np.log(closed), prepend=np.log(closed[0])))
    above = np.log(high / np.maximum(opened, closed))
    below = np.log(np.minimum(opened, closed) / low)
    odd = np.flatnonzero(np.maximum.reduce([moved, above, below]) >= np.log(JUMP))
    if not odd.size:
        return []
    many = f"{odd.size} bars move" if odd.size > 1 else "one bar moves"
    return [
        f"{many} by a factor of {JUMP:g} or more, first at {frame.index[odd[0]]}: a wrong digit, or a "
        "split that the prices are not adjusted for? Look before you train."
    ]


def _holes(index: pd.DatetimeIndex) -> list[str]:
    stamps = index.to_numpy()
    spacing = np.diff(stamps) / np.timedelta64(1, "D")
    holes = np.flatnonzero(spacing > max(HOLE_DAYS, HOLE * float(np.median(spacing))))
    if not holes.size:
        return []
    widest = holes[spacing[holes].argmax()]
    since = stamps[widest].astype("datetime64[s]")
    many = f"{holes.size} holes" if holes.size > 1 else "a hole"
    return [
        f"there {'are' if holes.size > 1 else 'is'} {many} in the bars, the widest of "
        f"{spacing[widest]:.0f} days after {since}: annual figures count fewer bars a year for it."
    ]
