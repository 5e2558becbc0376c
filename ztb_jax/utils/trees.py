"""Any nested state as arrays that orbax stores and a form, of what JSON can hold, that puts them together.

A form is a list that begins with its kind:

  ["none"]  ["bool", true]  ["int", "0x2a"]  ["float", bits]  ["complex", bits, bits]  ["str", text]
  ["jax", name]  ["numpy", name]  ["scalar", name]  ["key", name, implementation]
  ["dict", [[form of key, form], ...]]  ["list", [form, ...]]  ["tuple", [form, ...]]
  ["node", type, [[key, form], ...]]

`name` is that of a stored array. A node is of a type that is registered with JAX: named tuples, states of
optax and flax. Its type is not stored, so it is put together from an example.
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

DEEPEST = 100
NUMBERS = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e5m2"),
}
ABSENT = object()


class Parts(NamedTuple):
    """A state taken apart.

    Attributes:
      form: how it is put together.
      arrays: what is stored, by name.
    """

    form: list[Any]
    arrays: dict[str, np.ndarray]


def take_apart(state: Any, root: str = "state") -> Parts:
    """The parts of `state`, copied: neither a donation nor an assignment changes them later.

    Args:
      state: dicts, lists, tuples and pytrees of arrays, numbers, strings, bools and None, nested.
      root: what errors call it.

    Raises:
      TypeError: a part that cannot be saved, by its path.
      ValueError: an array that cannot be read, likewise; or the state contains itself.
    """
    found: list[tuple[str, Any]] = []
    form = _taken(state, root, 0, found)
    return Parts(form, {str(number): _on_host(value, path) for number, (path, value) in enumerate(found)})


def put_together(
    form: list[Any], arrays: Mapping[str, np.ndarray], like: Any = ABSENT, root: str = "state"
) -> Any:
    """What `take_apart` took apart; arrays of JAX are where those of `like` are.

    Args:
      form: of `take_apart`.
      arrays: likewise, as they were read.
      like: an example; needed for nodes, whose types and static fields come from it.
      root: what errors call it.

    Raises:
      ValueError: `like` is needed or does not fit, or `jax_enable_x64` is needed.
    """
    return _built(form, arrays, like, root)


def described(arrays: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """Dtype and shape of each, of what JSON can hold."""
    return {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()}


def stand_ins(told: Mapping[str, list[Any]]) -> dict[str, np.ndarray]:
    """Arrays, of no size in memory, that are `described` so."""
    return {
        name: np.broadcast_to(np.zeros((), jnp.dtype(dtype)), tuple(shape))
        for name, (dtype, shape) in told.items()
    }


def _taken(value: Any, path: str, depth: int, found: list[tuple[str, Any]]) -> list[Any]:
    if depth > DEEPEST:
        raise ValueError(f"{path[:200]}… is nested more than {DEEPEST} deep: does it contain itself?")
    plain = _plain(value)
    if plain is not None:
        return plain
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _array(value, path, found)
    if type(value) is dict:
        pairs = ((_key(key, path), f"{path}/{key}", part) for key, part in value.items())
        return ["dict", [[key, _taken(part, name, depth + 1, found)] for key, name, part in pairs]]
    if type(value) in {list, tuple}:
        parts = [_taken(part, f"{path}/{i}", depth + 1, found) for i, part in enumerate(value)]
        return [type(value).__name__, parts]
    children = _children(value)
    if children is None:
        raise TypeError(
            f"{path} is of type {_type(value)} and cannot be saved: a state holds dicts, lists, tuples, "
            "pytrees, arrays, numbers, strings, bools and None; leave it out, or save the values that it is "
            "made from"
        )
    named = [[key, _taken(part, f"{path}/{key}", depth + 1, found)] for key, part in children[0]]
    return ["node", _type(value), named]


def _plain(value: Any) -> list[Any] | None:
    """The form of a Python value, None of any other."""
    kind = type(value)
    if kind in {bool, str}:
        return [kind.__name__, value]
    if kind is int:
        return ["int", hex(value)]  # of any length, which decimal digits are not
    if kind is float:
        return ["float", _bits(value)]
    if kind is complex:
        return ["complex", _bits(value.real), _bits(value.imag)]
    return ["none"] if value is None else None


def _key(key: Any, path: str) -> list[Any]:
    form = _plain(key)
    if form is None:
        raise TypeError(
            f"{path} has the key {key!r} of type {_type(key)}: keys are strings, numbers, bools or None"
        )
    return form


def _array(value: Any, path: str, found: list[tuple[str, Any]]) -> list[Any]:
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
        raise TypeError(f"{path} is of type {_type(value)} and cannot be saved: make it a plain array")
    name = str(len(found))
    found.append((path, value))
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return ["key", name, str(jax.random.key_impl(value))]
    if value.dtype.name not in NUMBERS or not value.dtype.isnative:
        raise TypeError(
            f"{path} is an array of {value.dtype}, which cannot be saved: turn it into numbers in this "
            "machine's byte order"
        )
    if isinstance(value, jax.Array):
        return ["jax", name]
    return ["numpy" if isinstance(value, np.ndarray) else "scalar", name]


def _on_host(value: Any, path: str) -> np.ndarray:
    try:
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        # A view of a JAX array on the host keeps its buffer from being donated; NumPy's may be assigned to.
        host = np.asarray(value) if isinstance(value, jax.Array) else np.array(value)
        return np.ascontiguousarray(host).reshape(host.shape)
    except (RuntimeError, TypeError) as error:
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path} cannot be read, so it cannot be saved: {cause}") from error


def _children(value: Any) -> tuple[list[tuple[str, Any]], Any] | None:
    """Key and part of each child of a node, and what puts them together; None of what is no node."""
    parts, structure = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda part: part is not value)
    if parts and not parts[0][0]:
        return None
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), part) for path, part in parts], structure


def _built(form: list[Any], whole: Mapping[str, np.ndarray], like: Any, path: str) -> Any:
    kind, *rest = form
    if kind == "node":
        return _node(rest[0], rest[1], whole, like, path)
    if kind == "dict":
        return _dict(rest[0], whole, like, path)
    if kind in {"list", "tuple"}:
        return _sequence({"list": list, "tuple": tuple}[kind], rest[0], whole, like, path)
    if kind in {"jax", "numpy", "scalar", "key"}:
        return _placed(_as_it_was(kind, rest, whole, path), like, path)
    value = _unplain(form)
    if like is not ABSENT and type(like) is not type(value):
        raise _misfit(path, value, like)
    return value


def _dict(pairs: list[Any], whole: Mapping[str, np.ndarray], like: Any, path: str) -> dict[Any, Any]:
    keyed = [(_unplain(key), form) for key, form in pairs]
    if like is not ABSENT and (type(like) is not dict or like.keys() != {key for key, _ in keyed}):
        raise _misfit(path, dict(keyed), like)
    return {
        key: _built(form, whole, like if like is ABSENT else like[key], f"{path}/{key}")
        for key, form in keyed
    }


def _sequence(kind: type, forms: list[Any], whole: Mapping[str, np.ndarray], like: Any, path: str) -> Any:
    if like is ABSENT:
        likes: Any = [ABSENT] * len(forms)
    elif type(like) is kind and len(like) == len(forms):
        likes = like
    else:
        raise _misfit(path, kind(forms), like)
    return kind(_built(form, whole, likes[i], f"{path}/{i}") for i, form in enumerate(forms))


def _node(name: str, pairs: list[Any], whole: Mapping[str, np.ndarray], like: Any, path: str) -> Any:
    if like is ABSENT:
        raise ValueError(
            f"{path} is of type {name}, which is not stored: give `like=`, a state of the same structure "
            "whose values do not matter, such as the one that training began with"
        )
    children = _children(like) if type(like).__qualname__ == name.rpartition(":")[2] else None
    if children is None:
        raise ValueError(f"{path} is of type {name}, and `like` has {_called(like)} there")
    likes, structure = children
    if [key for key, _ in likes] != [key for key, _ in pairs]:
        raise ValueError(
            f"{path} has {[key for key, _ in pairs]}, and `like` has {[key for key, _ in likes]}"
        )
    parts = [
        _built(form, whole, part, f"{path}/{key}")
        for (key, form), (_, part) in zip(pairs, likes, strict=True)
    ]
    return jax.tree.unflatten(structure, parts)


def _as_it_was(kind: str, rest: list[Any], whole: Mapping[str, np.ndarray], path: str) -> Any:
    """The array of a form."""
    array = whole[rest[0]]
    if kind == "key":
        return jax.random.wrap_key_data(jnp.asarray(array), impl=rest[1])
    if kind == "numpy":
        return array
    if kind == "scalar":
        return array[()]
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(
            f"{path} is an array of {array.dtype}: load it after jax.config.update('jax_enable_x64', True)"
        )
    return jnp.asarray(array)


def _placed(value: Any, like: Any, path: str) -> Any:
    """`value` on the devices of `like`, where that says any."""
    if like is ABSENT:
        return value
    if (getattr(like, "shape", None), getattr(like, "dtype", None)) != (value.shape, value.dtype):
        raise _misfit(path, value, like)
    if not isinstance(value, jax.Array):
        return value
    asked = isinstance(like, jax.ShapeDtypeStruct) or (isinstance(like, jax.Array) and like.committed)
    return jax.device_put(value, like.sharding) if asked and like.sharding is not None else value


def _misfit(path: str, value: Any, like: Any) -> ValueError:
    return ValueError(
        f"{path} is {_called(value)}, and `like` has {_called(like)} there: give a state of the same "
        "structure"
    )


def _called(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    if type(value) is dict:
        return f"a dict of {list(value)}"
    if type(value) in {list, tuple}:
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"


def _type(value: Any) -> str:
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def _unbits(bits: str) -> float:
    return struct.unpack(">d", bytes.fromhex(bits))[0]


def _unplain(form: list[Any]) -> Any:
    kind, *rest = form
    if kind in {"bool", "str"}:
        return rest[0]
    if kind == "int":
        return int(rest[0], 16)
    if kind == "float":
        return _unbits(rest[0])
    if kind == "complex":
        return complex(_unbits(rest[0]), _unbits(rest[1]))
    return None
