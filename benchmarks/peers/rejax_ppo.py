"""rejax's PPO, as published, on the accounts of a task.

`python -m benchmarks.peers.rejax_ppo TASK.npz '{"accounts": 256, …}'` in the peers' environment; serves
`train`, which goes on where the last call stopped. rejax clips values, cuts gradients element by element, and
counts an episode that its time ends as one that is over.
"""

import sys
import time
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
from rejax import PPO  # pyright: ignore[reportMissingImports]
from rejax.algos.algorithm import register_init  # pyright: ignore[reportMissingImports]

from benchmarks.peers import task as tasks
from benchmarks.peers.jax_env import Trading
from benchmarks.peers.task import Settings, Task
from benchmarks.peers.wire import serve

UPDATES = 4  # in one program


class Told(PPO):
    """rejax's PPO that sums up the mean rewards of its rollouts."""

    @register_init
    def initialize_paid(self, rng):
        """Nothing yet."""
        del rng
        return {"paid": jnp.float32(0.0)}

    def collect_trajectories(self, ts):
        """The published rollout."""
        ts, played = super().collect_trajectories(ts)
        return ts.replace(paid=ts.paid + played.reward.mean()), played


class Learner:
    """The algorithm, its state, and the program that moves it on."""

    def __init__(self, task: Task, settings: Settings):
        self.env, self.steps = Trading(task), UPDATES * settings.batch
        self.algorithm = Told.create(
            env=self.env,
            env_params=self.env.default_params,
            eval_freq=self.steps,
            total_timesteps=self.steps,
            skip_initial_evaluation=True,
            num_envs=settings.accounts,
            num_steps=settings.rollout_bars,
            num_minibatches=settings.num_minibatches,
            num_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            gamma=settings.gamma,
            gae_lambda=settings.lam,
            clip_eps=settings.clip,
            ent_coef=settings.entropy,
            vf_coef=settings.value_weight,
            max_grad_norm=settings.max_grad_norm,
            agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (settings.width, settings.width)},
        ).replace(eval_callback=lambda algorithm, ts, rng: ())
        self.program = jax.jit(lambda algorithm, ts: algorithm.train(train_state=ts)[0])
        # Not jitted: the state keeps an optimiser that holds the learning rate.
        self.state = self.algorithm.init_state(jax.random.key(settings.seed))

    def train(self, *, steps: int) -> dict[str, float]:
        """At least `steps` more steps, in whole programs: how many, seconds, mean reward in bp a bar."""
        programs = -(-steps // self.steps)
        state = self.state.replace(paid=jnp.float32(0.0))
        started = time.perf_counter()
        for _ in range(programs):
            state = self.program(self.algorithm, state)
        paid = float(state.paid)
        seconds = time.perf_counter() - started
        self.state = state
        reward = paid / (programs * UPDATES) / float(self.env.default_params.reward_scale)
        return {"steps": programs * self.steps, "seconds": seconds, "reward": 1e4 * reward}


def main(path: str, settings: str = "{}") -> None:
    """Serve one learner until standard input closes."""
    learner = Learner(tasks.load(path), tasks.settings_of(settings))
    versions: dict[str, Any] = {name: version(name) for name in ("rejax", "jax")}
    serve({"about": lambda: versions, "train": learner.train})


if __name__ == "__main__":
    main(*sys.argv[1:])
