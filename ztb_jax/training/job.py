"""The main job: train on one slice, choose on the next, judge on the last, and leave a run directory.

A run that was stopped goes on by `ztb_jax.training.resume`.
"""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ztb_jax import build, devices, gates, parallel, schedule
from ztb_jax.config import Config, as_dict, flat
from ztb_jax.contradictions import contradictions
from ztb_jax.data.frame import content_hash
from ztb_jax.errors import ConfigError, JobError
from ztb_jax.learner import Learner
from ztb_jax.runs import checkpoint, directory, ledger, loop, policy_files, profile, programs, sinks
from ztb_jax.training import evaluate, memory, metadata, run_seal
from ztb_jax.training.between import CARRY, STOPPED, Between
from ztb_jax.training.evaluate import BEST
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.loading import load_market
from ztb_jax.training.progress import Reporter
from ztb_jax.training.replaying import Recorder

NO_PROGRAM = ("seed", "run.id", "run.root", "run.ledger", "run.policy_every_windows", "env.capital")
NO_PROGRAMS = ("replays.", "sinks.")
Read = Callable[[dict[str, Any]], checkpoint.Restored | None]


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


def train(
    config: Config,
    reporter: Reporter,
    stop: StopRequest | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
) -> Outcome:
    """Run the job that `config` describes.

    Args:
      config: resolved.
      reporter: told phases and progress; keeps `run_metadata.json` up to date.
      stop: looked at between phases and windows.
      facts: for the run's metadata, beside what the job itself knows.

    Raises:
      UserError: the device, the data or the run directory cannot be used; nothing was written.
      JobError: the disk, the memory or the device gave out; the run's metadata say so.
    """
    stop = stop or StopRequest()
    stop.check()
    device = devices.choose(config.run.device)
    config = spread_over(devices.together(device, config.run.devices), config)
    reporter.say(f"{'costs':<11}{_costs(config)}")
    with jax.default_device(device):
        return _train_on(device, config, reporter, stop, facts=facts)


def spread_over(chosen: list[devices.Handle], config: Config) -> Config:
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


def _train_on(
    device: devices.Handle, config: Config, reporter: Reporter, stop: StopRequest, *, facts: Any
) -> Outcome:
    sinks.check_sinks(config.sinks)
    ledger.check(ledger.place(Path(config.run.root).expanduser(), config.run.ledger))
    prepared = prepared_market(config, reporter)
    stop.check()
    run = directory.create(config.run.root, config.run.id, as_dict(config))
    with directory.locked(run), _recording(config, run, reporter):
        reporter.say(f"{'run':<11}{run.path}")
        sealed = run_seal.make_seal(run.id, config.seed, as_dict(config), seal_facts(config, prepared))
        run_seal.write_seal(run.seal, sealed)
        reporter.attach(run, **metadata.begun(config, prepared, run, device=device, known=facts))
        result = _train_and_judge(config, prepared, run, reporter, stop=stop, device=device)
    return Outcome(run, reporter.metadata, result)


def go_on(
    config: Config,
    prepared: build.Prepared,
    run: directory.RunDirectory,
    reporter: Reporter,
    *,
    stop: StopRequest,
    device: devices.Handle,
    known: Mapping[str, Any],
    read: Read,
) -> Outcome:
    """What `train` does once there is a run, for one that goes on; the caller holds its lock.

    Args:
      config: of the run.
      prepared: its market.
      run: its directory.
      reporter: as of `train`.
      stop: likewise.
      device: where.
      known: its metadata so far.
      read: the trees that a checkpoint holds -> the checkpoint to go on from, None for the start.
    """
    ledger.check(ledger.place(run.path.resolve().parent, config.run.ledger))
    with _recording(config, run, reporter):
        run.reserve.write_bytes(bytes(directory.RESERVED))
        directory.clear_drafts(run)
        for path in run.results("test"):  # of what was there when it was stopped
            path.unlink(missing_ok=True)
        reporter.attach(run, **metadata.begun(config, prepared, run, device=device, known=known))
        result = _train_and_judge(config, prepared, run, reporter, stop=stop, device=device, read=read)
    return Outcome(run, reporter.metadata, result)


def prepared_market(config: Config, reporter: Reporter) -> build.Prepared:
    """The market that `config` names, as it is trained and judged on.

    Raises:
      UserError: it cannot be used, or features of the user's own look ahead.
    """
    frame, features = load_market(config, reporter)
    return build.prepare(config, frame, features)


@contextmanager
def _recording(config: Config, run: directory.RunDirectory, reporter: Reporter) -> Iterator[None]:
    """Sinks are open inside, and whatever ends it is written into the run's metadata before it is told.

    Raises:
      JobError: the disk, the memory or the device gave out.
    """
    made = sinks.make_sinks(config.sinks, run)
    with sinks.Sinks(made, report=reporter.trouble, learnt=reporter.learn) as told:
        reporter.listener = told.tell
        try:
            yield
        except BaseException as error:
            cause = _recorded(error, config, run, reporter)
            if cause is error:
                raise
            raise cause from error
        finally:
            judged = directory.read_json(run.evaluation) if run.evaluation.is_file() else None
            reporter.tell("ended", reporter.metadata | {"evaluation": judged})
            reporter.listener = None
        run.reserve.unlink(missing_ok=True)


def seal_facts(config: Config, prepared: build.Prepared) -> dict[str, Any]:
    """What a run depends on beside its configuration and its environment."""
    return {
        "data": content_hash(prepared.frame),
        "split": {name: list(bounds) for name, bounds in prepared.split._asdict().items()},
        "normaliser": prepared.scaler.to_dict(),
        **evaluate.own_facts(config, prepared),
    }


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
    if not run.config.is_file():
        # The save in flight made the folders again, and orbax's threads may still write as they fail.
        deadline = time.monotonic() + 5.0
        while run.path.exists() and time.monotonic() < deadline:
            shutil.rmtree(run.checkpoints, ignore_errors=True)
            with contextlib.suppress(OSError):
                run.metadata.unlink(missing_ok=True)
                run.path.rmdir()
        return JobError(f"{run.path} is gone: someone removed it while it was being trained; train again")
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


def _train_and_judge(
    config,
    prepared,
    run,
    reporter,
    *,
    stop: StopRequest,
    device,
    read: Read = lambda like: None,
) -> dict[str, Any] | None:
    reason = _train(config, prepared, run, reporter, stop=stop, device=device, read=read)
    cancelled = reason is not None and reason.startswith(STOPPED)
    if "failed_window" in reporter.metadata:
        window, remedy = reporter.metadata["failed_window"], gates.remedy(reporter.metadata["verdict_code"])
        error = f"window {window}: {reason}; the newest checkpoint holds the last good state. Then {remedy}"
        reporter.update(status="failed", error=error, finished_at=directory.timestamp())
        return None
    fraction = min(1.0, reporter.metadata["env_steps_total"] / reporter.metadata["target_env_steps"])
    reporter.update(halt_reason=reason)
    result = evaluate.judge_prepared(run, reporter, config, prepared)
    reporter.update(
        status="cancelled" if cancelled else "completed",
        verdict=result["verdict"],
        edge=result["edge"]["label"],
        fraction=fraction,
        finished_at=directory.timestamp(),
    )
    return result


def _train(config, prepared, run, reporter, *, stop: StopRequest, device, read: Read) -> str | None:
    """Train to the end or until something stops it; every checkpoint is durable on return."""
    learner, data, compiled = compiled_job(config, prepared, reporter, device=device)
    stop.check()
    state = compiled.init(jax.random.key(config.seed), data)
    restored = read({CARRY: state, BEST: learner.params(state)})
    count, first = schedule.num_windows(config), 0
    reporter.phase("train", _planned(config))
    # The second window, for the first one warms up; a run of one window has no other.
    traced = min(1, count - 1) if config.run.profile else None
    with (
        _recorder(config, prepared, run, reporter, device=device) as recorder,
        checkpoint.Checkpoints(
            run.checkpoints, keep=config.run.keep_checkpoints, every=config.run.keep_every
        ) as checkpoints,
    ):
        after = Between(
            config,
            prepared=prepared,
            run=run,
            reporter=reporter,
            checkpoints=checkpoints,
            learner=learner,
            stop=stop,
            planned=compiled.planned or 0,
            recorder=recorder,
        )
        reason = None
        if restored is not None:
            state, first = restored.trees[CARRY], restored.generation + 1
            reason = after.go_on_from(restored)
        reporter.tell("begun", as_dict(config))
        run.windows.touch()
        policy_files.forget(run, after=first - 1, every=schedule.policy_every(config))
        if recorder is not None:
            recorder.go_on_from(first - 1)
        if reason is None:
            _, reason = loop.run_windows(
                compiled.window,
                state,
                data,
                count=count,
                first=first,
                after=after,
                calls=partial(schedule.calls_in, config),
                around=_tracing(run, reporter, traced),
            )
            after.settle()
        if recorder is not None:
            recorder.settle()
    return reason


def _costs(config: Config) -> str:
    """What a trade of a notional of 1 costs, as far as it does not depend on the market."""
    env = config.env
    parts = {"fee": env.fee_rate, "half spread": env.half_spread, "slippage": env.slippage}
    told = ", ".join(f"{name} {1e4 * cost:.3g}" for name, cost in parts.items())
    return f"{1e4 * sum(parts.values()):.3g} bp a side: {told}"


def _planned(config: Config) -> str:
    """How long training is, and why it is longer than was asked for."""
    steps, asked = schedule.target_env_steps(config), config.run.total_env_steps
    told = sum(schedule.is_told(config, number) for number in range(schedule.num_windows(config)))
    windows = "1 window" if told == 1 else f"{told:,} windows"
    longer = "" if steps == asked else f", for {asked:,} are no whole number of windows"
    return f"{steps:,} environment steps in {windows}{longer}"


def _recorder(config, prepared, run, reporter, *, device) -> AbstractContextManager[Recorder | None]:
    if not config.replays.episodes:
        return contextlib.nullcontext()
    return Recorder(config, prepared=prepared, run=run, reporter=reporter, device=device)


def compiled_job(
    config: Config, prepared: build.Prepared, reporter: Reporter, *, device: devices.Handle
) -> tuple[Learner, Any, programs.Programs]:
    """The learner, its market and its programs, where `config` says.

    Raises:
      JobError: they need more memory than there is.
    """
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
    return learner, data, compiled


def _compiled(learner: Learner, data: Any, chosen: list[devices.Handle], *, config, prepared) -> Any:
    """Learner, market and programs, on one device or spread over several.

    Weights to judge by are put on the first device alone, so that all else works as on one.
    """
    count = schedule.updates_at_once(config)
    if len(chosen) == 1:
        # The seed and the place of a run, and who is told of it, change no program.
        settings = {
            name: value
            for name, value in flat(config).items()
            if name not in NO_PROGRAM and not name.startswith(NO_PROGRAMS)
        }
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
