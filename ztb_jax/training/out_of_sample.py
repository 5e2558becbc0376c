"""What a walk-forward study amounts to: histories out of sample, strung together, recorded and judged."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ztb_jax import space
from ztb_jax.config import Config, flat
from ztb_jax.data.folds import Range
from ztb_jax.evaluation import (
    judgement,
    metrics,
    overfitting,
    pooling,
    ratios,
    resampling,
    robustness,
)
from ztb_jax.evaluation.edge import Evidence
from ztb_jax.runs import directory, studies
from ztb_jax.runs.studied import Scheme
from ztb_jax.training import beside, scoring
from ztb_jax.training.chunks import Finished
from ztb_jax.training.histories import Histories, Stretches, stretches_of
from ztb_jax.training.progress import Reporter
from ztb_jax.training.study import Study
from ztb_jax.verdicts import VERDICTS

FEWEST_SEEDS = 3  # whose middle half can be told
PBO_BLOCKS = (16, 8, 4)
HINDSIGHT = (
    "Its policies were trained on bars after their tests, too: what nobody could have traded is no edge."
)


class Judged(NamedTuple):
    """What result.json and returns.npz hold."""

    result: dict[str, Any]
    arrays: dict[str, np.ndarray]


class _Played(NamedTuple):
    """Histories out of sample, [T] returns each.

    Attributes:
      chosen: [F] the strategy's configuration in each fold.
      strategy: of it.
      by_seed: [S] of it, with the policies of one seed.
      paths: [P] of it, on one path.
      single: of each configuration and position of a seed.
      pooled: [C] of each configuration.
    """

    chosen: np.ndarray
    strategy: np.ndarray
    by_seed: list[np.ndarray]
    paths: list[np.ndarray]
    single: dict[tuple[int, int], np.ndarray]
    pooled: list[np.ndarray]


def _played(histories: Histories, validation: np.ndarray) -> _Played:
    configs, count, seeds = histories.study.shape
    paths, each = range(len(histories.stretches.paths)), range(seeds)
    chosen = pooling.chosen_configs(validation)
    always = [np.full(count, number) for number in range(configs)]
    return _Played(
        chosen=chosen,
        strategy=histories.along(chosen, paths=paths, seeds=each),
        by_seed=[histories.along(chosen, paths=paths, seeds=[seed]) for seed in each],
        paths=[histories.along(chosen, paths=[path], seeds=each) for path in paths],
        single={
            (number, seed): histories.along(always[number], paths=paths, seeds=[seed])
            for number in range(configs)
            for seed in each
        },
        pooled=[histories.along(config_of, paths=paths, seeds=each) for config_of in always],
    )


def judged(
    study: Study,
    store: studies.StudyDirectory,
    config: Config,
    scheme: Scheme,
    *,
    paths: np.ndarray | None,
    finished: Finished,
    reporter: Reporter,
) -> Judged:
    """The verdict on a study; every history that is looked at is in the record of scorings first.

    The strategy is what could have been done: in each fold the configuration of the best validation, its
    capital spread evenly over the seeds. M counts every configuration with every seed, and the strategy.

    Args:
      study: that was trained.
      store: its directory.
      config: that all configurations began with.
      scheme: that made the folds.
      paths: of combinatorial folds; None where each stretch is tested once.
      finished: what came of the trials.
      reporter: told of what the record lacks.

    Raises:
      RunError: the record cannot be written, or is damaged.
    """
    stretches = stretches_of(study.folds, paths)
    histories = Histories(study, stretches, finished)
    scores = [row["validation_log_growth"] for row in finished.rows]
    validation = np.array(scores, np.float64).reshape(study.shape)
    played, bars = _played(histories, validation), (stretches.ranges[0][0], stretches.ranges[-1][1])
    market = beside.out_of_sample(study, stretches, config)
    baselines = beside.baselines(market, seed=config.seed)
    edge, controls = _verdict(histories, store, config, played, baselines, market=market, reporter=reporter)
    stamps, year = study.frame.index, study.bars_per_year
    result = {
        "id": store.id,
        "kind": "walkforward",
        "symbol": config.data.symbol,
        "timeframe": config.data.timeframe,
        "scheme": dataclasses.asdict(scheme),
        "first_bar": str(stamps[bars[0]]),
        "last_bar": str(stamps[bars[1] - 1]),
        "bars": len(played.strategy),
        "bars_per_year": year,
        "trainings": study.num_trials,
        **_stopped(finished.rows),
        "strategy": summary(played.strategy, year),
        "seeds": _dispersion(played.by_seed, year),
        "baselines": {name: summary(returns, year) for name, returns in baselines.items()},
        "configurations": _configurations_told(study, scheme, played, validation),
        "paths": [metrics.sharpe(returns, year) for returns in played.paths],
        "folds": [
            _fold_told(histories, number, int(played.chosen[number]), validation, baselines["buy_and_hold"])
            for number in range(len(study.folds))
        ],
        "overfitting": _overfitting(played.pooled),
        "edge": edge,
        "controls": controls,
    }
    return Judged(result, _arrays(study, stretches, played, baselines))


def _verdict(
    histories: Histories,
    store: studies.StudyDirectory,
    config: Config,
    played: _Played,
    baselines: Mapping[str, np.ndarray],
    *,
    market: beside.OutOfSample,
    reporter: Reporter,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`result.json`'s `edge` and `controls`."""
    study, ranges = histories.study, histories.stretches.ranges
    _, count, seeds = study.shape

    def row(returns: np.ndarray, of: Config, config_of: np.ndarray, seeds: Sequence[int]) -> Any:
        return scoring.scored(
            dataclasses.replace(of, seed=study.seeds[seeds[0]]),
            study.frame,
            (ranges[0][0], ranges[-1][1]),
            kind="walkforward",
            run_id=store.id,
            slice_name="test",
            policy=histories.policy(config_of, seeds),
            sharpe=metrics.sharpe(returns, study.bars_per_year),
            year=study.bars_per_year,
        )

    rows = [
        row(returns, study.configs[number], np.full(count, number), [seed])
        for (number, seed), returns in played.single.items()
    ]
    rows.append(row(played.strategy, config, played.chosen, range(seeds)))
    counted = scoring.record(store.path.resolve().parents[1], config, rows, reporter)
    trials = max(counted.policies, _counted_before(store))
    controls = beside.controls_report(histories, played.chosen, market, trials=trials, seed=config.seed)
    edge = judgement.judge(
        played.strategy,
        baselines,
        trials=trials,
        trial_sharpes=counted.sharpes,
        bars_per_year=study.bars_per_year,
        further=Evidence(
            **beside.harder(histories, played.chosen),
            controls=robustness.found_on(controls["shuffled"]),
        ),
    )
    if controls["shuffled"] is None:
        edge["evidence"]["missing"]["controls"] = (
            f"{len(played.strategy)} bars are too few to judge in any order"
        )
    if len(played.paths) > 1 and edge["label"] == "edge":
        edge |= {"label": "inconclusive", "bars_needed": None, "reasons": [HINDSIGHT, *edge["reasons"]]}
    return edge | {"trials_at_first": counted.at_first, "ledger": config.run.ledger}, controls


def _counted_before(store: studies.StudyDirectory) -> int:
    """M as the study told it before: a record that was lost since makes it no smaller."""
    if not store.result.is_file():
        return 0
    trials = (directory.read_object(store.result).get("edge") or {}).get("trials")
    return trials if isinstance(trials, int) else 0


def _stopped(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many trainings brought no policy, and which gates stopped how many."""
    names = Counter(VERDICTS[row["verdict"]].name for row in rows if row["verdict"])
    without = sum(row["chosen_window"] is None for row in rows)
    return {"without_policy": without, "stopped": dict(sorted(names.items()))}


def _configurations_told(
    study: Study, scheme: Scheme, played: _Played, validation: np.ndarray
) -> list[dict[str, Any]]:
    keys = [axis.key for axis in space.parse_axes(scheme.vary)]
    year = study.bars_per_year
    return [
        {
            "settings": {key: flat(config)[key] for key in keys},
            "chosen": int((played.chosen == number).sum()),
            "validation_log_growth": _mean(validation[number]),
            "summary": summary(played.pooled[number], year),
            "seeds": _dispersion([played.single[number, seed] for seed in range(len(study.seeds))], year),
        }
        for number, config in enumerate(study.configs)
    ]


def _arrays(
    study: Study, stretches: Stretches, played: _Played, baselines: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What returns.npz holds. Axes: T bars, S seeds, C configurations, P paths."""
    configs, _, seeds = study.shape
    start, stop = stretches.ranges[0][0], stretches.ranges[-1][1]
    lengths = [stop - start - 1 for start, stop in stretches.ranges]
    return {
        "stamps": study.frame.index[start + 1 : stop].to_numpy().astype("datetime64[s]"),
        "stretch": np.repeat(np.arange(len(lengths)), lengths),
        "strategy": played.strategy,
        "seeds": np.stack(played.by_seed),
        "paths": np.stack(played.paths),
        "configurations": np.stack(
            [[played.single[number, seed] for seed in range(seeds)] for number in range(configs)]
        ),
        **{f"baselines/{name}": returns for name, returns in baselines.items()},
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


def _fold_told(
    histories: Histories, number: int, chosen: int, validation: np.ndarray, held: np.ndarray
) -> dict[str, Any]:
    """One of `result.json`'s folds; `held` [T] are the returns of buying and holding out of sample."""
    study = histories.study
    fold, stamps = study.folds[number], study.frame.index
    each = range(len(study.seeds))
    trials = [histories.finished.rows[study.trial(chosen, number, seed)] for seed in each]
    first = histories.stretches.ranges[0][0]

    def dates(bars: Range) -> list[str]:
        return [str(stamps[bars[0]]), str(stamps[bars[1] - 1])]

    return {
        "train": [dates(bars) for bars in fold.train],
        "validation": None if fold.validation is None else dates(fold.validation),
        "test": [dates(bars) for bars in fold.test],
        "configuration": chosen,
        "validation_log_growth": _finite(np.mean(validation[chosen, number])),
        "total_return": [_total(returns) for returns in histories.tested(chosen, number, each)],
        "buy_and_hold": [_total(held[start - first : stop - first - 1]) for start, stop in fold.test],
        "seeds": [[test["total_return"] for test in row["tests"]] for row in trials],
        "without_policy": sum(row["chosen_window"] is None for row in trials),
    }


def _total(returns: np.ndarray) -> float:
    return float(np.prod(1.0 + returns) - 1.0)


def _mean(scores: np.ndarray) -> float | None:
    """Of those that are known; None where none is."""
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if known.size else None


def _finite(number: Any) -> float | None:
    return float(number) if number is not None and np.isfinite(number) else None
