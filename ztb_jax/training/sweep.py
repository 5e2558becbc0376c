"""A sweep: many configurations trained as few programs, of which the validation slice chooses one.

The best one becomes a run, and that alone plays the test slice.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from ztb_jax import build, devices, schedule, space
from ztb_jax.config import Config, as_dict
from ztb_jax.data.folds import Fold
from ztb_jax.data.frame import bars_per_year, content_hash
from ztb_jax.errors import ConfigError
from ztb_jax.features import recipe
from ztb_jax.runs import directory, studies
from ztb_jax.training import evaluate, metadata
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.progress import Reporter
from ztb_jax.training.study import Study, check_data, check_settings, config_of, configurations, train_study

KIND = "sweep"
SEED_OF_SAMPLERS = 0


@dataclasses.dataclass(frozen=True)
class Search:
    """What is tried.

    Attributes:
      vary: texts of `ztb_jax.space.parse_axes`.
      method: grid, random or optuna (its tree-structured Parzen estimator, told of each batch).
      points: how many configurations, but for a grid.
      batch: configurations that optuna is asked for at a time, and that train side by side.
      seeds: trainings of each, with the seeds `config.seed` and on.
    """

    vary: tuple[str, ...]
    method: str = "grid"
    points: int = 16
    batch: int = 8
    seeds: int = 1


class Outcome(NamedTuple):
    """How a sweep ended: its directory, what result.json holds (None where it was stopped), the best one."""

    store: studies.StudyDirectory
    result: dict[str, Any] | None
    best: Config | None


def sweep(
    config: Config, search: Search, reporter: Reporter, stop: StopRequest, *, study_id: str | None = None
) -> Outcome:
    """Train what `search` says, and tell which was best on the validation slice.

    Raises:
      UserError: settings, data or the directory cannot be used; nothing was trained.
      JobError: the disk, the memory or the device gave out.
    """
    axes = _checked(config, search)
    device = devices.choose(config.run.device)
    with jax.default_device(device):
        base = _base(config, reporter)
        store = studies.create(config.run.root, study_id, KIND)
        studies.write_study(
            store,
            {
                "kind": KIND,
                "config": as_dict(config),
                "search": dataclasses.asdict(search),
                "data": content_hash(base.frame),
                "environment": metadata.environment_facts(device),
                "batches": [],
                "members": {},
                "started_at": directory.timestamp(),
            },
        )
        return _carried_out(
            base, store, reporter, stop, config=config, search=search, axes=axes, device=device
        )


def go_on(store: studies.StudyDirectory, reporter: Reporter, stop: StopRequest) -> Outcome:
    """What `sweep` does, for one that was stopped.

    Raises:
      RunError: the data are not those it began with, or what it knows of itself is damaged.
    """
    config, told = config_of(store, KIND)
    search = Search(**told["search"] | {"vary": tuple(told["search"]["vary"])})
    axes = _checked(config, search)
    device = devices.choose(config.run.device)
    with jax.default_device(device):
        base = _base(config, reporter)
        check_data(base.frame, config, told, store)
        return _carried_out(
            base, store, reporter, stop, config=config, search=search, axes=axes, device=device
        )


def _checked(config: Config, search: Search) -> tuple[space.Axis, ...]:
    axes = space.parse_axes(search.vary)
    findings = check_settings(config, seeds=search.seeds)
    if not axes:
        findings.append("a sweep needs something to vary, such as --vary ppo.gamma=0.9,0.95")
    for name in ("points", "batch"):
        if getattr(search, name) < 1:
            findings.append(f"--{name} is {getattr(search, name)}: give at least 1")
    if findings:
        raise ConfigError(findings)
    if search.method == "grid":
        configurations(config, space.grid(axes))
    return axes


def _base(config: Config, reporter: Reporter) -> Study:
    """The study of the configuration as it is, on the slices of a run."""
    reporter.phase("loading", f"{config.data.symbol} {config.data.timeframe}")
    frame = evaluate.load_frame(config)
    reporter.phase("indicators", f"{config.features.recipe}, {len(frame):,} bars")
    features = recipe.compute(config.features.recipe, frame)
    cut = build.prepare(config, frame, features).split
    return Study(
        configs=(config,),
        folds=(Fold((cut.train,), cut.validation, (cut.test,)),),
        seeds=(config.seed,),
        frame=frame,
        features=features,
        bars_per_year=bars_per_year(pd.DatetimeIndex(frame.index)),
        plays_tests=False,
    )


def _carried_out(base, store, reporter, stop, *, config, search, axes, device) -> Outcome:
    """Batch after batch, each trained side by side. What was proposed is kept before it is trained."""
    with directory.locked(store):
        reporter.say(f"{'study':<11}{store.path}")
        seeds = tuple(range(config.seed, config.seed + search.seeds))
        tried: list[dict[str, Any]] = []
        for number in itertools.count():
            told = studies.read_study(store)
            if number == len(told["batches"]):
                told["batches"].append(proposed(search, axes, tried))
                studies.write_study(store, told)
            points = told["batches"][number]
            if not points:
                break
            study = base._replace(configs=configurations(config, points), seeds=seeds)
            steps = f"{schedule.target_env_steps(config):,} environment steps"
            reporter.phase("train", f"{study.num_trials:,} trainings of {steps}")
            finished = train_study(study, store, reporter, stop, device=device, batch=number)
            if finished is None:
                return Outcome(store, None, None)
            scores = np.reshape([row["validation_log_growth"] for row in finished.rows], (len(points), -1))
            tried += [
                {"settings": point, "validation_log_growth": list(score)}
                for point, score in zip(points, scores, strict=True)
            ]
        result = _result(config, search, tried, store)
        directory.write_json(store.result, result)
        best = None if result["best"] is None else result["points"][result["best"]]["settings"]
        return Outcome(store, result, None if best is None else configurations(config, [best])[0])


def proposed(
    search: Search, axes: Sequence[space.Axis], tried: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The next configurations to try; none when all is done.

    Args:
      search: how.
      axes: of the settings.
      tried: those before, each with `settings` and its `validation_log_growth` of every seed.
    """
    if search.method == "optuna":
        return _estimated(search, axes, tried)
    if tried:
        return []
    if search.method == "grid":
        return space.grid(axes)
    return space.random(axes, search.points, seed=SEED_OF_SAMPLERS)


def _estimated(
    search: Search, axes: Sequence[space.Axis], tried: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Of optuna's tree-structured Parzen estimator, which knows those before and the rest of its batch."""
    try:
        import optuna
    except ImportError:
        raise ConfigError("--method optuna needs the package optuna: pip install 'ztb-jax[optuna]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=SEED_OF_SAMPLERS + len(tried), constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    wanted = {axis.key: _distribution(axis) for axis in axes}
    for each in tried:
        score = score_of(each)
        state = optuna.trial.TrialState.FAIL if score is None else optuna.trial.TrialState.COMPLETE
        values = {axis.key: _as_asked(axis, each["settings"][axis.key]) for axis in axes}
        study.add_trial(
            optuna.trial.create_trial(params=values, distributions=wanted, value=score, state=state)
        )
    asked = [study.ask(wanted).params for _ in range(min(search.batch, search.points - len(tried)))]
    return [{axis.key: _as_meant(axis, point[axis.key]) for axis in axes} for point in asked]


def _distribution(axis: space.Axis) -> Any:
    from optuna import distributions

    if axis.values:  # it knows texts and numbers alone, so a choice goes by its place
        return distributions.CategoricalDistribution(tuple(range(len(axis.values))))
    if axis.whole:
        return distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _as_asked(axis: space.Axis, value: Any) -> Any:
    plain = tuple(value) if isinstance(value, list) else value
    return axis.values.index(plain) if axis.values else value


def _as_meant(axis: space.Axis, value: Any) -> Any:
    return axis.values[value] if axis.values else value


def score_of(tried: Mapping[str, Any]) -> float | None:
    """Mean over seeds of the validation score; None where a seed has none."""
    scores = tried["validation_log_growth"]
    return None if None in scores else float(np.mean(scores))


def _result(config: Config, search: Search, tried: Sequence[Mapping[str, Any]], store: Any) -> dict[str, Any]:
    scores = [score_of(each) for each in tried]
    known = {number: score for number, score in enumerate(scores) if score is not None}
    return {
        "id": store.id,
        "kind": KIND,
        "symbol": config.data.symbol,
        "timeframe": config.data.timeframe,
        "method": search.method,
        "trials": len(tried) * search.seeds,
        "best": max(known, key=lambda number: known[number], default=None),
        "points": [dict(each) | {"mean": score} for each, score in zip(tried, scores, strict=True)],
    }
