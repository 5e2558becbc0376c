"""Playing the current policy: every account for `rollout_bars` bars, observations kept as indices.

Axes: T rollout bars, G groups, S accounts of a group, K account view, H what an account remembers.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from envs.types import Env
from ztb_jax.data.market import MarketData
from ztb_jax.keys import split_named
from ztb_jax.policies.encoding import encode_bars
from ztb_jax.policies.play import Play, recorded, ruled_out, telemetry
from ztb_jax.policies.policy import Policy, mask_of, recalled
from ztb_jax.ppo.spread import draw_spread


class Rollout(struct.PyTreeNode):
    """What was played: 25 bytes a step with an account view of two numbers, one choice and no mask.

    Attributes:
      start: [G] int32, the bar each group began at; bar t of the rollout is start + t.
      memory: [G, S, H], what was remembered at the start; None without a memory.
      fresh: [G, S] bool, the first bar begins a life.
      account: [T, G, S, K], the account view acted on.
      action: [T, G, S, ...], raw.
      log_prob: [T, G, S] of the action.
      value: [T, G, S].
      reward: [T, G, S], scaled.
      terminated: [T, G, S] bool.
      allowed: [T, G, S, A] bool, the actions that there were; None where the environment rules nothing out.
      final_value: [G, S], of the observation after the last step and before any reset.
    """

    start: jax.Array
    memory: jax.Array | None
    fresh: jax.Array
    account: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    terminated: jax.Array
    allowed: jax.Array | None
    final_value: jax.Array


def collect(
    key: jax.Array,
    policy: Policy,
    env: Env,
    *,
    params: Any,
    play: Play,
    data: MarketData,
    rollout_bars: int,
    axis_name: str | None = None,
) -> tuple[Play, Rollout, dict[str, jax.Array]]:
    """Play `rollout_bars` bars; return where the game stands, what was played, and what is told of it.

    Windows may end only with the last bar of a rollout, so a group's bars are consecutive.

    Args:
      key: [] typed key.
      policy: the network.
      env: vectorised and with autoreset.
      params: the policy's weights.
      play: where the game stands.
      data: the market.
      rollout_bars: T.
      axis_name: mesh axis over which the groups are spread.
    """
    keys = split_named(key, "action", "step")
    observation = env.observe(play.env_state)
    start = observation.bar
    rows, at = encode_bars(policy, params, data.features, start, bars=rollout_bars + 1)
    contexts = rows[at]
    family = policy.distribution
    noise = draw_spread(
        partial(family.draw, keys["action"]),
        (rollout_bars, *observation.account.shape[:-1]),
        axis=1,
        axis_name=axis_name,
    )

    def step(carry, now):
        play, _ = carry
        context, noise, step_key = now
        seen = (context[:, None], env.observe(play.env_state).account)
        memory, view = recalled(policy, params, play.memory, play.fresh, seen)
        parameters, value = policy.apply(params, context[:, None], view)
        allowed = mask_of(policy, env, play.env_state, data.env_params)
        if allowed is not None:
            parameters = family.restrict(parameters, allowed)  # pyright: ignore[reportOptionalCall]
        raw = family.sample(noise, parameters)
        env_state, out = env.step(step_key, play.env_state, family.act(raw), data.env_params)
        ended = out.terminated | out.truncated[:, None]
        episode, told = recorded(play.episode, out, ended, ruled_out(allowed, raw))
        reward = out.reward * data.reward_scale
        played = (seen[1], raw, family.log_prob(parameters, raw), value, reward, out.terminated, allowed)
        return (Play(env_state, episode, ended, memory), out.observation.account), (played, told)

    carry = (play, observation.account)
    steps = (contexts[:-1], noise, jax.random.split(keys["step"], rollout_bars))
    (after, last), (played, told) = jax.lax.scan(step, carry, steps)
    # A window that ends here is cut off, not over: what was remembered counts for the value of its end.
    alive = jnp.zeros_like(after.fresh)
    _, view = recalled(policy, params, after.memory, alive, (contexts[-1][:, None], last))
    _, final_value = policy.apply(params, contexts[-1][:, None], view)
    rollout = Rollout(start, play.memory, play.fresh, *played, final_value=final_value)
    return after, rollout, telemetry(told)
