"""One instrument, target positions, market orders at the next open.

Datasheet
  observation  (bar [] int32, account [2] float32: level, exposure); close[bar] is the last thing known
  action       [] int32 in 0..num_levels-1, the target exposure `levels[action]` as a fraction of equity
  clock        observe through close[t], fill at open[t+1], mark at close[t+1]; the old position earns
               close[t] -> open[t+1], the new one open[t+1] -> close[t+1]
  reward       [] float32, log(equity after / equity before), net of spread, slippage and fees
  terminated   equity at or below `ruin_equity` of the start; a bar never takes more than 99 % of equity
  truncated    the window of `episode_bars` has been played
  state        bar [] int32, end [] int32, account (log_equity, gain, exposure, level) [] float32
  reset        one draw for a whole batch: a uniform start bar in [first, stop - 1 - episode_bars], and a
               uniform initial level
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs import execution, ledger, observations, rewards, terminations
from envs.types import Env, EnvParams, Observation, TimeStep


class State(struct.PyTreeNode):
    """Where one account stands.

    Attributes:
      bar: [] int32, the bar whose close was last seen.
      end: [] int32, the bar at which the episode is truncated.
      account: the account, marked at close[bar].
    """

    bar: jax.Array
    end: jax.Array
    account: ledger.Account


class Draw(NamedTuple):
    """The random half of a reset: start bar [] int32 and initial level [] float32.

    Drawn for `shape = (G, S)`, the start is [G] (a group shares its clock) and the level [G, S].
    """

    start: jax.Array
    level: jax.Array


def observe(state: State) -> Observation:
    """What the agent sees of `state`."""
    return Observation(bar=state.bar, account=observations.account_view(state.account))


def level_of(action: jax.Array, levels: Sequence[float]) -> jax.Array:
    """[...] float32 `levels[action]` of `action` [...] int32."""
    # Selects beat a gather from a table of three by a factor of four on a CPU.
    chosen = jnp.full_like(action, levels[0], dtype=jnp.float32)
    for index, level in enumerate(levels[1:], start=1):
        chosen = jnp.where(action == index, jnp.float32(level), chosen)
    return chosen


def advance(state: State, level: jax.Array, params: EnvParams) -> tuple[State, TimeStep]:
    """One bar with the target exposure `level` [] itself instead of an action's index."""
    before, bar = state.account, state.bar + 1
    at_open = ledger.liquidate(ledger.mark(ledger.open_book(before), params.market.gap[bar]))
    traded, fill = execution.trade_to(at_open, level, params.costs)
    account = ledger.close_book(before, ledger.mark(traded, params.market.body[bar]))
    state = State(bar=bar, end=state.end, account=account)
    return state, TimeStep(
        observation=observe(state),
        reward=rewards.log_return(before, account),
        terminated=terminations.ruined(account, params.ruin_equity),
        truncated=terminations.window_ended(bar, state.end),
        fill=fill,
    )


def make_single(*, levels: Sequence[float] = (-1.0, 0.0, 1.0), episode_bars: int = 256) -> Env:
    """The single-instrument environment.

    Args:
      levels: distinct target exposures, one for each action.
      episode_bars: steps in an episode.

    Raises:
      ValueError: no level, a repeated level, or a window of no bars.
    """
    levels = tuple(float(level) for level in levels)
    if len(set(levels)) != len(levels) or not levels:
        raise ValueError(f"levels must be distinct and at least one, got {levels}")
    if episode_bars < 1:
        raise ValueError(f"episode_bars must be at least 1, got {episode_bars}")

    def draw(key, shape, params):
        start_key, level_key = jax.random.split(key)
        start = jax.random.randint(start_key, shape[:1], params.first, params.stop - episode_bars)
        return Draw(start, level_of(jax.random.randint(level_key, shape, 0, len(levels)), levels))

    def begin(drawn, params):
        del params
        return State(drawn.start, drawn.start + episode_bars, ledger.open_account(drawn.level))

    def reset(key, params):
        state = begin(draw(key, (), params), params)
        return state, observe(state)

    def reopen(state):
        return state.replace(account=ledger.open_account(jnp.zeros_like(state.account.level)))

    def step(key, state, action, params):
        del key  # market orders fill without chance
        return advance(state, level_of(action, levels), params)

    return Env(
        reset=reset,
        step=step,
        observe=observe,
        draw=draw,
        begin=begin,
        reopen=reopen,
        account_axes=State(bar=None, end=None, account=0),  # pyright: ignore[reportArgumentType]
        levels=levels,
        account_size=observations.ACCOUNT_SIZE,
        episode_bars=episode_bars,
    )
