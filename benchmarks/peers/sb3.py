"""Stable-Baselines3's PPO, sbx's PPO and sb3-contrib's RecurrentPPO on the accounts of a task.

`python -m benchmarks.peers.sb3 NAME TASK.npz '{"accounts": 8, …}'` in the peers' environment; the settings
are those of `task.Settings` that differ. It serves `train`, which goes on where the last call stopped.
"""

import sys
import time
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv  # pyright: ignore[reportMissingImports]

from benchmarks.peers import task as tasks
from benchmarks.peers.accounts import Accounts
from benchmarks.peers.task import Settings, Task
from benchmarks.peers.wire import serve

PACKAGES = {"sb3": "stable-baselines3", "sbx": "sbx-rl", "recurrent": "sb3-contrib"}


class AccountsVecEnv(VecEnv):
    """`Accounts` as SB3's `VecEnv`; sums up the rewards that it pays, unscaled."""

    def __init__(self, accounts: Accounts):
        self.accounts, self.paid, self.running = accounts, 0.0, {}
        low, high = np.finfo(np.float32).min, np.finfo(np.float32).max
        seen = accounts.observe()
        super().__init__(
            len(seen),
            spaces.Box(low, high, seen.shape[1:], np.float32),
            spaces.Discrete(len(accounts.task.levels)),
        )

    def reset(self) -> np.ndarray:
        """The observations; accounts are fresh from the start."""
        return self.accounts.observe()

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions."""
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step all accounts; those that ended have been restarted."""
        out = self.accounts.step(self.actions)
        self.paid += float(out.reward.sum(dtype=np.float64))
        ended = out.terminated | out.truncated
        infos: list[dict[str, Any]] = [self.running] * self.num_envs  # nobody writes to what goes on
        which = np.flatnonzero(ended)
        if len(which):
            last = self.accounts.observe(which)
            for index, seen in zip(which, last, strict=True):
                cut = bool(out.truncated[index] and not out.terminated[index])
                infos[index] = {"terminal_observation": seen, "TimeLimit.truncated": cut}
            self.accounts.restart(which)
        return self.accounts.observe(), out.reward * self.accounts.task.reward_scale, ended, infos

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same for every account."""
        return [getattr(self, attr_name, None)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """The accounts have no attributes of their own."""
        raise AttributeError(f"{attr_name} cannot be set for single accounts")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """The accounts have no methods of their own."""
        raise AttributeError(f"single accounts have no {method_name}")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """None is."""
        return [False] * len(list(self._get_indices(indices)))


def make_model(name: str, task: Task, settings: Settings, **rest: Any) -> Any:
    """The learner `name` of `PACKAGES`, on the CPU; `rest` replaces arguments of its class."""
    torch.set_num_threads(settings.threads)
    accounts = Accounts(
        task, settings.accounts, lookback=1 if settings.recurrent else None, seed=settings.seed
    )
    arguments = {
        "n_steps": settings.rollout_bars,
        "batch_size": settings.batch // settings.num_minibatches,
        "n_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "gamma": settings.gamma,
        "gae_lambda": settings.lam,
        "clip_range": settings.clip,
        "ent_coef": settings.entropy,
        "vf_coef": settings.value_weight,
        "max_grad_norm": settings.max_grad_norm,
        "device": "cpu",
        "seed": settings.seed,
    }
    make, policy, network = _learner(name, settings.width)
    return make(policy, AccountsVecEnv(accounts), policy_kwargs=network, **arguments | rest)


def _learner(name: str, width: int) -> tuple[Any, str, dict[str, Any]]:
    """The class, its policy and the policy's network: tanh, actor and critic apart after any memory."""
    two = {"pi": [width, width], "vf": [width, width]}
    if name == "sbx":
        from sbx import PPO  # pyright: ignore[reportMissingImports]

        return PPO, "MlpPolicy", {"net_arch": two}  # tanh is its default
    if name == "recurrent":
        from sb3_contrib import RecurrentPPO  # pyright: ignore[reportMissingImports]

        # One memory for both is what ppo_rnn has, and faster than the default of one each.
        memory = {"lstm_hidden_size": width, "shared_lstm": True, "enable_critic_lstm": False}
        return RecurrentPPO, "MlpLstmPolicy", {"net_arch": {"pi": [width], "vf": [width]}, **memory}
    from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports]

    return PPO, "MlpPolicy", {"net_arch": two, "activation_fn": torch.nn.Tanh}


def train(model: Any, *, steps: int) -> dict[str, float]:
    """At least `steps` more steps, in whole rollouts: how many, their seconds, mean reward in bp a bar."""
    venv, before = model.env, model.num_timesteps
    venv.paid = 0.0
    started = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False, log_interval=None)
    seconds = time.perf_counter() - started
    done = model.num_timesteps - before
    return {"steps": done, "seconds": seconds, "reward": 1e4 * venv.paid / done}


def main(name: str, path: str, settings: str = "{}") -> None:
    """Serve one learner until standard input closes."""
    model = make_model(name, tasks.load(path), tasks.settings_of(settings))
    versions = {package: version(package) for package in (PACKAGES[name], "torch", "jax")}
    serve({"about": lambda: versions, "train": partial(train, model)})


if __name__ == "__main__":
    main(*sys.argv[1:])
