"""Random trading as a `Learner`: what any other one must beat."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from envs.types import Env
from ztb_jax.data.market import MarketData, check_lookback
from ztb_jax.keys import split_named
from ztb_jax.learner import Learner, Metrics
from ztb_jax.policies import transforms
from ztb_jax.policies.play import (
    Play,
    batch_of,
    check_length,
    open_play,
    recorded,
    ruled_out,
    size_findings,
    sizes_of,
    telemetry,
)
from ztb_jax.policies.policy import Policy, check_actions, mask_of


class RandomState(struct.PyTreeNode):
    """The whole carry.

    Attributes:
      key: [] typed key.
      params: the policy's first weights, which stay.
      play: clocks [G] and accounts [G, S].
      updates: [] int32, rollouts played.
    """

    key: jax.Array
    params: Any
    play: Play
    updates: jax.Array


class _Parts(NamedTuple):
    env: Env
    policy: Policy
    shape: tuple[int, int]
    rollout_bars: int


def make_random(
    env: Env, policy: Policy, *, num_accounts: int = 1024, rollout_bars: int = 64, sharing: int = 8
) -> Learner:
    """Uniform random actions among those that there are; nothing is learnt.

    Its metrics tell what random trading earns and pays. What is evaluated is the untrained network.

    Args:
      env: one account's environment; its window is a multiple of `rollout_bars`.
      policy: the network, whose weights stay as they began.
      num_accounts: accounts in parallel, a multiple of `sharing`.
      rollout_bars: bars played in an update.
      sharing: accounts on the same bars.

    Raises:
      ValueError: sizes that do not divide, all findings at once; actions that are not the environment's.
        From `init`: data of another lookback, or shorter than a window.
    """
    sizes = sizes_of(env, policy, num_accounts=num_accounts, rollout_bars=rollout_bars, sharing=sharing)
    findings = size_findings(sizes)
    if findings:
        raise ValueError("; ".join(findings))
    check_actions(policy, env)
    shape = (num_accounts // sharing, sharing)
    batched = batch_of(env, policy, shape)
    parts = _Parts(batched, transforms.uniform(policy, env.actions), shape, rollout_bars)
    return Learner(
        init=partial(_init, parts),
        step=partial(_step, parts),
        params=lambda state: state.params,
        env_steps=num_accounts * rollout_bars,
    )


def _init(parts: _Parts, key: jax.Array, data: MarketData) -> RandomState:
    check_lookback(parts.policy, data)
    check_length(parts.env, data)
    keys = split_named(key, "policy", "env", "phase", "train")
    play = open_play(
        keys, parts.env, parts.policy, data.env_params, shape=parts.shape, bars=parts.rollout_bars
    )
    return RandomState(keys["train"], parts.policy.init(keys["policy"]), play, jnp.int32(0))


def _step(parts: _Parts, state: RandomState, data: MarketData) -> tuple[RandomState, Metrics]:
    keys = split_named(state.key, "next", "action", "step")
    env, bars = parts.env, parts.rollout_bars
    family = parts.policy.distribution
    noise = family.draw(keys["action"], (bars, *parts.shape))

    def step(play, now):
        noise, key = now
        parameters = family.parameters(jnp.zeros((*parts.shape, family.size), jnp.float32))
        allowed = mask_of(parts.policy, env, play.env_state, data.env_params)
        if allowed is not None:
            parameters = family.restrict(parameters, allowed)  # pyright: ignore[reportOptionalCall]
        raw = family.sample(noise, parameters)
        env_state, out = env.step(key, play.env_state, family.act(raw), data.env_params)
        ended = out.terminated | out.truncated[:, None]
        episode, told = recorded(play.episode, out, ended, ruled_out(allowed, raw))
        return Play(env_state, episode, ended, play.memory), (out.reward, out.terminated, told)

    steps = (noise, jax.random.split(keys["step"], bars))
    play, (reward, terminated, told) = jax.lax.scan(step, state.play, steps)
    nothing = jnp.float32(0.0)
    metrics = telemetry(told) | {
        "reward": reward.mean(),
        "ruined": terminated.sum(dtype=jnp.float32),
        "loss": nothing,
        "grad_norm": nothing,
        "param_norm": optax.tree.norm(state.params),
        "skipped": nothing,
    }
    return RandomState(keys["next"], state.params, play, state.updates + 1), metrics
