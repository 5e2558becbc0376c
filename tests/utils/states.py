"""States for the tests of `ztb_jax.utils`, and whether two are the same to the bit."""

import asyncio
import os
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ztb_jax.utils import CheckpointManager

ROOT = Path(__file__).resolve().parents[2]


def a_state(number: int) -> dict[str, Any]:
    """Something of every kind that comes back without an example."""
    key = jax.random.key(number)
    return {
        "params": {"dense": [jax.random.normal(key, (3, 4)), jnp.ones(2, jnp.bfloat16) * number]},
        "key": key,
        "keys": jax.random.split(jax.random.key(number, impl="rbg"), (2, 2)),
        "empty": [np.zeros((0, 2)), jnp.zeros(0, jnp.int32)],
        "prices": np.arange(3, dtype=np.float64) / 3 + number,
        "volume": np.int64(2**40 + number),
        "step": number,
        "learning_rate": 0.1 * number,
        "history": [(1, 0.1 + 0.2), (2, float("inf")), (), []],
        "done": False,
        "note": None,
        7: "seven",
    }


def same(one: Any, other: Any) -> bool:
    """Whether types, structure and bits are the same."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, jax.Array | np.ndarray | np.generic):
        return _same_arrays(one, other)
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, complex):
        return same((one.real, one.imag), (other.real, other.imag))
    return one == other


def _same_arrays(one: Any, other: Any) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    return np.asarray(one).tobytes() == np.asarray(other).tobytes()


def damage(generation: Path, name: str = "_METADATA") -> None:
    """Add a byte to a file of a generation."""
    path = next(generation.rglob(name))
    path.write_bytes(path.read_bytes() + b"!")


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def quietly(function: Any, *arguments: Any, **named: Any) -> tuple[Any, list[str]]:
    """The result of a call and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*arguments, **named)
    return result, [str(each.message) for each in caught]


def save(manager: CheckpointManager, *states: tuple[object, str]) -> list[int]:
    """Each state by its experiment, one after another."""

    async def saving() -> list[int]:
        return [await manager.save_async(state, name) for state, name in states]

    return asyncio.run(saving())


def script(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A program of its own."""
    head = "import asyncio, os, sys\nimport numpy as np\nfrom ztb_jax.utils import CheckpointManager\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def said(process: subprocess.Popen[str], *, status: int = 0) -> str:
    """What it printed, once it has ended with that status."""
    out, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    return out
