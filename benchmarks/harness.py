"""Timing that separates compiling from running, tables beside the bars they must reach, and exit status.

Everything compared is run interleaved, A B A B …, in one process, and the median of the repeats is quoted
with its spread.
"""

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from ztb_jax import devices


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
      name: what was measured.
      value: the median, or the figure itself.
      unit: of the value.
      low: smallest of the repeats, or None where there is one value.
      high: largest of the repeats.
      bar: what it must reach, or None for a figure that is only told.
      note: work done, learning result, sizes.
    """

    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    bar: float | None = None
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the bar, if any, was reached."""
        return self.bar is None or bool(self.value >= self.bar)


def in_turn(ways: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, after one call that warms up.

    The order turns round from repeat to repeat, so that none is always after the same.
    """
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(repeats):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            started = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def timed(run: Callable[[], Any]) -> float:
    """Seconds that `run` takes until its result is on the host's side of the queue."""
    started = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - started


def interleave(runs: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat of each run, in turn; every run goes once before, uncounted."""
    for run in runs.values():
        timed(run)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(timed(run))
    return seconds


def rate_row(name: str, work: float, seconds: list[float], *, unit: str, **rest: Any) -> Row:
    """A row of `work` over the repeats' seconds."""
    rates = [work / second for second in seconds]
    return Row(name, statistics.median(rates), unit, min(rates), max(rates), **rest)


def matmul(size: int = 2048) -> tuple[Callable[[], Any], float]:
    """A float32 product of `size` squared matrices, compiled, and its floating-point operations."""
    product = jax.jit(lambda a: a @ a)
    matrix = jnp.ones((size, size), jnp.float32)
    return lambda: product(matrix), 2.0 * size**3


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    root = Path(__file__).resolve().parents[1]
    described = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=9"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "device": f"{jax.devices()[0].platform} {jax.devices()[0].device_kind}",
        "processor": devices.processor(),
        "cores": devices.cores(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")},
        "commit": described or "unknown",
    }


def finish(title: str, rows: list[Row], *, json_file: Path | None) -> int:
    """Print the table, write the JSON, and return 0, or 1 when a bar was missed."""
    console = Console(width=160)
    facts = machine()
    table = Table("figure", "median", "min – max", "bar", "", "note", title=title)
    for row in rows:
        spread = "" if row.low is None or row.high is None else f"{row.low:,.4g} – {row.high:,.4g}"
        bar = "" if row.bar is None else f"≥ {row.bar:,.4g}"
        mark = "" if row.bar is None else ("reached" if row.reached else "MISSED")
        table.add_row(row.name, f"{row.value:,.4g} {row.unit}", spread, bar, mark, row.note)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)
    if json_file is not None:
        rows_out = [asdict(row) | {"value": float(row.value), "reached": row.reached} for row in rows]
        json_file.write_text(
            json.dumps({"title": title, "machine": facts, "rows": rows_out}, indent=2) + "\n"
        )
    return 0 if all(row.reached for row in rows) else 1
