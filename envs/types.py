"""The records every environment speaks.

Axes: T bars, G groups of accounts that share one clock, S accounts in a group. An environment is written for
one account (every leaf a scalar); `envs.transforms.vectorise` adds the axes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import struct


class Market(struct.PyTreeNode):
    """The exogenous half of the state: one instrument's bars as simple returns, shared and read-only.

    Returns are kept instead of prices because they lose nothing in float32 and make every result independent
    of the price scale.

    Attributes:
      gap: [T] float32, open[t] / close[t-1] - 1; zero at bar 0.
      body: [T] float32, close[t] / open[t] - 1.
    """

    gap: jax.Array
    body: jax.Array


class Costs(struct.PyTreeNode):
    """What a trade costs, as fractions of its notional; every leaf is [] float32 and can be vmapped.

    Attributes:
      fee_rate: commission on the notional at the fill price, once per side.
      half_spread: distance from the mid price to the quoted side.
      slippage: further adverse distance of the fill.
    """

    fee_rate: jax.Array
    half_spread: jax.Array
    slippage: jax.Array


class EnvParams(struct.PyTreeNode):
    """Everything numeric that an environment reads and does not change.

    Attributes:
      market: the bars.
      costs: the price of trading.
      ruin_equity: [] float32, an account at or below this share of its starting equity is closed.
      first: [] int32, first bar that may be observed.
      stop: [] int32, one past the last bar that may be reached.
    """

    market: Market
    costs: Costs
    ruin_equity: jax.Array
    first: jax.Array
    stop: jax.Array


class Observation(NamedTuple):
    """What an agent sees: an index into the market and its own account.

    Attributes:
      bar: [] int32; everything up to and including close[bar] is known.
      account: [K] float32, the environment's account view.
    """

    bar: jax.Array
    account: jax.Array


class Fill(NamedTuple):
    """What was executed at the next open.

    Attributes:
      traded: [] float32, signed notional bought at the open over equity at the last close; zero when held.
      cost: [] float32, spread, slippage and fee paid, in the same unit.
      fee: [] float32, the fee alone.
    """

    traded: jax.Array
    cost: jax.Array
    fee: jax.Array


class TimeStep(NamedTuple):
    """The outcome of one step.

    Attributes:
      observation: what is seen after the step and before any reset: the right one to bootstrap from.
      reward: [] float32.
      terminated: [] bool, the account is closed; nothing follows.
      truncated: [] bool, the window or the data ended; the value goes on.
      fill: what was executed.
    """

    observation: Observation
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    fill: Fill


class Env(NamedTuple):
    """An environment: functions of explicit state, and two sizes.

    Attributes:
      reset: (key, params) -> (state, observation), a random start.
      step: (key, state, action, params) -> (state, timestep).
      observe: (state) -> observation.
      draw: (key, shape, params) -> draw, every random number of `shape` resets in one call.
      begin: (draw, params) -> state, the deterministic rest of a reset.
      reopen: (state) -> state with a fresh, flat account at the same bar.
      account_axes: the state with 0 where a leaf belongs to an account and None where to the clock.
      levels: the target exposure of each discrete action.
      account_size: K, the length of the account view.
      episode_bars: steps in an episode that nothing ends early.
    """

    reset: Callable[..., tuple[Any, Observation]]
    step: Callable[..., tuple[Any, TimeStep]]
    observe: Callable[[Any], Observation]
    draw: Callable[..., Any]
    begin: Callable[..., Any]
    reopen: Callable[[Any], Any]
    account_axes: Any
    levels: tuple[float, ...]
    account_size: int
    episode_bars: int

    @property
    def num_actions(self) -> int:
        """How many discrete actions there are."""
        return len(self.levels)
