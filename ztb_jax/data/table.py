"""A file of any accepted kind as columns of cells, each row keeping its number in the file."""

import csv
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ztb_jax.errors import DataError

_SHOWN = 5
_DELIMITERS = ("\t", ";", ",", "|")
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip (or a spreadsheet)", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_EXAMPLE = "`time,open,high,low,close,volume`"


class Table(NamedTuple):
    """Cells as they were written.

    Attributes:
      names: [C] column names as the file spells them.
      columns: [C] Series of [T] cells: text for CSV and TSV, typed for Parquet.
      rows: [T] row number in the file; the header of a text file is row 1, the first of Parquet is 1.
      sha256: of the file's bytes.
    """

    names: list[str]
    columns: list[pd.Series]
    rows: np.ndarray
    sha256: str


def read_table(path: Path) -> Table:
    """The table in a CSV, TSV or Parquet file; the kind and the delimiter follow from the content.

    Raises:
      DataError: unreadable, empty, packed or binary, ragged rows (each named), or a header without rows.
    """
    data = _read_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if data.startswith(b"PAR1"):
        table = _parquet(path, data)
        rows = np.arange(1, table.num_rows + 1)
    else:
        table, rows = _text(path, _as_utf8(path, data))
    if table.num_rows == 0:
        raise DataError(f"{path} has a header and no rows. Export it again with bars below {_EXAMPLE}.")
    names = [str(name) for name in table.column_names]
    columns = [table.column(i).to_pandas().rename(name) for i, name in enumerate(names)]
    return Table(names, columns, rows, sha256)


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}. Give the path of a CSV, TSV or Parquet file."
        ) from error
    if not data.strip():
        raise DataError(f"{path} is empty. Give a file with a header such as {_EXAMPLE} and one bar a row.")
    return data


def _as_utf8(path: Path, data: bytes) -> bytes:
    """The text of the file as UTF-8 without a byte order mark."""
    for magic, kind in _PACKED.items():
        if data.startswith(magic):
            raise DataError(f"{path} is a {kind} file. Unpack or export it to CSV, TSV or Parquet first.")
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text: byte {error.start} is not {error.encoding}. Save it as CSV in UTF-8, or as "
            "Parquet."
        ) from error
    if "\x00" in text:
        raise DataError(f"{path} is binary: it holds zero bytes. Give a CSV, TSV or Parquet file.")
    return text.encode()


def _parquet(path: Path, data: bytes) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is a damaged Parquet file: {reason} Write or download it again.") from error


def _text(path: Path, data: bytes) -> tuple[pa.Table, np.ndarray]:
    """The table of a delimited text, all cells as text, and the line number of each row."""
    header = data.lstrip(b"\r\n").splitlines()[0].decode()
    delimiter = max(_DELIMITERS, key=header.count)
    names = next(csv.reader([header], delimiter=delimiter))
    if len(names) < 2:
        raise DataError(
            f"{path} has no columns: its first line {header[:80]!r} holds no tab, comma, semicolon or bar. "
            f"Begin the file with a header such as {_EXAMPLE}."
        )
    ragged: list[pacsv.InvalidRow] = []

    def note(row: pacsv.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    try:
        table = pacsv.read_csv(
            pa.BufferReader(data),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=1 << 26),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, invalid_row_handler=note),
            convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is malformed: {error}. Export it again as plain CSV.") from error
    lines = _lines(data, table.num_rows + len(ragged) + 1)
    if ragged:
        raise DataError([_ragged(path, row, lines) for row in ragged[:_SHOWN]] + _more(len(ragged)))
    return table, lines[1:]


def _lines(data: bytes, num_rows: int) -> np.ndarray:
    """[num_rows] line number of each row, header first; blank lines hold no row."""
    lines = np.flatnonzero([line != b"" for line in data.splitlines()]) + 1
    return lines if len(lines) == num_rows else np.arange(1, num_rows + 1)


def _ragged(path: Path, row: pacsv.InvalidRow, lines: np.ndarray) -> str:
    return (
        f"{path} row {lines[row.number - 1]} has {row.actual_columns} cells where the header has "
        f"{row.expected_columns}: {row.text[:80]!r}. Complete or delete the row."
    )


def _more(count: int) -> list[str]:
    return [f"and {count - _SHOWN} more rows of the wrong length."] if count > _SHOWN else []
