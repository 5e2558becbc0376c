"""Playing the current policy: every account for `rollout_bars` bars, observations kept as indices.

Axes: T rollout bars, G groups, S accounts of a group, K account view, F features.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs.types import Env
from ztb_jax.data.market import MarketData
from ztb_jax.keys import split_named
from ztb_jax.policies import distributions
from ztb_jax.policies.policy import Policy


class Rollout(struct.PyTreeNode):
    """What was played: 25 bytes a step with an account view of two numbers and no mask.

    Attributes:
      start: [G] int32, the bar each group began at; bar t of the rollout is start + t.
      account: [T, G, S, K], the account view acted on.
      action: [T, G, S] int32.
      log_prob: [T, G, S] of the action.
      value: [T, G, S].
      reward: [T, G, S], scaled.
      terminated: [T, G, S] bool.
      allowed: [T, G, S, A] bool, the actions that there were; None where the environment rules nothing out.
      final_value: [G, S], of the observation after the last step and before any reset.
    """

    start: jax.Array
    account: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    terminated: jax.Array
    allowed: jax.Array | None
    final_value: jax.Array


class Contexts(NamedTuple):
    """Encoded bars and where to find them: the context of bar t of group g is `rows[at[t, g]]`.

    Gathering rows by a full index beats broadcasting them to the accounts that share them: the gradient of a
    broadcast is a reduction that XLA fuses badly on a CPU (twice the time of the whole update).

    Attributes:
      rows: [R, D].
      at: [T, G] int32.
    """

    rows: jax.Array
    at: jax.Array


def encode_bars(policy: Policy, params: Any, features: jax.Array, start: jax.Array, *, bars: int) -> Contexts:
    """Contexts of each group's `bars` consecutive bars from `start` [G] on.

    The whole slice is encoded when it has fewer bars than the groups' stretches together, else each stretch
    by itself; sizes are static, so this is settled when the program is traced. Both give the same contexts.
    """
    step = jnp.arange(bars)[:, None]
    num_groups = start.shape[0]
    if features.shape[0] <= num_groups * bars:
        return Contexts(policy.encode(params, features), start[None, :] + step)
    before = policy.lookback - 1

    def stretch(first):
        rows = jax.lax.dynamic_slice_in_dim(features, first - before, bars + before)
        return policy.encode(params, rows)[before:]

    rows = jax.vmap(stretch)(start)
    return Contexts(rows.reshape(-1, rows.shape[-1]), jnp.arange(num_groups)[None, :] * bars + step)


def collect(
    key: jax.Array,
    policy: Policy,
    env: Env,
    *,
    params: Any,
    env_state: Any,
    data: MarketData,
    rollout_bars: int,
) -> tuple[Any, Rollout]:
    """Play `rollout_bars` bars and return the environment's state and what was played.

    Windows may end only with the last bar of a rollout, so a group's bars are consecutive.

    Args:
      key: [] typed key.
      policy: the network.
      env: vectorised and with autoreset.
      params: the policy's weights.
      env_state: groups' clocks [G] and accounts [G, S].
      data: the market.
      rollout_bars: T.
    """
    keys = split_named(key, "action", "step")
    observation = env.observe(env_state)
    start = observation.bar
    rows, at = encode_bars(policy, params, data.features, start, bars=rollout_bars + 1)
    contexts = rows[at]
    shape = (rollout_bars, *observation.account.shape[:-1])
    uniforms = jax.random.uniform(keys["action"], shape)
    step_keys = jax.random.split(keys["step"], rollout_bars)

    def play(carry, now):
        state, _ = carry
        context, uniform, step_key = now
        account = env.observe(state).account
        log_probs, value = policy.apply(params, context[:, None], account)
        allowed = None if env.mask is None else env.mask(state, data.env_params)
        if allowed is not None:
            log_probs = distributions.masked(log_probs, allowed)
        action = distributions.sample(uniform, log_probs, allowed)
        state, out = env.step(step_key, state, action, data.env_params)
        log_prob = distributions.log_prob(log_probs, action)
        reward = out.reward * data.reward_scale
        played = (account, action, log_prob, value, reward, out.terminated, allowed)
        return (state, out.observation.account), played

    carry = (env_state, observation.account)
    (env_state, last), played = jax.lax.scan(play, carry, (contexts[:-1], uniforms, step_keys))
    _, final_value = policy.apply(params, contexts[-1][:, None], last)
    return env_state, Rollout(start, *played, final_value=final_value)
