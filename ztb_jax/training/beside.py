"""What stands beside the strategy of a walk-forward study: baselines, harder conditions, controls.

Axes: F folds, T bars out of sample.
"""

from typing import Any, NamedTuple

import numpy as np

from envs.types import Env
from ztb_jax import build
from ztb_jax.config import Config
from ztb_jax.data.folds import Fold, Range
from ztb_jax.data.market import MarketData
from ztb_jax.evaluation import compare, controls, robustness, significance
from ztb_jax.evaluation.edge import FEWEST_BARS
from ztb_jax.training.histories import Histories, Stretches
from ztb_jax.training.study import Study


class OutOfSample(NamedTuple):
    """The market on which a study is judged: all bars out of sample.

    Attributes:
      data: of them.
      env: the rules.
      close: closes up to the last bar.
    """

    data: MarketData
    env: Env
    close: np.ndarray


def out_of_sample(study: Study, stretches: Stretches, config: Config) -> OutOfSample:
    """Made without any training, so that its bars before the tests make no window that sees them."""
    bars: Range = (stretches.ranges[0][0], stretches.ranges[-1][1])
    first = min(start for fold in study.folds for start, _ in fold.train)
    fold = Fold(((min(first, bars[0]), bars[1]),), None, (bars,))
    data = build.prepare_fold(config, study.frame, study.features, fold)
    env = build.make_environment(config, measured=data.measured)
    close = study.frame["close"].to_numpy(np.float64)[: bars[1]]
    return OutOfSample(data.tests[0], env, close)


def baselines(market: OutOfSample, *, seed: int) -> dict[str, np.ndarray]:
    """[T] returns of each baseline over all stretches in one go, with nothing sold between them."""
    traces = compare.play_baselines(market.data, market.env, seed=seed, close=market.close).traces
    return {name: np.asarray(trace.gain, np.float64) for name, trace in traces.items()}


def harder(histories: Histories, chosen: np.ndarray) -> dict[str, float]:
    """What becomes of the strategy at doubled costs, and with orders a bar late: fields of `Evidence`.

    Args:
      histories: of the study.
      chosen: [F] the strategy's configuration.
    """
    every = {"paths": range(len(histories.stretches.paths)), "seeds": range(len(histories.study.seeds))}
    dear, late = (histories.along(chosen, **every, kind=kind) for kind in ("doubled_costs", "late"))
    return {
        "doubled_costs": float(np.prod(1.0 + dear) - 1.0),
        "latency": significance.mean_test(-late).p_value,
    }


def controls_report(
    histories: Histories, chosen: np.ndarray, market: OutOfSample, *, trials: int, seed: int
) -> dict[str, Any]:
    """`robustness.controls_report` of the strategy's orders.

    Its accounts play what each policy asked for on the bars in another order, all on the same ones, by the
    rules that the configurations began with. Nothing is shuffled where there are too few bars to judge.

    Args:
      histories: of the study.
      chosen: [F] the strategy's configuration.
      market: on which it is judged.
      trials: M.
      seed: of the orders.
    """
    paths, seeds = histories.stretches.paths, range(len(histories.study.seeds))
    levels = [
        np.stack(
            [
                histories.account(int(chosen[path[group]]), number, group, seed=each, kind="levels")
                for number, path in enumerate(paths)
                for each in seeds
            ]
        )
        for group in range(len(histories.stretches.ranges))
    ]
    year, env = histories.study.bars_per_year, market.env
    shuffled = None
    if market.data.num_steps >= FEWEST_BARS:
        shuffled = controls.shuffled_accounts(levels, market.data, env, bars_per_year=year, seed=seed)
    leak = controls.leak(market.data, env, trials=trials, bars_per_year=year)
    return robustness.controls_report(shuffled, leak)
