"""The trainings of a study: which share a program, their data, and each chunk kept when it is done."""

import time
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from ztb_jax import build, devices, numbers, schedule
from ztb_jax.config import Config, flat
from ztb_jax.data.market import MarketData
from ztb_jax.data.stretches import stack_folds
from ztb_jax.errors import JobError
from ztb_jax.evaluation import compare, metrics, pooling
from ztb_jax.evaluation.backtest import Trace, make_policy_backtest
from ztb_jax.evaluation.stress import make_stress
from ztb_jax.gating import MAX_EDGE
from ztb_jax.runs import studies
from ztb_jax.runs.studies import Arrays, Rows
from ztb_jax.training import memory, saved_policy, scoring
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.progress import Reporter
from ztb_jax.training.study import Study
from ztb_jax.trials import NoRoomError, Program, Trained, Trials, compile_trials, evenly

TOLD = ("turnover", "num_trades", "fees_paid", "exposure")
"""Metrics of each trial on each test range, beside those of the returns that end sold."""


KINDS = {"returns": 1.0, "doubled_costs": 2.0, "late": 1.0}
"""How trials play their tests, with the multiple of costs: as it is, dearer, with orders a bar late."""


class Finished(NamedTuple):
    """What came of all trials. Axes: N trials, in order of their numbers.

    Attributes:
      rows: [N] `ztb_jax.runs.studied.TrialRow`.
      arrays: [N] `<kind>_<r>` [T] for each of `KINDS` and each test range r, sold at its end and 0 beyond
        it; `levels_<r>` [T], what was asked for as it is; and the weights.
    """

    rows: Rows
    arrays: list[Arrays]


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
    spent: dict[str, Any] = told["trained"]
    brought: dict[int, tuple[dict[str, Any], Arrays]] = {}
    for number, group in enumerate(groups(study)):
        key = f"{batch:03d}-{number:03d}"
        members = told["members"].get(key)
        trainer = Trainer(study, group, members=members, device=device)
        if members is None:
            members = told["members"][key] = trainer.program.members
            studies.write_study(store, told)
        members = evenly(len(trainer.trials), members)
        for chunk in range(-(-len(trainer.trials) // members)):
            name, wanted = f"{key}-{chunk:05d}", trainer.trials[chunk * members :][:members]
            found = studies.read_chunk(store, name, trials=wanted)
            if found is None:
                found = trainer.run(chunk, stop)
                if found is None:
                    return None
                studies.write_chunk(store, name, *found)
                spent["env_steps"] += trainer.env_steps * len(wanted)
                spent["seconds"] += trainer.seconds.pop("run")
                spent["compile_seconds"] += trainer.seconds.pop("compile", 0.0)
                studies.write_study(store, told)
            rows, arrays = found
            for at, row in enumerate(rows):
                brought[row["trial"]] = row, {name: values[at] for name, values in arrays.items()}
            steps, done = trainer.env_steps, len(brought)
            rate = spent["env_steps"] / spent["seconds"] if spent["seconds"] else 0.0
            note = f"{done:,} of {study.num_trials:,} trainings"
            reporter.advance(done * steps, study.num_trials * steps, rate=rate, note=note)
    ordered = [brought[trial] for trial in range(study.num_trials)]
    return Finished([row for row, _ in ordered], [arrays for _, arrays in ordered])


class Group(NamedTuple):
    """Trials of one program: numbers of configurations and folds, all seeds."""

    configs: tuple[int, ...]
    folds: tuple[int, ...]


def groups(study: Study) -> list[Group]:
    """Configurations that differ in numbers of the learner's state alone share a program.

    An environment whose reward is built from what its training bars measure is another one in every fold.
    """
    alike: dict[str, list[int]] = {}
    for number, config in enumerate(study.configs):
        alike.setdefault(_program_key(config), []).append(number)
    every = range(len(study.folds))
    return [
        Group(tuple(configs), tuple(folds))
        for configs in alike.values()
        for folds in ([every] if _measures_nothing(study.configs[configs[0]]) else [[fold] for fold in every])
    ]


def _measures_nothing(config: Config) -> bool:
    return config.env.reward == "log_return"


def _program_key(config: Config) -> str:
    """Everything that a program depends on; of numbers only whether they are there, and how many."""
    free = numbers.keys_of(config)
    return repr({key: _form(value) if key in free else value for key, value in flat(config).items()})


def _form(value: Any) -> Any:
    return len(value) if isinstance(value, tuple | list) else value is None


class _Data(NamedTuple):
    """Of the folds of a group.

    Attributes:
      folds: [D] each prepared.
      tests: one for each test range, of all folds; none where they are not played.
      play: (weights [C, ...], data [C, ...]) -> Trace [C, N].
      harder: likewise Trace [C, 2, N], with the other two of `KINDS`.
      program: that trains.
    """

    folds: list[build.FoldData]
    tests: list[MarketData]
    play: Any
    harder: Any
    program: Program


class Trainer:
    """The trials of a group, and the program that trains them, which is made when it is first needed.

    Attributes:
      trials: [n] their numbers in the study, in the order in which chunks take them.
      env_steps: of one trial.
      seconds: what the last `run` took, and compiling.
    """

    def __init__(self, study: Study, group: Group, *, members: int | None, device: devices.Handle):
        self.study, self.group, self.members, self.device = study, group, members, device
        self.config = study.configs[group.configs[0]]
        self.env_steps = schedule.target_env_steps(self.config)
        self.numbers = [
            (config, fold, seed)
            for config in group.configs
            for fold in range(len(group.folds))
            for seed in range(len(study.seeds))
        ]
        self.trials = [study.trial(config, group.folds[fold], seed) for config, fold, seed in self.numbers]
        self.seconds: dict[str, float] = {}

    @property
    def program(self) -> Program:
        """The compiled program of this group."""
        return self._data.program

    @cached_property
    def _data(self) -> _Data:
        study, config, started = self.study, self.config, time.perf_counter()
        folds = [
            build.prepare_fold(config, study.frame, study.features, study.folds[fold])
            for fold in self.group.folds
        ]
        num_features, measured = study.features.values.shape[1], folds[0].measured
        env = build.make_environment(config, measured=measured)
        network = build.make_network(config, num_features=num_features)
        backtest = make_policy_backtest(network, env)
        roomy = build.make_environment(config, measured=measured, extra_latency=1)
        tested = make_stress(network, roomy, costs=(2.0,), latency=(1,), slippage=(), draws=0)
        stacked = partial(stack_folds, episode_bars=config.env.episode_bars)
        chooses = [fold.validation for fold in folds if fold.validation is not None]
        try:
            program = compile_trials(
                build.make_learner(config, num_features=num_features, measured=measured),
                stacked([fold.train for fold in folds]),
                trials=len(self.trials),
                num_windows=schedule.num_windows(config),
                window_updates=config.run.window_updates,
                backtest=backtest if chooses else None,
                validation=stacked(chooses) if chooses else None,
                memory_bytes=memory.room(self.device),
                members=self.members,
            )
        except NoRoomError as error:
            raise JobError(str(error)) from None
        places = range(len(folds[0].tests)) if study.plays_tests else ()
        tests = [stacked([fold.tests[place] for fold in folds]) for place in places]
        self.seconds["compile"] = time.perf_counter() - started
        nothing = jax.random.key(0)  # is drawn
        harder = jax.jit(jax.vmap(lambda params, data: tested.run(params, data, nothing)))
        return _Data(folds, tests, jax.jit(jax.vmap(backtest)), harder, program)

    def run(self, chunk: int, stop: StopRequest) -> tuple[Rows, Arrays] | None:
        """The rows and arrays of a chunk; None where `stop` was asked for.

        Raises:
          JobError: memory ran out.
        """
        program, started = self.program, time.perf_counter()
        try:
            trained = program.run(self._wanted(), chunk, lambda: stop.signal is not None)
            if trained is None:
                return None
            rows = [self._row(trained, at) for at in range(len(trained.trials))]
            arrays = {f"weights/{n}": values for n, values in saved_policy.weights_of(trained.params).items()}
            arrays |= self._play(trained, rows)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not memory.is_exhausted(error):
                raise
            raise JobError(
                f"memory ran out while {program.members} trainings ran side by side: "
                f"{memory.smaller(self.config, 0.5)}"
            ) from error
        self.seconds["run"] = time.perf_counter() - started
        return rows, arrays

    def _wanted(self) -> Trials:
        study = self.study
        hyper = [numbers.arrays_of(study.configs[config]) for config, _, _ in self.numbers]
        return Trials(
            market=np.array([fold for _, fold, _ in self.numbers], np.int32),
            seed=np.array([study.seeds[seed] for _, _, seed in self.numbers], np.uint32),
            hyper=None if hyper[0] is None else jax.tree.map(lambda *leaves: np.stack(leaves), *hyper),
        )

    def _row(self, trained: Trained, at: int) -> dict[str, Any]:
        number = int(trained.trials[at])
        config, fold, seed = self.numbers[number]
        chosen = int(trained.chosen[at])
        growth = trained.validation[at, chosen] if chosen >= 0 else np.nan
        return {
            "trial": self.trials[number],
            "config": config,
            "fold": self.group.folds[fold],
            "seed": self.study.seeds[seed],
            "policy": scoring.policy_digest(jax.tree.map(lambda leaf: leaf[at], trained.params)),
            "chosen_window": chosen if chosen >= 0 else None,
            "validation_log_growth": _number(growth),
            "reward_mean": _number(trained.reward[at, -1]),
            "verdict": int(trained.verdict[at]),
            "tests": [],
        }

    def _play(self, trained: Trained, rows: Rows) -> Arrays:
        """Returns [n, T] on each test range; `rows` gain what is told of them."""
        # The last chunk is filled up, so that all are played by one program.
        filled = np.resize(np.arange(len(rows)), self.program.members)
        params = jax.tree.map(lambda leaf: leaf[filled], trained.params)
        own = [self.numbers[trial][1] for trial in trained.trials]
        arrays = {}
        for place, data in enumerate(self._data.tests):
            mine = jax.tree.map(lambda leaf: leaf[np.array(own)[filled]], data)
            plain = jax.device_get(self._data.play(params, mine))
            harder = jax.device_get(self._data.harder(params, mine))
            played = (plain, *(jax.tree.map(lambda leaf, n=n: leaf[:, n], harder) for n in range(2)))
            levels = arrays[f"levels_{place}"] = np.zeros((len(rows), plain.level.shape[1]), np.float32)
            for (kind, times), traces in zip(KINDS.items(), played, strict=True):
                returns = np.zeros((len(rows), traces.gain.shape[1]))
                for at, row in enumerate(rows):
                    fold = self._data.folds[own[at]]
                    bars = fold.tests[place].num_steps
                    trace = jax.tree.map(lambda leaf, at=at, bars=bars: leaf[at, :bars], traces)
                    if row["chosen_window"] is None:  # it brought no policy, so nobody would have traded
                        trace = jax.tree.map(np.zeros_like, trace)
                    returns[at, :bars] = _sold(trace, fold.tests[place], times)
                    if kind == "returns":
                        levels[at, :bars] = trace.level
                        row["tests"].append(self._tested(trace, returns[at, :bars], fold, place))
                arrays[f"{kind}_{place}"] = returns
        return arrays

    def _tested(self, trace: Trace, returns: np.ndarray, fold: build.FoldData, place: int) -> dict[str, Any]:
        year, (start, stop) = self.study.bars_per_year, fold.fold.test[place]
        gap, _ = compare.bars_of(fold.tests[place])
        summary = compare.summarise(compare.account_of(trace, gap), year)
        equity, stamps = np.append(1.0, np.cumprod(1.0 + returns)), self.study.frame.index
        return {
            "first": str(stamps[start]),
            "last": str(stamps[stop - 1]),
            "bars": stop - start - 1,
            "total_return": metrics.total_return(equity),
            "sharpe": _number(metrics.sharpe(returns, year)),
            "max_drawdown": metrics.max_drawdown(equity),
            **{name: summary[name] for name in TOLD},
        }


def _sold(trace: Trace, data: MarketData, times: float) -> np.ndarray:
    """[N] net returns of a trace whose last holding is sold at the last close, at `times` its costs."""
    costs, market, last = data.env_params.costs, data.env_params.market, int(data.env_params.stop) - 1
    edge = float(costs.half_spread) + float(costs.slippage)
    if costs.volatility_slippage is not None and market.volatility is not None:
        edge += float(costs.volatility_slippage) * float(market.volatility[last])
    return pooling.closed(
        np.asarray(trace.gain),
        float(trace.exposure[-1]),
        edge=min(times * edge, MAX_EDGE),
        fee_rate=min(times * float(costs.fee_rate), 1.0),
    )


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
