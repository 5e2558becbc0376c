"""Analytic policy gradients as a `Learner`: one update is a rollout and the gradient step through it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from envs.types import Env, EnvParams
from ztb_jax.apg.objective import Chance, Hyper, Played, objective
from ztb_jax.data.market import MarketData, check_lookback
from ztb_jax.keys import split_named
from ztb_jax.learner import Learner, Metrics
from ztb_jax.optimizers import (
    ANY,
    OPTIMIZERS,
    Trained,
    as_arrays,
    clipped,
    interpolated,
    optimizer_of,
    out_of_range,
)
from ztb_jax.policies.play import Play, batch_of, check_length, open_play, size_findings, sizes_of
from ztb_jax.policies.policy import Policy, check_actions

RANGES = {
    "learning_rate": (0.0, ANY),
    "gamma": (0.0, 1.0),
    "value_weight": (0.0, ANY),
    "entropy_weight": (-ANY, ANY),
    "max_grad_norm": (0.0, ANY),
    "weight_decay": (0.0, ANY),
    "beta1": (0.0, 1.0),
    "beta2": (0.0, 1.0),
    "epsilon": (0.0, ANY),
}


class APGState(struct.PyTreeNode):
    """The whole carry.

    Attributes:
      key: [] typed key.
      trained: the policy's weights and the optimiser's moments.
      play: clocks [G] and accounts [G, S].
      hyper: the numbers of this run.
      updates: [] int32, updates done.
    """

    key: jax.Array
    trained: Trained
    play: Play
    hyper: Hyper
    updates: jax.Array

    @property
    def params(self) -> Any:
        """The policy's weights."""
        return self.trained.params


class _Parts(NamedTuple):
    """What `make_apg` made: the batched environment, sizes and choices."""

    env: Env
    policy: Policy
    shape: tuple[int, int]
    rollout_bars: int
    num_updates: int | None
    hyper: Hyper
    optimizer: str


def make_apg(
    env: Env,
    policy: Policy,
    *,
    num_accounts: int = 1024,
    rollout_bars: int = 64,
    sharing: int = 8,
    num_updates: int | None = None,
    hyper: Hyper | None = None,
    optimizer: str = "adam",
) -> Learner:
    """Gradient ascent on the growth of `num_accounts` accounts over `rollout_bars` bars, through every step.

    Growth is differentiable in a continuous exposure, costs in proportion to what is traded included, so the
    gradient needs no sampling of actions to be known. It sees what changes smoothly alone: a ruin, a margin
    call or a lock is taken as it happened. What lies beyond a rollout counts by the critic's value of where
    it ends. A step with a number that is not finite changes nothing and is counted as `skipped`.

    Args:
      env: one account's environment, with continuous actions; its window is a multiple of `rollout_bars`.
      policy: the network, with a continuous head; its first `lookback - 1` bars are not traded.
      num_accounts: accounts in parallel, a multiple of `sharing`.
      rollout_bars: bars played, and differentiated through, in an update.
      sharing: accounts on the same bars.
      num_updates: length of the schedules; without it they stay where they begin.
      hyper: numbers; they are part of the state, so that members of a population may differ in them.
      optimizer: "adam", or "muon" for matrices.

    Raises:
      ValueError: actions or a head without a derivative, sizes that do not divide, numbers out of range; all
        findings at once; actions that are not the environment's.
        From `init`: rules without a derivative (lots, a band, a least fee), data of another lookback, or
        shorter than a window.
    """
    hyper = Hyper() if hyper is None else hyper
    sizes = sizes_of(env, policy, num_accounts=num_accounts, rollout_bars=rollout_bars, sharing=sharing)
    findings = _lists(env, policy) + size_findings(sizes) + out_of_range(hyper, RANGES)
    if optimizer not in OPTIMIZERS:
        findings.append(f"there is no optimizer {optimizer!r}: take one of {', '.join(OPTIMIZERS)}")
    if findings:
        raise ValueError("; ".join(findings))
    check_actions(policy, env)
    shape = (num_accounts // sharing, sharing)
    batched = batch_of(env, policy, shape)
    parts = _Parts(batched, policy, shape, rollout_bars, num_updates, hyper, optimizer)
    return Learner(
        init=partial(_init, parts),
        step=partial(_step, parts),
        params=lambda state: state.params,
        env_steps=num_accounts * rollout_bars,
    )


def _lists(env: Env, policy: Policy) -> list[str]:
    """Choices, which have no derivative."""
    findings = []
    if env.actions.sizes:
        findings.append("a list of actions has no derivative: give the environment actions.continuous()")
    if policy.distribution.restrict is not None:
        findings.append("a choice has no derivative: give the policy a squashed_gaussian or beta head")
    return findings


def _check_rules(params: EnvParams) -> None:
    """Refuse rules under which growth is a step function of what is asked for."""
    there = {
        "lots": params.lots,
        "band": params.band,
        "costs.fee_minimum": params.costs.fee_minimum,
    }
    jumps = [name for name, value in there.items() if value is not None]
    if jumps:
        raise ValueError(
            f"{', '.join(jumps)} of the environment's parameters makes growth jump where a trade is made or "
            "not, which a derivative does not see: leave it out, or learn with PPO"
        )


def _init(apg: _Parts, key: jax.Array, data: MarketData) -> APGState:
    check_lookback(apg.policy, data)
    check_length(apg.env, data)
    _check_rules(data.env_params)
    keys = split_named(key, "policy", "env", "phase", "train")
    numbers = as_arrays(apg.hyper)
    params = apg.policy.init(keys["policy"])
    return APGState(
        key=keys["train"],
        trained=Trained(params, optimizer_of(apg.optimizer, numbers).init(params)),
        play=open_play(keys, apg.env, apg.policy, data.env_params, shape=apg.shape, bars=apg.rollout_bars),
        hyper=numbers,
        updates=jnp.int32(0),
    )


def _step(apg: _Parts, state: APGState, data: MarketData) -> tuple[APGState, Metrics]:
    keys = split_named(state.key, "next", "action", "step")
    numbers = _numbers(apg, state)
    chance = Chance(
        apg.policy.distribution.draw(keys["action"], (apg.rollout_bars, *apg.shape)),
        jax.random.split(keys["step"], apg.rollout_bars),
    )
    of = partial(objective, policy=apg.policy, env=apg.env, data=data, hyper=numbers)
    grads, (parts, played) = jax.grad(of, has_aux=True)(state.params, chance, state.play)
    grads, norm = clipped(grads, numbers.max_grad_norm)
    finite = jnp.isfinite(norm) & jnp.isfinite(parts["loss"])
    changes, moments = optimizer_of(apg.optimizer, numbers).update(
        grads, state.trained.optimizer, state.params
    )
    proposed = Trained(optax.apply_updates(state.params, changes), moments)
    trained = jax.tree.map(lambda new, old: jnp.where(finite, new, old), proposed, state.trained)
    trained = trained.replace(params=_seen(apg, trained.params, played, data))
    metrics = parts | played.told
    metrics |= {
        "reward": played.reward.mean() / data.reward_scale,
        "ruined": played.terminated.sum(dtype=jnp.float32),
        "grad_norm": norm,
        "param_norm": optax.tree.norm(trained.params),
        "learning_rate": numbers.learning_rate,
        "skipped": (~finite).astype(jnp.float32),
    }
    return APGState(keys["next"], trained, played.after, state.hyper, state.updates + 1), metrics


def _numbers(apg: _Parts, state: APGState) -> Hyper:
    """The hyperparameters of this update."""
    progress = jnp.float32(0.0)
    if apg.num_updates is not None:
        progress = state.updates.astype(jnp.float32) / jnp.float32(apg.num_updates)
    hyper = state.hyper
    return hyper.replace(
        learning_rate=hyper.learning_rate * interpolated(hyper.learning_rate_schedule, progress),
        entropy_weight=hyper.entropy_weight * interpolated(hyper.entropy_schedule, progress),
    )


def _seen(apg: _Parts, params: Any, played: Played, data: MarketData) -> Any:
    """The weights with the statistics in them brought up to date with what was played."""
    if apg.policy.adapt is None:
        return params
    bars = played.start[None, :] + jnp.arange(apg.rollout_bars)[:, None]
    account = played.view[..., : apg.env.account_size]
    return apg.policy.adapt(params, data.features[bars.reshape(-1)], account, played.returns)
