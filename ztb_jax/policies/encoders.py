"""Market encoders: features [T, F] -> context [T, D], once per bar whatever the number of accounts."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ztb_jax.policies.initialisers import orthogonal


def windows(features: jax.Array, lookback: int, first: int = 0) -> jax.Array:
    """[T - first, lookback * F]: each row from `first` on and the `lookback - 1` before it, oldest first.

    Absent rows are zero.
    """
    num_features = features.shape[1]
    rows, length = jnp.pad(features, ((lookback - 1, 0), (0, 0)))[first:], 1
    # Windows of twice the length are two of them side by side: few copies of long rows, which a CPU does ten
    # times as fast as one gather of all rows.
    while 2 * length <= lookback:
        rows, length = jnp.concatenate([rows[:-length], rows[length:]], axis=1), 2 * length
    if rest := lookback - length:
        newest = rows[rest:, (length - rest) * num_features :]
        rows = jnp.concatenate([rows[:-rest], newest], axis=1)
    return rows


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
