"""A user's own features by name, `module:attribute` or `path/to/file.py:attribute`, and what a function gave.

Whatever goes wrong in a user's code is told with its place, for it is theirs to mend.
"""

import difflib
import hashlib
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, reduce
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ztb_jax.errors import ConfigError, UserError

FORMS = "module:attribute or path/to/file.py:attribute"


class Own(NamedTuple):
    """What a name of the user's stands for.

    Attributes:
      made: the object itself.
      sha256: hex digest of the file that it was read from.
    """

    made: Any
    sha256: str


def is_own(name: str) -> bool:
    """Whether `name` is of a user's code, not of a built-in recipe."""
    return ":" in name


def load(name: str) -> Own:
    """Import what `name` stands for.

    A module is looked for among the installed ones, then in the working directory; a file may import its
    neighbours. A file is read anew at every call, and run again only where it has changed.

    Raises:
      ConfigError: it cannot be found or imported, or has no such attribute.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ConfigError(f"features {name!r} name nothing: write {FORMS}")
    is_file = place.endswith(".py") or "/" in place
    module, path, source = _of_file(Path(place), name) if is_file else _of_module(place, name)
    try:
        made = reduce(getattr, attribute.split("."), module)
    except AttributeError:
        near = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"did you mean {near[0]}?" if near else "define it there, or give another"
        raise ConfigError(f"features {name!r}: {path} has no {attribute}; {hint}") from None
    return Own(made, hashlib.sha256(source).hexdigest())


def _of_file(path: Path, name: str) -> tuple[ModuleType, Path, bytes]:
    path = path.expanduser().resolve()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"features {name!r}: cannot read {path}: {error.strerror}; a relative path begins at the working "
            "directory"
        ) from None
    with blamed(f"features {name!r}: importing {path}"):
        return _run(path, source), path, source


@cache
def _run(path: Path, source: bytes) -> ModuleType:
    """The module that a file makes; by its bytes, since bytecode kept by time would miss a quick change."""
    _find_in(path.parent)
    module = ModuleType(f"ztb_own_{hashlib.sha256(str(path).encode() + source).hexdigest()[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look for it
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _of_module(place: str, name: str) -> tuple[ModuleType, Path, bytes]:
    _find_in(Path.cwd())
    with blamed(f"features {name!r}: importing {place}"):
        try:
            module = import_module(place)
        except ModuleNotFoundError as error:
            if not f"{place}.".startswith(f"{error.name}."):
                raise  # it is there, and imports another that is not
            raise ConfigError(
                f"features {name!r}: there is no module {place}, neither installed nor in the working "
                f"directory {Path.cwd()}; write {FORMS}"
            ) from None
    file = getattr(module, "__file__", None)  # one that is built in, and a folder, have none
    if file is None:
        raise ConfigError(f"features {name!r}: {place} is no file of Python; write {FORMS}")
    path = Path(file)
    return module, path, path.read_bytes()


def _find_in(folder: Path) -> None:
    """Last of all, so that nothing there hides an installed package."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """Turns what a user's code raises into a `ConfigError` that tells where.

    Raises:
      ConfigError: anything but a `UserError`, which tells enough itself, or a lack of memory was raised.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # the boundary to code of others, which may raise anything
        cause = " ".join(str(error).split())
        told = f"{type(error).__name__}: {cause}" if cause else type(error).__name__
        raise ConfigError(f"{what} raised {told}{_place(error)}; mend it there") from error


def _place(error: BaseException) -> str:
    """Where it was raised: the last line that is neither ours nor a library's, if there is one."""
    others = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), "<")
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(others) and "site-packages" not in frame.filename:
            return f" ({frame.filename}, line {frame.lineno}, in {frame.name})"
    return ""


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called in messages."""
    return getattr(function, "__name__", type(function).__name__)


def table_of(result: Any, index: pd.Index, *, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """values [T, F] float64 and F names of what a function of a frame with `index` [T] gave.

    Args:
      result: a DataFrame or Series with that index, or an array [T, F] or [T].
      index: of the frame.
      name: of the function, for messages.

    Raises:
      ConfigError: another shape or other stamps, names that are not unique, or no numbers.
    """
    wanted = f"{name} must give a DataFrame with the frame's index, or an array [bars, features]"
    if isinstance(result, pd.DataFrame | pd.Series) and not result.index.equals(index):
        raise ConfigError(
            f"{wanted}: it gave {len(result)} rows for {len(index)} bars, or rows with other stamps; leave "
            "NaN where a value is not known"
        )
    table = result.to_frame(result.name or name) if isinstance(result, pd.Series) else result
    try:
        values = np.array(table, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{wanted}: what it gave are no numbers ({error})") from None
    if values.ndim == 1 and len(index) == len(values):
        values = values[:, None]
    if values.ndim != 2 or len(values) != len(index) or values.shape[1] == 0:
        raise ConfigError(f"{wanted}: it gave {list(values.shape)} for {len(index)} bars")
    if isinstance(table, pd.DataFrame):
        names = tuple(map(str, table.columns))
    else:
        names = tuple(f"{name}_{column}" for column in range(values.shape[1]))
    if twice := sorted({each for each in names if names.count(each) > 1}):
        raise ConfigError(f"{name} gives features of one name twice: {', '.join(twice)}; rename them")
    return values, names
