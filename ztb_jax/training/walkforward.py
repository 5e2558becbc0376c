"""`python -m ztb_jax.training.walkforward`: train on the past, judge on what came next, again and again."""

import dataclasses
import sys
from typing import Any, NamedTuple

import jax
import pandas as pd

from ztb_jax import devices, schedule, space
from ztb_jax.config import Config, as_dict
from ztb_jax.data import folds
from ztb_jax.data.frame import bars_per_year
from ztb_jax.errors import ConfigError
from ztb_jax.evaluation import report_study
from ztb_jax.runs import directory, studies
from ztb_jax.runs.studied import Scheme
from ztb_jax.slices import first_playable
from ztb_jax.training import out_of_sample
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

KIND = "walkforward"


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
      UserError: settings, data or the directory cannot be used; nothing was trained or written.
      JobError: the disk, the memory or the device gave out; what was trained is kept.
    """
    device = devices.choose(config.run.device)
    studies.check_id(config.run.root, study_id)
    check_ledger(config, config.run.root)
    with jax.default_device(device):
        study = planned(config, scheme, reporter)
        stop.check()
        told = {
            "kind": KIND,
            "config": as_dict(config),
            "scheme": dataclasses.asdict(scheme),
            "members": {},
            "trained": NOTHING,
            "started_at": directory.timestamp(),
        }
        store = studies.create(config.run.root, study_id, told)
        with directory.locked(store):
            seal(store, config, study)
            return _carried_out(study, store, reporter, stop, config=config, scheme=scheme, device=device)


def go_on(
    store: studies.StudyDirectory, reporter: Reporter, stop: StopRequest, *, allow_drift: bool = False
) -> Outcome:
    """What `walk_forward` does, for a study that was stopped; one that has ended is judged again.

    Args:
      store: its directory.
      reporter: as of `walk_forward`.
      stop: likewise.
      allow_drift: go on though what the bits depend on has changed.

    Raises:
      UserError: what it knows of itself is damaged, another process writes it, or something has changed.
      JobError: as of `walk_forward`.
    """
    config, told = config_of(store, KIND)
    scheme = Scheme(**told["scheme"] | {"vary": tuple(told["scheme"]["vary"])})
    device = devices.choose(config.run.device)
    with jax.default_device(device), directory.locked(store):
        studies.clear_drafts(store)
        check_ledger(config, store.path.resolve().parents[1])
        study = planned(config, scheme, reporter)
        check_seal(store, config, study, reporter, allow_drift=allow_drift)
        return _carried_out(study, store, reporter, stop, config=config, scheme=scheme, device=device)


def planned(config: Config, scheme: Scheme, reporter: Reporter) -> Study:
    """The study that `scheme` makes of a configuration and its market.

    Raises:
      UserError: with what is wrong.
    """
    points = space.grid(space.parse_axes(scheme.vary))
    findings = check_settings(config, seeds=scheme.seeds)
    if config.run.id is not None:
        findings.append("run.id names a run: name a study with --id")
    if len(points) > 1 and not scheme.validation:
        findings.append("--validation is 0: without it nothing can choose among configurations")
    if findings:
        raise ConfigError(findings)
    configs = configurations(config, points)
    frame, features = load_market(config, reporter)
    firsts = [first_playable(each, features) for each in configs]
    cut = _folds(config, scheme, len(frame), max(firsts))
    study = Study(
        configs=configs,
        folds=tuple(map(_open_ended(len(frame)), cut)),
        seeds=seeds_of(config, scheme.seeds),
        frame=frame,
        features=features,
        bars_per_year=bars_per_year(pd.DatetimeIndex(frame.index)),
    )
    check_folds(study, firsts)
    return study


def _folds(config: Config, scheme: Scheme, num_bars: int, first: int) -> tuple[folds.Fold, ...]:
    shared = {
        "first": first,
        "embargo": config.data.embargo_bars,
        "purge": scheme.purge,
        "validation": scheme.validation,
    }
    if scheme.scheme == "combinatorial":
        # A test takes in one bar more than its group, so what is trained after it begins one later.
        shared["embargo"] += 1
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
    reporter.say(f"{'study':<11}{store.path}")
    configs, count, seeds = study.shape
    each = f"{study.num_trials:,} trainings of {schedule.target_env_steps(config):,} environment steps"
    reporter.phase("train", f"{each}: {count} folds x {configs} configurations x {seeds} seeds")
    finished = train_study(study, store, reporter, stop, device=device)
    if finished is None:
        return Outcome(store, None)
    studies.write_rows(store, finished.rows)
    reporter.phase("evaluate", "out of sample, net of costs, beside the baselines")
    combined = scheme.scheme == "combinatorial"
    judged = out_of_sample.judged(
        study,
        store,
        config,
        scheme,
        paths=folds.paths(scheme.groups, scheme.held_out) if combined else None,
        finished=finished,
        reporter=reporter,
    )
    studies.write_arrays(store.returns, judged.arrays)
    names = [space.described(each["settings"]) for each in judged.result["configurations"]]
    page = report_study.render(judged.result, judged.arrays, names=names, config=as_dict(config))
    directory.write_text(store.report, page)
    studies.write_result(store, judged.result)
    return Outcome(store, judged.result)


if __name__ == "__main__":
    from ztb_jax.cli.main import run

    sys.exit(run(["walkforward", *sys.argv[1:]], prog="python -m ztb_jax.training.walkforward"))
