"""brax's PPO, as published, on the accounts of a task.

`python -m benchmarks.peers.brax_ppo TASK.npz '{"accounts": 1024, …}'` in the peers' environment; serves
`train`, which goes on where the last call stopped. brax knows continuous actions alone (normal or
tanh-normal), so here an action is the level itself, from -1 to 1, which trades in every bar. Accounts restart
where they first started, for brax's wrappers keep the first state of each.

`brax.training.agents.ppo.train` runs to its end and returns weights without the optimiser's state. So it runs
in a thread that its own progress callback holds between the epochs; the seconds are those of its own
stopwatch.
"""

import contextlib
import functools
import sys
import threading
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers import task as tasks
from benchmarks.peers.jax_env import params_of
from benchmarks.peers.task import Settings, Task
from benchmarks.peers.wire import serve
from envs import actions
from envs.single import make_single
from envs.types import row

with contextlib.redirect_stdout(sys.stderr):  # MuJoCo prints what it lacks, and replies go to standard output
    from brax.envs.base import Env, State  # pyright: ignore[reportMissingImports]
    from brax.envs.wrappers import training  # pyright: ignore[reportMissingImports]
    from brax.training import acting  # pyright: ignore[reportMissingImports]
    from brax.training.agents.ppo import networks, train  # pyright: ignore[reportMissingImports]

UPDATES = 4  # in one epoch
EPOCHS = 10_000  # more than anybody asks for
JUDGED = (1024, 64)  # accounts and bars whose mean reward is told


class Trading(Env):
    """One account; the wrappers of brax end its windows and restart it."""

    def __init__(self, task: Task):
        self.env = make_single(actions=actions.continuous(), episode_bars=int(task.episode_bars))
        self.params = params_of(task, lookback=int(task.lookback))

    def reset(self, rng: jax.Array) -> State:
        """A random start."""
        state, _ = self.env.reset(rng, self.params.env)
        return State(state, self._observe(state), reward=jnp.float32(0.0), done=jnp.float32(0.0))

    def step(self, state: State, action: jax.Array) -> State:
        """The next bar; the reward is scaled."""
        moved, out = self.env.step(None, state.pipeline_state, action[0], self.params.env)
        return state.replace(
            pipeline_state=moved,
            obs=self._observe(moved),
            reward=out.reward * self.params.reward_scale,
            done=out.terminated.astype(jnp.float32),
        )

    def _observe(self, state: Any) -> jax.Array:
        seen = self.env.observe(state)
        return jnp.concatenate([row(self.params.table, seen.bar), seen.account])

    @property
    def observation_size(self) -> int:
        """A window and an account."""
        return self.params.table.shape[1] + self.env.account_size

    @property
    def action_size(self) -> int:
        """The level."""
        return 1

    @property
    def backend(self) -> str:
        """None of brax's."""
        return "envs"


def _replicated(tree: Any, devices: list[Any]) -> Any:
    """`jax.device_put_replicated`, which brax 0.14.2 calls and jax 0.10 has no more, for the one device."""
    (device,) = devices
    return jax.device_put(jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), tree), device)


class Learner:
    """Training that waits between the epochs until it is asked to go on."""

    def __init__(self, task: Task, settings: Settings):
        self.env, self.settings = Trading(task), settings
        self.steps = UPDATES * settings.batch
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.walltime, self.weights, self.failure = 0.0, None, None
        self.judge = jax.jit(self._judge, static_argnums=0)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._train()
        except BaseException as failure:  # noqa: BLE001 - raised again where it is waited for
            self.failure = failure
            self.done.release()

    def _train(self) -> None:
        settings, layers = self.settings, (self.settings.width,) * 2
        jax.device_put_replicated = _replicated
        self.go.acquire()
        train.train(
            environment=self.env,
            num_timesteps=EPOCHS * self.steps,
            num_evals=EPOCHS + 1,
            run_evals=False,
            episode_length=self.env.env.episode_bars,
            num_envs=settings.accounts,
            unroll_length=settings.rollout_bars,
            batch_size=settings.accounts // settings.num_minibatches,
            num_minibatches=settings.num_minibatches,
            num_updates_per_batch=settings.epochs,
            learning_rate=settings.learning_rate,
            entropy_cost=settings.entropy,
            discounting=settings.gamma,
            gae_lambda=settings.lam,
            clipping_epsilon=settings.clip,
            vf_loss_coefficient=settings.value_weight,
            max_grad_norm=settings.max_grad_norm,
            normalize_observations=False,
            network_factory=functools.partial(
                networks.make_ppo_networks,
                policy_hidden_layer_sizes=layers,
                value_hidden_layer_sizes=layers,
                activation=jnp.tanh,
            ),
            seed=settings.seed,
            policy_params_fn=self._keep,
            progress_fn=self._pause,
        )

    def _keep(self, steps: int, make_policy: Any, weights: Any) -> None:
        del steps
        self.weights = (make_policy, weights)

    def _pause(self, steps: int, metrics: dict[str, Any]) -> None:
        del steps
        self.walltime = float(metrics["training/walltime"])
        self.done.release()
        self.go.acquire()

    def train(self, *, steps: int) -> dict[str, float]:
        """At least `steps` more steps, in whole epochs: how many, their seconds, mean reward in bp a bar.

        The reward is what the policy earns afterwards, sampled, over `JUDGED` accounts and bars.
        """
        epochs, before = -(-steps // self.steps), self.walltime
        for _ in range(epochs):
            self.go.release()
            self.done.acquire()
            if self.failure is not None:
                raise self.failure
        assert self.weights is not None
        reward = float(self.judge(*self.weights)) / float(self.env.params.reward_scale)
        return {"steps": epochs * self.steps, "seconds": self.walltime - before, "reward": 1e4 * reward}

    def _judge(self, make_policy: Any, weights: Any) -> jax.Array:
        accounts, bars = JUDGED
        env = training.wrap(self.env, episode_length=self.env.env.episode_bars)
        state = env.reset(
            jax.random.split(jax.random.PRNGKey(1), accounts)
        )  # brax reads the shape of raw keys
        _, played = acting.generate_unroll(env, state, make_policy(weights), jax.random.PRNGKey(2), bars)
        return played.reward.mean()


def main(path: str, settings: str = "{}") -> None:
    """Serve one learner until standard input closes."""
    learner = Learner(tasks.load(path), tasks.settings_of(settings))
    versions: dict[str, Any] = {name: version(name) for name in ("brax", "jax")}
    serve({"about": lambda: versions, "train": learner.train})


if __name__ == "__main__":
    main(*sys.argv[1:])
