"""The main job: train on one slice, choose on the next, judge on the last, and leave a run directory."""

import dataclasses
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np

from ztb_jax import build, devices, gates, parallel
from ztb_jax.config import Config, as_dict, contradictions, flat
from ztb_jax.data.frame import content_hash
from ztb_jax.errors import ConfigError, JobError
from ztb_jax.evaluation import compare
from ztb_jax.features import recipe
from ztb_jax.learner import Learner
from ztb_jax.runs import checkpoint, directory, loop, profile, programs
from ztb_jax.training import evaluate, memory
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.progress import Reporter

STOPPED = "stopped by "
PATIENCE = "validation has not improved for run.patience_windows"
NO_PROGRAM = ("seed", "run.id", "run.root")
VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pandas", "ztb-jax")


class Outcome(NamedTuple):
    """How a job ended.

    Attributes:
      run: its directory.
      metadata: what `run_metadata.json` holds; status `completed`, `cancelled` or `failed`.
      result: what `evaluation.json` holds, or None when nothing could be judged.
    """

    run: directory.RunDirectory
    metadata: dict[str, Any]
    result: dict[str, Any] | None


def train(config: Config, reporter: Reporter, stop: StopRequest | None = None) -> Outcome:
    """Run the job that `config` describes.

    Args:
      config: resolved.
      reporter: told phases and progress; keeps `run_metadata.json` up to date.
      stop: looked at between phases and windows.

    Raises:
      UserError: the device, the data or the run directory cannot be used; nothing was written.
      JobError: the disk, the memory or the device gave out; the run's metadata say so.
    """
    stop = stop or StopRequest()
    stop.check()
    device = devices.choose(config.run.device)
    config = _spread_over(devices.together(device, config.run.devices), config)
    with jax.default_device(device):
        return _train_on(device, config, reporter, stop)


def _spread_over(chosen: list[devices.Handle], config: Config) -> Config:
    """`config` with the number of devices that were found.

    Raises:
      ConfigError: accounts cannot be spread evenly over so many.
    """
    if config.run.devices == len(chosen):
        return config
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, devices=len(chosen)))
    if findings := contradictions(config):
        raise ConfigError(findings)
    return config


def _train_on(device: devices.Handle, config: Config, reporter: Reporter, stop: StopRequest) -> Outcome:
    reporter.phase("loading", f"{config.data.symbol} {config.data.timeframe}")
    frame = evaluate.load_frame(config)
    reporter.phase("indicators", f"{config.features.recipe}, {len(frame):,} bars")
    prepared = build.prepare(config, frame, recipe.compute(config.features.recipe, frame))
    stop.check()
    run = directory.create(config.run.root, config.run.id, as_dict(config))
    try:
        _announce(config, prepared, run, reporter, device=device)
        result = _train_and_judge(config, prepared, run, reporter, stop=stop, device=device)
    except BaseException as error:
        told = _recorded(error, config, run, reporter)
        if told is error:
            raise
        raise told from error
    run.reserve.unlink()
    return Outcome(run, reporter.metadata, result)


def _announce(config, prepared, run, reporter, *, device: devices.Handle) -> None:
    reporter.attach(
        run,
        status="running",
        process={"pid": os.getpid(), "host": platform.node()},
        target_env_steps=build.num_windows(config) * build.window_env_steps(config),
        env_steps_total=0,
        windows_emitted=0,
        checkpoints_written=0,
        latest_window=None,
        latest_checkpoint=None,
        best_window=None,
        finished_at=None,
        error=None,
        halt_reason=None,
        config_path=run.relative(run.config),
        metrics_windows_path=run.relative(run.windows),
        checkpoints_dir=run.relative(run.checkpoints),
        data=_data_facts(prepared),
        config_sha256=directory.sha256(run.config),
        environment=environment_facts(device),
        profile=None,
    )


def _recorded(error: BaseException, config, run, reporter) -> BaseException:
    """What to raise for `error`, once the run's metadata tell of it as far as the disk lets them."""
    stopped = isinstance(error, KeyboardInterrupt)
    told = "stopped at once, before it was judged" if stopped else f"{type(error).__name__}: {error}"
    unsaid = ""
    try:
        run.reserve.unlink(missing_ok=True)
        reporter.update(
            status="cancelled" if stopped else "failed", error=told, finished_at=directory.timestamp()
        )
    except OSError as again:
        unsaid = f" (and {run.metadata} could not be brought up to date: {again.strerror})"
    if isinstance(error, OSError):
        return JobError(
            f"{run.path} cannot be written any more: {error}{unsaid}. Free some space, or train again"
        )
    cause = next(iter(str(error).splitlines()), "no more is told").rstrip(".")
    if memory.is_exhausted(error):
        return JobError(f"the memory gave out: {cause}{unsaid}. Then {memory.smaller(config, 0.5)}")
    if isinstance(error, jax.errors.JaxRuntimeError):
        return JobError(f"the device gave out: {cause}{unsaid}. Train again, or on another run.device")
    return error


def _train_and_judge(config, prepared, run, reporter, *, stop: StopRequest, device) -> dict[str, Any] | None:
    reason = _train(config, prepared, run, reporter, stop=stop, device=device)
    cancelled = reason is not None and reason.startswith(STOPPED)
    if reason in gates.REASONS.values():
        window = reporter.metadata["failed_window"]
        error = f"window {window}: {reason}; the checkpoint holds the last good state"
        reporter.update(status="failed", error=error, finished_at=directory.timestamp())
        return None
    fraction = reporter.metadata["env_steps_total"] / reporter.metadata["target_env_steps"]
    reporter.update(halt_reason=reason)
    result = evaluate.judge_prepared(run, reporter, config, prepared)
    reporter.update(
        status="cancelled" if cancelled else "completed",
        verdict=result["verdict"],
        fraction=fraction,
        finished_at=directory.timestamp(),
    )
    return result


class _Windows:
    """What happens between windows: validate, remember the best, checkpoint, report, and say when to stop."""

    def __init__(self, config, *, prepared, run, reporter, manager, learner, stop: StopRequest):
        self.config, self.run, self.reporter = config, run, reporter
        self.manager, self.learner, self.stop = manager, learner, stop
        self.validate = evaluate.backtest_of(config, prepared, "validation")
        self.total = build.num_windows(config) * build.window_env_steps(config)
        self.best: Any = None
        self.best_score, self.best_window = -np.inf, None
        self.in_flight: dict[str, Any] | None = None

    def __call__(self, state, window: loop.Window) -> str | None:
        verdict = int(window.metrics["verdict"][-1])
        params = self.learner.params(state)
        score = compare.log_growth(self.validate(params)) if verdict == gates.HEALTHY else None
        if self.best is None or (score is not None and score > self.best_score):
            self.best = jax.tree.map(jax.numpy.copy, params)
            if score is not None:
                self.best_score, self.best_window = score, window.number
        row = self._record(window, score, verdict)
        self._checkpoint(state, window.number, row["env_steps_total"])
        return self._reason(window.number, verdict)

    def _record(self, window: loop.Window, score: float | None, verdict: int) -> dict[str, Any]:
        steps = build.window_env_steps(self.config)
        start = window.number * steps
        # A tripped gate keeps no update after the last good one.
        kept = int((window.metrics["verdict"] == gates.HEALTHY).sum()) * self.learner.env_steps
        done = start + kept
        rate = steps / window.seconds
        means = {
            f"{name}_mean": _finite(values.mean())
            for name, values in window.metrics.items()
            if name != "verdict"
        }
        row = {
            "run_id": self.run.id,
            "window_id": window.number,
            "window_complete": kept == steps,
            "env_steps_start": start,
            "env_steps_end": done,
            "env_steps_in_window": kept,
            "env_steps_total": done,
            "verdict": verdict,
            "validation_log_growth": score,
            "best_window": self.best_window,
            "seconds": window.seconds,
            "steps_per_second": rate,
            **means,
        }
        directory.append_line(self.run.windows, row)
        self.reporter.advance(
            done, self.total, rate=rate, note=_note(row["reward_mean"], score, self.best_window)
        )
        self.reporter.update(
            env_steps_total=done,
            windows_emitted=window.number + 1,
            best_window=self.best_window,
            latest_window={
                "window_id": window.number,
                "window_complete": kept == steps,
                "env_steps_start": start,
                "env_steps_end": done,
                "metrics_row_path": self.run.relative(self.run.windows),
            },
        )

        return row

    def _checkpoint(self, state, number: int, env_steps: int) -> None:
        self.settle()
        counters = {"window": number, "best_window": self.best_window, "best_score": _finite(self.best_score)}
        checkpoint.save(self.manager, number, carry=state, best=self.best, counters=counters)
        self.in_flight = {
            "window_id": number,
            "env_steps_total": env_steps,
            "path": self.run.relative(self.run.checkpoints / str(number)),
            "created_at": directory.timestamp(),
        }

    def settle(self) -> None:
        """Wait for the checkpoint in flight; only a durable one is named in the metadata."""
        self.manager.wait_until_finished()
        if self.in_flight is not None:
            self.reporter.update(
                checkpoints_written=self.in_flight["window_id"] + 1, latest_checkpoint=self.in_flight
            )
            self.in_flight = None

    def _reason(self, number: int, verdict: int) -> str | None:
        if verdict != gates.HEALTHY:
            self.reporter.update(failed_window=number)
            return gates.REASONS[verdict]
        if self.stop.signal is not None:
            return STOPPED + self.stop.signal
        patience = self.config.run.patience_windows
        if patience is not None and self.best_window is not None and number - self.best_window >= patience:
            return PATIENCE
        return None


def _train(config, prepared, run, reporter, *, stop: StopRequest, device) -> str | None:
    """Train to the end or until something stops it; every checkpoint is durable on return."""
    learner = build.make_learner(config, num_features=prepared.num_features, measured=prepared.measured)
    data = prepared.slices["train"]
    chosen = devices.together(device, config.run.devices)
    names = ", ".join(devices.describe(one).name for one in chosen)
    reporter.phase("compile", f"{config.ppo.num_accounts:,} accounts on {names} ({device.device_kind})")
    network = build.make_network(config, num_features=prepared.num_features)
    for name, how in build.encodings(config, network, num_bars=data.features.shape[0]).items():
        reporter.say(f"{'':<11}each {name} encodes {how}")
    learner, data, compiled = _compiled(learner, data, chosen, config=config, prepared=prepared)
    memory.check_fits(compiled.planned, device, config)
    stop.check()
    state = compiled.init(jax.random.key(config.seed), data)
    count = build.num_windows(config)
    total = count * build.window_env_steps(config)
    reporter.phase("train", f"{total:,} environment steps in {count} windows")
    # The second window, for the first one warms up; a run of one window has no other.
    chosen = min(1, count - 1) if config.run.profile else None
    with checkpoint.open_checkpoints(run.checkpoints, keep=config.run.keep_checkpoints) as manager:
        after = _Windows(
            config,
            prepared=prepared,
            run=run,
            reporter=reporter,
            manager=manager,
            learner=learner,
            stop=stop,
        )
        _, reason = loop.run_windows(
            compiled.window, state, data, count=count, after=after, around=_tracing(run, reporter, chosen)
        )
        after.settle()
    return reason


def _compiled(learner: Learner, data: Any, chosen: list[devices.Handle], *, config, prepared) -> Any:
    """Learner, market and programs, on one device or spread over several.

    Weights to judge by are put on the first device alone, so that all else works as on one.
    """
    count = config.run.window_updates
    if len(chosen) == 1:
        # The seed and the place of a run change no program.
        settings = {name: value for name, value in flat(config).items() if name not in NO_PROGRAM}
        described = repr((settings, prepared.num_features, prepared.measured))
        return learner, data, programs.compiled(learner, data, num_updates=count, described=described)
    mesh = parallel.make_mesh(chosen)
    spread = parallel.sharded(learner, mesh)
    spread = spread._replace(params=lambda state: jax.device_put(learner.params(state), chosen[0]))
    data = parallel.replicated(data, mesh)
    shapes = parallel.shapes_on(mesh, jax.eval_shape(spread.init, jax.random.key(config.seed), data))
    return spread, data, programs.compiled_on_mesh(spread, shapes, data, num_updates=count)


def _tracing(run, reporter, chosen: int | None) -> Callable[[int], AbstractContextManager[Any]]:
    """What is around each window, so that the one numbered `chosen` is traced."""

    @contextmanager
    def around(number: int) -> Iterator[None]:
        if number != chosen:
            yield
            return
        folder = run.path / "profile"
        with profile.traced(folder):
            yield
        summary = folder / profile.SUMMARY
        reporter.say(f"{'profile':<11}window {number} is traced: {summary}")
        reporter.update(
            profile={"window_id": number, "path": run.relative(folder), "summary_path": run.relative(summary)}
        )

    return around


def environment_facts(device: devices.Handle) -> dict[str, Any]:
    """What else the result depends on: versions, the device that was chosen, cores, commit."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_cores": devices.cores(),
        "device": dataclasses.asdict(devices.describe(device)),
        "commit": directory.commit(),
        **{name: version(name) for name in VERSIONED},
    }


def _data_facts(prepared: build.Prepared) -> dict[str, Any]:
    stamps = prepared.frame.index
    return {
        "bars": len(stamps),
        "first": str(stamps[0]),
        "last": str(stamps[-1]),
        "bars_per_year": prepared.bars_per_year,
        "content_hash": content_hash(prepared.frame),
    }


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _note(reward: float | None, score: float | None, best: int | None) -> str:
    told = {"train": reward, "validation": score}
    parts = [f"{name} {1e4 * value:+.2f} bp/bar" for name, value in told.items() if value is not None]
    return " · ".join([*parts, f"best window {best}"])
