"""From a frame to the arrays that environments and learners read."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import struct

from envs.types import Costs, EnvParams, Market


class MarketData(struct.PyTreeNode):
    """One slice of one market, ready to train or evaluate on: read-only, passed as an argument.

    Attributes:
      features: [T, F] float32, scaled; nothing in it is later than the slice.
      env_params: bars and costs; `first` is the first bar with a whole window of valid features.
      reward_scale: [] float32, what a learner multiplies rewards by.
      lookback: rows that an observation takes; the first bar observed is lookback - 1.
    """

    features: jax.Array
    env_params: EnvParams
    reward_scale: jax.Array
    lookback: int = struct.field(pytree_node=False)

    @property
    def num_steps(self) -> int:
        """Bars that an account can play from the first to the last of the slice."""
        return self.features.shape[0] - self.lookback


def check_lookback(policy: Any, data: MarketData) -> None:
    """Refuse data whose first bars lack a part of the policy's window.

    Raises:
      ValueError: the lookbacks differ.
    """
    if policy.lookback != data.lookback:
        raise ValueError(
            f"the policy looks back {policy.lookback} bars and the data were cut for {data.lookback}: give "
            "make_policy and make_market_data the same lookback"
        )


def make_market(frame: pd.DataFrame) -> Market:
    """The bars of `frame` (columns open, close) as returns, computed in float64 and kept in float32."""
    opened, closed = frame["open"].to_numpy(np.float64), frame["close"].to_numpy(np.float64)
    gap = np.concatenate([[0.0], opened[1:] / closed[:-1] - 1.0])
    return Market(gap=jnp.asarray(gap, jnp.float32), body=jnp.asarray(closed / opened - 1.0, jnp.float32))


def make_costs(*, fee_rate: float, half_spread: float, slippage: float) -> Costs:
    """Costs as strongly typed scalars, so that no value of theirs recompiles anything.

    Raises:
      ValueError: a cost is negative, not finite, or all of the notional.
    """
    given = {"fee_rate": fee_rate, "half_spread": half_spread, "slippage": slippage}
    wrong = [f"{name} is {value}" for name, value in given.items() if not 0.0 <= value < 1.0]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: give fractions of the notional from 0 to below 1")
    return Costs(jnp.float32(fee_rate), jnp.float32(half_spread), jnp.float32(slippage))


def make_market_data(
    frame: pd.DataFrame,
    features: np.ndarray,
    *,
    costs: Costs,
    ruin_equity: float = 0.1,
    lookback: int = 1,
    start: int = 0,
    stop: int | None = None,
) -> MarketData:
    """The bars [start, stop) of a market, with the `lookback - 1` rows of features before them.

    Rewards are scaled by the inverse standard deviation of the slice's own close-to-close log returns, so a
    learner sees numbers of order one on every market. A slice to be trained on must not hold later bars: the
    arrays are cut, not masked.

    Args:
      frame: [N] bars with columns open and close.
      features: [N, F] scaled features, finite from row start - lookback + 1 on.
      costs: the price of trading.
      ruin_equity: share of the starting equity at which an account is closed.
      lookback: rows that an observation takes.
      start: first bar that may be observed.
      stop: one past the last bar that may be reached; None is the end.

    Raises:
      ValueError: the first windows reach before the data, or hold a number that is not finite.
    """
    stop = len(frame) if stop is None else stop
    begin = start - (lookback - 1)
    if begin < 0:
        raise ValueError(
            f"bar {start} has no {lookback - 1} bars before it: start the slice at {lookback - 1}"
        )
    rows = np.asarray(features[begin:stop], np.float32)
    if not np.isfinite(rows).all():
        bad = begin + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ValueError(f"features of bar {bad} are not finite: start the slice after the warm-up")
    closed = frame["close"].to_numpy(np.float64)[begin:stop]
    spread = float(np.diff(np.log(closed)).std())
    return MarketData(
        features=jnp.asarray(rows),
        env_params=EnvParams(
            market=make_market(frame.iloc[begin:stop]),
            costs=costs,
            ruin_equity=jnp.float32(ruin_equity),
            first=jnp.int32(lookback - 1),
            stop=jnp.int32(len(rows)),
        ),
        reward_scale=jnp.float32(1.0 / spread if spread > 0 else 1.0),
        lookback=lookback,
    )
