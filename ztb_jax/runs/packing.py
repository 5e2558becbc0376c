"""Leaves of pytrees as bytes: their names, forms and hashes, and how checkpoints hold them."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PACK = "pack"
SMALL = 1 << 20  # bytes below which leaves go into one array: an array of its own takes orbax a millisecond


class _Held(np.ndarray):
    """An array that nobody writes to, so that orbax need not copy it before a save returns."""

    def __deepcopy__(self, memo: Any) -> "_Held":
        return self


def digests(trees: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of dtype, shape and bytes of every leaf, by tree and path."""
    return {name: digest(_seen(leaf)) for name, leaf in named(trees)}


def named(trees: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every leaf with its tree and path."""
    for name, tree in trees.items():
        for path, leaf in jax.tree.leaves_with_path(tree):
            yield "/".join([name, jax.tree_util.keystr(path, simple=True, separator="/")]), leaf


def forms(trees: Mapping[str, Any]) -> dict[str, str]:
    """Dtype and shape of every leaf, or of what stands for it."""
    return {
        name: f"{getattr(leaf, 'dtype', np.result_type(type(leaf)))}{list(np.shape(leaf))}"
        for name, leaf in named(trees)
    }


def chained(before: str, leaves: Mapping[str, str]) -> str:
    """SHA-256 of a digest and of everything in a generation: equal chains had equal bits all along."""
    return hashlib.sha256(json.dumps([before, dict(leaves)], sort_keys=True).encode()).hexdigest()


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)


def _seen(leaf: Any) -> np.ndarray:
    """A leaf on the host, without a copy where there is none to make; of keys their words."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def on_host(leaf: Any) -> np.ndarray:
    """What outlives the donation of `leaf`.

    On a CPU it is a view, for JAX does not donate what is seen from outside. What is not JAX's is copied.
    """
    return _seen(leaf) if isinstance(leaf, jax.Array) else np.array(leaf)


def packed(held: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The bytes of every leaf: large ones by their number, the others one after the other."""
    arrays: dict[str, np.ndarray] = {}
    small = [np.zeros(1, np.uint8)]  # orbax saves no empty array
    for number, values in enumerate(held.values()):
        flat = _bytes_of(values)
        if flat.size < SMALL:
            small.append(flat)
        else:
            arrays[str(number)] = flat.view(_Held)
    return arrays | {PACK: np.concatenate(small).view(_Held)}


def packed_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes of every array that `packed` makes of leaves of `sizes` bytes."""
    large = {str(number): size for number, size in enumerate(sizes.values()) if size >= SMALL}
    return large | {PACK: 1 + sum(size for size in sizes.values() if size < SMALL)}


def unpacked(arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The bytes of every leaf by its name, out of what `packed` made of leaves of `sizes` bytes."""
    found, at = {}, 1
    for number, (name, size) in enumerate(sizes.items()):
        if size >= SMALL:
            found[name] = arrays[str(number)]
        else:
            found[name], at = arrays[PACK][at : at + size], at + size
    return found


def leaf_of(flat: np.ndarray, like: Any) -> Any:
    """A leaf out of its bytes, where `like` is; NumPy's where that is NumPy's or a plain number."""
    if _is_key(like):
        words = jax.eval_shape(jax.random.key_data, like)
        impl = jax.random.key_impl(jnp.empty((), like.dtype))
        values = jax.random.wrap_key_data(jnp.asarray(flat.view(words.dtype).reshape(words.shape)), impl=impl)
    else:
        dtype = getattr(like, "dtype", np.result_type(type(like)))
        values = np.ascontiguousarray(flat).view(dtype).reshape(np.shape(like))
    if not isinstance(like, jax.Array | jax.ShapeDtypeStruct):
        return values.copy()
    return jnp.asarray(values) if like.sharding is None else jax.device_put(values, like.sharding)


def _bytes_of(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def digest(values: np.ndarray) -> str:
    """SHA-256 of dtype, shape and bytes."""
    told = hashlib.sha256(f"{values.dtype} {values.shape} ".encode())
    told.update(_bytes_of(values).data)
    return told.hexdigest()
