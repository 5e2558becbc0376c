"""Stable-Baselines3's PPO on a market whose optimum is known, with the settings of `benchmarks.learn`.

`python -m benchmarks.peers.sb3_learn TRAIN.npz TEST.npz '{"accounts": 256, …}'` in the peers' environment;
serves `learn`, which trains on the one and plays on the other.
"""

import sys
import time
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]

from benchmarks.peers import task as tasks
from benchmarks.peers.accounts import Accounts
from benchmarks.peers.sb3 import make_model
from benchmarks.peers.task import Settings, Task
from benchmarks.peers.wire import serve


class FallingEntropy(BaseCallback):
    """The entropy weight falls linearly to zero over `steps`, as the learning rate does."""

    def __init__(self, weight: float, steps: int):
        super().__init__()
        self.weight, self.steps = weight, steps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.model.ent_coef = self.weight * max(0.0, 1.0 - self.model.num_timesteps / self.steps)


def learn(train: Task, test: Task, settings: Settings, *, seed: int, steps: int) -> dict[str, Any]:
    """Train `steps` steps anew with `seed`, then play the most probable action at every bar of the test.

    Returns:
      The seconds of training, its steps, and the levels asked for at bars first … stop - 2 of the test, as
      the `Trace` of `ztb_jax.evaluation.backtest` has them.
    """
    model = make_model(
        "sb3",
        train,
        settings,
        learning_rate=lambda remaining: settings.learning_rate * remaining,
        seed=seed,
    )
    started = time.perf_counter()
    model.learn(steps, callback=FallingEntropy(settings.entropy, steps), log_interval=None)
    seconds = time.perf_counter() - started
    levels = [float(level) for level in played(model.policy, test)]
    return {"steps": model.num_timesteps, "seconds": seconds, "levels": levels}


def played(policy: Any, test: Task) -> np.ndarray:
    """[N] float32 levels that `policy` asks for, one account through the whole slice; 0 once it is closed."""
    accounts, asked = Accounts(test, 1), []
    accounts.open_at_first()
    bars = int(test.stop) - 1 - int(test.first)
    with torch.inference_mode():
        for _ in range(bars):
            seen = torch.from_numpy(accounts.observe())
            logits = policy.action_net(policy.mlp_extractor.forward_actor(seen))
            action = logits.argmax(dim=1).numpy()
            asked.append(test.levels[action[0]])
            if accounts.step(action).terminated[0]:
                break
    return np.pad(np.asarray(asked, np.float32), (0, bars - len(asked)))


def main(train: str, test: str, settings: str = "{}") -> None:
    """Serve one market until standard input closes."""
    versions = {name: version(name) for name in ("stable-baselines3", "torch")}
    parts = (tasks.load(train), tasks.load(test), tasks.settings_of(settings))
    serve({"about": lambda: versions, "learn": partial(learn, *parts)})


if __name__ == "__main__":
    main(*sys.argv[1:])
