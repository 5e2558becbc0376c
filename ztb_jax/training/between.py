"""What happens between two windows: validate, remember the best, checkpoint, report, and say when to stop."""

import time
from typing import Any

import jax
import numpy as np
import psutil

from ztb_jax import build, gates, gating
from ztb_jax.evaluation import compare, metrics
from ztb_jax.learner import Learner
from ztb_jax.runs import checkpoint, directory, loop, packing
from ztb_jax.training import evaluate
from ztb_jax.training.eval_gates import GIB, EvalGates
from ztb_jax.training.evaluate import BEST
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.limits import resolve_limits
from ztb_jax.training.progress import Reporter
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
    ):
        self.config, self.run, self.reporter = config, run, reporter
        self.checkpoints, self.learner, self.stop = checkpoints, learner, stop
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
        self.total = build.num_windows(config) * build.window_env_steps(config)
        self.best: Any = None
        self.best_score, self.best_window = -np.inf, None
        self.chain, self.done = "", 0
        self.resumed_after: float | None = None
        self.in_flight: dict[str, Any] | None = None

    def __call__(self, state, window: loop.Window) -> str | None:
        """Take a window; why it was the last one, or None."""
        verdict = int(window.metrics["verdict"][-1])
        params, trace, score = self.learner.params(state), None, None
        if verdict == gates.HEALTHY:
            trace = self.validate(params)
            score = compare.log_growth(trace)
            verdict = self._watched(window, trace)
        if self.best is None or (score is not None and score > self.best_score):
            self.best = jax.tree.map(jax.numpy.copy, params)
            if score is not None:
                self.best_score, self.best_window = score, window.number
        row = self._record(window, score, verdict)
        self._checkpoint(state, window.number, env_steps=row["env_steps_total"], verdict=verdict)
        return self.reason(window.number, verdict)

    def _watched(self, window: loop.Window, trace: Any) -> int:
        """What the gates between windows say; 0 while healthy."""
        equity = np.cumprod(np.append(1.0, 1.0 + np.asarray(trace.gain, np.float64)))
        growth = window.metrics["reward"].mean() if self.config.env.reward == "log_return" else None
        facts = gates.facts(
            rss_gb=psutil.Process().memory_info().rss / GIB,
            resume_seconds=self.resumed_after,
            repeated_steps=max(0, self.done - window.number * build.window_env_steps(self.config)),
            validation=compare.log_growth(trace),
            validation_drawdown=metrics.max_drawdown(equity),
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
        self.done = plain["env_steps_total"]
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
            env_steps_total=plain["env_steps_total"],
            windows_emitted=plain["window"] + 1,
            checkpoints_written=plain["window"] + 1,
            latest_checkpoint=self._named(plain),
            best_window=self.best_window,
        )
        return self.reason(plain["window"], plain["verdict"])

    def _record(self, window: loop.Window, score: float | None, verdict: int) -> dict[str, Any]:
        steps = build.window_env_steps(self.config)
        start = window.number * steps
        # A tripped gate keeps no update after the last good one.
        kept = int((window.metrics["verdict"] == gates.HEALTHY).sum()) * self.learner.env_steps
        done = self.done = start + kept
        rate = steps / window.seconds
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
            **means(window),
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

    def _checkpoint(self, state, number: int, *, env_steps: int, verdict: int) -> None:
        self.settle()
        plain = {
            "window": number,
            "env_steps_total": env_steps,
            # A run that its surroundings stopped may go on in others.
            "verdict": gates.HEALTHY if verdict in OF_SURROUNDINGS else verdict,
            "judged": [int(count) for count in jax.tree.leaves(self.judged)],
            "best_window": self.best_window,
            "best_score": _finite(self.best_score),
            "chain": self.chain,
            "created_at": directory.timestamp(),
        }
        self.checkpoints.save(number, {CARRY: state, BEST: self.best}, plain, best=self.best_window)
        self.in_flight = self._named(plain)

    def _named(self, plain: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint as metadata tell of it."""
        return {
            "window_id": plain["window"],
            "env_steps_total": plain["env_steps_total"],
            "path": self.run.relative(self.run.checkpoints / str(plain["window"])),
            "created_at": plain["created_at"],
        }

    def settle(self) -> None:
        """Wait for the checkpoint in flight; only a durable one is named in the metadata."""
        manifest = self.checkpoints.wait()
        if manifest is not None and self.in_flight is not None:
            self._digested(manifest.generation, manifest.leaves)
            self.reporter.update(
                checkpoints_written=self.in_flight["window_id"] + 1, latest_checkpoint=self.in_flight
            )
            self.in_flight = None

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
        if patience is not None and self.best_window is not None and number - self.best_window >= patience:
            return PATIENCE
        return None


def means(window: loop.Window) -> dict[str, float | None]:
    """The mean of every metric over a window, by `<name>_mean`; None where it is not finite."""
    return {
        f"{name}_mean": _finite(values.mean()) for name, values in window.metrics.items() if name != "verdict"
    }


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _note(reward: float | None, score: float | None, best: int | None) -> str:
    told = {"train": reward, "validation": score}
    parts = [f"{name} {1e4 * value:+.2f} bp/bar" for name, value in told.items() if value is not None]
    return " · ".join([*parts, f"best window {best}"])
