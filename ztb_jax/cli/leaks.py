"""`ztb data check-causality | check-recursive`: whether features look ahead, what history they need."""

import json
import math
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro

from ztb_jax.cli.tables import print_table
from ztb_jax.data import cache
from ztb_jax.data.frame import canonical_timeframe
from ztb_jax.data.imports import check_file
from ztb_jax.data.load import load_bars
from ztb_jax.errors import DataError


@dataclass(frozen=True)
class _Features:
    """What features are computed on."""

    recipe: tyro.conf.Positional[str]
    """A built-in recipe, or your own: `module:attribute` or `path/to/file.py:attribute`, a `Recipe` or a
    function from a frame of bars to a DataFrame or an array [bars, features]."""
    symbol: str = "SP500"
    """Of the bars; `ztb data list` shows what there is."""
    timeframe: str = "1d"
    """Of the bars."""
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """A CSV, TSV or Parquet file with the bars, instead of a symbol; it is not imported."""
    cache_dir: Annotated[
        Path, tyro.conf.arg(help="Folder of the cache; ZTB_DATA__CACHE_DIR sets it, too.")
    ] = field(default_factory=cache.default_cache_dir)


@dataclass(frozen=True)
class CheckCausality(_Features):
    """Change the future, and say which features move; the exit status is 1 when one does.

    Without a finding there may still be a leak, where it touches none of the bars tried: --points tries more.
    """

    points: int = 8
    """Bars drawn to change the future after, besides fixed ones; as many as there are bars tries all."""
    seed: int = 0
    """Of the bars and the changes."""
    tolerance: float = 0.0
    """Difference that is none, in deviations of the feature; 0 demands equal bits."""
    json: bool = False
    """One JSON object on standard output instead of a table."""


@dataclass(frozen=True)
class CheckRecursive(_Features):
    """Compute features on short histories, and say how much they need.

    The exit status is 1 when one does not settle within the longest.
    """

    starts: tuple[int, ...] = (50, 100, 200, 400, 800)
    """Lengths of history in bars, each at most half of what there is."""
    json: bool = False
    """One JSON object on standard output instead of a table."""


def check_causality(command: CheckCausality) -> int:
    """Print what looks ahead; 1 if anything does, else 0.

    Raises:
      UserError: bars or features cannot be used.
    """
    frame = _frame(command)
    _use_jax()
    from ztb_jax.features import causality

    with redirect_stdout(sys.stderr):  # what a user's code prints is not the answer
        found = causality.check_causality(
            command.recipe, frame, points=command.points, seed=command.seed, tolerance=command.tolerance
        )
    stamps = [str(frame.index[leak.bar]) for leak in found.leaks]
    if command.json:
        _print_json(
            recipe=command.recipe,
            num_bars=len(frame),
            bars=found.bars,
            features=found.names,
            causal=not found.leaks,
            leaks=[
                leak._asdict() | {"stamp": stamp} for leak, stamp in zip(found.leaks, stamps, strict=True)
            ],
        )
        return 1 if found.leaks else 0
    features = f"{len(found.names)} feature{'s' * (len(found.names) != 1)}"
    sys.stdout.write(
        f"{command.recipe}: {features} of {len(frame):,} bars, the future changed after "
        f"{len(found.bars):,} of them\n"
    )
    if not found.leaks:
        sys.stdout.write("no feature looks ahead\n")
        return 0
    print_table(
        ("feature", "bars ahead", "first row", "of", "moves by", "shown by"),
        [
            (
                leak.feature,
                f"{leak.ahead:,}",
                f"{leak.bar:,}",
                stamp,
                f"{leak.difference:.2g}" if leak.difference else "NaN",
                ", ".join(leak.shown_by),
            )
            for leak, stamp in zip(found.leaks, stamps, strict=True)
        ],
        right=("bars ahead", "first row", "moves by"),
    )
    remedies = dict.fromkeys(map(causality.remedy, found.leaks))
    sys.stdout.write("".join(f"{remedy}\n" for remedy in remedies))
    return 1


def check_recursive(command: CheckRecursive) -> int:
    """Print how much history each feature needs; 1 if one does not settle within the longest, else 0.

    Raises:
      UserError: bars or features cannot be used.
    """
    frame = _frame(command)
    _use_jax()
    from ztb_jax.features import recursive

    with redirect_stdout(sys.stderr):
        found = recursive.check_recursive(command.recipe, frame, starts=command.starts)
    if command.json:
        _print_json(
            recipe=command.recipe,
            num_bars=len(frame),
            bars=found.bars,
            starts=found.starts,
            settled=not found.unsettled,
            features=[
                memory._asdict() | {"differences": [_number(each) for each in memory.differences]}
                for memory in found.memories
            ],
        )
    else:
        near, close = f"to {recursive.NEAR:g}", f"to {recursive.CLOSE:g}"
        lengths = [f"{start:,} bars" for start in found.starts]
        print_table(
            ("feature", *lengths, near, close),
            [
                (
                    memory.feature,
                    *map(_deviations, memory.differences),
                    *("never" if bars is None else f"{bars:,} bars" for bars in (memory.near, memory.close)),
                )
                for memory in found.memories
            ],
            right=(*lengths, near),
        )
        sys.stdout.write(
            "differences to the whole history, in deviations of the feature; – is not known\n"
            + "".join(f"{line}\n" for line in found.sentences())
        )
    return 1 if found.unsettled else 0


def _frame(command: _Features) -> pd.DataFrame:
    if command.source is None:
        return load_bars(command.symbol, command.timeframe, cache_dir=command.cache_dir.expanduser())
    reading, findings = check_file(command.source, canonical_timeframe(command.timeframe))
    if findings:
        mend = f"`ztb data check {command.source} {command.timeframe}` says whether an import can mend it"
        raise DataError([*(f"{command.source}: {finding}" for finding in findings), mend])
    return reading.frame


def _use_jax() -> None:
    from ztb_jax.runs import loop

    loop.use_compilation_cache()


def _deviations(difference: float) -> str:
    return f"{difference:.2g}" if math.isfinite(difference) else "–"


def _number(difference: float) -> float | None:
    """JSON has none but finite numbers."""
    return difference if math.isfinite(difference) else None


def _print_json(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts, indent=2, allow_nan=False) + "\n")
