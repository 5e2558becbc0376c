"""`ztb runs`: what there is; `show RUN`: all that one tells of itself; `compare A B`: where runs differ."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from ztb_jax.cli import follow
from ztb_jax.cli.tables import print_table, write_page
from ztb_jax.errors import RunError
from ztb_jax.runs import directory, listing

WIDE = 240  # where nobody looks, sentences are not cut short
COLUMNS = ("run", "status", "started", "market", "steps", "done", "result")


@dataclass(frozen=True)
class Runs:
    """The runs of a folder, newest first; `show RUN` tells all of one, `compare A B` where some differ."""

    root: str = "runs"
    """Folder of runs."""
    status: Literal["running", "completed", "failed", "cancelled", "killed", "damaged"] | None = None
    """Only those; killed is one that nobody writes to any more, which `ztb resume` goes on with."""
    sort: str = "started_at"
    """Field to sort by, greatest first."""
    json: bool = False
    """One JSON array on standard output."""


@dataclass(frozen=True)
class Show:
    """All that a run tells of itself, as one JSON object; or how it goes, as long as it is under way."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    follow: bool = False
    """Tell of every window until the run has ended, with the exit status that `ztb train` has for it."""


@dataclass(frozen=True)
class Compare:
    """Where runs differ in their settings, and what came of them."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Two run directories or more."""
    json: bool = False
    """One JSON object on standard output."""
    page: Path | None = None
    """Write this file: the same with curves, one HTML page that needs no server."""


def main(arguments: list[str]) -> int:
    """List, show one, or compare some."""
    if arguments[:1] == ["show"]:
        return _show(tyro.cli(Show, args=arguments[1:], prog="ztb runs show"))
    if arguments[:1] == ["compare"]:
        return _compare(tyro.cli(Compare, args=arguments[1:], prog="ztb runs compare"))
    command = tyro.cli(Runs, args=arguments, prog="ztb runs")
    found = listing.list_runs(command.root, status=command.status, sort=command.sort)
    if command.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    print_table(COLUMNS, [_cells(run) for run in found], right=("steps", "done"))
    if not found:
        sys.stderr.write(f"ztb runs: there is no such run in {command.root}\n")
    return 0


def _show(command: Show) -> int:
    run = directory.find(command.run)
    if command.follow:
        return follow.follow(run)
    whole = {"summary": listing.summary(run), "config": directory.read_json(run.config)}
    for name, path in (("metadata", run.metadata), ("evaluation", run.evaluation)):
        whole[name] = directory.read_json(path) if path.is_file() else None
    sys.stdout.write(json.dumps(whole, indent=2) + "\n")
    return 0


def _compare(command: Compare) -> int:
    if len(command.runs) < 2:
        raise RunError(f"there is nothing to compare {len(command.runs)} run with: give two or more")
    runs = [directory.find(path) for path in command.runs]
    if command.page is not None:
        from ztb_jax.ui.page import compare_page

        write_page(command.page, compare_page(runs))
        sys.stdout.write(f"{command.page}\n")
        return 0
    found = listing.compare(runs)
    if command.json:
        sys.stdout.write(json.dumps({"runs": [str(run.path) for run in runs], **found}, indent=2) + "\n")
        return 0
    for title, rows in found.items():
        table = _table(title, *(run.id for run in runs))
        for name, values in rows.items():
            table.add_row(name, *map(_short, values))
        _print(table)
    return 0


def _short(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(*names: str) -> Table:
    table = Table(box=None)
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _print(table: Table) -> None:
    width = None if sys.stdout.isatty() else WIDE
    Console(width=width, highlight=False, markup=False).print(table)


def _cells(run: dict) -> tuple[str, ...]:
    started, steps, done = run["started_at"], run["env_steps_total"], run["fraction"]
    return (
        run["run_id"],
        run["status"],
        "–" if started is None else started[:16].replace("T", " "),
        "–" if run["symbol"] is None else f"{run['symbol']} {run['timeframe']}",
        "–" if steps is None else _counted(steps),
        "–" if done is None else f"{done:.0%}",
        listing.result(run) or "–",
    )


def _counted(steps: int) -> str:
    return f"{steps / 1e6:,.1f} M" if steps >= 1e6 else f"{steps:,}"
