"""From accounts of many trainings to the history that is judged. Pure functions, NumPy float64.

Axes: A accounts, T bars, C configurations, F folds, S seeds.
"""

import numpy as np

from ztb_jax.evaluation.series import checked


def pooled(returns: np.ndarray) -> np.ndarray:
    """[T] returns of equal capital in each of the accounts [A, T] at the start, and left there.

    The equity is the mean of the accounts' equities, so nothing is rebalanced and no trade goes without cost.
    Once all is lost the return is 0.

    Raises:
      ValueError: a return is not finite.
    """
    returns = checked(returns, "returns", axes=2)
    equity = np.cumprod(1.0 + returns, axis=1).mean(axis=0)
    before = np.concatenate([[1.0], equity[:-1]])
    return np.where(before > 0.0, equity / np.where(before > 0.0, before, 1.0) - 1.0, 0.0)


def closed(returns: np.ndarray, exposure: float, *, edge: float, fee_rate: float) -> np.ndarray:
    """[T] `returns` of an account that closes at the last close what it then holds.

    Of what it holds, as a share x of its equity, that costs |x| edge + |x| (1 - sign(x) edge) fee_rate: the
    price is `edge` worse, and the fee is of what then changes hands.

    Args:
      returns: [T] of each bar, at least one.
      exposure: x at the last close, signed.
      edge: spread and slippage, a fraction of the price.
      fee_rate: of the notional.
    """
    returns = checked(returns, "returns", at_least=1).copy()
    held, side = abs(float(exposure)), np.sign(exposure)
    returns[-1] = (1.0 + returns[-1]) * (1.0 - held * (edge + (1.0 - side * edge) * fee_rate)) - 1.0
    return returns


def chosen_configs(validation: np.ndarray) -> np.ndarray:
    """[F] the configuration that validation scores [C, F, S] choose, NaN where a training has none.

    Those with the most scores come first: a training that brought no policy is worse than any. Among them it
    is the best mean over seeds, and the first of equals.
    """
    known = ~np.isnan(validation)
    count = known.sum(axis=2)
    mean = np.where(known, validation, 0.0).sum(axis=2) / np.maximum(count, 1)
    eligible = (count == count.max(axis=0)) & (count > 0)
    return np.where(eligible, mean, -np.inf).argmax(axis=0)
