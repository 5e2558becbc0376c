"""Env -> Env: many accounts at once, episodes that follow one another, and what is told of them.

Axes: G groups, S accounts in a group. The accounts of a group share one clock, so whatever depends on the bar
alone is computed once for all of them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from envs.types import Env, EnvParams, Observation, TimeStep


def vectorise(env: Env, *, num_groups: int, sharing: int = 1, varied: Sequence[str] = ()) -> Env:
    """`env` for G x S accounts: state leaves gain [G] (clock) or [G, S] (account), actions are [G, S, ...].

    Every reset of the batch comes out of one random draw.

    Args:
      env: for one account.
      num_groups: G.
      sharing: S.
      varied: names of the parts of `EnvParams` whose leaves are [G, S], a value for every account.

    Raises:
      ValueError: no group, no account, or a name that is no part of `EnvParams`.
    """
    unknown = [name for name in varied if name not in EnvParams.__dataclass_fields__]
    if unknown or num_groups < 1 or sharing < 1:
        raise ValueError(
            f"num_groups ({num_groups}) and sharing ({sharing}) must be at least 1, and varied name parts of "
            f"EnvParams, not {unknown}"
        )
    shape = (num_groups, sharing)
    axis_of: Any = {name: 0 if name in varied else None for name in EnvParams.__dataclass_fields__}
    ours: Any = EnvParams(**axis_of)
    seen: Any = Observation(bar=None, account=0)  # pyright: ignore[reportArgumentType]
    told: Any = dict.fromkeys(("reward", "terminated", "fill", "exit", "reason", "episode", "growth"), 0)
    out: Any = TimeStep(seen, truncated=None, **told)  # pyright: ignore[reportArgumentType]
    axes = env.account_axes

    def over(function, in_axes, out_axes):
        inner = jax.vmap(function, in_axes=in_axes, out_axes=out_axes)
        outer_in = tuple(axis if axis is None or axis is ours else 0 for axis in in_axes)
        return jax.vmap(inner, in_axes=outer_in)

    begin = over(env.begin, (env.draw_axes, ours), axes)
    observe = over(env.observe, (axes,), seen)

    def reset(key, params):
        state = begin(env.draw(key, shape, params), params)
        return state, observe(state)

    return env._replace(
        reset=reset,
        step=over(env.step, (None, axes, 0, ours), (axes, out)),
        advance=over(env.advance, (axes, 0, ours), (axes, out)),
        observe=observe,
        mask=None if env.mask is None else over(env.mask, (axes, ours), 0),
        begin=begin,
        reopen=over(env.reopen, (axes, ours), axes),
    )


def autoreset(env: Env) -> Env:
    """`env`, vectorised, whose closed accounts reopen flat and whose ended windows start anew elsewhere.

    The time step still describes the episode that ended; only the state moves on. New starts are drawn in a
    branch that is taken in the steps in which something ends, so all other steps pay nothing for it.
    """

    def step(key, state, action, params):
        state, out = env.step(key, state, action, params)

        def restart(state):
            reopened = _select(out.terminated, env.reopen(state, params), state)
            fresh = env.begin(env.draw(key, out.terminated.shape, params), params)
            return _select(out.truncated, fresh, reopened)

        ended = out.truncated.any() | out.terminated.any()
        return jax.lax.cond(ended, restart, lambda state: state, state), out

    return env._replace(step=step)


def aligned(env: Env, *, bars: int) -> Env:
    """`env` whose windows begin a whole number of `bars` after the first one, up to `bars - 1` earlier.

    Where `EnvParams.starts` are given, whoever gives them leaves that room in the stretch of each.
    """

    def draw(key, shape, params):
        drawn = env.draw(key, shape, params)
        late = (drawn.start - params.first) % bars
        return drawn._replace(start=drawn.start - late)

    def reset(key, params):
        state = env.begin(draw(key, (), params), params)
        return state, env.observe(state)

    return env._replace(draw=draw, reset=reset)


class Episode(struct.PyTreeNode):
    """What an account has done since its episode began.

    Attributes:
      total: [] float32, sum of rewards.
      length: [] int32, steps.
    """

    total: jax.Array
    length: jax.Array


class Recorded(struct.PyTreeNode):
    """The state of a recorded environment: the inner state and the episode so far."""

    inner: Any
    episode: Episode


def record(env: Env) -> Env:
    """`env`, for one account, whose time steps carry the `Episode` up to and with them.

    Where a step ends the episode, that is its return and length. Under `autoreset` both start anew.
    """
    nothing: Any = 0

    def fresh(inner):
        like = inner.account.log_equity
        return Recorded(inner, Episode(jnp.zeros_like(like), jnp.zeros_like(like, jnp.int32)))

    def told(state, moved):
        inner, out = moved
        episode = Episode(state.episode.total + out.reward, state.episode.length + 1)
        return Recorded(inner, episode), out._replace(episode=episode)

    def reset(key, params):
        inner, observation = env.reset(key, params)
        return fresh(inner), observation

    return env._replace(
        reset=reset,
        step=lambda key, state, action, params: told(state, env.step(key, state.inner, action, params)),
        advance=lambda state, order, params: told(state, env.advance(state.inner, order, params)),
        observe=lambda state: env.observe(state.inner),
        mask=None if env.mask is None else partial(_inner_mask, env.mask),
        begin=lambda drawn, params: fresh(env.begin(drawn, params)),
        reopen=lambda state, params: fresh(env.reopen(state.inner, params)),
        account_axes=Recorded(env.account_axes, nothing),
    )


def _inner_mask(mask, state, params):
    return mask(state.inner, params)


class Statistics(struct.PyTreeNode):
    """Moments of a stream of vectors; a bias-free mean and variance however the stream is cut into batches.

    Attributes:
      count: [] float32, vectors seen.
      mean: [K] float32.
      square: [K] float32, sum of squared deviations from the mean.
    """

    count: jax.Array
    mean: jax.Array
    square: jax.Array


def no_statistics(size: int) -> Statistics:
    """Of nothing yet, for vectors of `size`."""
    return Statistics(jnp.float32(0), jnp.zeros(size, jnp.float32), jnp.zeros(size, jnp.float32))


def gather(statistics: Statistics, batch: jax.Array) -> Statistics:
    """The statistics with the vectors of `batch` [..., K] in them.

    Source: Chan, Golub and LeVeque 1979, the pairwise update of sums of squares.
    """
    rows = batch.reshape(-1, batch.shape[-1])
    count, mean = jnp.float32(rows.shape[0]), rows.mean(axis=0)
    total, delta = statistics.count + count, mean - statistics.mean
    between = delta**2 * statistics.count * count / total
    return Statistics(
        count=total,
        mean=statistics.mean + delta * count / total,
        square=statistics.square + ((rows - mean[None]) ** 2).sum(axis=0) + between,
    )


def normalise(
    env: Env, statistics: Statistics, *, reward_scale: float | jax.Array = 1.0, limit: float = 10.0
) -> Env:
    """`env` whose account view has mean 0 and deviation 1 by frozen `statistics`, and whose reward is scaled.

    Nothing is learnt while playing: gather the statistics on the training slice beforehand, and give the same
    ones to every evaluation.

    Args:
      env: for one account.
      statistics: of its account view.
      reward_scale: what rewards are multiplied by.
      limit: normalised numbers are clipped to plus and minus this.

    Raises:
      ValueError: the statistics are of another size, or of nothing.
    """
    if statistics.mean.shape != (env.account_size,) or float(statistics.count) < 2:
        raise ValueError(
            f"statistics of {int(statistics.count)} vectors of shape {statistics.mean.shape} do not fit an "
            f"account view of {env.account_size}: gather at least two of that size"
        )
    deviation = jnp.sqrt(statistics.square / (statistics.count - 1.0))
    scale = jnp.where(deviation > 1e-6, 1.0 / jnp.where(deviation > 1e-6, deviation, 1.0), 1.0)

    def view(observation: Observation) -> Observation:
        centred = (observation.account - statistics.mean) * scale
        return observation._replace(account=jnp.clip(centred, -limit, limit))

    def told(moved):
        state, out = moved
        return state, out._replace(observation=view(out.observation), reward=out.reward * reward_scale)

    def reset(key, params):
        state, observation = env.reset(key, params)
        return state, view(observation)

    return env._replace(
        reset=reset,
        step=lambda key, state, action, params: told(env.step(key, state, action, params)),
        advance=lambda state, order, params: told(env.advance(state, order, params)),
        observe=lambda state: view(env.observe(state)),
    )


def randomise(
    key: jax.Array,
    params: EnvParams,
    shape: tuple[int, int],
    *,
    latency: tuple[int, int] | None = None,
    **ranges: tuple[float, float],
) -> EnvParams:
    """`params` in which every account has costs, and a latency, of its own, drawn uniformly.

    Give `vectorise` varied=("costs",), or ("costs", "latency"). Policies trained so survive other costs than
    the assumed ones. It is for training only; every evaluation has the true costs.

    Args:
      key: [] typed key.
      params: the true ones.
      shape: (G, S).
      latency: (least, most) bars, from 0 on. No environment is known here: `most` must be within the
        `max_latency` that it was made with.
      **ranges: (low, high) by name of a field of `Costs` that `params` has.

    Raises:
      ValueError: a name that is no cost of `params`, an empty range, or a negative latency.
    """
    has = sorted(name for name, cost in vars(params.costs).items() if cost is not None)
    wrong = [f"{name} is no cost of these parameters" for name in ranges if name not in has]
    wrong += [f"{name}: {low} is above {high}" for name, (low, high) in ranges.items() if not low <= high]
    if latency is not None and not 0 <= latency[0] <= latency[1]:
        wrong.append(f"latency: {latency} is no range of bars from 0 on")
    if wrong:
        raise ValueError("; ".join(wrong))
    *keys, late = jax.random.split(key, len(has) + 1)
    drawn = {
        name: jax.random.uniform(cost_key, shape, jnp.float32, *ranges[name])
        if name in ranges
        else jnp.broadcast_to(getattr(params.costs, name), shape)
        for name, cost_key in zip(has, keys, strict=True)
    }
    params = params.replace(costs=params.costs.replace(**drawn))
    if latency is None:
        return params
    return params.replace(latency=jax.random.randint(late, shape, latency[0], latency[1] + 1))


def cheapen(params: EnvParams, share: jax.Array) -> EnvParams:
    """`params` with every cost times `share` []: a curriculum from free trading to the true price of it.

    A volume cap is no price and stays.
    """
    costs = jax.tree.map(lambda cost: cost * share, params.costs)
    return params.replace(costs=costs.replace(volume_cap=params.costs.volume_cap))


def _select(mask, chosen, other):
    """`chosen` where `mask` [G] or [G, S], else `other`, whatever trailing axes a leaf has."""

    def pick(a, b):
        trailing = (1,) * (a.ndim - mask.ndim)
        return jnp.where(mask.reshape(mask.shape + trailing), a, b) if a.ndim >= mask.ndim else a

    return jax.tree.map(pick, chosen, other)
