"""Which actions may be asked for: closed bars, locks and lots."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from envs import execution, limits
from envs.bar import State
from envs.execution import Venue
from envs.types import EnvParams, given


def allowed(
    state: State, levels: Sequence[float], params: EnvParams, *, holds: bool = False
) -> jax.Array | None:
    """[len(levels)] bool, the actions that may be asked for at close[state.bar]; None where nothing rules.

    A locked account may only ask for 0, in a closed bar only for the level it has, and with lots only for
    what is at least one lot, or nothing. If that leaves no action, all are allowed, and none does anything.
    With `holds`, a last action asks for nothing, and always may.
    """
    if state.guard is None and params.market.tradable is None and params.lots is None:
        return None
    asked = jnp.asarray(levels, jnp.float32)
    may = jnp.ones_like(asked, bool)
    if state.guard is not None:
        may &= (asked == 0.0) | (state.guard.lock == limits.OPEN)
    if params.market.tradable is not None:
        may &= params.market.tradable[state.bar + 1] | (asked == state.account.level)
    if params.lots is not None:
        may &= (asked == 0.0) | _is_a_lot(state, asked, params)
    if holds:
        return jnp.append(may, True)
    return may | ~may.any()


def _is_a_lot(state: State, asked: jax.Array, params: EnvParams) -> jax.Array:
    venue = Venue(params.market.at(state.bar), params, execution.money_of(state.account.log_equity, params))
    unit = execution.lot_value(venue, given(params.market.prices).close[state.bar])
    return jnp.abs(execution.sized(asked, params.market, params, state.bar)) >= unit
