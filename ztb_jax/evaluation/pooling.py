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


def closed(returns: np.ndarray, exposure: float, cost: float) -> np.ndarray:
    """[T] `returns` of an account that sells at the last close what it then holds, at `cost` of its value.

    Args:
      returns: [T] of each bar.
      exposure: signed holding over equity at the last close.
      cost: one-way, a fraction of the value traded.
    """
    returns = checked(returns, "returns", at_least=1).copy()
    returns[-1] = (1.0 + returns[-1]) * (1.0 - cost * abs(float(exposure))) - 1.0
    return returns


def chosen_configs(validation: np.ndarray) -> np.ndarray:
    """[F] the configuration of the best mean over seeds, of validation scores [C, F, S].

    Scores that are NaN count as the worst there is; the first of equals is taken.

    Raises:
      ValueError: there are several configurations, and a fold without any score.
    """
    scores = np.where(np.isnan(validation), -np.inf, validation).mean(axis=2)
    if validation.shape[0] > 1 and not np.isfinite(scores.max(axis=0)).all():
        raise ValueError(
            "no configuration of a fold has a validation score for all seeds: there is nothing to choose by"
        )
    return scores.argmax(axis=0)
