"""Randomness is split by name, so that each key is used once and a reader sees for what."""

import jax


def split_named(key: jax.Array, *names: str) -> dict[str, jax.Array]:
    """One independent key for each name.

    Args:
      key: [] typed key.
      names: distinct.
    """
    return dict(zip(names, jax.random.split(key, len(names)), strict=True))
