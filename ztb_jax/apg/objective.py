"""Playing as a function of the weights: the growth of every account over a rollout, and its derivative.

Axes: T rollout bars, G groups, S accounts of a group, K account view, H what an account remembers.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs.types import Env
from ztb_jax.data.market import MarketData
from ztb_jax.optimizers import Number
from ztb_jax.policies.encoding import encode_bars, looked_up
from ztb_jax.policies.play import Play, recorded, telemetry
from ztb_jax.policies.policy import Policy, recalled


class Hyper(struct.PyTreeNode):
    """Float hyperparameters, [] each; a part that is None does not exist in the program.

    Attributes:
      learning_rate: of the optimiser.
      gamma: discount of a bar.
      value_weight: of the value loss.
      entropy_weight: of the entropy bonus.
      max_grad_norm: global norm above which gradients are scaled down.
      weight_decay: of matrices, decoupled, a multiple of the learning rate; None is none.
      beta1: decay of the first moment; of Muon's momentum.
      beta2: decay of the second moment.
      epsilon: added to the root of the second moment.
      learning_rate_schedule: [N] multipliers at equal distances over the run, linear in between.
      entropy_schedule: [N].
    """

    learning_rate: Number = 3e-4
    gamma: Number = 0.95
    value_weight: Number = 0.5
    entropy_weight: Number = 0.01
    max_grad_norm: Number = 0.5
    weight_decay: Number | None = None
    beta1: Number = 0.9
    beta2: Number = 0.999
    epsilon: Number = 1e-5
    learning_rate_schedule: Any = (1.0, 0.0)
    entropy_schedule: Any = (1.0, 0.0)


class Chance(NamedTuple):
    """What a rollout draws.

    Attributes:
      noise: of the actions, T in front.
      steps: [T] keys of the environment.
    """

    noise: Any
    steps: jax.Array


class Played(NamedTuple):
    """What came of a rollout.

    Attributes:
      after: where the game stands.
      start: [G] int32, the bar each group began at.
      view: [T, G, S, K + H], what was acted on.
      reward: [T, G, S], scaled.
      terminated: [T, G, S] bool.
      returns: [T, G, S] discounted rewards from a bar to the end of the life or rollout, and the value of
        where the rollout ended.
      told: telemetry.
    """

    after: Play
    start: jax.Array
    view: jax.Array
    reward: jax.Array
    terminated: jax.Array
    returns: jax.Array
    told: dict[str, jax.Array]


def objective(
    params: Any, chance: Chance, play: Play, *, policy: Policy, env: Env, data: MarketData, hyper: Hyper
) -> tuple[jax.Array, tuple[dict[str, jax.Array], Played]]:
    """The loss [] of playing with `params` from `play` on, what it is made of, and what came of it.

        loss = -growth + value_weight * error - entropy_weight * entropy
        growth = mean over accounts of sum over lives of sum_t gamma^(t - begin) r[t] / T

    The last life of a rollout goes on in the critic's value of where it stands. Rewards and that value depend
    on the weights through every action: the derivative goes back through the environment's steps. It does not
    change the critic where it judges, and the critic's own fit does not change the actions.

    Args:
      params: the policy's weights.
      chance: what is drawn.
      play: where the game stands; nothing flows back into it.
      policy: the network, its distribution sampled as a function of noise and parameters.
      env: vectorised and with autoreset.
      data: the market.
      hyper: numbers.

    Source: short-horizon actor-critic, Xu et al. 2022, https://arxiv.org/abs/2204.07137, with one network and
    one step for actor and critic.
    """
    family = policy.distribution
    first = env.observe(play.env_state)
    rows, at = encode_bars(policy, params, data.features, first.bar, bars=chance.steps.shape[0] + 1)
    contexts = looked_up(rows, at)

    def step(carry, now):
        play, _ = carry
        context, noise, key = now
        memory, view = recalled(
            policy, params, play.memory, play.fresh, (context[:, None], env.observe(play.env_state).account)
        )
        parameters, _ = policy.apply(params, context[:, None], view)
        action = family.act(family.sample(noise, parameters))
        env_state, out = env.step(key, play.env_state, action, data.env_params)
        ended = out.terminated | out.truncated[:, None]
        episode, told = recorded(play.episode, out, ended)
        played = (view, out.reward * data.reward_scale, out.terminated, family.entropy(parameters))
        return (Play(env_state, episode, ended, memory), out.observation.account), (played, told)

    (after, last), (played, told) = jax.lax.scan(step, (play, first.account), (contexts[:-1], *chance))
    view, reward, terminated, entropy = played
    end = _value_of_the_end(policy, params, contexts[-1][:, None], after, last)
    returns = discounted(reward, terminated, end, gamma=hyper.gamma)
    growth = (returns[0] + jnp.where(terminated[:-1], returns[1:], 0.0).sum(axis=0)).mean() / reward.shape[0]
    parts = {
        "growth": growth,
        "value_loss": _value_error(policy, params, contexts[:-1][:, :, None], view, returns),
        "entropy": entropy.mean(),
    }
    loss = -growth + hyper.value_weight * parts["value_loss"] - hyper.entropy_weight * parts["entropy"]
    return loss, (parts | {"loss": loss}, Played(after, first.bar, *played[:3], returns, telemetry(told)))


def discounted(reward: jax.Array, terminated: jax.Array, end: jax.Array, *, gamma: Number) -> jax.Array:
    """[T, ...] R[t] = r[t] + gamma (0 if terminated[t] else R[t+1]) with R[T] = `end` [...]."""

    def back(later, now):
        reward, over = now
        now = reward + gamma * jnp.where(over, 0.0, later)
        return now, now

    return jax.lax.scan(back, end, (reward, terminated), reverse=True)[1]


def _value_of_the_end(policy: Policy, params: Any, context: jax.Array, after: Play, last: jax.Array):
    """[G, S] what the critic makes of the accounts `last`; a function of them, and not of the weights."""
    params, context = jax.lax.stop_gradient((params, context))
    # A window that ends here is cut off, not over: what was remembered counts for the value of its end.
    alive = jnp.zeros_like(after.fresh)
    _, view = recalled(policy, params, after.memory, alive, (context, last))
    return policy.apply(params, context, view)[1]


def _value_error(policy: Policy, params: Any, context: jax.Array, view: jax.Array, returns: jax.Array):
    """[] half the mean squared error of the critic on its own scale."""
    _, value = policy.apply(params, context, jax.lax.stop_gradient(view))
    target = policy.value_space(params, jax.lax.stop_gradient(returns))
    return 0.5 * jnp.square(policy.value_space(params, value) - target).mean()
