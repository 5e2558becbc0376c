"""What being watched costs: every sink at once, and a replay of every window.

The main job's loop at its defaults, its work between windows included, three times in turn: as it is, telling
TensorBoard, the text log, Weights & Biases (offline) and MLflow (a folder) of everything, and keeping the
policy of each window and playing 512 bars with it. What goes on in other threads takes processor time from
training and counts; what is left of it when the last window ends is waited for, and counts too.
"""

import dataclasses
import os
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax

from benchmarks.harness import Row, in_turn, rate_row
from benchmarks.train import prepared
from ztb_jax import build, schedule
from ztb_jax.config import Config, as_dict
from ztb_jax.runs import checkpoint, directory, loop, sinks
from ztb_jax.settings import ReplayConfig, SinkConfig
from ztb_jax.training import metadata
from ztb_jax.training.between import Between
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.progress import Reporter
from ztb_jax.training.replaying import Recorder

REPEATS, WINDOWS = 15, 4
BARS = {"with every sink": 0.98, "with a replay every window": 0.95}


class Job:
    """The main job's loop, which goes on for `WINDOWS` windows at every call and leaves nothing in flight."""

    def __init__(self, config: Config, folder: Path, open_for: ExitStack, window: Callable[..., Any]):
        ready = prepared(config)
        device = jax.devices()[0]
        run = directory.create(folder, None, as_dict(config))
        self.data, self.window, self.number = ready.slices["train"], window, 0
        reporter = Reporter(stream=open_for.enter_context(Path(os.devnull).open("w")))  # noqa: SIM115
        told = sinks.Sinks(sinks.make_sinks(config.sinks, run), report=_failed, learnt=reporter.learn)
        self.told = open_for.enter_context(told)
        reporter.listener = self.told.tell
        reporter.attach(run, **metadata.begun(config, ready, run, device=device))
        reporter.tell("begun", as_dict(config))
        self.recorder = None
        if config.replays.episodes:
            recorder = Recorder(config, prepared=ready, run=run, reporter=reporter, device=device)
            self.recorder = open_for.enter_context(recorder)
        learner = build.make_learner(config, num_features=ready.num_features, measured=ready.measured)
        self.state = loop.initialise(learner, config.seed, self.data)
        self.after = Between(
            config,
            prepared=ready,
            run=run,
            reporter=reporter,
            checkpoints=open_for.enter_context(checkpoint.Checkpoints(run.checkpoints, keep=2)),
            learner=learner,
            stop=StopRequest(),
            planned=1 << 40,
            recorder=self.recorder,
        )

    def __call__(self) -> None:
        """Train."""
        first, self.number = self.number, self.number + WINDOWS
        self.state, stopped = loop.run_windows(
            self.window, self.state, self.data, count=self.number, first=first, after=self.after
        )
        if stopped is not None:
            raise SystemExit(f"the job was stopped: {stopped}")
        self.after.settle()
        if self.recorder is not None:
            self.recorder.settle()


def _failed(sentence: str) -> None:
    sys.exit(f"a sink failed, so that there is nothing to measure: {sentence}")


def watching_rows(folder: Path) -> list[Row]:
    """The main job as it is, with sinks, and with replays."""
    config = Config()
    everything = SinkConfig(
        logs=str(folder / "logs"), tensorboard=True, wandb="offline", mlflow=f"file:{folder / 'mlruns'}"
    )
    replayed = dataclasses.replace(config.run, policy_every_windows=1)
    ready = prepared(config)
    learner = build.make_learner(config, num_features=ready.num_features, measured=ready.measured)
    data = ready.slices["train"]
    state = jax.eval_shape(learner.init, jax.random.key(config.seed), data)
    window = loop.compile_window(learner, state, data, num_updates=config.run.window_updates)
    with ExitStack() as open_for:
        ways = {
            "as it is": config,
            "with every sink": dataclasses.replace(config, sinks=everything),
            "with a replay every window": dataclasses.replace(
                config, run=replayed, replays=ReplayConfig(episodes=1)
            ),
        }
        jobs = {name: Job(asked, folder / "runs", open_for, window) for name, asked in ways.items()}
        seconds = in_turn(jobs, REPEATS)
    steps = WINDOWS * schedule.window_env_steps(config) / 1e3
    rows = [
        rate_row(f"the main job {name}", steps, spent, unit="k steps/s") for name, spent in seconds.items()
    ]
    for name, bar in BARS.items():
        ratios = [alone / its for alone, its in zip(seconds["as it is"], seconds[name], strict=True)]
        rows.append(
            Row(f"{name} / as it is", statistics.median(ratios), "×", min(ratios), max(ratios), bar=bar)
        )
    return rows
