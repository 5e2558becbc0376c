"""Gates on the records of a training session: what must hold before its result may be believed.

    results = EvalGates(enabled=True).evaluate_all(
        rewards=[0.1, 0.15, 0.12], steps=[100_000, 200_000, 300_000], final_eval_reward=0.14
    )

They read lists and numbers, of any trainer; the gates inside our own programs are `ztb_jax.gates`.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import psutil

from ztb_jax.training.limits import resolve_limits

GIB = 1024**3
MAX_RESUME_SECONDS = 30.0
MAX_MEMORY_GB = 2.0
TREND_STEPS = 300_000
CRITICAL = ("memory_rss", "no_dup_steps")
TREND = "reward_trend_300k"
PERSISTENT = 2  # failed checks in a row after which a falling reward halts


class GateStatus(StrEnum):
    """What a gate said."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class GateResult:
    """One gate's answer.

    Attributes:
      name: of the gate.
      status: pass, fail, or skip where there was too little to judge.
      reason: a sentence.
      value: what was measured; None where nothing was.
      threshold: what it was compared with.
    """

    name: str
    status: GateStatus
    reason: str
    value: float | None = None
    threshold: float | None = None


def resume_time(seconds: float, limit: float = MAX_RESUME_SECONDS) -> GateResult:
    """Passes while a resume took less than `limit` seconds."""
    said = f"resumed in {seconds:.1f} s, limit {limit:g} s"
    return _judged("resume_time", 0.0 <= seconds < limit, said, seconds, limit)


def no_duplicate_steps(steps: Sequence[int] | np.ndarray) -> GateResult:
    """Passes where no global step was counted twice."""
    return repeated_steps(len(steps) - len(np.unique(np.asarray(steps))))


def repeated_steps(count: int) -> GateResult:
    """Passes where `count`, of steps that repeat another, is 0."""
    return _judged("no_dup_steps", count == 0, f"{count} global steps repeat another", count, 0.0)


def memory(used: float, limit: float) -> GateResult:
    """Passes while the process holds less than `limit` bytes."""
    said = f"the process holds {used / GIB:.2f} GiB, limit {limit / GIB:.2f} GiB"
    return _judged("memory_rss", used < limit, said, used, limit)


def reward_trend(
    rewards: Sequence[float] | np.ndarray,
    steps: Sequence[int] | np.ndarray,
    *,
    threshold_steps: int = TREND_STEPS,
) -> GateResult:
    """Passes where rewards from `threshold_steps` on do not fall: a slope of least squares of 0 or more.

    The slope is against the samples' order, not against their steps. A reward that is not finite fails.

    Raises:
      ValueError: not as many steps as rewards.
    """
    if len(rewards) != len(steps):
        raise ValueError(f"there are {len(rewards)} rewards and {len(steps)} steps: give a step for each")
    late = np.asarray(rewards, np.float64)[np.asarray(steps) >= threshold_steps]
    trend = Trend()
    for reward in late.tolist():
        trend.add(reward)
    return trend.judged(threshold_steps)


class Trend:
    """The least-squares slope of values against 0, 1, 2, … as they come, in memory that does not grow.

    Values are taken less the first one, and their sum with place is taken about the middle:

        slope = 12 (sum i v_i - (N - 1) / 2 sum v_i) / (N (N^2 - 1))

    In float64 that is exact to 1e-9 of the values' spread for more than 10^7 of them.
    """

    def __init__(self, count: float = 0.0, first: float = 0.0, total: float = 0.0, moment: float = 0.0):
        self.count, self.first, self.total, self.moment = count, first, total, moment

    def add(self, value: float) -> None:
        """Take one more value."""
        if self.count == 0.0:
            self.first = value
        value -= self.first
        self.total += value
        self.moment += self.count * value
        self.count += 1.0

    def slope(self) -> float:
        """Of two values or more."""
        n = self.count
        return 12.0 * (self.moment - 0.5 * (n - 1.0) * self.total) / (n * (n * n - 1.0))

    def judged(self, threshold_steps: int = TREND_STEPS) -> GateResult:
        """The gate on it; NaN fails."""
        if self.count < 2.0:
            said = f"{self.count:.0f} rewards from step {threshold_steps:,} on, and a trend needs 2"
            return GateResult(TREND, GateStatus.SKIP, said, None, 0.0)
        slope = self.slope()
        return _judged(TREND, slope >= 0.0, f"the reward moves by {slope:.3g} a sample", slope, 0.0)

    def to_list(self) -> list[float]:
        """What `Trend(*…)` goes on from."""
        return [self.count, self.first, self.total, self.moment]


def above_baseline(reward: float, baseline: float = 0.0) -> GateResult:
    """Passes where the evaluation's reward is more than the baseline's."""
    said = f"evaluated at {reward:.6g}, baseline {baseline:.6g}"
    return _judged("eval_above_baseline", reward > baseline, said, reward, baseline)


def _judged(name: str, passed: bool, said: str, value: float, threshold: float) -> GateResult:
    finite = math.isfinite(value)
    status = GateStatus.PASS if passed and finite else GateStatus.FAIL
    return GateResult(
        name, status, said if finite else f"{said}: not a finite number", float(value), threshold
    )


class EvalGates:
    """The five gates, each evaluated where what it needs is given.

    Args:
      enabled: False lets everything pass.
      max_memory_gb: GiB that the process may hold. None is what `ZTB_MAX_MEMORY_GB` or `trade-config.json`
        say, else 2, or 2 more than it holds now where that is more than half of it: JAX alone takes more
        than 2 on some devices.

    Raises:
      ConfigError: a variable or a value of the file that cannot be used.
    """

    def __init__(self, enabled: bool = True, *, max_memory_gb: float | None = None):
        self.enabled = enabled
        held = psutil.Process().memory_info().rss / GIB
        asked = resolve_limits(max_memory_gb=max_memory_gb).max_memory_gb
        limit = MAX_MEMORY_GB if asked is None else asked
        if asked is None and held > MAX_MEMORY_GB / 2:
            limit += held
            said = f"the process holds {held:.2f} GiB already: the memory gate is at {limit:.2f} GiB"
            logging.getLogger(__name__).warning(said)
        self.max_memory = limit * GIB

    def evaluate_all(
        self,
        *,
        rewards: Sequence[float] | None = None,
        steps: Sequence[int] | None = None,
        final_eval_reward: float | None = None,
        baseline: float = 0.0,
        global_steps: Sequence[int] | None = None,
        threshold_steps: int = TREND_STEPS,
        resume_start: float | None = None,
    ) -> dict[str, GateResult]:
        """By name, the result of every gate that has what it needs; nothing while the gates are off.

        Args:
          rewards: of the session, in order; with `steps`.
          steps: the global step of each.
          final_eval_reward: of the last evaluation.
          baseline: what it must exceed.
          global_steps: steps that must be distinct; without them `steps` must.
          threshold_steps: from where the trend counts.
          resume_start: `time.time()` when a resume began.
        """
        if not self.enabled:
            return {}
        results = [memory(psutil.Process().memory_info().rss, self.max_memory)]
        counted = steps if global_steps is None else global_steps
        if resume_start is not None:
            results.append(resume_time(time.time() - resume_start))
        if counted is not None:
            results.append(no_duplicate_steps(counted))
        if rewards is not None and steps is not None:
            results.append(reward_trend(rewards, steps, threshold_steps=threshold_steps))
        if final_eval_reward is not None:
            results.append(above_baseline(final_eval_reward, baseline))
        return {result.name: result for result in results}

    def should_halt_training(
        self,
        results: Mapping[str, GateResult],
        consecutive_failures: int = 0,
        max_consecutive_failures: int = 3,
    ) -> tuple[bool, str]:
        """Whether to halt, and why: a critical gate first, then too many failures, then a falling reward.

        Args:
          results: of `evaluate_all`.
          consecutive_failures: checks in a row in which a gate failed, this one among them.
          max_consecutive_failures: so many halt.
        """
        failed = {name: each for name, each in results.items() if each.status is GateStatus.FAIL}
        told = "; ".join(f"{name}: {each.reason}" for name, each in failed.items())
        if any(name in failed for name in CRITICAL):
            return True, f"Critical gate failure: {told}"
        if failed and consecutive_failures >= max_consecutive_failures:
            return True, f"Too many consecutive failures ({consecutive_failures}): {told}"
        if TREND in failed and consecutive_failures >= PERSISTENT:
            return True, f"Persistent negative reward trend: {told}"
        return False, ""

    def get_acceptance_summary(self, results: Mapping[str, GateResult]) -> dict[str, Any]:
        """Whether every gate passed, skipped ones counting against it, and what the others said."""
        if not results:
            return {"pass": True, "reasons": [], "gate_results": {}, "gates_disabled": True}
        missed = [each for each in results.values() if each.status is not GateStatus.PASS]
        return {
            "pass": not missed,
            "reasons": [f"{each.name}: {each.reason}" for each in missed],
            "gate_results": dict(results),
        }
