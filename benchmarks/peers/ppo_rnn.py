"""PPO with a recurrent memory in the manner of PureJaxRL's ppo_rnn: the peer of encoders with a memory.

`python -m benchmarks.peers.ppo_rnn TASK.npz '{"accounts": 256, …}' [TEST.npz]` in the peers' environment;
serves `train`, which goes on where the last call stopped, or with TEST `learn`, which begins anew and plays
on that. Every account carries a memory of its own through its bars, and sees one bar's features a step; whole
sequences go to a minibatch, with the memory that they began with.

Source: https://github.com/luchris429/purejaxrl, `ppo_rnn.py`, written anew: there the memory is a GRU that is
emptied where an episode begins, minibatches are cut along the accounts, the value is clipped, and an episode
that its time ends counts as one that is over.
"""

import functools
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.linen.initializers import orthogonal

from benchmarks.peers import task as tasks
from benchmarks.peers.accounts import played
from benchmarks.peers.jax_env import Trading
from benchmarks.peers.task import Settings, Task
from benchmarks.peers.wire import serve

UPDATES = 4  # in one program


class ScannedGRU(nn.Module):
    """A GRU over [T, N, width], emptied before the steps where `fresh` [T, N] is true."""

    @functools.partial(
        nn.scan, variable_broadcast="params", in_axes=0, out_axes=0, split_rngs={"params": False}
    )
    @nn.compact
    def __call__(self, memory, inputs):
        """Memory [N, width] after, and the same as output."""
        seen, fresh = inputs
        memory = jnp.where(fresh[:, None], 0.0, memory)
        return nn.GRUCell(memory.shape[-1])(memory, seen)


class ActorCritic(nn.Module):
    """Embedding, memory, and a hidden layer each for actor and critic; all `width` wide."""

    num_actions: int
    width: int

    @nn.compact
    def __call__(self, memory, observations, fresh):
        """(memory [N, width], [T, N, K], [T, N]) -> memory, log probabilities [T, N, A], values [T, N]."""
        dense = functools.partial(nn.Dense, kernel_init=orthogonal(2**0.5))
        seen = jnp.tanh(dense(self.width)(observations))
        memory, core = ScannedGRU()(memory, (seen, fresh))
        logits = nn.Dense(self.num_actions, kernel_init=orthogonal(0.01))(jnp.tanh(dense(self.width)(core)))
        value = nn.Dense(1, kernel_init=orthogonal(1.0))(jnp.tanh(dense(self.width)(core)))
        return memory, nn.log_softmax(logits), value[..., 0]


class Carry(NamedTuple):
    """Everything that training changes; `fresh` [N] bool tells accounts whose episode begins."""

    key: jax.Array
    params: Any
    optimizer: Any
    state: Any
    observation: jax.Array
    fresh: jax.Array
    memory: jax.Array


class Steps(NamedTuple):
    """A rollout, [T, N] each, and [T, N, K] observations."""

    observation: jax.Array
    fresh: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array


def advantages_of(steps: Steps, last: jax.Array, *, gamma: float, lam: float) -> jax.Array:
    """[T, N] generalised advantages, with `last` [N] the value after the rollout."""

    def back(carry, step):
        advantage, following = carry
        goes_on = 1.0 - step.done
        delta = step.reward + gamma * following * goes_on - step.value
        advantage = delta + gamma * lam * goes_on * advantage
        return (advantage, step.value), advantage

    return jax.lax.scan(back, (jnp.zeros_like(last), last), steps, reverse=True)[1]


class Learner:
    """The network, its environments, and the program that trains."""

    def __init__(
        self, task: Task, settings: Settings, *, learning_rate: optax.ScalarOrSchedule | None = None
    ):
        self.settings, self.env = settings, Trading(task, lookback=1)
        self.net = ActorCritic(self.env.env.num_actions, settings.width)
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(settings.max_grad_norm),
            optax.adam(learning_rate or settings.learning_rate, eps=1e-5),
        )
        self.carry = jax.jit(self._begin)(jax.random.key(settings.seed), self.env.default_params)
        self.program = jax.jit(self._updates, donate_argnums=0)

    def _begin(self, key, params) -> Carry:
        key, weights_key, env_key = jax.random.split(key, 3)
        count = self.settings.accounts
        observation, state = jax.vmap(self.env.reset, (0, None))(jax.random.split(env_key, count), params)
        memory, fresh = jnp.zeros((count, self.settings.width)), jnp.ones(count, bool)
        weights = self.net.init(weights_key, memory, observation[None], fresh[None])
        return Carry(key, weights, self.optimizer.init(weights), state, observation, fresh, memory)

    def _updates(self, carry: Carry, params):
        carry, rewards = jax.lax.scan(lambda carry, _: self._update(carry, params), carry, length=UPDATES)
        return carry, rewards.mean() / params.reward_scale

    def _update(self, carry: Carry, params):
        began = carry.memory
        carry, steps = jax.lax.scan(
            lambda carry, _: self._step(carry, params), carry, length=self.settings.rollout_bars
        )
        _, _, last = self._look(carry)
        advantage = advantages_of(
            steps, jnp.where(carry.fresh, 0.0, last), gamma=self.settings.gamma, lam=self.settings.lam
        )
        key, epochs_key = jax.random.split(carry.key)
        (weights, optimizer), _ = jax.lax.scan(
            functools.partial(self._epoch, began=began, steps=steps, advantage=advantage),
            (carry.params, carry.optimizer),
            jax.random.split(epochs_key, self.settings.epochs),
        )
        return carry._replace(key=key, params=weights, optimizer=optimizer), steps.reward.mean()

    def _look(self, carry: Carry) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Memory [N, width] after, log probabilities [N, A] and values [N] of the bar that is seen."""
        out: Any = self.net.apply(carry.params, carry.memory, carry.observation[None], carry.fresh[None])
        memory, log_probs, value = out
        return memory, log_probs[0], value[0]

    def _step(self, carry: Carry, params):
        key, action_key, env_key = jax.random.split(carry.key, 3)
        memory, log_probs, value = self._look(carry)
        action = jax.random.categorical(action_key, log_probs)
        chosen = jnp.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]
        env_keys = jax.random.split(env_key, self.settings.accounts)
        observation, state, reward, done, _ = jax.vmap(self.env.step, (0, 0, 0, None))(
            env_keys, carry.state, action, params
        )
        step = Steps(carry.observation, carry.fresh, action, chosen, value, reward, done)
        carry = Carry(key, carry.params, carry.optimizer, state, observation, done, memory)
        return carry, step

    def _epoch(self, carry, key, *, began, steps: Steps, advantage):
        """Minibatches of whole sequences, in a new order of the accounts."""
        order = jax.random.permutation(key, self.settings.accounts).reshape(self.settings.num_minibatches, -1)

        def one(carry, which):
            weights, optimizer = carry
            taken = jax.tree.map(lambda leaf: leaf[:, which], (steps, advantage))
            grads = jax.grad(self._loss)(weights, began[which], *taken)
            change, optimizer = self.optimizer.update(grads, optimizer, weights)
            return (optax.apply_updates(weights, change), optimizer), None

        return jax.lax.scan(one, carry, order)

    def _loss(self, weights, began, steps: Steps, advantage) -> jax.Array:
        settings = self.settings
        out: Any = self.net.apply(weights, began, steps.observation, steps.fresh)
        _, log_probs, value = out
        chosen = jnp.take_along_axis(log_probs, steps.action[..., None], axis=-1)[..., 0]
        target = advantage + steps.value
        near = steps.value + jnp.clip(value - steps.value, -settings.clip, settings.clip)
        value_loss = 0.5 * jnp.maximum((value - target) ** 2, (near - target) ** 2).mean()
        ratio = jnp.exp(chosen - steps.log_prob)
        scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        kept = jnp.clip(ratio, 1.0 - settings.clip, 1.0 + settings.clip)
        gain = jnp.minimum(ratio * scaled, kept * scaled).mean()
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
        return settings.value_weight * value_loss - gain - settings.entropy * entropy

    def train(self, *, steps: int) -> dict[str, float]:
        """At least `steps` more steps, in whole programs: how many, seconds, mean reward in bp a bar."""
        of_one = UPDATES * self.settings.batch
        programs, paid = -(-steps // of_one), []
        started = time.perf_counter()
        for _ in range(programs):
            self.carry, reward = self.program(self.carry, self.env.default_params)
            paid.append(float(reward))
        seconds = time.perf_counter() - started
        return {"steps": programs * of_one, "seconds": seconds, "reward": 1e4 * sum(paid) / programs}


def learn(train: Task, test: Task, settings: Settings, *, seed: int, steps: int) -> dict[str, Any]:
    """Train `steps` steps anew, the learning rate falling to zero; then play the likeliest actions on `test`.

    Returns:
      The steps, their seconds, and the levels asked for, as `accounts.played` tells them.
    """
    gradient_steps = steps // settings.batch * settings.epochs * settings.num_minibatches
    falling = optax.linear_schedule(settings.learning_rate, 0.0, gradient_steps)
    learner = Learner(train, replace(settings, seed=seed), learning_rate=falling)
    done = learner.train(steps=steps)
    params = learner.carry.params

    @jax.jit
    def look(memory, seen, fresh):
        out: Any = learner.net.apply(params, memory, seen[None], fresh)
        return out[0], out[1][0].argmax(-1)

    memory, fresh = jnp.zeros((1, settings.width)), jnp.ones((1, 1), bool)

    def act(seen: np.ndarray) -> np.ndarray:
        nonlocal memory, fresh
        memory, action = look(memory, seen, fresh)
        fresh = jnp.zeros((1, 1), bool)
        return np.asarray(action)

    return done | {"levels": played(test, act, lookback=1)}


def main(path: str, settings: str = "{}", test: str | None = None) -> None:
    """Serve one learner until standard input closes."""
    task, given = tasks.load(path), tasks.settings_of(settings)
    versions = {name: version(name) for name in ("jax", "flax", "optax")}
    if test is None:
        asked = {"train": Learner(task, given).train}
    else:
        asked = {"learn": functools.partial(learn, task, tasks.load(test), given)}
    serve({"about": lambda: versions, **asked})


if __name__ == "__main__":
    main(*sys.argv[1:])
