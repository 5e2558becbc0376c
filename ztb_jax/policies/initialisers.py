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
        orthonormal, upper = jnp.linalg.qr(normal)
        orthonormal *= jnp.where(jnp.diagonal(upper) < 0.0, -1.0, 1.0)[None]
        unit = orthonormal if rows >= columns else orthonormal.T
        return (unit * jnp.broadcast_to(jnp.asarray(scale), (columns,))[None]).astype(dtype)

    return init
