"""Market encoders: features [T, F] -> context [T, D], once per bar whatever the number of accounts."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ztb_jax.policies.initialisers import orthogonal


def windows(features: jax.Array, lookback: int, first: int = 0) -> jax.Array:
    """[T - first, lookback * F]: each row from `first` on and the `lookback - 1` before it, oldest first.

    Absent rows are zero.
    """
    num_bars = features.shape[0]
    padded = jnp.pad(features, ((lookback - 1, 0), (0, 0)))
    # One gather: slices side by side make a kernel for every lag, and compile for seconds.
    cut = jax.vmap(lambda row: jax.lax.dynamic_slice_in_dim(padded, row, lookback))
    return cut(jnp.arange(first, num_bars)).reshape(num_bars - first, -1)


class CausalWindow(nn.Module):
    """The market's share of the first layer of an MLP over the last `lookback` bars: a causal convolution.

    It is linear: the account's share is added, and the nonlinearity applied, in the head. Together they equal
    a dense layer on the window and the account. Row t is meaningful from t = lookback - 1 on.

    Attributes:
      width: D.
      lookback: bars in the window.
    """

    width: int
    lookback: int

    @nn.compact
    def __call__(self, features: jax.Array, first: int = 0) -> jax.Array:
        """Features [T, F] -> context [T - first, D], of the rows from `first` on."""
        dense = nn.Dense(self.width, kernel_init=orthogonal(2.0**0.5), name="window")
        return dense(windows(features, self.lookback, first))
