"""Stable-Baselines3's PPO on our own environments, by `AccountsVecEnv`.

`python -m benchmarks.peers.sb3_trading` in the peers' environment; serves `train`.
"""

import time
from importlib.metadata import version
from typing import Any

from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.vec_env import VecMonitor  # pyright: ignore[reportMissingImports]

from benchmarks.peers.sb3_vecenv import AccountsVecEnv
from benchmarks.peers.wire import serve
from envs.adapters import TASKS
from envs.adapters_gymnasium import GymnasiumVectorEnv

EPISODE, ACCOUNTS, ROLLOUT, BATCH = 64, 64, 64, 1024


class _Returns(BaseCallback):
    """Collects the return of every episode, in the order in which they end."""

    def __init__(self):
        super().__init__()
        self.ended: list[float] = []

    def _on_step(self) -> bool:
        self.ended += [float(info["episode"]["r"]) for info in self.locals["infos"] if "episode" in info]
        return True


def train(*, task: str, steps: int, seed: int = 0) -> dict[str, Any]:
    """At least `steps` steps of the environment `task`, in whole rollouts.

    Returns:
      How many steps, their seconds, and the mean return of the episodes of the first and of the last quarter.
    """
    made = TASKS[task](episode_bars=EPISODE)
    accounts = GymnasiumVectorEnv(
        made.env, made.params, features=made.features, lookback=made.lookback, num_envs=ACCOUNTS
    )
    told = _Returns()
    venv = VecMonitor(AccountsVecEnv(accounts))
    model = PPO(
        "MlpPolicy",
        venv,
        n_steps=ROLLOUT,
        batch_size=BATCH,
        gamma=0.9,
        gae_lambda=0.8,
        device="cpu",
        seed=seed,
    )
    started = time.perf_counter()
    model.learn(steps, callback=told)
    seconds = time.perf_counter() - started
    quarter = len(told.ended) // 4
    return {
        "steps": model.num_timesteps,
        "seconds": seconds,
        "first": sum(told.ended[:quarter]) / quarter,
        "last": sum(told.ended[-quarter:]) / quarter,
    }


if __name__ == "__main__":
    serve({"about": lambda: {"version": version("stable-baselines3")}, "train": train})
