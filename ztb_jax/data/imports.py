"""Importing a file into the cache: read, check, drop what was asked, check again, write."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ztb_jax.data import cache
from ztb_jax.data.frame import PRICES, canonical_timeframe
from ztb_jax.data.load import EMBEDDED
from ztb_jax.data.oddities import oddities
from ztb_jax.data.source import Reading, read_source
from ztb_jax.data.validate import RULES, Finding, check, keep
from ztb_jax.errors import DataError


@dataclass(frozen=True)
class Summary:
    """What an import did.

    Attributes:
      entry: what now stands in the cache.
      path: where.
      dropped: rows dropped, by rule.
      notes: what was decided or mended while reading, and what looks odd, one sentence each.
    """

    entry: cache.Entry
    path: Path
    dropped: dict[str, int]
    notes: tuple[str, ...]


def import_file(
    symbol: str,
    timeframe: str,
    path: Path | str,
    *,
    cache_dir: Path,
    drop: Iterable[str] = (),
    columns: Mapping[str, str] | None = None,
    close_only: bool = False,
    replace: bool = False,
) -> Summary:
    """Put the bars of a file into the cache as symbol and timeframe; nothing is written unless all is well.

    Args:
      symbol: the name they get.
      timeframe: of the bars, in any accepted form; the stamps must agree with it.
      path: a CSV, TSV or Parquet file.
      cache_dir: the folder of the cache.
      drop: rules (`ztb_jax.data.validate.RULES`) whose rows are dropped.
      columns: names of the file's columns by ours, where detection errs.
      close_only: set open, high and low to the close.
      replace: overwrite other bars of that name.

    Raises:
      DataError: all findings that remain after dropping, and the options with which the file imports if there
        are such; or a file, symbol or cache that cannot be used.
    """
    path, timeframe, drop = Path(path), canonical_timeframe(timeframe), tuple(drop)
    target = cache.cache_path(symbol, timeframe, cache_dir=cache_dir)
    if (symbol, timeframe) in EMBEDDED:
        raise DataError(
            f"{symbol} {timeframe} is embedded and cannot be replaced. Import under another symbol."
        )
    reading = read_source(path, columns=columns, close_only=close_only)
    kept, dropped = _drop(reading.frame, drop, timeframe)
    frame = reading.frame[kept]
    findings = check(frame, timeframe=timeframe, rows=reading.rows[kept])
    if findings:
        options = mending_options(reading.frame, timeframe=timeframe, drop=drop)
        given = _given(columns or {}, close_only=close_only, replace=replace)
        mend = None if options is None else " ".join([*given, options])
        raise _refused(f"{symbol} {timeframe}", path, findings, mend)
    entry = cache.make_entry(symbol, timeframe, frame, source=path.name, source_sha256=reading.sha256)
    entry = cache.write(frame, entry, cache_dir=cache_dir, replace=replace)
    return Summary(entry, target, dropped, (*reading.notes, *oddities(frame)))


def check_file(path: Path | str, timeframe: str) -> tuple[Reading, list[Finding]]:
    """A file as it would be imported without options, and everything that is wrong with it."""
    reading = read_source(Path(path))
    return reading, check(reading.frame, timeframe=timeframe, rows=reading.rows)


def mending_options(frame: pd.DataFrame, *, timeframe: str, drop: Iterable[str] = ()) -> str | None:
    """The options of `ztb data load` with which a frame passes its check, e.g. `--drop nan`; None if none do.

    Args:
      frame: [T] bars as read, any of whose columns may be missing.
      timeframe: what they are said to be.
      drop: rules already asked for.
    """
    rules, options = set(drop), []
    if "close" in frame and not set(PRICES) <= set(frame):
        options.append("--close-only")
        frame = frame.assign(**dict.fromkeys(PRICES, frame["close"]))
    # Dropping by one rule can lay another bare, but every round adds a rule.
    for _ in range(len(RULES) + 1):
        findings = check(frame[keep(frame, rules, timeframe=timeframe)], timeframe=timeframe)
        if not findings:
            return " ".join(
                [*options, *(["--drop", *(rule for rule in RULES if rule in rules)] if rules else [])]
            )
        if not all(finding.droppable for finding in findings):
            return None
        rules |= {finding.rule for finding in findings}
    return None


def _drop(frame: pd.DataFrame, drop: tuple[str, ...], timeframe: str) -> tuple[np.ndarray, dict[str, int]]:
    """[T] rows that remain, and how many each rule dropped."""
    kept = keep(frame, drop, timeframe=timeframe)
    ordered = [rule for rule in RULES if rule in drop]
    left = [
        len(frame),
        *(int(keep(frame, ordered[: i + 1], timeframe=timeframe).sum()) for i in range(len(ordered))),
    ]
    return kept, {rule: before - after for rule, before, after in zip(ordered, left, left[1:], strict=False)}


def _given(columns: Mapping[str, str], *, close_only: bool, replace: bool) -> list[str]:
    """The options of a command that had these arguments."""
    named = (
        ["--columns", *(shlex.quote(f"{name}={given}") for name, given in columns.items())] if columns else []
    )
    return [*named, *["--close-only"] * close_only, *["--replace"] * replace]


def _refused(name: str, path: Path, findings: list[Finding], options: str | None) -> DataError:
    lines = [f"{path} is refused as {name}, {len(findings)} finding{'s' * (len(findings) > 1)}:"]
    lines += [str(finding) for finding in findings]
    if options is not None:
        lines.append(f"It imports with `ztb data load {name} --from {shlex.quote(str(path))} {options}`.")
    return DataError(lines)
