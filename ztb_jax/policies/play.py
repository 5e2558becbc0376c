"""Accounts as they are played, whoever learns from them: where they begin, and what is told of them.

Axes: G groups, S accounts of a group, H what an account remembers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from envs.transforms import Episode, aligned, autoreset, vectorise
from envs.types import Env, TimeStep
from ztb_jax.policies.policy import Policy, nothing_remembered


class Play(struct.PyTreeNode):
    """Where the game stands between two rollouts.

    Attributes:
      env_state: groups' clocks [G] and accounts [G, S].
      episode: return and length [G, S] of every account's episode so far.
      fresh: [G, S] bool, the account has just begun a life.
      memory: [G, S, H], what each remembers of the life before `fresh` too; None without a memory.
    """

    env_state: Any
    episode: Episode
    fresh: jax.Array
    memory: jax.Array | None = None


def begin(env_state: Any, shape: tuple[int, int], policy: Policy) -> Play:
    """The first `Play` of `shape` (G, S) accounts."""
    nothing = Episode(total=jnp.zeros(shape, jnp.float32), length=jnp.zeros(shape, jnp.int32))
    return Play(env_state, nothing, jnp.ones(shape, bool), nothing_remembered(policy, shape))


def open_play(
    keys: dict[str, jax.Array],
    env: Env,
    policy: Policy,
    env_params: Any,
    *,
    shape: tuple[int, int],
    bars: int,
) -> Play:
    """The first `Play` of `shape` (G, S) accounts, in windows that end with rollouts of `bars`.

    First windows are staggered: otherwise all groups would restart in the same update for ever.

    Args:
      keys: [] typed keys "env" and "phase".
      env: vectorised.
      policy: the network.
      env_params: the market.
      shape: (G, S).
      bars: of a rollout.
    """
    env_state, _ = env.reset(keys["env"], env_params)
    bits = jax.random.bits(keys["phase"], shape[:1])
    rollouts = 1 + (bits % (env.episode_bars // bars)).astype(jnp.int32)
    return begin(env_state.replace(end=env_state.bar + rollouts * bars), shape, policy)


def check_length(env: Env, data: Any) -> None:
    """Refuse data that have no room for a window.

    Args:
      env: of one account or many.
      data: the market, which has `num_steps` to play.

    Raises:
      ValueError: they are shorter.
    """
    if data.num_steps < env.episode_bars:
        raise ValueError(
            f"the data have {data.num_steps} bars to play and a window needs {env.episode_bars}: give more "
            "bars, or an environment of shorter windows"
        )


def sizes_of(
    env: Env, policy: Policy, *, num_accounts: int, rollout_bars: int, sharing: int
) -> dict[str, int]:
    """The sizes of a learner by name, as `size_findings` reads them."""
    return {
        "episode_bars": env.episode_bars,
        "num_accounts": num_accounts,
        "rollout_bars": rollout_bars,
        "sharing": sharing,
        "grid": policy.grid or rollout_bars,
    }


def batch_of(env: Env, policy: Policy, shape: tuple[int, int]) -> Env:
    """`env` for (G, S) accounts that go on after every end, on the grid of the policy's memory."""
    if policy.grid:
        env = aligned(env, bars=policy.grid)
    return autoreset(vectorise(env, num_groups=shape[0], sharing=shape[1]))


def size_findings(sizes: dict[str, int]) -> list[str]:
    """What is wrong with the sizes of a learner.

    Args:
      sizes: episode_bars, num_accounts, rollout_bars, sharing, grid, and counts that must be at least 1.
    """
    findings = [f"{name} must be at least 1, got {size}" for name, size in sizes.items() if size < 1]
    multiples = (("num_accounts", "sharing"), ("episode_bars", "rollout_bars"), ("rollout_bars", "grid"))
    return findings + [
        f"{whole} ({sizes[whole]}) must be a multiple of {part} ({sizes[part]})"
        for whole, part in multiples
        if sizes[part] >= 1 and sizes[whole] % sizes[part]
    ]


def recorded(
    before: Episode, out: TimeStep, ended: jax.Array, invalid: jax.Array | None = None
) -> tuple[Episode, jax.Array]:
    """Every account's episode after a step, and [C] what happened in it, for `telemetry` to read.

    One sum for all: many small ones would take longer than the rest of a step.

    Args:
      before: every account's episode before the step.
      out: the step.
      ended: [G, S] bool, the episode ends with it.
      invalid: [G, S] bool, the action was none of those there are; None where there is no such action.
    """
    episode = Episode(before.total + out.reward, before.length + 1)
    fills = [fill for fill in (out.fill, out.exit) if fill is not None]

    def of(what):
        each = (what(fill).reshape(*ended.shape, -1).sum(-1, dtype=jnp.float32) for fill in fills)
        return sum(each) / ended.size

    told = (
        ended,
        jnp.where(ended, episode.total, 0.0),
        jnp.where(ended, episode.length, 0),
        of(lambda fill: jnp.abs(fill.traded)),
        of(lambda fill: fill.cost),
        of(lambda fill: fill.traded != 0.0),
        jnp.zeros_like(ended) if invalid is None else invalid / ended.size,
        *([] if out.growth is None else [jnp.where(ended, jnp.expm1(out.growth), 0.0)]),
    )
    begun = Episode(jnp.where(ended, 0.0, episode.total), jnp.where(ended, 0, episode.length))
    return begun, jnp.stack([jnp.asarray(each, jnp.float32) for each in told]).sum((1, 2))


def telemetry(told: jax.Array) -> dict[str, jax.Array]:
    """[] each, of what `recorded` told [T, C]: sums over episodes that ended, means of a bar and account."""
    sums, means = ("episodes", "episode_return", "episode_length"), ("turnover", "cost", "trades", "invalid")
    found = dict(zip(sums + means, (*told[:, :3].sum(0), *told[:, 3:7].mean(0)), strict=True))
    return found if told.shape[1] == 7 else found | {"episode_profit": told[:, 7].sum()}


def ruled_out(allowed: jax.Array | None, choice: jax.Array) -> jax.Array | None:
    """[...] bool, `choice` [...] is not among the `allowed` [..., A]; None where nothing is ruled out."""
    if allowed is None:
        return None
    return ~jnp.take_along_axis(allowed, choice[..., None], axis=-1)[..., 0]
