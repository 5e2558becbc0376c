"""A training session under gates: it counts steps and rewards, checks, saves, and halts when it must.

    trainer = PPOTrainer(eval_gates=EvalGates(enabled=True), halt_callback=print, checkpoint_interval=10_000)
    trainer.start_training()
    for step in range(1_000_000):
        trainer.update_progress(step, train_step())
        if not trainer.is_training:
            break

It holds no learner: any loop reports to it, our own windows as well as another library's steps.
"""

import json
import math
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from ztb_jax.errors import RunError
from ztb_jax.runs.directory import write_json
from ztb_jax.training import eval_gates
from ztb_jax.training.eval_gates import EvalGates, GateResult, GateStatus, Trend
from ztb_jax.training.limits import resolve_limits

KEPT = 1_000  # rewards that are kept, and averaged in an evaluation: the latest
AUTOSAVE = Path("checkpoints") / "ppo_trainer.json"
VERSION = 1
SAVED = ("current_step", "is_training", "halt_reason", "consecutive_failures", "last_gate_check_step")


class PPOTrainer:
    """The session.

    What is not given comes from ZTB_CHECKPOINT_INTERVAL, ZTB_MAX_MEMORY_GB and ZTB_MAX_CONSECUTIVE_FAILURES,
    then from `trade-config.json`, then from the defaults.

    Args:
      eval_gates: None makes them; they look up the limit of memory themselves.
      halt_callback: called once with the reason when the session is halted or stopped.
      checkpoint_interval: steps between two checks, each followed by a save; 10,000.
      max_consecutive_failures: checks with a failed gate in a row that halt; 3.
      autosave: file of the saves; None saves only when asked to.

    Attributes:
      current_step: of the last reward.
      rewards_history: the latest rewards, at most `KEPT`.
      steps_history: their steps.
      is_training: whether progress is taken.
      halt_reason: why it is not, or None.
      consecutive_failures: checks in a row in which a gate failed.
      last_gate_check_step: the step of the last check.

    Raises:
      ConfigError: a variable or a value of the file that cannot be used.
    """

    def __init__(
        self,
        eval_gates: EvalGates | None = None,
        halt_callback: Callable[[str], None] | None = None,
        checkpoint_interval: int | None = None,
        *,
        max_consecutive_failures: int | None = None,
        autosave: str | Path | None = AUTOSAVE,
    ):
        limits = resolve_limits(
            checkpoint_interval=checkpoint_interval, max_consecutive_failures=max_consecutive_failures
        )
        self.eval_gates = EvalGates() if eval_gates is None else eval_gates
        self.halt_callback = halt_callback
        self.checkpoint_interval = limits.checkpoint_interval
        self.max_consecutive_failures = limits.max_consecutive_failures
        self.autosave = None if autosave is None else Path(autosave)
        self.current_step = 0
        self.rewards_history: deque[float] = deque(maxlen=KEPT)
        self.steps_history: deque[int] = deque(maxlen=KEPT)
        self.is_training = False
        self.halt_reason: str | None = None
        self.consecutive_failures = 0
        self.last_gate_check_step = 0
        self._repeated = 0
        self._last_step: int | None = None
        self._trend = Trend()

    def start_training(self) -> None:
        """Begin, or go on after a halt: histories and the step stay, failures are forgotten."""
        self.is_training, self.halt_reason, self.consecutive_failures = True, None, 0
        self.last_gate_check_step = self.current_step

    def stop_training(self, reason: str = "Manual stop") -> None:
        """End the session, save, and tell the callback why."""
        self.is_training, self.halt_reason = False, reason
        self._save()
        if self.halt_callback is not None:
            self.halt_callback(reason)

    def update_progress(self, step: int, reward: float) -> None:
        """Take the reward of a step; every `checkpoint_interval` steps check the gates and save.

        Costs the same however long the session is. Ignored while not training.
        """
        if not self.is_training:
            return
        last = self._last_step
        if last is not None and step <= last:
            self._repeated += step == last or step in self.steps_history or self._forgotten(step)
        else:
            self._last_step = step
        self.current_step = step
        self.rewards_history.append(reward)
        self.steps_history.append(step)
        if step >= eval_gates.TREND_STEPS:
            self._trend.add(reward)
        if step - self.last_gate_check_step >= self.checkpoint_interval:
            self._check(step)

    def _forgotten(self, step: int) -> bool:
        """Whether `step` is so old that it may have been counted: what left the history is taken as seen."""
        return len(self.steps_history) == KEPT and step < self.steps_history[0]

    def _check(self, step: int) -> None:
        self.last_gate_check_step = step
        results = self.gate_results()
        failed = any(each.status is GateStatus.FAIL for each in results.values())
        self.consecutive_failures = self.consecutive_failures + 1 if failed else 0
        halt, reason = self.eval_gates.should_halt_training(
            results, self.consecutive_failures, self.max_consecutive_failures
        )
        if halt:
            self.stop_training(reason)
        else:
            self._save()

    def gate_results(self) -> dict[str, GateResult]:
        """What the gates say now; the evaluation is the mean of the latest rewards."""
        if not self.eval_gates.enabled or not self.rewards_history:
            return {}
        count = len(self.rewards_history)
        results = [
            eval_gates.memory(psutil.Process().memory_info().rss, self.eval_gates.max_memory),
            eval_gates.repeated_steps(self._repeated),
            self._trend.judged(),
            eval_gates.above_baseline(math.fsum(self.rewards_history) / count),
        ]
        return {result.name: result for result in results}

    def get_training_status(self) -> dict[str, Any]:
        """Where the session stands, with `gate_results` once there is something to judge."""
        told = {
            "is_training": self.is_training,
            "current_step": self.current_step,
            "halt_reason": self.halt_reason,
            "consecutive_failures": self.consecutive_failures,
        }
        results = self.gate_results()
        return told | {"gate_results": results} if results else told

    def save_checkpoint(self, path: str | Path) -> None:
        """Write the session as JSON, at once or not at all; parent folders are made.

        Raises:
          OSError: the file cannot be written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self._state())

    def load_checkpoint(self, path: str | Path) -> None:
        """Go on from a file of `save_checkpoint`; where there is none, say so and change nothing.

        Raises:
          RunError: the file is damaged, or not of a session.
        """
        path = Path(path)
        if not path.exists():
            warnings.warn(f"{path} is not there: the session begins anew", stacklevel=2)
            return
        try:
            self._restore(json.loads(path.read_text()))
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"{path} is not a checkpoint of a training session ({type(error).__name__}: {error}): give "
                "another, or begin anew"
            ) from error

    def _save(self) -> None:
        if self.autosave is not None:
            self.save_checkpoint(self.autosave)

    def _state(self) -> dict[str, Any]:
        rewards = [reward if math.isfinite(reward) else str(reward) for reward in self.rewards_history]
        told = {name: getattr(self, name) for name in SAVED}
        return told | {
            "version": VERSION,
            "rewards_history": rewards,
            "steps_history": list(self.steps_history),
            "repeated_steps": self._repeated,
            "last_step": self._last_step,
            "trend": self._trend.to_list(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        if state["version"] != VERSION:
            raise ValueError(f"version {state['version']}, and this is version {VERSION}")
        rewards = [float(reward) for reward in state["rewards_history"]]
        steps = [int(step) for step in state["steps_history"]]
        trend, known = Trend(*map(float, state["trend"])), {name: state[name] for name in SAVED}
        repeated, last = int(state["repeated_steps"]), state["last_step"]
        # Nothing above has touched the session: a damaged file leaves it as it was.
        self.rewards_history, self.steps_history = deque(rewards, maxlen=KEPT), deque(steps, maxlen=KEPT)
        self._trend, self._repeated, self._last_step = trend, repeated, last
        for name, value in known.items():
            setattr(self, name, value)
