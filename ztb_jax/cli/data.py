"""`ztb data`: the cache of bars from the command line, and checks of files and of features."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from ztb_jax.cli import leaks
from ztb_jax.data import cache
from ztb_jax.data.frame import COLUMNS, bars_per_year, canonical_timeframe
from ztb_jax.data.imports import check_file, import_file, mending_options
from ztb_jax.data.load import EMBEDDED, SYNTHETIC
from ztb_jax.data.oddities import oddities
from ztb_jax.data.synthetic import GENERATORS
from ztb_jax.errors import DataError

_Words = tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]]
_CacheDir = Annotated[Path, tyro.conf.arg(help="Folder of the cache; ZTB_DATA__CACHE_DIR sets it, too.")]


@dataclass(frozen=True)
class Load:
    """Import a CSV, TSV or Parquet file into the cache.

    Delimiter, column names and date format are detected; everything wrong is reported at once.
    """

    symbol: tyro.conf.Positional[str]
    """Name the bars get, e.g. EURUSD."""
    timeframe: tyro.conf.Positional[str]
    """Of the bars: 1m, 15m, 1h, 4h, 1d, …, or M15, H4, D1."""
    source: Annotated[Path, tyro.conf.arg(name="from")]
    """The file."""
    drop: _Words = ()
    """Rules whose rows are dropped, e.g. --drop nan duplicate."""
    columns: _Words = ()
    """Columns that are not detected, e.g. --columns open=First close=Settle."""
    close_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The file has one price a bar: open, high and low become the close."""
    replace: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Overwrite other bars of that symbol and timeframe."""
    cache_dir: _CacheDir = field(default_factory=cache.default_cache_dir)


@dataclass(frozen=True)
class List:
    """List what can be trained on without importing anything."""

    cache_dir: _CacheDir = field(default_factory=cache.default_cache_dir)


@dataclass(frozen=True)
class Check:
    """Say what is wrong with a file, and import nothing; the exit status is 2 when it would be refused."""

    file: tyro.conf.Positional[Path]
    """A CSV, TSV or Parquet file."""
    timeframe: tyro.conf.Positional[str]
    """Of its bars."""


_Command = (
    Annotated[Load, tyro.conf.subcommand("load")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[leaks.CheckCausality, tyro.conf.subcommand("check-causality")]
    | Annotated[leaks.CheckRecursive, tyro.conf.subcommand("check-recursive")]
)


def main(argv: list[str]) -> int:
    """Run `ztb data` with the arguments after `data`; the exit status.

    Raises:
      UserError: what the user gave cannot be used.
      SystemExit: the arguments do not parse (2), or help was asked for (0); the message is printed.
    """
    command = tyro.cli(
        _Command, args=argv, prog="ztb data", description="Import, list and check price data; check features."
    )
    match command:
        case Load():
            return load(command)
        case List():
            return list_(command)
        case Check():
            return check(command)
        case leaks.CheckCausality():
            return leaks.check_causality(command)
        case leaks.CheckRecursive():
            return leaks.check_recursive(command)


def load(command: Load) -> int:
    """Import a file and print what now stands in the cache; 0."""
    summary = import_file(
        command.symbol,
        command.timeframe,
        command.source,
        cache_dir=command.cache_dir.expanduser(),
        drop=_flat(command.drop),
        columns=_pairs(_flat(command.columns)),
        close_only=command.close_only,
        replace=command.replace,
    )
    entry = summary.entry
    lines = [f"note: {note}" for note in summary.notes]
    lines += [f"dropped {count} rows by {rule}" for rule, count in summary.dropped.items()]
    lines.append(
        f"{entry.symbol} {entry.timeframe}: {entry.num_rows} bars, {entry.first} to {entry.last}, in "
        f"{summary.path}"
    )
    return _say(lines)


def list_(command: List) -> int:
    """Print the cache, the embedded sets and the generators, one a line; 0."""
    listing = cache.list_entries(command.cache_dir.expanduser())
    rows = [
        (
            entry.symbol,
            entry.timeframe,
            f"{entry.num_rows} bars",
            f"{entry.first} to {entry.last}",
            entry.source,
        )
        for entry in listing.entries
    ]
    rows += [(symbol, timeframe, "embedded", "", "") for symbol, timeframe in EMBEDDED]
    rows += [(SYNTHETIC + name, "any", "generated", "", "") for name in GENERATORS]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines += [f"damaged: {path}. Delete it, or import it again with `--replace`." for path in listing.damaged]
    return _say(lines)


def check(command: Check) -> int:
    """Print what is in a file and what is wrong with it; 0 if it would be imported, else 2."""
    timeframe = canonical_timeframe(command.timeframe)
    reading, findings = check_file(command.file, timeframe)
    index = reading.frame.index
    lines = [f"{command.file}: {len(index)} rows, {index.min()} to {index.max()}"]
    lines += [f"note: {note}" for note in reading.notes]
    lines += [str(finding) for finding in findings]
    if not findings:
        return _say(
            [
                *lines,
                *(f"note: {note}" for note in oddities(reading.frame)),
                f"it imports as {timeframe}, {bars_per_year(pd.DatetimeIndex(index)):.1f} bars a year",
            ]
        )
    options = mending_options(reading.frame, timeframe=timeframe)
    _say([*lines, f"it imports with {options}" if options else "no option mends it"])
    return 2


def _flat(words: tuple[tuple[str, ...], ...]) -> list[str]:
    return [word for group in words for word in group]


def _pairs(words: list[str]) -> Mapping[str, str]:
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise DataError(
            [
                f"--columns {word!r} is no NAME=COLUMN with NAME one of time, {', '.join(COLUMNS)}."
                for word in wrong
            ]
        )
    return dict(word.split("=", 1) for word in words)


def _say(lines: list[str]) -> int:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0
