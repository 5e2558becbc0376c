"""Stable-Baselines3's PPO, as the peer of training.

`python -m benchmarks.peers.sb3 '{"accounts": 8, …}'` in the peers' environment; the settings are those of
`Settings` that differ, and it serves `train`, which goes on where the last call stopped.
"""

import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from benchmarks.peers.wire import serve


@dataclass(frozen=True)
class Settings:
    """Sizes and hyperparameters; the defaults are SB3's own but for the epochs and the sizes.

    Attributes:
      accounts: environments stepped together.
      rollout_bars: steps of each before an update.
      num_minibatches: gradient steps in an epoch.
      epochs: passes over a batch.
      width: of the two hidden layers of actor and of critic, apart from each other.
      learning_rate: of Adam.
      gamma: discount.
      lam: of the generalised advantage.
      entropy: its coefficient.
      threads: of torch.
      seed: of everything.
    """

    accounts: int = 8
    rollout_bars: int = 256
    num_minibatches: int = 8
    epochs: int = 4
    width: int = 64
    learning_rate: float = 3e-4
    gamma: float = 0.99
    lam: float = 0.95
    entropy: float = 0.0
    threads: int = 1
    seed: int = 0


def make_environments(settings: Settings):
    """The vectorised environment to train on."""
    from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]

    return make_vec_env("CartPole-v1", n_envs=settings.accounts, seed=settings.seed)


def make_model(settings: Settings):
    """PPO with separate tanh networks for actor and critic, on the CPU."""
    import torch  # pyright: ignore[reportMissingImports]
    from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(settings.threads)
    layers = [settings.width, settings.width]
    return PPO(
        "MlpPolicy",
        make_environments(settings),
        n_steps=settings.rollout_bars,
        batch_size=settings.accounts * settings.rollout_bars // settings.num_minibatches,
        n_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        gamma=settings.gamma,
        gae_lambda=settings.lam,
        ent_coef=settings.entropy,
        policy_kwargs={"net_arch": {"pi": layers, "vf": layers}, "activation_fn": torch.nn.Tanh},
        device="cpu",
        seed=settings.seed,
    )


def train(model: Any, *, steps: int) -> dict[str, float]:
    """At least `steps` more steps, in whole rollouts: how many, their seconds, mean episode reward."""
    before, started = model.num_timesteps, time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    seconds = time.perf_counter() - started
    ended = [episode["r"] for episode in model.ep_info_buffer]
    return {
        "steps": model.num_timesteps - before,
        "seconds": seconds,
        "episode_reward": sum(ended) / len(ended) if ended else float("nan"),
    }


def main(settings: str = "{}") -> None:
    """Serve one learner until standard input closes."""
    model = make_model(Settings(**json.loads(settings)))
    versions = {name: version(name) for name in ("stable-baselines3", "torch", "gymnasium")}
    serve({"about": lambda: versions, "train": partial(train, model)})


if __name__ == "__main__":
    main(*sys.argv[1:])
