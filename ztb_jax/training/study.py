"""Studies: configurations x folds x seeds, trained as few programs, each chunk kept when it is done."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from ztb_jax import build, devices, schedule, space
from ztb_jax.config import Config, flat, flattened, resolve
from ztb_jax.data.folds import Fold
from ztb_jax.data.frame import content_hash
from ztb_jax.data.stretches import stack_folds
from ztb_jax.errors import ConfigError, JobError, RunError
from ztb_jax.evaluation import compare, pooling
from ztb_jax.evaluation.backtest import make_policy_backtest
from ztb_jax.features.recipe import Features
from ztb_jax.runs import studies
from ztb_jax.training import memory, saved_policy, scoring
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.progress import Reporter
from ztb_jax.trials import Trained, Trials, compile_trials

TOLD = ("total_return", "sharpe", "max_drawdown", "turnover", "num_trades", "fees_paid", "exposure")
"""Metrics of each trial on each test range."""

Rows = list[dict[str, Any]]
Arrays = dict[str, np.ndarray]


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


class Finished(NamedTuple):
    """What came of all trials. Axes: N trials, in order of their numbers.

    Attributes:
      rows: [N] what is told of each.
      arrays: [N] `returns_<r>` [T] of each test range r, sold at its end and 0 beyond it, and the weights.
      env_steps: trained now, not before a stop.
      seconds: that it took, compiling left out.
      compile_seconds: of the programs.
    """

    rows: Rows
    arrays: list[Arrays]
    env_steps: int
    seconds: float
    compile_seconds: float


def check_settings(config: Config, *, seeds: int) -> list[str]:
    """What is wrong with the settings of a study."""
    findings = []
    if config.run.window_env_steps is not None:
        findings.append("run.window_env_steps is of runs; trials are validated every run.window_updates")
    if config.run.devices != 1:
        findings.append("run.devices must be 1: trials side by side fill a device")
    if seeds < 1:
        findings.append(f"--seeds is {seeds}: train at least one")
    return findings


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
      RunError: it is a study of another kind, or damaged.
    """
    told = studies.read_study(store)
    if told.get("kind") != kind:
        raise RunError(
            f"{store.path} is a {told.get('kind')}, not a {kind}: go on with `ztb {told.get('kind')}`"
        )
    return resolve(environ={}, flags=flattened(told["config"])), told


def check_data(frame: pd.DataFrame, config: Config, told: Mapping[str, Any], store: Any) -> None:
    """Refuse to go on with other bars than a study began with.

    Raises:
      RunError: they are others.
    """
    if content_hash(frame) != told["data"]:
        raise RunError(
            f"the bars of {config.data.symbol} {config.data.timeframe} are not those that {store.path} began "
            "with: import that version of the file again, or begin anew"
        )


def train_study(
    study: Study,
    store: studies.StudyDirectory,
    reporter: Reporter,
    stop: StopRequest,
    *,
    device: devices.Handle,
    batch: int = 0,
) -> Finished | None:
    """Train what is not yet trained; None where `stop` was asked for before the end.

    Chunks are kept as they are done, and a study that goes on reads those and trains the rest. Trials do not
    see each other, and study.json holds the size of every program's chunks, so the bits are those of a study
    that was never stopped.

    Args:
      study: what is trained.
      store: where it is kept.
      reporter: told the progress.
      stop: looked at between windows.
      device: where.
      batch: number of this study among those of one directory.

    Raises:
      RunError: a chunk is damaged.
      JobError: one trial needs more memory than there is.
    """
    told = studies.read_study(store)
    brought: dict[int, tuple[dict[str, Any], Arrays]] = {}
    spent, compiling, env_steps = 0.0, 0.0, 0
    for number, group in enumerate(_groups(study)):
        key = f"{batch:03d}-{number:03d}"
        started = time.perf_counter()
        trainer = _Trainer(study, group, members=told["members"].get(key), device=device)
        compiling += time.perf_counter() - started
        if key not in told["members"]:
            told["members"][key] = trainer.program.members
            studies.write_study(store, told)
        for chunk in range(trainer.program.num_chunks):
            found = studies.read_chunk(store, f"{key}-{chunk:05d}")
            if found is None:
                started = time.perf_counter()
                found = trainer.run(chunk, stop)
                if found is None:
                    return None
                spent += time.perf_counter() - started
                env_steps += trainer.env_steps * len(found[0])
                studies.write_chunk(store, f"{key}-{chunk:05d}", *found)
            rows, arrays = found
            for at, row in enumerate(rows):
                brought[row["trial"]] = row, {name: values[at] for name, values in arrays.items()}
            rate, done = env_steps / spent if spent else 0.0, len(brought)
            steps = trainer.env_steps
            note = f"{done:,} of {study.num_trials:,} trainings"
            reporter.advance(done * steps, study.num_trials * steps, rate=rate, note=note)
    ordered = [brought[trial] for trial in range(study.num_trials)]
    studies.write_rows(store, [row for row, _ in ordered])
    return Finished([row for row, _ in ordered], [each for _, each in ordered], env_steps, spent, compiling)


class _Group(NamedTuple):
    """Trials of one program: numbers of configurations and folds, all seeds."""

    configs: tuple[int, ...]
    folds: tuple[int, ...]


def _groups(study: Study) -> list[_Group]:
    """Configurations that differ in numbers of the learner's state alone share a program.

    An environment whose reward is built from what its training bars measure is another one in every fold.
    """
    alike: dict[str, list[int]] = {}
    for number, config in enumerate(study.configs):
        alike.setdefault(_program_key(config), []).append(number)
    every = range(len(study.folds))
    return [
        _Group(tuple(configs), tuple(folds))
        for configs in alike.values()
        for folds in ([every] if _measures_nothing(study.configs[configs[0]]) else [[fold] for fold in every])
    ]


def _measures_nothing(config: Config) -> bool:
    return config.env.reward == "log_return"


def _program_key(config: Config) -> str:
    """Everything that a program depends on; of numbers only whether they are there, and how many."""
    numbers = build.number_keys(config)
    forms = {key: value if key not in numbers else _form(value) for key, value in flat(config).items()}
    return repr(forms)


def _form(value: Any) -> Any:
    return len(value) if isinstance(value, tuple | list) else value is None


class _Trainer:
    """The program of a group, its data, and which trials it trains."""

    def __init__(self, study: Study, group: _Group, *, members: int | None, device: devices.Handle):
        self.study, config = study, study.configs[group.configs[0]]
        folds = [
            build.prepare_fold(config, study.frame, study.features, study.folds[fold]) for fold in group.folds
        ]
        self.prepared = folds
        num_features, measured = study.features.values.shape[1], folds[0].measured
        env = build.make_environment(config, measured=measured)
        network = build.make_network(config, num_features=num_features)
        learner = build.make_learner(config, num_features=num_features, measured=measured)
        stacked = partial(stack_folds, episode_bars=config.env.episode_bars)
        backtest = make_policy_backtest(network, env)
        self.learner, self.env_steps = learner, schedule.target_env_steps(config)
        # Trials of a fold side by side would not share anything: each has its own weights.
        self.numbers = [
            (config, fold, seed)
            for config in group.configs
            for fold in range(len(group.folds))
            for seed in range(len(study.seeds))
        ]
        self.fold_of = np.array(group.folds)
        hyper = [build.numbers_of(study.configs[config]) for config, _, _ in self.numbers]
        self.trials = Trials(
            market=np.array([fold for _, fold, _ in self.numbers], np.int32),
            seed=np.array([study.seeds[seed] for _, _, seed in self.numbers], np.uint32),
            hyper=None if hyper[0] is None else jax.tree.map(lambda *leaves: np.stack(leaves), *hyper),
        )
        validates = folds[0].validation is not None
        try:
            self.program = compile_trials(
                learner,
                stacked([fold.train for fold in folds]),
                trials=len(self.numbers),
                num_windows=schedule.num_windows(config),
                window_updates=config.run.window_updates,
                backtest=backtest if validates else None,
                validation=stacked([fold.validation for fold in folds if fold.validation is not None])
                if validates
                else None,
                memory_bytes=memory.room(device),
                members=members,
            )
        except ValueError as error:
            raise JobError(f"{error}, or raise ppo.num_minibatches") from None
        self.tests = []
        if study.plays_tests:
            self.tests = [
                stacked([fold.tests[place] for fold in folds]) for place in range(len(folds[0].tests))
            ]
        self.play = jax.jit(jax.vmap(backtest))
        self.cost = config.env.fee_rate + config.env.half_spread + config.env.slippage

    def run(self, chunk: int, stop: StopRequest) -> tuple[Rows, Arrays] | None:
        """The rows and arrays of a chunk; None where `stop` was asked for."""
        trained = self.program.run(self.trials, chunk, lambda: stop.signal is not None)
        if trained is None:
            return None
        named = saved_policy.weights_of(trained.params)
        rows = [self._row(trained, at) for at in range(len(trained.trials))]
        arrays = {f"weights/{name}": values for name, values in named.items()}
        # The last chunk is filled up, so that all are played by one program.
        filled = np.resize(np.arange(len(trained.trials)), self.program.members)
        params = jax.tree.map(lambda leaf: leaf[filled], trained.params)
        markets = self.trials.market[trained.trials[filled]]
        for place, data in enumerate(self.tests):
            traces = jax.device_get(self.play(params, jax.tree.map(lambda leaf: leaf[markets], data)))
            returns = np.zeros((len(rows), traces.gain.shape[1]))
            for at, row in enumerate(rows):
                bars = self._bars(row, place)
                trace = jax.tree.map(lambda leaf, at=at, bars=bars: leaf[at, :bars], traces)
                row["tests"].append(self._played(trace, row, place))
                returns[at, : trace.gain.size] = pooling.closed(trace.gain, trace.exposure[-1], self.cost)
            arrays[f"returns_{place}"] = returns
        return rows, arrays

    def _row(self, trained: Trained, at: int) -> dict[str, Any]:
        config, fold, seed = self.numbers[trained.trials[at]]
        folds, seeds = len(self.study.folds), len(self.study.seeds)
        fold = int(self.fold_of[fold])
        growth, chosen = trained.validation[at], int(trained.chosen[at])
        mine = jax.tree.map(lambda leaf: leaf[at], trained.params)
        return {
            "trial": (config * folds + fold) * seeds + seed,
            "config": config,
            "fold": fold,
            "seed": self.study.seeds[seed],
            "policy": scoring.policy_digest(mine),
            "chosen_window": chosen,
            "validation_log_growth": _number(growth[chosen]) if chosen >= 0 else None,
            "reward_mean": _number(trained.reward[at, -1]),
            "verdict": int(trained.verdict[at]),
            "tests": [],
        }

    def _fold(self, row: Mapping[str, Any]) -> build.FoldData:
        return self.prepared[int(np.flatnonzero(self.fold_of == row["fold"])[0])]

    def _bars(self, row: Mapping[str, Any], place: int) -> int:
        start, stop = self._fold(row).fold.test[place]
        return stop - start - 1

    def _played(self, trace: Any, row: Mapping[str, Any], place: int) -> dict[str, Any]:
        """What a policy did on a test range."""
        fold = self._fold(row)
        gap, _ = compare.bars_of(fold.tests[place])
        summary = compare.summarise(compare.account_of(trace, gap), self.study.bars_per_year)
        start, stop = fold.fold.test[place]
        stamps = self.study.frame.index
        told = {"first": str(stamps[start]), "last": str(stamps[stop - 1]), "bars": stop - start - 1}
        return told | {name: summary[name] for name in TOLD}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
