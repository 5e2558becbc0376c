"""Running mean and variance, by merging one batch at a time."""

import jax
import jax.numpy as jnp
from flax import struct


class Moments(struct.PyTreeNode):
    """What has been seen so far.

    Attributes:
      count: [] float32, samples; it stops growing at 1e8, from where on old samples fade.
      mean: [...].
      variance: [...], of the samples themselves (not an estimate of a population's).
    """

    count: jax.Array
    mean: jax.Array
    variance: jax.Array

    @property
    def deviation(self) -> jax.Array:
        """[...] root of the variance, 1 where nothing has varied."""
        return jnp.where(self.variance > 0.0, jnp.sqrt(jnp.maximum(self.variance, 1e-12)), 1.0)


LARGEST_COUNT = 1e8  # beyond it float32 could not count on


def no_moments(shape: tuple[int, ...] = ()) -> Moments:
    """Of nothing: mean 0 and variance 1, replaced by the first batch whole."""
    return Moments(jnp.zeros((), jnp.float32), jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32))


def merged(moments: Moments, batch: jax.Array, *, axis_name: str | None = None) -> Moments:
    """`moments` with `batch` [N, ...] as well.

    Args:
      moments: of what came before, [...].
      batch: the new samples on the first axis.
      axis_name: a mesh axis whose devices hold one part of the batch each, of equal size.

    Source: Chan, Golub and LeVeque 1983.
    """
    count = jnp.float32(batch.shape[0])
    mean = batch.mean(axis=0)
    if axis_name is not None:
        count, mean = jax.lax.psum(count, axis_name), jax.lax.pmean(mean, axis_name)
    variance = jnp.square(batch - mean[None]).mean(axis=0)
    if axis_name is not None:
        variance = jax.lax.pmean(variance, axis_name)
    total = moments.count + count
    share = count / total
    step = mean - moments.mean
    spread = moments.variance * (1.0 - share) + variance * share + jnp.square(step) * share * (1.0 - share)
    return Moments(jnp.minimum(total, LARGEST_COUNT), moments.mean + step * share, spread)
