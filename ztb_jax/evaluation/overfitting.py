"""Does choosing the best of several configurations choose anything? NumPy float64 on the host."""

import itertools
from typing import NamedTuple

import numpy as np

from ztb_jax.evaluation.series import FLAT_SPREAD, checked


class Overfitting(NamedTuple):
    """Of combinatorially symmetric cross-validation. Axes: C ways to split the blocks in halves.

    Attributes:
      probability: share of the C splits in which the best configuration of one half is below the median of
        the other: about 0.5 where choosing is luck, near 0 where the best one is truly better.
      logits: [C] log(w / (1 - w)) of the relative rank w of the chosen configuration in the other half.
      chosen: [C] Sharpe ratio per bar of the chosen configuration in the half that chose it.
      kept: [C] its Sharpe ratio per bar in the other half.
    """

    probability: float
    logits: np.ndarray
    chosen: np.ndarray
    kept: np.ndarray


def backtest_overfitting(returns: np.ndarray, *, blocks: int = 16) -> Overfitting:
    """Probability of backtest overfitting, by Sharpe ratio (Bailey, Borwein, Lopez de Prado and Zhu 2015).

    The bars are cut into blocks of consecutive ones, the first of them a bar longer where they do not divide.
    Every half of the blocks chooses the best configuration, and the other half ranks it: w = rank / (N + 1),
    ties in the middle. Where several are best, the first is chosen; one that does not vary has a ratio of 0.

    Args:
      returns: [N, T] net returns of N configurations on the same bars; not its transpose.
      blocks: even. There are C(blocks, blocks / 2) splits: 70 for 8, 12,870 for 16.

    Raises:
      ValueError: a value is not finite, there are fewer than two configurations, or blocks are odd, fewer
        than two, more than 20, or shorter than two bars.
    """
    returns = checked(returns, "returns", axes=2)
    num_configs, bars = returns.shape
    if num_configs < 2:
        raise ValueError(f"returns has {num_configs} configurations: give at least 2, as rows.")
    if blocks % 2 or not 2 <= blocks <= 20:
        raise ValueError(f"blocks is {blocks}: give an even number from 2 to 20.")
    if bars < 2 * blocks:
        raise ValueError(
            f"returns has {bars} bars for {blocks} blocks: give [configurations, bars], of at least two bars "
            "a block, or fewer blocks."
        )
    # About one level for all: squares of returns far from zero would lose the digits of their spread.
    level = returns.mean(axis=1, keepdims=True)
    parts = np.array_split(returns - level, blocks, axis=1)
    sizes = np.array([part.shape[1] for part in parts], np.float64)
    sums = np.stack([part.sum(axis=1) for part in parts])
    squares = np.stack([(part**2).sum(axis=1) for part in parts])

    splits = np.array(list(itertools.combinations(range(blocks), blocks // 2)))
    mine = np.zeros((len(splits), blocks))
    np.put_along_axis(mine, splits, 1.0, axis=1)
    inside, outside = (
        _sharpe(half @ sizes, half @ sums, half @ squares, level[:, 0]) for half in (mine, 1.0 - mine)
    )
    best = np.argmax(inside, axis=1)[:, None]
    chosen, kept = (np.take_along_axis(ratios, best, axis=1)[:, 0] for ratios in (inside, outside))
    ranks = (outside < kept[:, None]).sum(axis=1) + 0.5 * ((outside == kept[:, None]).sum(axis=1) + 1)
    logits = np.log(ranks / (num_configs + 1 - ranks))
    return Overfitting(float(np.mean(logits < 0.0)), logits, chosen, kept)


def _sharpe(size: np.ndarray, total: np.ndarray, squares: np.ndarray, level: np.ndarray) -> np.ndarray:
    """[C, N] from bars [C], sums and sums of squares [C, N] about `level` [N]."""
    mean = total / size[:, None]
    spread = np.sqrt(np.maximum(squares / size[:, None] - mean**2, 0.0) * (size / (size - 1.0))[:, None])
    flat = spread <= FLAT_SPREAD
    return np.where(flat, 0.0, (mean + level) / np.where(flat, 1.0, spread))
