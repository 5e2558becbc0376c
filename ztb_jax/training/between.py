"""What happens between two windows: validate, remember the best, checkpoint, report, and say when to stop."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import psutil

from ztb_jax import build, gates, gating, schedule
from ztb_jax.evaluation import compare, metrics
from ztb_jax.learner import Learner
from ztb_jax.runs import checkpoint, directory, loop, packing, policy_files, windowing
from ztb_jax.training import evaluate, saved_policy
from ztb_jax.training.eval_gates import GIB, EvalGates
from ztb_jax.training.evaluate import BEST
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.limits import resolve_limits
from ztb_jax.training.metadata import backend_of
from ztb_jax.training.progress import Reporter
from ztb_jax.training.replaying import Recorder
from ztb_jax.verdicts import OF_SURROUNDINGS

STOPPED = "stopped by "
PATIENCE = "validation has not improved for run.patience_windows"
CARRY = "carry"


class Between:
    """The host's part of the loop; `loop.run_windows` calls it after every window."""

    def __init__(
        self,
        config,
        *,
        prepared: build.Prepared,
        run: directory.RunDirectory,
        reporter: Reporter,
        checkpoints: checkpoint.Checkpoints,
        learner: Learner,
        stop: StopRequest,
        planned: int,
        recorder: Recorder | None = None,
    ):
        self.config, self.run, self.reporter = config, run, reporter
        self.checkpoints, self.learner, self.stop, self.recorder = checkpoints, learner, stop, recorder
        self.validate = evaluate.backtest_of(config, prepared, "validation")
        limit = EvalGates(max_memory_gb=config.gates.memory_gb).max_memory / GIB
        if resolve_limits(max_memory_gb=config.gates.memory_gb).max_memory_gb is None:
            limit += planned / GIB  # what a window will take is no leak
        watch = gating.make_window_gates(config, memory_gb=limit)
        self.judge, self.judged = jax.jit(watch.update), watch.init()
        self.buy_and_hold = None
        if config.gates.behind_buy_and_hold is not None:
            self.buy_and_hold = compare.log_growth(
                compare.play_buy_and_hold(
                    prepared.slices["validation"], build.make_environment(config, measured=prepared.measured)
                )
            )
        self.policy_header = saved_policy.header_of(config, prepared)
        self.policy_header |= {"run_id": run.id, "trainer_backend": backend_of(config)}
        self.best: Any = None
        self.best_score, self.best_window = -np.inf, None
        self.score, self.drawdown, self.rate = None, None, 0.0
        self.tail: dict[str, np.ndarray] = {}
        self.chain, self.done, self.episodes, self.emitted, self.updates = "", 0, 0, 0, 0
        self.unimproved = 0  # windows judged since the best one
        self.resumed_after: float | None = None
        self.in_flight: dict[str, Any] | None = None

    def __call__(self, state, window: loop.Window) -> str | None:
        """Take a window; why it was the last one, or None."""
        verdict = gates.HEALTHY
        if window.metrics:  # else an update before this window reaches over it, and nothing is new
            verdict = self._judged(self.learner.params(state), window)
        row = self._record(window, verdict)
        reason = self.reason(window.number, verdict)
        if window.number <= schedule.last_window(self.config):
            self._checkpoint(state, window.number, row=row, verdict=verdict, last=reason is not None)
        return reason

    def _judged(self, params: Any, window: loop.Window) -> int:
        """What the gates say, once the validation has seen `params` and the best are kept."""
        verdict, self.score, self.drawdown = int(window.metrics["verdict"][-1]), None, None
        if verdict == gates.HEALTHY:
            trace = self.validate(params)
            equity = np.cumprod(np.append(1.0, 1.0 + np.asarray(trace.gain, np.float64)))
            self.score, self.drawdown = compare.log_growth(trace), metrics.max_drawdown(equity)
            verdict = self._watched(window)
        better = self.score is not None and self.score > self.best_score
        self.unimproved += 1
        if self.best is None or (better and schedule.is_told(self.config, window.number)):
            self.best = jax.tree.map(jax.numpy.copy, params)
            if self.score is not None:
                self.best_score, self.best_window, self.unimproved = self.score, window.number, 0
        return verdict

    def _watched(self, window: loop.Window) -> int:
        """What the gates between windows say; 0 while healthy."""
        growth = window.metrics["reward"].mean() if self.config.env.reward == "log_return" else None
        facts = gates.facts(
            rss_gb=psutil.Process().memory_info().rss / GIB,
            resume_seconds=self.resumed_after,
            repeated_steps=max(0, self.done - window.number * schedule.window_env_steps(self.config)),
            validation=self.score,
            validation_drawdown=self.drawdown,
            train=growth,
            buy_and_hold=self.buy_and_hold,
        )
        self.resumed_after = None
        self.judged, verdict = self.judge(self.judged, facts)
        return int(verdict)

    def go_on_from(self, restored: checkpoint.Restored) -> str | None:
        """Be as after the window that `restored` was saved after; why that was the last one, or None."""
        plain = restored.plain
        self.best, self.best_window = restored.trees[BEST], plain["best_window"]
        self.best_score = -np.inf if plain["best_score"] is None else plain["best_score"]
        if len(plain["judged"]) == len(jax.tree.leaves(self.judged)):  # else gates came or went: count anew
            self.judged = jax.tree.unflatten(jax.tree.structure(self.judged), map(np.int32, plain["judged"]))
        self.done, self.score, self.drawdown = plain["env_steps_total"], plain["score"], plain["drawdown"]
        self.tail = {
            name: np.array([value], np.float32) for name, value in plain["tail"].items()
        }  # None: nan
        self.episodes, self.emitted, self.unimproved = (
            plain[name] for name in ("episodes", "emitted", "unimproved")
        )
        self.resumed_after = time.perf_counter() - self.reporter.started
        rows = [
            row for row in directory.read_windows(self.run.windows) if row["window_id"] <= plain["window"]
        ]
        directory.write_lines(self.run.windows, rows)
        told = [row for row in directory.read_windows(self.run.digests) if row["window_id"] < plain["window"]]
        directory.write_lines(self.run.digests, told)
        self.chain = plain["chain"]
        self._digested(plain["window"], restored.leaves)
        self.reporter.update(
            env_steps_total=self.done,
            episodes_total=self.episodes,
            windows_emitted=self.emitted,
            checkpoints_written=plain["window"] + 1,
            latest_checkpoint=self._named(plain),
            best_window=self.best_window,
        )
        return self.reason(plain["window"], plain["verdict"])

    def _record(self, window: loop.Window, verdict: int) -> dict[str, Any]:
        """The row of a window, written and told; the run's counters after it."""
        row = self._row(window, verdict)
        done, whole = row["env_steps_end"], row["window_complete"]
        self.done, self.episodes = done, self.episodes + row["episodes_completed"]
        told = {
            "env_steps_total": done,
            "episodes_total": self.episodes,
            "ppo_policy_updates": self.updates,
            "best_window": self.best_window,
        }
        # A tripped gate is told whatever it leaves of the window.
        if verdict != gates.HEALTHY or schedule.is_told(self.config, window.number):
            directory.append_line(self.run.windows, row)
            self.emitted += 1
            told |= {
                "windows_emitted": self.emitted,
                "latest_window": {
                    "window_id": window.number,
                    "window_complete": whole,
                    "env_steps_start": row["env_steps_start"],
                    "env_steps_end": done,
                    "metrics_row_path": self.run.relative(self.run.windows),
                },
            }
            self.reporter.tell("window", row)
            note = _note(row["reward_mean"], row["validation_log_growth"], self.best_window)
            total = schedule.target_env_steps(self.config)
            self.reporter.advance(min(done, total), total, rate=row["steps_per_second"], note=note)
        self.reporter.update(**told)
        return row

    def _row(self, window: loop.Window, verdict: int) -> dict[str, Any]:
        config, number = self.config, window.number
        update, steps = schedule.update_env_steps(config), schedule.window_env_steps(config)
        before, start = schedule.updates_before(config, number), number * steps
        # A tripped gate keeps no update after the last good one.
        kept = int((window.metrics.get("verdict", np.empty(0)) == gates.HEALTHY).sum())
        self.updates = before + kept
        trained = self.updates * update
        done = max(start, min(trained, start + steps))
        metrics = {
            name: np.concatenate([part[name] for part in (self.tail, window.metrics) if part])
            for name in window.metrics or self.tail
        }
        if window.metrics:
            self.rate = schedule.updates_in(config, number) * update / window.seconds
        first = before - (1 if self.tail else 0)
        self.tail = {name: values[-1:] for name, values in metrics.items()} if trained > done else {}
        return {
            "run_id": self.run.id,
            "window_id": number,
            "window_complete": done == start + steps,
            "env_steps_start": start,
            "env_steps_end": done,
            "env_steps_in_window": done - start,
            "env_steps_total": done,
            "verdict": verdict,
            "validation_log_growth": self.score,
            "validation_drawdown": self.drawdown,
            "best_window": self.best_window,
            "seconds": window.seconds,
            "steps_per_second": self.rate,
            **windowing.window_row(
                metrics,
                first=first,
                update_env_steps=update,
                start=start,
                stop=done,
                capital=config.env.capital,
            ),
        }

    def _checkpoint(self, state, number: int, *, row: dict[str, Any], verdict: int, last: bool) -> None:
        self.settle()
        plain = {
            "window": number,
            "env_steps_total": row["env_steps_total"],
            # A run that its surroundings stopped may go on in others.
            "verdict": gates.HEALTHY if verdict in OF_SURROUNDINGS else verdict,
            "judged": [int(count) for count in jax.tree.leaves(self.judged)],
            "best_window": self.best_window,
            "best_score": _finite(self.best_score),
            "score": self.score,
            "drawdown": self.drawdown,
            "tail": {name: _finite(value) for name, (value,) in self.tail.items()},
            "episodes": self.episodes,
            "emitted": self.emitted,
            "unimproved": self.unimproved,
            "chain": self.chain,
            "created_at": directory.timestamp(),
        }
        last |= number == schedule.last_window(self.config)
        self.checkpoints.save(
            number,
            {CARRY: state, BEST: self.best},
            plain,
            best=self.best_window,
            first=self._keeps_policy(state, plain, last=last),
        )
        self.in_flight = plain

    def _keeps_policy(self, state: Any, plain: dict[str, Any], *, last: bool) -> Callable[[], None]:
        """What writes the policy of a window into a file of its own, if it is due."""
        every = schedule.policy_every(self.config)
        if every is None or not (last or policy_files.is_due(plain["window"], every)):
            return lambda: None
        weights = saved_policy.weights_of(self.learner.params(state))
        header = self.policy_header | {
            "window_id": plain["window"],
            "env_steps_total": plain["env_steps_total"],
            "created_at": plain["created_at"],
        }
        path = policy_files.path_of(self.run, plain["window"])
        return partial(policy_files.write, path, header, None if self.config.learner == "random" else weights)

    def _named(self, plain: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint that was committed, as metadata tell of it."""
        number = plain["window"]
        generation = self.run.relative(self.run.checkpoints / str(number))
        policy = policy_files.path_of(self.run, number)
        return {
            "window_id": number,
            "env_steps_total": plain["env_steps_total"],
            "path": self.run.relative(policy) if policy.is_file() else generation,
            "resume_path": generation,
            "created_at": plain["created_at"],
        }

    def settle(self) -> None:
        """Wait for the checkpoint in flight; only a durable one is named in the metadata."""
        manifest = self.checkpoints.wait()
        if manifest is not None and self.in_flight is not None:
            self._digested(manifest.generation, manifest.leaves)
            named, self.in_flight = self._named(self.in_flight), None
            self.reporter.update(checkpoints_written=named["window_id"] + 1, latest_checkpoint=named)
            self.reporter.tell("checkpoint", named)
            if self.recorder is not None and named["path"] != named["resume_path"]:
                self.recorder.record(named["path"])

    def _digested(self, number: int, leaves: dict[str, str]) -> None:
        """Write what `ztb verify` compares: of the carry after the window, and of all up to it."""
        carry = {name: digest for name, digest in leaves.items() if name.startswith(f"{CARRY}/")}
        self.chain = packing.chained(self.chain, carry)
        directory.append_line(self.run.digests, {"window_id": number, "chain": self.chain, "leaves": carry})

    def reason(self, number: int, verdict: int) -> str | None:
        """Why window `number` is the last one, or None."""
        if verdict != gates.HEALTHY:
            self.reporter.update(failed_window=number, verdict_code=verdict)
            return gates.reason(verdict)
        if self.stop.signal is not None:
            return STOPPED + self.stop.signal
        patience = self.config.run.patience_windows
        if patience is not None and self.best_window is not None and self.unimproved >= patience:
            return PATIENCE
        return None


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _note(reward: float | None, score: float | None, best: int | None) -> str:
    told = {"train": reward, "validation": score}
    parts = [f"{name} {1e4 * value:+.2f} bp/bar" for name, value in told.items() if value is not None]
    return " · ".join([*parts, f"best window {best}"])
