"""A sweep: many configurations trained as few programs, of which the validation slice chooses one.

The best one becomes a run, and that alone plays the test slice.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from ztb_jax import build, devices, schedule, space
from ztb_jax.config import Config, as_dict, flat
from ztb_jax.data.folds import Fold
from ztb_jax.data.frame import bars_per_year
from ztb_jax.errors import ConfigError, RunError
from ztb_jax.runs import directory, studies
from ztb_jax.runs.studied import Search
from ztb_jax.slices import first_playable
from ztb_jax.training import job, resume
from ztb_jax.training.chunks import train_study
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.loading import load_market
from ztb_jax.training.progress import Reporter
from ztb_jax.training.study import (
    NOTHING,
    Study,
    check_folds,
    check_ledger,
    check_seal,
    check_settings,
    config_of,
    configurations,
    seal,
    seeds_of,
)

KIND = "sweep"
SEED_OF_SAMPLERS = 0


class Outcome(NamedTuple):
    """How a sweep ended.

    Attributes:
      store: its directory.
      result: what result.json holds; None where it was stopped before the end.
      best: the best configuration, whose run bears the sweep's name; None where there is none.
    """

    store: studies.StudyDirectory
    result: dict[str, Any] | None
    best: Config | None


class _Sweep(NamedTuple):
    """What is searched, and where."""

    config: Config
    search: Search
    axes: tuple[space.Axis, ...]
    store: studies.StudyDirectory
    device: devices.Handle


def sweep(
    config: Config, search: Search, reporter: Reporter, stop: StopRequest, *, study_id: str | None = None
) -> Outcome:
    """Train what `search` says, and tell which was best on the validation slice.

    Raises:
      UserError: settings, data or the directory cannot be used; nothing was trained or written.
      JobError: the disk, the memory or the device gave out; what was trained is kept.
    """
    axes, points = _checked(config, search)
    device = devices.choose(config.run.device)
    studies.check_id(config.run.root, study_id)
    directory.check_name(config.run.root, config.run.id or study_id)
    check_ledger(config, config.run.root)
    with jax.default_device(device):
        base = _base(config, reporter)
        _with(base, configurations(config, points))
        stop.check()
        told = {
            "kind": KIND,
            "config": as_dict(config),
            "search": dataclasses.asdict(search),
            "batches": [],
            "members": {},
            "trained": NOTHING,
            "started_at": directory.timestamp(),
        }
        store = studies.create(config.run.root, study_id, told)
        with directory.locked(store):
            seal(store, config, base)
            return _carried_out(_Sweep(config, search, axes, store, device), base, reporter, stop)


def go_on(
    store: studies.StudyDirectory, reporter: Reporter, stop: StopRequest, *, allow_drift: bool = False
) -> Outcome:
    """What `sweep` does, for one that was stopped; of one that has ended it tells the end again.

    Args:
      store: its directory.
      reporter: as of `sweep`.
      stop: likewise.
      allow_drift: go on though what the bits depend on has changed.

    Raises:
      UserError: what it knows of itself is damaged, another process writes it, or something has changed.
      JobError: as of `sweep`.
    """
    config, told = config_of(store, KIND)
    search = Search(**told["search"] | {"vary": tuple(told["search"]["vary"])})
    axes, _ = _checked(config, search)
    device = devices.choose(config.run.device)
    with jax.default_device(device), directory.locked(store):
        studies.clear_drafts(store)
        base = _base(config, reporter)
        check_seal(store, config, base, reporter, allow_drift=allow_drift)
        return _carried_out(_Sweep(config, search, axes, store, device), base, reporter, stop)


def run_best(
    outcome: Outcome, reporter: Reporter, stop: StopRequest, *, allow_drift: bool = False
) -> job.Outcome:
    """The run of the best configuration: trained, gone on with where it was stopped, or as it ended.

    Args:
      outcome: of a sweep that has a best one.
      reporter: as of `ztb_jax.training.job.train`.
      stop: likewise.
      allow_drift: as of `ztb_jax.training.resume.resume`.

    Raises:
      UserError: something else bears the name of that run, or it cannot go on.
      JobError: as of `ztb_jax.training.job.train`.
    """
    assert outcome.best is not None
    best, store = outcome.best, outcome.store.path.resolve()
    if (Path(best.run.root).expanduser() / studies.FOLDER / store.name).resolve() != store:  # it was moved
        best = dataclasses.replace(best, run=dataclasses.replace(best.run, root=str(store.parents[1])))
    run = directory.RunDirectory(Path(best.run.root).expanduser() / str(best.run.id))
    if not run.path.exists():
        return job.train(best, reporter, stop, facts={"kind": KIND, "study": store.name})
    metadata = directory.read_object(run.metadata) if run.metadata.is_file() else {}
    if metadata and metadata.get("study") != store.name:
        raise RunError(f"{run.path} is no run of this sweep: move it away, and resume")
    if metadata.get("status") == "completed":
        return job.Outcome(run, metadata, directory.read_object(run.evaluation))
    return resume.resume(run.path, reporter, stop, allow_drift=allow_drift)


def _checked(config: Config, search: Search) -> tuple[tuple[space.Axis, ...], list[dict[str, Any]]]:
    """The axes, and what can be checked before anything is trained."""
    axes = space.parse_axes(search.vary)
    findings = check_settings(config, seeds=search.seeds)
    if not axes:
        findings.append("a sweep needs something to vary, such as --vary ppo.gamma=0.9,0.95")
    for name in ("points", "batch"):
        if getattr(search, name) < 1:
            findings.append(f"--{name} is {getattr(search, name)}: give at least 1")
    if findings:
        raise ConfigError(findings)
    if search.method == "optuna":
        _optuna()
    points = space.ends(axes) if search.method == "optuna" else proposed(search, axes, [])
    configurations(config, points)
    return axes, points


def _with(base: Study, configs: tuple[Config, ...]) -> Study:
    """`base` with other configurations.

    Raises:
      UserError: one cannot be trained on its slices, or would move them.
    """
    (first,) = (first_playable(each, base.features) for each in base.configs)
    firsts = [first_playable(each, base.features) for each in configs]
    if moved := sorted({each for each in firsts if each != first}):
        raise ConfigError(
            f"a configuration can be played from bar {moved[0]} on and the others from bar {first}, so its "
            "run would have other slices: vary env.volatility_target and env.volatility_window one by one"
        )
    study = base._replace(configs=configs)
    check_folds(study, firsts)
    return study


def _base(config: Config, reporter: Reporter) -> Study:
    """The study of the configuration as it is, on the slices of a run."""
    frame, features = load_market(config, reporter)
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


def _carried_out(asked: _Sweep, base: Study, reporter: Reporter, stop: StopRequest) -> Outcome:
    """Batch after batch, each trained side by side. What was proposed is kept before it is trained."""
    config, search, store = asked.config, asked.search, asked.store
    reporter.say(f"{'study':<11}{store.path}")
    tried: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for number in itertools.count():
        told = studies.read_study(store)
        if number == len(told["batches"]):
            told["batches"].append(proposed(search, asked.axes, tried))
            studies.write_study(store, told)
        points = told["batches"][number]
        if not points:
            break
        study = _with(base, configurations(config, points))._replace(seeds=seeds_of(config, search.seeds))
        steps = f"{schedule.target_env_steps(config):,} environment steps"
        reporter.phase("train", f"{study.num_trials:,} trainings of {steps}")
        finished = train_study(study, store, reporter, stop, device=asked.device, batch=number)
        if finished is None:
            return Outcome(store, None, None)
        rows += [
            row | {"trial": len(rows) + row["trial"], "config": len(tried) + row["config"]}
            for row in finished.rows
        ]
        studies.write_rows(store, rows)
        scores = [row["validation_log_growth"] for row in finished.rows]
        tried += [
            {"settings": point, "validation_log_growth": scores[at * search.seeds :][: search.seeds]}
            for at, point in enumerate(points)
        ]
    result = _result(asked, tried)
    studies.write_result(store, result)
    if result["best"] is None:
        return Outcome(store, result, None)
    (best,) = configurations(config, [tried[result["best"]]["settings"]])
    run_id = config.run.id or store.id
    return Outcome(store, result, dataclasses.replace(best, run=dataclasses.replace(best.run, id=run_id)))


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


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError("--method optuna needs the package optuna: pip install 'ztb-jax[optuna]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _estimated(
    search: Search, axes: Sequence[space.Axis], tried: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Of optuna's tree-structured Parzen estimator, which knows those before and the rest of its batch."""
    optuna = _optuna()
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


def _result(asked: _Sweep, tried: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    config, keys = asked.config, [axis.key for axis in asked.axes]
    scores = [score_of(each) for each in tried]
    known = {number: score for number, score in enumerate(scores) if score is not None}
    made = configurations(config, [each["settings"] for each in tried])
    return {
        "id": asked.store.id,
        "kind": KIND,
        "symbol": config.data.symbol,
        "timeframe": config.data.timeframe,
        "method": asked.search.method,
        "trainings": len(tried) * asked.search.seeds,
        "best": max(known, key=lambda number: known[number], default=None),
        "points": [
            {
                "settings": {key: flat(of)[key] for key in keys},
                "validation_log_growth": each["validation_log_growth"],
                "mean": score,
            }
            for each, score, of in zip(tried, scores, made, strict=True)
        ],
    }
