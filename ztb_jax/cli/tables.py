"""What commands write for a person: tables whose ids and numbers stay whole, and pages. Imports no jax."""

import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ztb_jax.errors import RunError
from ztb_jax.runs import directory

LEAST = 30  # columns that the last cell gets beside the others; with fewer it goes below them
GAP = "  "


def clean(text: Any) -> str:
    """Text of a file without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def growth(fraction: float) -> str:
    """A return as a percentage, or as a multiple of the start where a percentage is beyond reading."""
    return f"{fraction:+.1%}" if abs(fraction) < 100.0 else f"×{1.0 + fraction:,.3g}"


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print a table whose last column may be cut at the end of the line; off a terminal nothing is cut.

    Args:
      names: of the columns.
      rows: a cell for each, on one line.
      right: names of columns of numbers.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    sys.stdout.write("\n".join(table_lines(names, rows, width=width, right=right)) + "\n")


def table_lines(
    names: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None, right: Collection[str] = ()
) -> list[str]:
    """The lines of a table in `width` columns, None for as many as it takes."""
    cells = [list(names), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names) - 1)]
    taken = sum(widths) + len(GAP) * len(widths)
    below = width is not None and width - taken < LEAST
    lines = []
    for row in cells:
        parts = [
            cell.rjust(size) if name in right else cell.ljust(size)
            for name, cell, size in zip(names, row, widths, strict=False)
        ]
        if not below:
            lines.append(_cut(GAP.join([*parts, row[-1]]), width))
            continue
        lines.append(GAP.join(parts).rstrip())
        if row is not cells[0] and row[-1]:
            lines.append(_cut(GAP + row[-1], width))
    return lines


def _cut(line: str, width: int | None) -> str:
    line = line.rstrip()
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"


def write_page(path: Path, text: str) -> None:
    """Write a page where the user wants it.

    Raises:
      RunError: it cannot be written there.
    """
    try:
        directory.write_text(path, text)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror}; give --page a file in a folder that is there"
        ) from None
