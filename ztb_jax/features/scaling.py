"""Standardising features by moments of the training slice alone, frozen from then on.

Axes: T bars, F features.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from flax import struct

from ztb_jax.errors import ConfigError, DataError

ROUNDING = 1e-12
"""A feature that varies by less than this fraction of its size is constant but for rounding."""

Values = TypeVar("Values", np.ndarray, jax.Array)


class Scaler(struct.PyTreeNode):
    """Location and scale of each feature; made by `fit`, or by `from_dict` from a saved one.

    Attributes:
      mean: [F] float64, in the feature's own units.
      scale: [F] float64, standard deviation with ddof 0; 1 for a constant feature, which so becomes 0.
      limit: scaled values are clipped to ± limit.
    """

    mean: np.ndarray
    scale: np.ndarray
    limit: float = struct.field(pytree_node=False, default=5.0)

    def apply(self, values: Values) -> Values:
        """Z-scores of values […, F], clipped to ± limit; NaN stays NaN.

        NumPy gives NumPy float64; a jax array, traced or not, gives a jax array of its own dtype.
        """
        dtype = values.dtype if isinstance(values, jax.Array) else np.float64
        shape = (1,) * (values.ndim - 1) + (-1,)
        mean, scale = self.mean.astype(dtype).reshape(shape), self.scale.astype(dtype).reshape(shape)
        return ((values - mean) / scale).clip(-self.limit, self.limit)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers; through JSON and `from_dict` the very same scaler comes back."""
        return {
            "mean": np.asarray(self.mean, np.float64).tolist(),
            "scale": np.asarray(self.scale, np.float64).tolist(),
            "limit": float(self.limit),
        }


def fit(values: np.ndarray, valid: np.ndarray, start: int, stop: int, *, limit: float = 5.0) -> Scaler:
    """Scaler from the valid rows among bars start … stop - 1 of values [T, F], valid [T] bool.

    The caller passes the training slice; nothing outside it is read. Computed in float64 on the host.

    Raises:
      DataError: the slice lies outside the bars or holds no valid row.
      ConfigError: the limit is not positive.
    """
    if not limit > 0:
        raise ConfigError(f"the limit of scaled features is {limit}; it must be positive, e.g. 5")
    if not 0 <= start < stop <= len(values):
        raise DataError(f"the training slice [{start}, {stop}) does not lie within the {len(values)} bars")
    rows = np.asarray(values[start:stop], np.float64)[np.asarray(valid[start:stop], bool)]
    if len(rows) == 0:
        raise DataError(
            f"the training slice [{start}, {stop}) has no row in which every feature is known. "
            "Train on more bars, or use a recipe with a shorter warm-up."
        )
    deviation = rows.std(axis=0)
    constant = deviation <= ROUNDING * np.abs(rows).max(axis=0)
    return Scaler(mean=rows.mean(axis=0), scale=np.where(constant, 1.0, deviation), limit=limit)


def from_dict(saved: Mapping[str, Any]) -> Scaler:
    """The scaler that `Scaler.to_dict` saved.

    Raises:
      DataError: a key is missing, lengths differ, a number is not finite, a scale or the limit not positive.
    """
    missing = {"mean", "scale", "limit"} - set(saved)
    if missing:
        raise DataError(f"the saved scaler lacks {', '.join(sorted(missing))}")
    mean, scale = np.asarray(saved["mean"], np.float64), np.asarray(saved["scale"], np.float64)
    limit = float(saved["limit"])
    finite = np.isfinite(mean).all() and np.isfinite(scale).all()
    if mean.ndim != 1 or mean.shape != scale.shape or not finite or not (scale > 0).all() or not limit > 0:
        raise DataError(
            f"the saved scaler is damaged: mean {mean.shape} and scale {scale.shape} must be equally long "
            "lists of finite numbers, scale and limit positive"
        )
    return Scaler(mean=mean, scale=scale, limit=limit)
