"""What is wrong with a frame: all findings at once, each with its rows and its remedy.

A rule is a function of a frame that marks rows [T]. Marked rows can be dropped, so the check and the remedy
are the same function and cannot disagree. What no dropping can mend (missing columns, too few rows, a wrong
timeframe, a column that is mostly empty) is found separately.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ztb_jax.data.frame import COLUMNS, PRICES, canonical_timeframe, name_of_seconds, timeframe_seconds
from ztb_jax.errors import DataError

MIN_ROWS = 100
MAX_NAN = 0.05
STUB_RATIO = 0.5
# Feeds kept in float32 put a close up to 6e-8 of it above its own high.
TOLERANCE = 1e-6
SPACING_TOLERANCE = 0.1
_DAY = 86_400.0
_SHOWN = 5
_MONTH_DAYS = range(28, 32)


@dataclass(frozen=True)
class Finding:
    """One broken rule.

    Attributes:
      rule: its name, as `--drop` takes it.
      rows: the first few broken rows: row numbers of the file where they are known, else positions from 0.
      stamps: the same rows by time.
      count: how many rows break it in all; 0 where the whole frame does.
      message: what is wrong and where.
      remedy: what to do about it.
      droppable: whether dropping the rows mends it.
    """

    rule: str
    rows: tuple[int, ...]
    stamps: tuple[str, ...]
    count: int
    message: str
    remedy: str
    droppable: bool = False

    def __str__(self) -> str:
        return f"{self.rule}: {self.message} {self.remedy}"


def check(frame: pd.DataFrame, *, timeframe: str, rows: np.ndarray | None = None) -> list[Finding]:
    """Everything that makes a frame unfit for training; empty when it is fit.

    Args:
      frame: [T] bars, any of whose columns may be missing.
      timeframe: what the bars are said to be, e.g. `4h`.
      rows: [T] row numbers in the file, for the messages.

    Raises:
      DataError: the timeframe is not understood.
    """
    timeframe = canonical_timeframe(timeframe)
    places = np.arange(len(frame)) if rows is None else rows
    findings = [*_whole(frame, timeframe)]
    for rule in RULES:
        marked = np.flatnonzero(mark(frame, rule, timeframe=timeframe))
        if marked.size:
            findings.append(_finding(rule, frame, marked, places))
    return findings


def broken_bars(frame: pd.DataFrame) -> list[str]:
    """What makes bars unfit to be played, however few they are; empty where they can be.

    Missing columns and an index that holds no times are another's to find.
    """
    if not isinstance(frame.index, pd.DatetimeIndex):
        return []
    bars, places = frame[[name for name in COLUMNS if name in frame]], np.arange(len(frame))
    marks = {rule: np.flatnonzero(RULES[rule].marks(bars, "")) for rule in RULES if rule != "stub_session"}
    found = [_finding(rule, bars, marked, places) for rule, marked in marks.items() if marked.size]
    return [f"{finding.message} Correct or drop them." for finding in found]


def mark(frame: pd.DataFrame, rule: str, *, timeframe: str) -> np.ndarray:
    """[T] bool, the rows that break a droppable rule.

    Raises:
      DataError: no such rule, or not one that dropping mends.
    """
    _known([rule])
    return RULES[rule].marks(frame, timeframe)


def keep(frame: pd.DataFrame, rules: Iterable[str], *, timeframe: str) -> np.ndarray:
    """[T] bool, the rows that remain after dropping by rules, one after another in the order of RULES.

    Of duplicates the first that no other rule drops remains.

    Raises:
      DataError: rules that do not exist or that dropping does not mend.
    """
    wanted = list(rules)
    _known(wanted)
    kept = np.ones(len(frame), bool)
    for rule in RULES:
        if rule in wanted:
            kept[kept] = ~mark(frame[kept], rule, timeframe=timeframe)
    return kept


def drop_rows(frame: pd.DataFrame, rules: Iterable[str], *, timeframe: str) -> pd.DataFrame:
    """The frame without the rows that break the given rules; what else is wrong stays."""
    return frame[keep(frame, rules, timeframe=timeframe)]


def _known(rules: list[str]) -> None:
    unknown = [rule for rule in rules if rule not in RULES]
    if unknown:
        raise DataError(
            [f"no rows can be dropped by {rule!r}. Rules that can: {', '.join(RULES)}." for rule in unknown]
        )


def _index(frame: pd.DataFrame) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(frame.index)


def _prices(frame: pd.DataFrame, *names: str) -> list[np.ndarray]:
    """The named columns [T], or NaN, which breaks no rule but `nan`, where one is missing."""
    return [frame[name].to_numpy() if name in frame else np.full(len(frame), np.nan) for name in names]


def _nan_columns(frame: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    for name in frame.columns:
        missing = ~np.isfinite(frame[name].to_numpy())
        if missing.any():
            yield name, missing


def _nan(frame: pd.DataFrame, timeframe: str) -> np.ndarray:
    del timeframe
    marks = [missing for _, missing in _nan_columns(frame) if missing.mean() <= MAX_NAN]
    return np.any(marks, axis=0) if marks else np.zeros(len(frame), bool)


def _non_positive(frame: pd.DataFrame, timeframe: str) -> np.ndarray:
    del timeframe
    return np.any([price <= 0 for price in _prices(frame, *PRICES)], axis=0)


def _negative_volume(frame: pd.DataFrame, timeframe: str) -> np.ndarray:
    del timeframe
    return _prices(frame, "volume")[0] < 0


def _high_low(frame: pd.DataFrame, timeframe: str) -> np.ndarray:
    del timeframe
    high, low = _prices(frame, "high", "low")
    return high < low


def _range(frame: pd.DataFrame, timeframe: str) -> np.ndarray:
    """Open or close outside [low, high]; a bar whose high is below its low is the other rule's."""
    opening, high, low, close = _prices(frame, *PRICES)
    slack = TOLERANCE * np.abs(close)
    outside = [(price > high + slack) | (price < low - slack) for price in (opening, close)]
    return np.any(outside, axis=0) & ~_high_low(frame, timeframe)


def _stub_session(frame: pd.DataFrame, timeframe: str) -> np.ndarray:
    """Weekend bars, where their median range is under half of a weekday's: hours of Monday."""
    weekend = np.asarray(_index(frame).day_of_week >= 5)
    if timeframe_seconds(timeframe) < _DAY or not weekend.any() or weekend.all():
        return np.zeros(len(frame), bool)
    ratio = _weekend_ratio(frame, weekend)
    return weekend if ratio < STUB_RATIO else np.zeros(len(frame), bool)


def _weekend_ratio(frame: pd.DataFrame, weekend: np.ndarray) -> float:
    """Median (high - low) / |close| of weekend bars over that of weekday bars; NaN if unknown."""
    high, low, close = _prices(frame, "high", "low", "close")
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (high - low) / np.abs(close)
    known = np.isfinite(spread)
    if not (known & weekend).any() or not (known & ~weekend).any():
        return np.nan
    weekday = float(np.median(spread[known & ~weekend]))
    return float(np.median(spread[known & weekend])) / weekday if weekday > 0 else np.nan


def _unordered(frame: pd.DataFrame, timeframe: str) -> np.ndarray:
    """Rows earlier than one before them."""
    del timeframe
    times = _index(frame).to_numpy().astype(np.int64)
    return times < np.maximum.accumulate(times)


def _duplicate(frame: pd.DataFrame, timeframe: str) -> np.ndarray:
    """Rows whose stamp an earlier row has."""
    del timeframe
    return np.asarray(_index(frame).duplicated(keep="first"))


@dataclass(frozen=True)
class Rule:
    """A droppable rule: which rows it marks, what is wrong with them, and another way to mend it."""

    marks: Callable[[pd.DataFrame, str], np.ndarray]
    fault: str
    instead: str


RULES = {
    "nan": Rule(_nan, "have an empty or infinite cell", "fill them in the file"),
    "non_positive": Rule(_non_positive, "have a price of zero or less", "correct them in the file"),
    "negative_volume": Rule(_negative_volume, "have a volume below zero", "correct them in the file"),
    "high_low": Rule(
        _high_low, "have a high below the low", "map the columns with `--columns high=NAME low=NAME`"
    ),
    "range": Rule(_range, "have an open or close outside [low, high]", "map the columns with `--columns`"),
    "stub_session": Rule(
        _stub_session,
        f"are weekend bars with less than {STUB_RATIO:g} of a weekday's median range (stub sessions)",
        "merge each into the next bar in the file",
    ),
    "unordered": Rule(_unordered, "are earlier than a row before them", "sort the file by time"),
    "duplicate": Rule(_duplicate, "repeat the stamp of an earlier row", "delete the wrong ones in the file"),
}


def _finding(rule: str, frame: pd.DataFrame, marked: np.ndarray, places: np.ndarray) -> Finding:
    first = marked[:_SHOWN]
    stamps = tuple(str(stamp) for stamp in _index(frame)[first])
    rows = tuple(int(places[i]) for i in first)
    shown = ", ".join(f"row {row} ({stamp})" for row, stamp in zip(rows, stamps, strict=True))
    days = _days(frame, marked) if rule == "stub_session" else ""
    end = ", …" if len(marked) > _SHOWN else "."
    message = f"{len(marked)} of {len(frame)} rows {RULES[rule].fault}{days}: {shown}{end}"
    remedy = f"Drop them with `--drop {rule}`, or {RULES[rule].instead}."
    return Finding(rule, rows, stamps, len(marked), message, remedy, droppable=True)


def _days(frame: pd.DataFrame, marked: np.ndarray) -> str:
    names = _index(frame)[marked].day_name().value_counts()
    return ", " + " and ".join(f"{count} {name}s" for name, count in names.items())


def _whole(frame: pd.DataFrame, timeframe: str) -> Iterator[Finding]:
    """What is wrong with the frame as a whole, and no dropping mends."""
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        close = "" if "close" in missing else ", or take one price a bar with `--close-only`"
        yield _fatal(
            "missing_columns",
            f"no column for {', '.join(missing)}.",
            f"Name them with `--columns {' '.join(f'{name}=NAME' for name in missing)}`{close}.",
        )
    if len(frame) < MIN_ROWS:
        yield _fatal(
            "too_few_rows", f"{len(frame)} rows, at least {MIN_ROWS} are needed.", "Give a longer file."
        )
    for name, empty in _nan_columns(frame):
        if empty.mean() > MAX_NAN:
            yield _fatal(
                "nan",
                f"{empty.sum()} of {len(frame)} cells of {name} are empty or infinite ({empty.mean():.1%}, "
                "at most "
                f"{MAX_NAN:.0%} can be dropped), first at {frame.index[int(empty.argmax())]}.",
                "Give a fuller file, or map another column.",
            )
    likely = likely_timeframe(_index(frame))
    if likely is not None and not _agrees(_index(frame), timeframe):
        yield _fatal(
            "timeframe",
            f"the median spacing of the stamps is that of {likely}, not {timeframe}.",
            f"Import it as {likely}.",
        )


def _fatal(rule: str, message: str, remedy: str) -> Finding:
    return Finding(rule, (), (), 0, message, remedy)


def _spacing(index: pd.DatetimeIndex) -> float:
    """Median seconds between neighbouring different stamps; NaN if there are none."""
    steps = np.abs(np.diff(index.to_numpy(dtype="datetime64[us]").astype(np.int64))) / 1e6
    steps = steps[steps > 0]
    return float(np.median(steps)) if steps.size else np.nan


def _agrees(index: pd.DatetimeIndex, timeframe: str) -> bool:
    claimed = timeframe_seconds(timeframe)
    return abs(_spacing(index) / claimed - 1) <= SPACING_TOLERANCE


def likely_timeframe(index: pd.DatetimeIndex) -> str | None:
    """The timeframe that the median spacing of the stamps suggests; None for fewer than two stamps."""
    seconds = _spacing(index)
    if not np.isfinite(seconds):
        return None
    if int(seconds // _DAY) in _MONTH_DAYS:
        return "1mo"
    return name_of_seconds(max(round(seconds), 1))
