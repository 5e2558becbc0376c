"""`python -m ztb_jax.training.walkforward`: train on the past, judge on what came next, again and again."""

import dataclasses
import sys
from typing import Any, NamedTuple

import jax
import pandas as pd

from ztb_jax import devices, schedule, space
from ztb_jax.config import Config, as_dict
from ztb_jax.data import folds
from ztb_jax.data.frame import bars_per_year, content_hash
from ztb_jax.errors import ConfigError
from ztb_jax.features import recipe
from ztb_jax.runs import directory, studies
from ztb_jax.slices import first_playable
from ztb_jax.training import evaluate, metadata, out_of_sample
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.progress import Reporter
from ztb_jax.training.study import (
    Study,
    check_data,
    check_settings,
    config_of,
    configurations,
    train_study,
)

KIND = "walkforward"


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How bars are cut into folds, and what is trained on each.

    Attributes:
      scheme: anchored trains on everything before a test, rolling on the newest train_bars of it,
        combinatorial on all but some of the groups of bars and what is near them.
      folds: of walking forward.
      train_bars: of a training part; None is what the tests leave.
      test_bars: of a test; None divides what follows the first training part.
      groups: of bars, combinatorial.
      held_out: groups of a test, combinatorial.
      purge: bars that labels reach forward; the environment's reach none beyond a window.
      validation: share of the training part that chooses the window and the configuration.
      seeds: trainings of every fold and configuration, with the seeds `config.seed` and on.
      vary: texts of `ztb_jax.space.parse_axes`; every combination is a configuration.
    """

    scheme: str = "anchored"
    folds: int = 8
    train_bars: int | None = None
    test_bars: int | None = None
    groups: int = 6
    held_out: int = 2
    purge: int = 0
    validation: float = 0.2
    seeds: int = 4
    vary: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """How a study ended.

    Attributes:
      store: its directory.
      result: what result.json holds; None where it was stopped before the end.
    """

    store: studies.StudyDirectory
    result: dict[str, Any] | None


def walk_forward(
    config: Config, scheme: Scheme, reporter: Reporter, stop: StopRequest, *, study_id: str | None = None
) -> Outcome:
    """Train every fold, configuration and seed, and judge what they did on the bars after.

    Raises:
      UserError: settings, data or the directory cannot be used; nothing was trained.
      JobError: the disk, the memory or the device gave out.
    """
    device = devices.choose(config.run.device)
    with jax.default_device(device):
        study = planned(config, scheme, reporter)
        store = studies.create(config.run.root, study_id, KIND)
        told = {
            "kind": KIND,
            "config": as_dict(config),
            "scheme": dataclasses.asdict(scheme),
            "data": content_hash(study.frame),
            "trials": study.num_trials,
            "environment": metadata.environment_facts(device),
            "members": {},
            "started_at": directory.timestamp(),
        }
        studies.write_study(store, told)
        return _carried_out(study, store, reporter, stop, config=config, scheme=scheme, device=device)


def go_on(store: studies.StudyDirectory, reporter: Reporter, stop: StopRequest) -> Outcome:
    """What `walk_forward` does, for a study that was stopped.

    Raises:
      RunError: the data are not those it began with, or what it knows of itself is damaged.
    """
    config, told = config_of(store, KIND)
    scheme = Scheme(**told["scheme"] | {"vary": tuple(told["scheme"]["vary"])})
    device = devices.choose(config.run.device)
    with jax.default_device(device):
        study = planned(config, scheme, reporter)
        check_data(study.frame, config, told, store)
        return _carried_out(study, store, reporter, stop, config=config, scheme=scheme, device=device)


def planned(config: Config, scheme: Scheme, reporter: Reporter) -> Study:
    """The study that `scheme` makes of a configuration and its market.

    Raises:
      UserError: with what is wrong.
    """
    points = space.grid(space.parse_axes(scheme.vary))
    findings = check_settings(config, seeds=scheme.seeds)
    if len(points) > 1 and not scheme.validation:
        findings.append("--validation is 0: without it nothing can choose among configurations")
    if findings:
        raise ConfigError(findings)
    configs = configurations(config, points)
    reporter.phase("loading", f"{config.data.symbol} {config.data.timeframe}")
    frame = evaluate.load_frame(config)
    reporter.phase("indicators", f"{config.features.recipe}, {len(frame):,} bars")
    features = recipe.compute(config.features.recipe, frame)
    first = max(first_playable(each, features) for each in configs)
    return Study(
        configs=configs,
        folds=tuple(map(_open_ended(len(frame)), _folds(config, scheme, len(frame), first))),
        seeds=tuple(range(config.seed, config.seed + scheme.seeds)),
        frame=frame,
        features=features,
        bars_per_year=bars_per_year(pd.DatetimeIndex(frame.index)),
    )


def _folds(config: Config, scheme: Scheme, num_bars: int, first: int) -> tuple[folds.Fold, ...]:
    shared = {
        "first": first,
        "embargo": config.data.embargo_bars,
        "purge": scheme.purge,
        "validation": scheme.validation,
    }
    if scheme.scheme == "combinatorial":
        return folds.combinatorial_purged(num_bars, groups=scheme.groups, held_out=scheme.held_out, **shared)
    return folds.walk_forward(
        num_bars,
        folds=scheme.folds,
        train_bars=scheme.train_bars,
        test_bars=scheme.test_bars,
        anchored=scheme.scheme == "anchored",
        **shared,
    )


def _open_ended(num_bars: int):
    """A test range takes in the bar after it, where its last decision is filled: tests then leave no gap."""

    def opened(fold: folds.Fold) -> folds.Fold:
        return fold._replace(test=tuple((start, min(stop + 1, num_bars)) for start, stop in fold.test))

    return opened


def _carried_out(
    study: Study,
    store: studies.StudyDirectory,
    reporter: Reporter,
    stop: StopRequest,
    *,
    config: Config,
    scheme: Scheme,
    device: devices.Handle,
) -> Outcome:
    with directory.locked(store):
        reporter.say(f"{'study':<11}{store.path}")
        configs, count, seeds = study.shape
        steps = f"{schedule.target_env_steps(config):,} environment steps"
        reporter.phase(
            "train",
            f"{study.num_trials:,} trainings of {steps}: {count} folds x {configs} configurations x "
            f"{seeds} seeds",
        )
        finished = train_study(study, store, reporter, stop, device=device)
        if finished is None:
            return Outcome(store, None)
        reporter.phase("evaluate", "out of sample, net of costs, beside the baselines")
        combined = scheme.scheme == "combinatorial"
        result = out_of_sample.judged(
            study,
            store,
            config,
            paths=folds.paths(scheme.groups, scheme.held_out) if combined else None,
            points=space.grid(space.parse_axes(scheme.vary)),
            finished=finished,
            reporter=reporter,
        )
        result = {"scheme": dataclasses.asdict(scheme)} | result
        directory.write_json(store.result, result)
    return Outcome(store, result)


if __name__ == "__main__":
    from ztb_jax.cli.main import run

    sys.exit(run(["walkforward", *sys.argv[1:]], prog="python -m ztb_jax.training.walkforward"))
