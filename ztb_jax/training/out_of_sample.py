"""What a walk-forward study amounts to: histories out of sample, strung together, recorded and judged."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ztb_jax import build
from ztb_jax.config import Config
from ztb_jax.data.folds import Fold, Range
from ztb_jax.evaluation import compare, judgement, metrics, overfitting, pooling, ratios, resampling
from ztb_jax.runs import packing, studies
from ztb_jax.training import scoring
from ztb_jax.training.progress import Reporter
from ztb_jax.training.study import Finished, Study

FEWEST_SEEDS = 3  # whose middle half can be told
PBO_BLOCKS = (16, 8, 4)


class Stretches(NamedTuple):
    """Where the tests of folds lie. Axes: G stretches that follow one another, P paths through them.

    Attributes:
      ranges: [G] in bars; each but the last ends with the first bar of the next, where its last decision is
        filled.
      paths: [P, G] the fold that tests each stretch in each path.
      place: [P, G] the position of that stretch among the fold's tests.
    """

    ranges: tuple[Range, ...]
    paths: np.ndarray
    place: np.ndarray


def stretches_of(folds: Sequence[Fold], paths: np.ndarray | None) -> Stretches:
    """The stretches that `folds` are tested on; `paths` of combinatorial ones, None where each tests one."""
    ranges = tuple(sorted({test for fold in folds for test in fold.test}))
    paths = np.arange(len(folds))[None] if paths is None else paths
    place = [[folds[fold].test.index(ranges[group]) for group, fold in enumerate(path)] for path in paths]
    return Stretches(ranges, paths, np.array(place))


class Histories(NamedTuple):
    """Returns of all trials.

    Attributes:
      study: what was trained.
      stretches: where it was tested.
      finished: what came of it.
    """

    study: Study
    stretches: Stretches
    finished: Finished

    def trial(self, config: int, fold: int, seed: int) -> int:
        """The number of a trial."""
        _, folds, seeds = self.study.shape
        return (config * folds + fold) * seeds + seed

    def account(self, config: int, path: int, group: int, seed: int) -> np.ndarray:
        """[T of the stretch] returns of one trial."""
        trial = self.trial(config, int(self.stretches.paths[path, group]), seed)
        start, stop = self.stretches.ranges[group]
        returns = self.finished.arrays[trial][f"returns_{self.stretches.place[path, group]}"]
        return returns[: stop - start - 1]

    def along(self, config_of: np.ndarray, *, paths: Sequence[int], seeds: Sequence[int]) -> np.ndarray:
        """[T] returns of equal capital, anew in every stretch, on each of these paths and seeds.

        Args:
          config_of: [F] the configuration that each fold is played with.
          paths: numbers of them.
          seeds: positions of them.
        """
        parts = [
            [
                self.account(int(config_of[self.stretches.paths[path, group]]), path, group, seed)
                for path in paths
                for seed in seeds
            ]
            for group in range(len(self.stretches.ranges))
        ]
        return np.concatenate([pooling.pooled(np.stack(accounts)) for accounts in parts])

    def policy(self, config_of: np.ndarray, seeds: Sequence[int]) -> str:
        """Digest of all weights that play in a history."""
        _, folds, _ = self.study.shape
        trials = [self.trial(int(config_of[fold]), fold, seed) for fold in range(folds) for seed in seeds]
        return packing.chained("", {f"{trial:09d}": self.finished.rows[trial]["policy"] for trial in trials})


def judged(
    study: Study,
    store: studies.StudyDirectory,
    config: Config,
    *,
    paths: np.ndarray | None,
    points: Sequence[Mapping[str, Any]],
    finished: Finished,
    reporter: Reporter,
) -> dict[str, Any]:
    """What result.json holds; every history that is looked at is in the record of scorings first.

    The strategy is what could have been done: in each fold the configuration of the best validation, its
    capital spread evenly over the seeds. M counts every configuration with every seed, and the strategy.

    Raises:
      RunError: the record cannot be written, or is damaged.
    """
    configs, count, seeds = study.shape
    stretches = stretches_of(study.folds, paths)
    histories = Histories(study, stretches, finished)
    year, every_path, every_seed = study.bars_per_year, range(len(stretches.paths)), range(seeds)
    scores = np.array([row["validation_log_growth"] for row in finished.rows], np.float64)
    validation = scores.reshape(study.shape)
    chosen = pooling.chosen_configs(validation)
    single = {
        (number, seed): histories.along(np.full(count, number), paths=every_path, seeds=[seed])
        for number in range(configs)
        for seed in every_seed
    }
    pooled = [
        histories.along(np.full(count, number), paths=every_path, seeds=every_seed)
        for number in range(configs)
    ]
    strategy = histories.along(chosen, paths=every_path, seeds=every_seed)
    by_seed = [histories.along(chosen, paths=every_path, seeds=[seed]) for seed in every_seed]
    bars = (stretches.ranges[0][0], stretches.ranges[-1][1])
    beside = _baselines(study, config, bars)

    rows = [
        _row(
            histories,
            store,
            bars,
            returns,
            config=study.configs[number],
            config_of=np.full(count, number),
            seeds=[seed],
        )
        for (number, seed), returns in single.items()
    ]
    rows.append(_row(histories, store, bars, strategy, config=config, config_of=chosen, seeds=every_seed))
    counted = scoring.record(store.path.resolve().parents[1], config, rows, reporter)
    edge = judgement.judge(
        strategy,
        beside,
        trials=counted.policies,
        trial_sharpes=counted.sharpes,
        bars_per_year=year,
    )
    edge |= {"trials_at_first": counted.at_first, "ledger": config.run.ledger}
    stamps = study.frame.index
    return {
        "id": store.id,
        "kind": "walkforward",
        "symbol": config.data.symbol,
        "timeframe": config.data.timeframe,
        "first_bar": str(stamps[bars[0]]),
        "last_bar": str(stamps[bars[1] - 1]),
        "bars": len(strategy),
        "bars_per_year": year,
        "trainings": study.num_trials,
        "env_steps": finished.env_steps,
        "seconds": finished.seconds,
        "compile_seconds": finished.compile_seconds,
        "strategy": summary(strategy, year),
        "seeds": _dispersion(by_seed, year),
        "baselines": {name: summary(returns, year) for name, returns in beside.items()},
        "configurations": [
            {
                "settings": dict(points[number]),
                "chosen": int((chosen == number).sum()),
                "validation_log_growth": _finite(np.nanmean(validation[number])),
                **summary(pooled[number], year),
                "seeds": _dispersion([single[number, seed] for seed in every_seed], year),
            }
            for number in range(configs)
        ],
        "paths": [
            metrics.sharpe(histories.along(chosen, paths=[path], seeds=every_seed), year)
            for path in every_path
        ],
        "folds": _folds_told(study, finished, chosen, validation),
        "overfitting": _overfitting(pooled),
        "edge": edge,
    }


def summary(returns: np.ndarray, year: float) -> dict[str, float | None]:
    """What returns [T] amount to."""
    equity = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    told = {
        "total_return": metrics.total_return(equity),
        "annual_return": metrics.annual_return(equity, year),
        "volatility": metrics.volatility(returns, year),
        "sharpe": metrics.sharpe(returns, year),
        "sortino": ratios.sortino(returns, year),
        "max_drawdown": metrics.max_drawdown(equity),
    }
    return {name: _finite(value) for name, value in told.items()}


def _baselines(study: Study, config: Config, bars: Range) -> dict[str, np.ndarray]:
    """[T] returns of each baseline over all stretches in one go, with nothing sold between them."""
    fold = study.folds[0]._replace(validation=None, test=(bars,))
    data = build.prepare_fold(config, study.frame, study.features, fold)
    env = build.make_environment(config, measured=data.measured)
    close = study.frame["close"].to_numpy(np.float64)[: bars[1]]
    traces = compare.play_baselines(data.tests[0], env, seed=config.seed, close=close).traces
    return {name: np.asarray(trace.gain, np.float64) for name, trace in traces.items()}


def _row(histories, store, bars, returns, *, config, config_of, seeds) -> Any:
    year = histories.study.bars_per_year
    return scoring.scored(
        config,
        histories.study.frame,
        bars,
        kind="walkforward",
        run_id=store.id,
        slice_name="test",
        policy=histories.policy(config_of, seeds),
        sharpe=metrics.sharpe(returns, year),
        year=year,
    )


def _dispersion(returns: Sequence[np.ndarray], year: float) -> dict[str, Any]:
    """Sharpe ratios of seeds, and the mean of their middle half with its interval; None for too few."""
    found = [metrics.sharpe(each, year) for each in returns]
    middle = None
    if len(found) >= FEWEST_SEEDS:
        middle = resampling.interquartile_mean(np.array(found), seed=judgement.SEED)._asdict()
    return {"sharpe": found, "interquartile_mean": middle}


def _overfitting(pooled: Sequence[np.ndarray]) -> dict[str, Any] | None:
    """Whether choosing among the configurations chooses anything; None for one, or too few bars."""
    blocks = next((each for each in PBO_BLOCKS if pooled[0].size >= 10 * each), None)
    if len(pooled) < 2 or blocks is None:
        return None
    found = overfitting.backtest_overfitting(np.stack(pooled), blocks=blocks)
    return {"probability": found.probability, "blocks": blocks}


def _folds_told(
    study: Study, finished: Finished, chosen: np.ndarray, validation: np.ndarray
) -> list[dict[str, Any]]:
    stamps = study.frame.index
    _, count, seeds = study.shape

    def dates(bars: Range) -> list[str]:
        return [str(stamps[bars[0]]), str(stamps[bars[1] - 1])]

    told = []
    for number, fold in enumerate(study.folds):
        first = (int(chosen[number]) * count + number) * seeds
        mine = finished.rows[first : first + seeds]
        told.append(
            {
                "train": [dates(each) for each in fold.train],
                "validation": None if fold.validation is None else dates(fold.validation),
                "test": [dates(each) for each in fold.test],
                "configuration": int(chosen[number]),
                "validation_log_growth": _finite(np.mean(validation[chosen[number], number])),
                "total_returns": [[test["total_return"] for test in row["tests"]] for row in mine],
            }
        )
    return told


def _finite(number: Any) -> float | None:
    return float(number) if number is not None and np.isfinite(number) else None
