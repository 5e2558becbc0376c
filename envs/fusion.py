"""Telling the compiler where to stop copying, how to add up, and not to round."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def materialise(tree: Tree) -> Tree:
    """`tree`, bit for bit, each of its float32 leaves computed once.

    XLA for CPUs fuses a cheap producer into every one of its consumers and computes it again in each: a bar
    of the full simulator then costs almost twice the arithmetic. It does not copy a division that several
    consumers need, so this divides by a one that the compiler cannot know to be one. It is made of the leaf
    itself: a division by something smaller that is broadcast would become a multiplication, which is copied.
    An `optimization_barrier` is removed before fusion and changes nothing.
    """

    def once(leaf):
        # Half of infinity is infinity.
        return leaf / jnp.where(jnp.isinf(leaf), 2.0, 1.0) if leaf.dtype == jnp.float32 else leaf

    return jax.tree.map(once, tree)


def total(values: jax.Array) -> jax.Array:
    """Sum over the last axis: halves are added to one another until one number is left.

    A reduction over the few instruments of an account is a kernel of its own, which XLA for CPUs neither
    vectorises over accounts nor fuses with what makes the numbers; additions of slices it does.
    """
    return _folded(jnp.add, values)


def largest(values: jax.Array) -> jax.Array:
    """Maximum over the last axis, in halves as `total`."""
    return _folded(jnp.maximum, values)


def smallest(values: jax.Array) -> jax.Array:
    """Minimum over the last axis, in halves as `total`."""
    return _folded(jnp.minimum, values)


def norm(vector: jax.Array) -> jax.Array:
    """[...] Euclidean norm over the last axis, added up as `total` does."""
    return jnp.sqrt(total(jnp.square(vector)))


def product(left: Any, right: Any) -> jax.Array:
    """`left @ right` in float32 throughout: by default accelerators round the factors first."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def _folded(combine, values):
    size = values.shape[-1]
    while size > 1:
        half = size // 2
        pair = combine(values[..., :half], values[..., half : 2 * half])
        values = jnp.concatenate([pair, values[..., 2 * half :]], axis=-1) if size % 2 else pair
        size -= half
    return values[..., 0]
