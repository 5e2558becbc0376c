"""First weights of layers."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ztb_jax.keys import in_a_row


def orthogonal(scale: float | Sequence[float]) -> Callable[..., jax.Array]:
    """An initialiser of matrices with orthogonal columns, or rows where those are fewer, of length `scale`.

    Args:
      scale: of all columns, or of each.

    Returns:
      (key, shape (rows, columns), dtype) -> matrix, uniform over such matrices.

    Source: Saxe et al. 2013, https://arxiv.org/abs/1312.6120; the signs of R as in Mezzadri 2007,
    https://arxiv.org/abs/math-ph/0609050.
    """

    def init(key, shape, dtype=jnp.float32):
        rows, columns = shape
        normal = in_a_row(jax.random.normal, key, (max(shape), min(shape)))
        orthonormal, upper = _qr(normal)
        orthonormal *= jnp.where(jnp.diagonal(upper) < 0.0, -1.0, 1.0)[None]
        unit = orthonormal if rows >= columns else orthonormal.T
        return (unit * jnp.broadcast_to(jnp.asarray(scale), (columns,))[None]).astype(dtype)

    return init


@jax.custom_batching.sequential_vmap
def _qr(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of one matrix after the other, also under vmap.

    On a CPU a factorisation of many matrices spreads them over the threads that it runs on itself and waits:
    layers that are drawn side by side wait for each other for ever (jaxlib 0.10.2, `ParallelBatchMap`).
    """
    orthonormal, upper = jnp.linalg.qr(matrix)
    return orthonormal, upper
