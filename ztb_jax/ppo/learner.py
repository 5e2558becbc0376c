"""PPO as a `Learner`: one update is a rollout and its epochs of gradient steps."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from envs.transforms import aligned, autoreset, vectorise
from envs.types import Env
from ztb_jax.data.market import MarketData, check_lookback
from ztb_jax.keys import split_named
from ztb_jax.learner import Learner
from ztb_jax.policies.policy import Policy
from ztb_jax.ppo.rollout import collect
from ztb_jax.ppo.update import choose_minibatching, make_update, samples_of


class PPOState(struct.PyTreeNode):
    """The whole carry.

    Attributes:
      key: [] typed key.
      params: the policy's weights.
      optimizer: the optimiser's moments.
      env_state: clocks [G] and accounts [G, S].
      updates: [] int32, updates done.
    """

    key: jax.Array
    params: Any
    optimizer: Any
    env_state: Any
    updates: jax.Array


def make_ppo(
    env: Env,
    policy: Policy,
    *,
    num_accounts: int = 1024,
    rollout_bars: int = 64,
    sharing: int = 8,
    epochs: int = 4,
    num_minibatches: int = 4,
    num_updates: int | None = None,
    learning_rate: float = 3e-4,
    gamma: float = 0.95,
    lam: float = 0.9,
    clip: float = 0.2,
    value_clip: float | None = None,
    value_weight: float = 0.5,
    entropy_weight: float = 0.01,
    max_grad_norm: float = 0.5,
    normalise_advantage: bool = True,
) -> Learner:
    """PPO over `num_accounts` accounts in groups of `sharing` that see the same bars.

    Learning rate and entropy weight fall linearly to zero over `num_updates`, and stay constant when it is
    None. Adam has epsilon 1e-5; gradients are clipped by their global norm.

    Args:
      env: one account's environment; its window is a multiple of `rollout_bars`, so that windows end with
        rollouts.
      policy: the network; its first `lookback - 1` bars are not traded.
      num_accounts: accounts in parallel, a multiple of `sharing`.
      rollout_bars: bars played between updates.
      sharing: accounts on the same bars. More is faster (the market is encoded once for all of them) and
        makes gradients noisier; 4 to 16 cost nothing that was measurable.
      epochs: passes over a rollout.
      num_minibatches: gradient steps of a pass; divides `sharing` or the number of groups.
      num_updates: length of the schedules.
      learning_rate: Adam's.
      gamma: discount of a bar.
      lam: GAE's decay.
      clip: of the probability ratio.
      value_clip: of the value's move in units of scaled reward, or None.
      value_weight: of the value loss.
      entropy_weight: of the entropy bonus.
      max_grad_norm: global norm above which gradients are scaled down.
      normalise_advantage: per minibatch, to mean 0 and deviation 1.

    Raises:
      ValueError: sizes that do not divide, all findings at once; another number of actions than the policy's.
        From `init`: data of another lookback, or shorter than a window.

    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347.
    """
    episode_bars = env.episode_bars
    _check_sizes(
        episode_bars=episode_bars,
        num_accounts=num_accounts,
        rollout_bars=rollout_bars,
        sharing=sharing,
        grid=policy.grid or rollout_bars,
    )
    if policy.num_actions != env.num_actions:
        raise ValueError(f"the policy has {policy.num_actions} actions and the environment {env.num_actions}")
    num_groups = num_accounts // sharing
    cut = choose_minibatching(num_groups=num_groups, sharing=sharing, num_minibatches=num_minibatches)
    if policy.grid:
        env = aligned(env, bars=policy.grid)
    batch_env = autoreset(vectorise(env, num_groups=num_groups, sharing=sharing))
    optimizer = optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.scale_by_adam(eps=1e-5))
    update = make_update(
        policy,
        optimizer,
        cut,
        epochs=epochs,
        clip=clip,
        value_clip=value_clip,
        value_weight=value_weight,
        normalise_advantage=normalise_advantage,
    )

    def init(key, data: MarketData) -> PPOState:
        check_lookback(policy, data)
        if data.num_steps < episode_bars:
            raise ValueError(
                f"the data have {data.num_steps} bars to play and a window needs {episode_bars}: give more "
                "bars, or an environment of shorter windows"
            )
        keys = split_named(key, "policy", "env", "phase", "train")
        params = policy.init(keys["policy"])
        env_state, _ = batch_env.reset(keys["env"], data.env_params)
        # Staggered first windows: otherwise all groups would restart in the same update for ever.
        rollouts = jax.random.randint(keys["phase"], (num_groups,), 1, episode_bars // rollout_bars + 1)
        env_state = env_state.replace(end=env_state.bar + rollouts * rollout_bars)
        return PPOState(keys["train"], params, optimizer.init(params), env_state, jnp.int32(0))

    def remaining(updates):
        if num_updates is None:
            return jnp.float32(1.0)
        return jnp.maximum(0.0, 1.0 - updates.astype(jnp.float32) / jnp.float32(num_updates))

    def step(state: PPOState, data: MarketData):
        keys = split_named(state.key, "next", "rollout", "update")
        env_state, rollout = collect(
            keys["rollout"],
            policy,
            batch_env,
            params=state.params,
            env_state=state.env_state,
            data=data,
            rollout_bars=rollout_bars,
        )
        samples = samples_of(rollout, gamma=gamma, lam=lam)
        share = remaining(state.updates)
        params, optimizer_state, metrics = update(
            keys["update"],
            state.params,
            state.optimizer,
            start=rollout.start,
            samples=samples,
            data=data,
            learning_rate=learning_rate * share,
            entropy_weight=entropy_weight * share,
        )
        metrics |= {
            "reward": rollout.reward.mean() / data.reward_scale,
            "ruined": rollout.terminated.sum(dtype=jnp.float32),
            "explained_variance": _explained_variance(rollout.value, samples.target),
            "param_norm": optax.tree.norm(params),
        }
        return PPOState(keys["next"], params, optimizer_state, env_state, state.updates + 1), metrics

    return Learner(
        init=init, step=step, params=lambda state: state.params, env_steps=num_accounts * rollout_bars
    )


def _explained_variance(value: jax.Array, target: jax.Array) -> jax.Array:
    """[] 1 - var(target - value) / var(target)."""
    return 1.0 - (target - value).var() / jnp.maximum(target.var(), 1e-12)


def _check_sizes(**sizes: int) -> None:
    findings = [f"{name} must be at least 1, got {size}" for name, size in sizes.items() if size < 1]
    multiples = (("num_accounts", "sharing"), ("episode_bars", "rollout_bars"), ("rollout_bars", "grid"))
    findings += [
        f"{whole} ({sizes[whole]}) must be a multiple of {part} ({sizes[part]})"
        for whole, part in multiples
        if sizes[part] >= 1 and sizes[whole] % sizes[part]
    ]
    if findings:
        raise ValueError("; ".join(findings))
