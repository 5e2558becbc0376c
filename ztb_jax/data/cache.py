"""The Parquet cache of bars: one file per symbol and timeframe, written atomically and verified when read."""

import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ztb_jax.data.frame import COLUMNS, as_frame, canonical_timeframe, content_hash
from ztb_jax.errors import DataError

_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_METADATA = b"ztb_jax.entry"


@dataclass(frozen=True)
class Entry:
    """What a cache file says of itself.

    Attributes:
      symbol: as imported.
      timeframe: canonical.
      source: name of the file it was imported from, without its folder.
      source_sha256: of that file's bytes.
      content_sha256: `content_hash` of the frame.
      num_rows: bars.
      first: stamp of the first bar, ISO.
      last: stamp of the last bar, ISO.
    """

    symbol: str
    timeframe: str
    source: str
    source_sha256: str
    content_sha256: str
    num_rows: int
    first: str
    last: str


class Listing(NamedTuple):
    """What is in a cache: its entries, and the files among them that cannot be read."""

    entries: tuple[Entry, ...]
    damaged: tuple[Path, ...]


def default_cache_dir() -> Path:
    """The folder of ZTB_DATA__CACHE_DIR where that is set, else ~/.cache/ztb_jax/data."""
    given = os.environ.get("ZTB_DATA__CACHE_DIR")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "ztb_jax" / "data"


def cache_path(symbol: str, timeframe: str, *, cache_dir: Path) -> Path:
    """Where the bars of a symbol and timeframe lie: CACHE_DIR/SYMBOL/TIMEFRAME.parquet.

    Raises:
      DataError: a symbol that is no plain file name, or a timeframe that is not understood.
    """
    if not _SYMBOL.fullmatch(symbol):
        raise DataError(
            f"symbol {symbol!r} cannot name a file. Use up to 64 letters, digits, dots, dashes and "
            "underscores, "
            "beginning with a letter or digit, e.g. EURUSD or BTC-USD."
        )
    return cache_dir / symbol / f"{canonical_timeframe(timeframe)}.parquet"


def make_entry(symbol: str, timeframe: str, frame: pd.DataFrame, *, source: str, source_sha256: str) -> Entry:
    """The entry of a frame that was imported from a file named source."""
    return Entry(
        symbol=symbol,
        timeframe=canonical_timeframe(timeframe),
        source=source,
        source_sha256=source_sha256,
        content_sha256=content_hash(frame),
        num_rows=len(frame),
        first=str(frame.index[0]),
        last=str(frame.index[-1]),
    )


def write(frame: pd.DataFrame, entry: Entry, *, cache_dir: Path, replace: bool = False) -> Entry:
    """Put a frame into the cache; the entry that now stands there.

    The file is written beside its place, synced and moved over it, so that a crash leaves the old file or the
    new one. The same content again changes nothing.

    Raises:
      DataError: other bars are there and replace is False, or the folder cannot be written.
    """
    path = cache_path(entry.symbol, entry.timeframe, cache_dir=cache_dir)
    if path.exists() and not replace:
        standing = read_entry(path)
        if standing.content_sha256 == entry.content_sha256:
            return standing
        raise DataError(
            f"{entry.symbol} {entry.timeframe} is already in the cache with other bars: {standing.num_rows} "
            "from "
            f"{standing.source}, {standing.first} to {standing.last}. Import with `--replace` to overwrite "
            "it, or "
            "under another symbol."
        )
    table = pa.table({"time": pa.array(frame.index), **{name: pa.array(frame[name]) for name in COLUMNS}})
    table = table.replace_schema_metadata({_METADATA: json.dumps(asdict(entry)).encode()})
    try:
        _write_whole(table, path)
    except OSError as error:
        raise DataError(
            f"the cache {cache_dir} cannot be written: {error.strerror or error}. Choose another folder with "
            "`--cache-dir` or ZTB_DATA__CACHE_DIR."
        ) from error
    return entry


def read(symbol: str, timeframe: str, *, cache_dir: Path) -> tuple[pd.DataFrame, Entry]:
    """The bars of a symbol and timeframe, and their entry.

    Raises:
      DataError: no such file, or one that is damaged, foreign or changed since it was written.
    """
    path = cache_path(symbol, timeframe, cache_dir=cache_dir)
    entry = read_entry(path)
    if (entry.symbol, entry.timeframe) != (symbol, canonical_timeframe(timeframe)):
        raise _unusable(path, f"it holds {entry.symbol} {entry.timeframe}")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unusable(path, _first_line(error)) from error
    if table.column_names != ["time", *COLUMNS]:
        raise _unusable(path, f"its columns are {', '.join(table.column_names)}")
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    frame = as_frame(columns.pop("time"), columns)
    if content_hash(frame) != entry.content_sha256 or len(frame) != entry.num_rows:
        raise _unusable(path, "its bars do not have the hash it was written with")
    return frame, entry


def read_entry(path: Path) -> Entry:
    """What a cache file says of itself, from its footer alone.

    Raises:
      DataError: unreadable, no Parquet file, or not written by this cache.
    """
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unusable(path, _first_line(error)) from error
    if _METADATA not in metadata:
        raise _unusable(path, "it was not written by `ztb data load`")
    try:
        content = json.loads(metadata[_METADATA])
        return Entry(**{field.name: content[field.name] for field in fields(Entry)})
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(path, "its description is damaged") from error


def list_entries(cache_dir: Path) -> Listing:
    """All that is in a cache, by symbol and timeframe; an absent folder is an empty cache."""
    entries: list[Entry] = []
    damaged: list[Path] = []
    for path in sorted(cache_dir.glob("*/*.parquet")):
        try:
            entries.append(read_entry(path))
        except DataError:
            damaged.append(path)
    return Listing(tuple(entries), tuple(damaged))


def _write_whole(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _unusable(path: Path, reason: str) -> DataError:
    return DataError(
        f"the cache file {path} cannot be used: {reason}. Delete it, or import its bars again with "
        f"`ztb data load {path.parent.name} {path.stem} --from FILE --replace`."
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
