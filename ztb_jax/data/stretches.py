"""Market data of several stretches of bars in a row, and of several folds side by side.

Axes: R stretches, D folds, T bars, S bars that a window may start at.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ztb_jax.data.market import MarketData


def join(parts: Sequence[MarketData], *, reward_scale: float, episode_bars: int, grid: int = 0) -> MarketData:
    """The bars of `parts` in a row, each with the rows before it, as data in which no window leaves its part.

    Windows start at `EnvParams.starts`. The first row of every part but the first has a gap to a bar that is
    not there; an account begins at its close at the earliest, so the gap is never played. Parts that hold no
    window are there all the same.

    Args:
      parts: R slices of one market, with equal costs and rules.
      reward_scale: of all of them.
      episode_bars: steps of a window.
      grid: the memories of the policy begin every so many bars (`envs.transforms.aligned`). Parts are filled
        up with rows of zeros, so that each begins on it and no memory reaches over a seam. 0 is none.

    Raises:
      ValueError: no part holds a window.
    """
    lengths = [len(part.features) for part in parts]
    padded = [-(-rows // grid) * grid if grid else rows for rows in lengths]
    begins = np.cumsum([0, *padded[:-1]])
    starts = np.concatenate(
        [
            np.arange(begin + parts[0].lookback - 1, begin + rows - episode_bars)
            for begin, rows in zip(begins, lengths, strict=True)
        ]
    )
    if not starts.size:
        raise ValueError(
            f"{len(parts)} stretches of {lengths} rows hold no window of {episode_bars} steps: give longer "
            "ones, or lower episode_bars"
        )
    filled = [_filled(part, rows) for part, rows in zip(parts, [*padded[:-1], lengths[-1]], strict=True)]
    features, market = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves),
        *[(part.features, part.env_params.market) for part in filled],
    )
    params = parts[0].env_params.replace(
        market=market, stop=jnp.int32(len(features)), starts=jnp.asarray(starts, jnp.int32)
    )
    return parts[0].replace(features=features, env_params=params, reward_scale=jnp.float32(reward_scale))


def stack_folds(datas: Sequence[MarketData], *, episode_bars: int) -> MarketData:
    """Data of D folds with a leading [D] on every leaf, to be vmapped over.

    Shorter folds are filled up with rows of zeros after `stop`, which no window reaches. So what is drawn,
    played and learnt from a fold is what it is alone, but for the rounding of another program, and for what
    sizes choose (`ppo.shuffle: auto`, how bars are encoded), which are those of the longest. Where one fold
    has `starts` all get them; what fills them up is not counted by `num_starts`.

    Args:
      datas: D slices with the same optional parts, features and lookback.
      episode_bars: steps of a window; a fold without `starts` may start wherever one fits.

    Raises:
      ValueError: no data, or data of different parts.
    """
    if not datas:
        raise ValueError("there are no folds to stack: give at least one")
    if any(data.env_params.starts is not None for data in datas):
        starts = [_starts_of(data, episode_bars) for data in datas]
        most = max(map(len, starts))
        datas = [_with_starts(data, mine, most) for data, mine in zip(datas, starts, strict=True)]
    kinds = {(jax.tree.structure(data), data.features.shape[1:]) for data in datas}
    if len(kinds) > 1:
        raise ValueError(
            "folds differ in their optional parts, features or lookback: prepare them with one configuration"
        )
    rows = max(len(data.features) for data in datas)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *[_filled(data, rows) for data in datas])


def _starts_of(data: MarketData, episode_bars: int) -> jax.Array:
    params = data.env_params
    if params.starts is None:
        return jnp.arange(int(params.first), int(params.stop) - episode_bars, dtype=jnp.int32)
    return params.starts


def _with_starts(data: MarketData, starts: jax.Array, most: int) -> MarketData:
    """`data` with `starts`, filled up to `most` of them."""
    filled = jnp.pad(starts, (0, most - len(starts)), mode="edge")
    return data.replace(env_params=data.env_params.replace(starts=filled, num_starts=jnp.int32(len(starts))))


def _filled(data: MarketData, rows: int) -> MarketData:
    """`data` with zeros after its last bar, `rows` in all; its `stop` stays."""

    def fill(leaf):
        return jnp.pad(leaf, [(0, rows - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))

    market = jax.tree.map(fill, data.env_params.market)
    return data.replace(features=fill(data.features), env_params=data.env_params.replace(market=market))
