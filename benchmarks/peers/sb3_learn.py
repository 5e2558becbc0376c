"""Stable-Baselines3's PPO or sb3-contrib's RecurrentPPO on a market whose optimum is known.

`python -m benchmarks.peers.sb3_learn NAME TRAIN.npz TEST.npz '{"accounts": 256, …}'` in the peers'
environment, NAME of `benchmarks.peers.sb3`; serves `learn`, which trains on the one and plays on the other.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]

from benchmarks.peers import task as tasks
from benchmarks.peers.accounts import played
from benchmarks.peers.sb3 import PACKAGES, make_model
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


def learn(name: str, train: Task, test: Task, settings: Settings, *, seed: int, steps: int) -> dict[str, Any]:
    """Train `steps` steps anew with `seed`, then play the most probable action at every bar of the test.

    Returns:
      The seconds of training, its steps, and the levels asked for at bars first … stop - 2 of the test, as
      the `Trace` of `ztb_jax.evaluation.backtest` has them.
    """
    model = make_model(
        name,
        train,
        settings,
        learning_rate=lambda remaining: settings.learning_rate * remaining,
        seed=seed,
    )
    started = time.perf_counter()
    model.learn(steps, callback=FallingEntropy(settings.entropy, steps), log_interval=None)
    seconds = time.perf_counter() - started
    levels = played(test, player(model, settings.recurrent), lookback=1 if settings.recurrent else None)
    return {"steps": model.num_timesteps, "seconds": seconds, "levels": levels}


def player(model: Any, recurrent: bool) -> Callable[[np.ndarray], np.ndarray]:
    """[1, K] observations of one account -> [1] its most probable action; any memory begins empty."""
    if not recurrent:

        @torch.inference_mode()
        def look(seen: np.ndarray) -> np.ndarray:
            logits = model.policy.action_net(model.policy.mlp_extractor.forward_actor(torch.from_numpy(seen)))
            return logits.argmax(dim=1).numpy()

        return look
    memory, fresh = None, np.ones(1, bool)

    def remember(seen: np.ndarray) -> np.ndarray:
        nonlocal memory, fresh
        action, memory = model.predict(seen, state=memory, episode_start=fresh, deterministic=True)
        fresh = np.zeros(1, bool)
        return action

    return remember


def main(name: str, train: str, test: str, settings: str = "{}") -> None:
    """Serve one market until standard input closes."""
    versions = {package: version(package) for package in (PACKAGES[name], "torch")}
    parts = (name, tasks.load(train), tasks.load(test), tasks.settings_of(settings))
    serve({"about": lambda: versions, "learn": partial(learn, *parts)})


if __name__ == "__main__":
    main(*sys.argv[1:])
