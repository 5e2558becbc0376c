"""Studies: configurations x folds x seeds, and what they share."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ztb_jax import space
from ztb_jax.config import Config, as_dict, flat, flattened, resolve
from ztb_jax.data.folds import Fold
from ztb_jax.data.frame import content_hash
from ztb_jax.errors import ConfigError, DataError, RunError
from ztb_jax.features.recipe import Features
from ztb_jax.runs import ledger, studies
from ztb_jax.slices import fold_findings
from ztb_jax.training import run_seal
from ztb_jax.training.progress import Reporter

WATCHED = ("baseline", "drawdown", "behind_buy_and_hold", "gap")
"""Gates that the main job has between windows, where a study has nothing."""
NOTHING = {"env_steps": 0, "seconds": 0.0, "compile_seconds": 0.0}
"""What a study has trained when it begins."""


class Study(NamedTuple):
    """What is trained. Trials are numbered by configuration, then fold, then seed.

    Attributes:
      configs: resolved; they agree in data, features, length and gates.
      folds: in bars of `frame`.
      seeds: each trial begins as the run of that seed does.
      frame: every bar.
      features: of every bar.
      bars_per_year: of the instrument.
      plays_tests: whether the test ranges are played; a sweep leaves them alone.
    """

    configs: tuple[Config, ...]
    folds: tuple[Fold, ...]
    seeds: tuple[int, ...]
    frame: pd.DataFrame
    features: Features
    bars_per_year: float
    plays_tests: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Configurations, folds, seeds."""
        return len(self.configs), len(self.folds), len(self.seeds)

    @property
    def num_trials(self) -> int:
        """Trainings in all."""
        return int(np.prod(self.shape))

    def trial(self, config: int, fold: int, seed: int) -> int:
        """The number of a trial, of a configuration, a fold and a seed by their positions."""
        _, folds, seeds = self.shape
        return (config * folds + fold) * seeds + seed


def seeds_of(config: Config, count: int) -> tuple[int, ...]:
    """`config.seed` and those after it."""
    return tuple(range(config.seed, config.seed + count))


def check_settings(config: Config, *, seeds: int) -> list[str]:
    """What is wrong with the settings of a study, a sentence each."""
    findings = []
    if config.run.window_env_steps is not None:
        findings.append("run.window_env_steps is of runs; trials are validated every run.window_updates")
    if config.run.patience_windows is not None:
        findings.append("run.patience_windows ends runs; trials side by side are trained to their end")
    findings += [
        f"gates.{name} watches a run between its windows, trials side by side have no such gate: leave it out"
        for name in WATCHED
        if getattr(config.gates, name) is not None
    ]
    if config.run.devices != 1:
        findings.append("run.devices must be 1: trials side by side fill a device")
    if seeds < 1:
        findings.append(f"--seeds is {seeds}: train at least one")
    elif config.seed + seeds > 2**32:
        findings.append(f"seed is {config.seed}, and the last of --seeds {seeds} is beyond 2^32 - 1")
    return findings


def check_folds(study: Study, firsts: Sequence[int]) -> None:
    """Refuse what `build.prepare_fold` would refuse after other folds were trained.

    Args:
      study: to be trained.
      firsts: of each configuration, the first bar that can be played.

    Raises:
      DataError: with every finding.
    """
    findings = [
        finding
        for config, first in zip(study.configs, firsts, strict=True)
        for fold in study.folds
        for finding in fold_findings(config, fold, bounds=(first, len(study.frame)))
    ]
    if findings:
        raise DataError(list(dict.fromkeys(findings)))


def check_ledger(config: Config, root: str | Path) -> None:
    """Refuse early a record of scorings that the end of a study could not write.

    Raises:
      RunError: it is damaged, or cannot be written.
    """
    ledger.check(ledger.place(Path(root).expanduser(), config.run.ledger))


def configurations(config: Config, points: Sequence[Mapping[str, Any]]) -> tuple[Config, ...]:
    """`config` with each of `points`, settings by dotted key, over it.

    Raises:
      ConfigError: a combination contradicts itself; all findings at once, each with its point.
    """
    made, findings = [], []
    base = flat(config)
    for point in points:
        try:
            made.append(resolve(environ={}, flags={**base, **point}))
        except ConfigError as error:
            findings += [f"{space.described(point)}: {finding}" for finding in error.findings]
    if findings:
        raise ConfigError(list(dict.fromkeys(findings)))
    return tuple(made)


def config_of(store: studies.StudyDirectory, kind: str) -> tuple[Config, dict[str, Any]]:
    """The configuration that a study was begun with, and all that study.json tells.

    Raises:
      UserError: it is a study of another kind, or damaged.
    """
    told = studies.read_study(store)
    if told["kind"] != kind:
        raise RunError(f"{store.path} is a {told['kind']}: go on with `ztb {told['kind']} --resume`")
    return resolve(environ={}, flags=flattened(told["config"])), told


def seal(store: studies.StudyDirectory, config: Config, study: Study) -> None:
    """Write what the bits of a study depend on."""
    run_seal.write_seal(store.seal, run_seal.make_seal(store.id, config.seed, as_dict(config), _facts(study)))


def check_seal(
    store: studies.StudyDirectory, config: Config, study: Study, reporter: Reporter, *, allow_drift: bool
) -> None:
    """Refuse to go on with other code, packages, machine, settings, bars or features than a study began with.

    Args:
      store: of the study.
      config: that it was begun with.
      study: as it is made now.
      reporter: told what has changed, where that is allowed.
      allow_drift: whether it is.

    Raises:
      RunError: something has changed, or the seal is damaged.
    """
    if not store.seal.is_file():  # stopped before it was sealed: nothing is trained yet
        seal(store, config, study)
        return
    changed = run_seal.changes(run_seal.read_seal(store.seal), config=as_dict(config), facts=_facts(study))
    if changed and not allow_drift:
        raise RunError(
            [f"{store.path}: {each}" for each in changed]
            + [
                "the bits would not be those of an uninterrupted study: restore what has changed, or give "
                "--allow-drift to go on regardless"
            ]
        )
    for each in changed:
        reporter.say(f"{'drift':<11}{each}")


def _facts(study: Study) -> dict[str, Any]:
    made = hashlib.sha256(np.ascontiguousarray(study.features.values).tobytes())
    made.update(np.ascontiguousarray(study.features.valid).tobytes())
    return {"data": content_hash(study.frame), "features": made.hexdigest()}
