"""PPO as a `Learner`: one update is a rollout and its epochs of gradient steps."""

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
from ztb_jax.optimizers import OPTIMIZERS, Number, Trained, as_arrays, optimizer_of, out_of_range
from ztb_jax.policies.moments import Moments, merged, no_moments
from ztb_jax.policies.play import Play, batch_of, check_length, open_play, size_findings, sizes_of
from ztb_jax.policies.policy import Policy, check_actions
from ztb_jax.ppo.hyper import RANGES, Hyper, scheduled_at
from ztb_jax.ppo.loss import Samples
from ztb_jax.ppo.minibatches import Minibatching, choose_minibatching, choose_shuffle
from ztb_jax.ppo.rollout import Rollout, collect
from ztb_jax.ppo.spread import drawn_whole, gathered, share_of
from ztb_jax.ppo.update import ADVANTAGES, UpdateSpec, make_update, samples_of

KL_RULES = ("stop", "adapt")
FASTEST_RATE = 100.0  # how far an adapted learning rate may leave the one asked for, either way


class RewardScale(struct.PyTreeNode):
    """What rewards are divided by: the deviation of discounted returns, as they run on.

    Attributes:
      running: [G, S], discounted sum of every account's rewards so far.
      moments: of those sums.
    """

    running: jax.Array
    moments: Moments


class PPOState(struct.PyTreeNode):
    """The whole carry.

    Attributes:
      key: [] typed key.
      trained: the policy's weights and the optimiser's moments.
      play: clocks [G] and accounts [G, S].
      hyper: the numbers of this run.
      rate: [] float32, what the learning rate is multiplied by where it adapts; else 1.
      updates: [] int32, updates done.
      reward_scale: None where rewards are taken as they are.
    """

    key: jax.Array
    trained: Trained
    play: Play
    hyper: Hyper
    rate: jax.Array
    updates: jax.Array
    reward_scale: RewardScale | None = None

    @property
    def params(self) -> Any:
        """The policy's weights."""
        return self.trained.params


class Options(NamedTuple):
    """How PPO works, beside sizes and numbers; each changes the program.

    Attributes:
      epochs: passes over a rollout.
      num_minibatches: gradient steps of a pass.
      shuffle: one of `ztb_jax.ppo.minibatches.SHUFFLES`.
      optimizer: "adam", or "muon" for matrices.
      advantage: "minibatch", "batch" or "none": over what advantages get mean 0 and deviation 1.
      accumulate: parts of a minibatch whose gradients are computed one after the other, to save memory.
      normalise_rewards: divide rewards by the running deviation of discounted returns.
      kl_rule: what `target_kl` does: "stop" ends an update's gradient steps where a minibatch passes 1.5
        times it; "adapt" divides the learning rate by 1.5 after an update beyond twice it, and multiplies it
        below half of it.
      axis_name: mesh axis over which groups of accounts are spread, for `ztb_jax.parallel.sharded`; sizes
        are of all devices together.
    """

    epochs: int = 4
    num_minibatches: int = 4
    shuffle: str = "auto"
    optimizer: str = "adam"
    advantage: str = "minibatch"
    accumulate: int = 1
    normalise_rewards: bool = False
    kl_rule: str = "stop"
    axis_name: str | None = None


def make_ppo(
    env: Env,
    policy: Policy,
    *,
    num_accounts: int = 1024,
    rollout_bars: int = 64,
    sharing: int = 8,
    num_updates: int | None = None,
    hyper: Hyper | None = None,
    options: Options | None = None,
) -> Learner:
    """PPO over `num_accounts` accounts in groups of `sharing` that see the same bars.

    Gradients are clipped by their global norm. A gradient step with a number that is not finite changes
    nothing and is counted as `skipped`.

    Args:
      env: one account's environment; its window is a multiple of `rollout_bars`, so that windows end with
        rollouts.
      policy: the network; its first `lookback - 1` bars are not traded.
      num_accounts: accounts in parallel, a multiple of `sharing`.
      rollout_bars: bars played between updates.
      sharing: accounts on the same bars. More is faster (the market is encoded once for all of them) and
        makes gradients noisier; 4 to 16 cost nothing that was measurable.
      num_updates: length of the schedules; without it they stay where they begin.
      hyper: numbers; they are part of the state, so that members of a population may differ in them.
      options: everything else.

    Raises:
      ValueError: sizes that do not divide, options that do not exist or do not fit, numbers out of range, all
        findings at once; actions that are not the environment's.
        From `init`: data of another lookback, or shorter than a window.

    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347.
    """
    hyper, options = Hyper() if hyper is None else hyper, Options() if options is None else options
    sizes = sizes_of(env, policy, num_accounts=num_accounts, rollout_bars=rollout_bars, sharing=sharing)
    _check(sizes, options, policy, hyper)
    check_actions(policy, env)
    groups = num_accounts // sharing

    def parts(env: Env, groups: int) -> _Parts:
        shape = (groups, sharing)
        return _Parts(
            env=batch_of(env, policy, shape),
            policy=policy,
            shape=shape,
            rollout_bars=rollout_bars,
            num_updates=num_updates,
            hyper=hyper,
            options=options,
        )

    whole = parts(env, groups)
    _update_spec(whole, num_bars=env.episode_bars)  # whether sizes divide does not depend on the slice

    def step(state, data):
        if options.axis_name is None:
            return _step(whole, state, data)
        share = share_of(groups, options.axis_name)
        return _step(parts(drawn_whole(env, options.axis_name), share), state, data)

    return Learner(
        init=partial(_init, whole),
        step=step,
        params=lambda state: state.params,
        env_steps=num_accounts * rollout_bars,
    )


class _Parts(NamedTuple):
    """What `make_ppo` made: the batched environment, sizes and choices."""

    env: Env
    policy: Policy
    shape: tuple[int, int]
    rollout_bars: int
    num_updates: int | None
    hyper: Hyper
    options: Options


def minibatching_of(
    policy: Policy, options: Options, *, shape: tuple[int, int], rollout_bars: int, num_bars: int
) -> Minibatching:
    """How `make_ppo` cuts rollouts of `shape` (G, S) accounts on a slice of `num_bars` bars.

    Raises:
      ValueError: parts that do not divide by the number of minibatches.
    """
    sizes = {
        "num_groups": shape[0],
        "sharing": shape[1],
        "rollout_bars": rollout_bars,
        "num_minibatches": options.num_minibatches,
    }
    shuffle = options.shuffle
    if shuffle == "auto":
        # Devices and memories settle it by sizes alone: then it is the same for any slice, on any number.
        alone = policy.memory is None and options.axis_name is None
        shuffle = choose_shuffle(policy, num_bars=num_bars if alone else 0, **sizes)
    return choose_minibatching(shuffle=shuffle, **sizes)


def _update_spec(ppo: _Parts, *, num_bars: int) -> UpdateSpec:
    hyper, options, policy = ppo.hyper, ppo.options, ppo.policy
    cut = minibatching_of(policy, options, shape=ppo.shape, rollout_bars=ppo.rollout_bars, num_bars=num_bars)
    steps = ppo.shape[0] * ppo.shape[1] * ppo.rollout_bars
    whole = cut.size if policy.memory is not None else steps // cut.total
    if whole % options.accumulate:
        raise ValueError(f"accumulate ({options.accumulate}) does not divide a minibatch of {whole}")
    return UpdateSpec(
        cut,
        rollout_bars=ppo.rollout_bars,
        epochs=options.epochs,
        optimizer=options.optimizer,
        advantage=options.advantage,
        accumulate=options.accumulate,
        stop=hyper.target_kl is not None and options.kl_rule == "stop",
        axis_name=options.axis_name,
    )


def _init(ppo: _Parts, key: jax.Array, data: MarketData) -> PPOState:
    check_lookback(ppo.policy, data)
    check_length(ppo.env, data)
    keys = split_named(key, "policy", "env", "phase", "train")
    numbers = as_arrays(ppo.hyper)
    params = ppo.policy.init(keys["policy"])
    play = open_play(keys, ppo.env, ppo.policy, data.env_params, shape=ppo.shape, bars=ppo.rollout_bars)
    scale = None
    if ppo.options.normalise_rewards:
        scale = RewardScale(jnp.zeros(ppo.shape, jnp.float32), no_moments())
    return PPOState(
        key=keys["train"],
        trained=Trained(params, optimizer_of(ppo.options.optimizer, numbers).init(params)),
        play=play,
        hyper=numbers,
        rate=jnp.float32(1.0),
        updates=jnp.int32(0),
        reward_scale=scale,
    )


def _step(ppo: _Parts, state: PPOState, data: MarketData) -> tuple[PPOState, Metrics]:
    keys = split_named(state.key, "next", "rollout", "update")
    numbers = _numbers(ppo, state)
    play, rollout, told = collect(
        keys["rollout"],
        ppo.policy,
        ppo.env,
        params=state.params,
        play=state.play,
        data=data,
        rollout_bars=ppo.rollout_bars,
        axis_name=ppo.options.axis_name,
    )
    told["reward"] = rollout.reward.mean() / data.reward_scale
    told["ruined"] = rollout.terminated.sum(dtype=jnp.float32)
    scale = state.reward_scale
    if scale is not None:
        scale, rollout = _rescaled(scale, rollout, numbers.gamma, ppo.options.axis_name)
    samples = samples_of(rollout, gamma=numbers.gamma, lam=numbers.lam)
    update = make_update(ppo.policy, _update_spec(ppo, num_bars=data.features.shape[0]))
    trained, metrics = update(
        keys["update"], state.trained, start=rollout.start, samples=samples, data=data, hyper=numbers
    )
    trained = trained.replace(params=_seen(ppo, trained.params, rollout, samples, data))
    metrics |= gathered(told, ppo.options.axis_name) | {
        "explained_variance": _explained_variance(rollout.value, samples.target, ppo.options.axis_name),
        "param_norm": optax.tree.norm(trained.params),
        "learning_rate": numbers.learning_rate,
    }
    rate = state.rate
    if state.hyper.target_kl is not None and ppo.options.kl_rule == "adapt":
        rate = _adapted(rate, metrics["kl"], state.hyper.target_kl)
    after = PPOState(keys["next"], trained, play, state.hyper, rate, state.updates + 1, scale)
    return after, metrics


def _numbers(ppo: _Parts, state: PPOState) -> Hyper:
    """The hyperparameters of this update."""
    progress = jnp.float32(0.0)
    if ppo.num_updates is not None:
        progress = state.updates.astype(jnp.float32) / jnp.float32(ppo.num_updates)
    numbers = scheduled_at(state.hyper, progress)
    return numbers.replace(learning_rate=numbers.learning_rate * state.rate)


def _seen(ppo: _Parts, params: Any, rollout: Rollout, samples: Samples, data: MarketData) -> Any:
    """The weights with the statistics in them brought up to date with what was played."""
    if ppo.policy.adapt is None:
        return params
    bars = rollout.start[None, :] + jnp.arange(ppo.rollout_bars)[:, None]
    return ppo.policy.adapt(params, data.features[bars.reshape(-1)], samples.account, samples.target)


def _rescaled(
    scale: RewardScale, rollout: Rollout, gamma: Number, axis_name: str | None
) -> tuple[RewardScale, Rollout]:
    """The rollout with rewards over the deviation of discounted returns, this rollout's among them."""

    def step(running, now):
        reward, terminated = now
        running = gamma * running + reward
        return jnp.where(terminated, 0.0, running), running

    running, seen = jax.lax.scan(step, scale.running, (rollout.reward, rollout.terminated))
    moments = merged(scale.moments, seen.reshape(-1), axis_name=axis_name)
    return RewardScale(running, moments), rollout.replace(reward=rollout.reward / moments.deviation)


def _adapted(rate: jax.Array, kl: jax.Array, target: Any) -> jax.Array:
    slower, faster = rate / 1.5, rate * 1.5
    moved = jnp.where(kl > 2.0 * target, slower, jnp.where(kl < 0.5 * target, faster, rate))
    return jnp.clip(moved, 1.0 / FASTEST_RATE, FASTEST_RATE)


def _explained_variance(value: jax.Array, target: jax.Array, axis_name: str | None) -> jax.Array:
    """[] 1 - var(target - value) / var(target)."""

    def variance(of):
        return merged(no_moments(), of.reshape(-1), axis_name=axis_name).variance

    return 1.0 - variance(target - value) / jnp.maximum(variance(target), 1e-12)


def _check(sizes: dict[str, int], options: Options, policy: Policy, hyper: Hyper) -> None:
    counts = sizes | {name: getattr(options, name) for name in ("epochs", "num_minibatches", "accumulate")}
    findings = size_findings(counts)
    known = {"optimizer": OPTIMIZERS, "advantage": ADVANTAGES, "kl_rule": KL_RULES}
    findings += [
        f"there is no {name} {getattr(options, name)!r}: take one of {', '.join(names)}"
        for name, names in known.items()
        if getattr(options, name) not in names
    ]
    if policy.memory is not None and options.shuffle in {"full", "affine"}:
        findings.append(
            f"shuffle {options.shuffle!r} tears apart what a memory needs in a row: take accounts or segments"
        )
    findings += out_of_range(hyper, RANGES)
    if findings:
        raise ValueError("; ".join(findings))
