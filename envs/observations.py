"""What an agent sees of its account, and the dense observation for learners that need one."""

from typing import Any

import jax
import jax.numpy as jnp

from envs import limits

ACCOUNT = ("level", "exposure")
PROTECTION = ("return since entry", "distance to the stop", "distance to the target")
RESTING = ("level of the resting order", "bars it has left")
GUARD = ("drawdown", "return of the day", "locked")


def columns(*, protects: bool, rests: bool, guards: bool) -> tuple[str, ...]:
    """The names of the account view's numbers."""
    return ACCOUNT + protects * PROTECTION + rests * RESTING + guards * GUARD


def account_view(state: Any) -> jax.Array:
    """[K] float32, by `columns`: what `state` has of account, protection, resting order and guard.

    The return since the entry is the holding's, signed. Distances are fractions of the last close, 1 where
    there is no stop or target. A resting order that is not there shows the account's level and no bars.
    """
    account = state.account
    seen = [account.level, account.exposure]
    if state.protection is not None:
        held, sign = state.protection, jnp.sign(account.exposure)
        moved = state.close / held.entry - 1.0
        room = sign * (1.0 - held.stop / state.close)
        if held.trail is not None:
            trail = held.best * (1.0 - sign * held.trail)
            room = jnp.minimum(room, sign * (1.0 - trail / state.close))
        target = sign * (held.target / state.close - 1.0)
        seen += [sign * moved, _distance(room, sign), _distance(target, sign)]
    if state.resting is not None:
        waits = state.resting.left > 0
        seen += [
            jnp.where(waits, state.resting.order.level, account.level),
            jnp.where(waits, state.resting.left, 0).astype(jnp.float32),
        ]
    if state.guard is not None:
        seen += [
            -jnp.expm1(account.log_equity - state.guard.peak),
            jnp.expm1(account.log_equity - state.guard.day),
            (state.guard.lock != limits.OPEN).astype(jnp.float32),
        ]
    return jnp.stack(seen, axis=-1)


def _distance(room: jax.Array, sign: jax.Array) -> jax.Array:
    """[] `room` of a holding of `sign`, within [0, 1]; 1 when nothing is held."""
    return jnp.where(sign == 0, 1.0, jnp.clip(room, 0.0, 1.0))


def dense(features: jax.Array, bar: jax.Array, account: jax.Array, *, lookback: int) -> jax.Array:
    """The observation as one vector: the last `lookback` rows of features, oldest first, then the account.

    Args:
      features: [T, F].
      bar: [] int32, at least `lookback - 1`.
      account: [K].
      lookback: rows to take.

    Returns:
      [lookback * F + K].
    """
    window = jax.lax.dynamic_slice_in_dim(features, bar - (lookback - 1), lookback)
    return jnp.concatenate([window.reshape(-1), account])
