"""Stops, targets, trailing stops and liquidation: what closes a holding without being asked.

Prices are compared with the holding's sign `s`, 1 for long and -1 for short, so that both read the same: an
adverse move lowers s x price.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs.ledger import Book
from envs.orders import on_tick
from envs.types import Lots, Margin, Order, Prices, given

NONE, STOP, TARGET, TRAIL, LIQUIDATION = 0, 1, 2, 3, 4


class Protection(struct.PyTreeNode):
    """What protects a holding; prices in quote currency, infinite where there is none.

    Attributes:
      entry: [] float32, price of the fill that opened the holding or turned it.
      stop: [] float32, price of the protective stop.
      target: [] float32, price of the take-profit.
      trail: [] float32, distance of the trailing stop as a fraction; None where no order trails.
      best: [] float32, most favourable price since the fill that brought the trail; likewise.
    """

    entry: jax.Array
    stop: jax.Array
    target: jax.Array
    trail: jax.Array | None = None
    best: jax.Array | None = None


class Closing(NamedTuple):
    """A closing trade that is due; all [].

    Attributes:
      due: bool.
      price: float32, where, before spread and slippage.
      passive: bool, at the target.
      reason: int32.
    """

    due: jax.Array
    price: jax.Array
    passive: jax.Array
    reason: jax.Array


def unprotected(price: jax.Array, sign: jax.Array, *, trails: bool) -> Protection:
    """A holding of `sign` [] entered at `price` [] with nothing to protect it."""
    none = jnp.where(sign > 0, jnp.float32(jnp.inf), jnp.float32(-jnp.inf))
    held = Protection(entry=price, stop=-none, target=none)
    return held.replace(trail=jnp.full_like(price, jnp.inf), best=price) if trails else held


def hang(
    held: Protection, order: Order, price: jax.Array, *, was: jax.Array, now: jax.Array, lots: Lots | None
) -> Protection:
    """The protection after a fill of `order` at `price` [] that took the holding from `was` [] to `now` [].

    Stop, target and trail hang on the price of the fill that brought them; the entry stays when the holding
    grew or shrank on the same side.
    """
    side = sign_of(now)
    entry = jnp.where(was * now > 0, held.entry, price)
    return Protection(
        entry=entry,
        stop=on_tick(price * (1.0 - side * given(order.stop_loss)), lots),
        target=on_tick(price * (1.0 + side * given(order.take_profit)), lots),
        trail=order.trail,
        best=None if order.trail is None else price,
    )


def sign_of(value: jax.Array) -> jax.Array:
    """[] float32, -1 for a short holding, else 1; a flat account needs a mask of its own."""
    return jnp.where(value < 0, jnp.float32(-1.0), jnp.float32(1.0))


def effective_stop(
    protection: Protection | None, book: Book, price: jax.Array, margin: Margin | None
) -> tuple[jax.Array, jax.Array]:
    """[] the nearest of stop, trail and liquidation times the holding's sign, and [] what it stands for.

    Liquidation is where equity = maintenance x |value|: with equity e and value v at `price`,
    price x (1 + (maintenance |v| - e) / (|v| (s - maintenance))).
    """
    s = sign_of(book.value)
    nearest, reason = jnp.full_like(price, -jnp.inf), jnp.full_like(price, NONE, jnp.int32)
    if protection is not None:
        nearest, reason = s * protection.stop, jnp.full_like(reason, STOP)
        if protection.trail is not None:
            trail = s * given(protection.best) * (1.0 - s * protection.trail)
            reason = jnp.where(nearest >= trail, STOP, TRAIL)
            nearest = jnp.maximum(nearest, trail)
    if margin is not None:
        size = jnp.abs(book.value)
        room = (margin.maintenance * size - 1.0 - book.gain) / (size * (s - margin.maintenance))
        call = s * price * (1.0 + room)
        reason = jnp.where(call >= nearest, LIQUIDATION, reason)
        nearest = jnp.maximum(nearest, call)
    return nearest, reason


def passed(
    protection: Protection | None, book: Book, opened: jax.Array, margin: Margin | None, *, price: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """([] bool, [] bool): whether `price` [] is at or beyond the stop, or else the target, at the open."""
    s, held = sign_of(book.value), book.value != 0
    nearest, _ = effective_stop(protection, book, opened, margin)
    stopped = held & (s * price <= nearest)
    if protection is None:
        return stopped, jnp.zeros_like(stopped)
    return stopped, held & ~stopped & (s * price >= s * protection.target)


def inside(
    protection: Protection | None,
    book: Book,
    prices: Prices,
    margin: Margin | None,
    *,
    fill: jax.Array,
    after_open: jax.Array,
    at_target: jax.Array,
) -> Closing:
    """The closing trade that becomes due between the fill at `fill` [] and the close.

    After a fill inside the bar (`after_open` []) the extreme on the open's side may lie before it. It counts
    against a stop that lies beyond the open, and never for a target. A bar that opened `at_target` [] has
    closed the holding there.
    """
    s, held = sign_of(book.value), book.value != 0
    nearest, reason = effective_stop(protection, book, fill, margin)
    adverse = jnp.where(s > 0, prices.low, prices.high)
    # The price came to the fill through an adverse move if it is worse than the open: then it is the
    # favourable extreme that may lie before; else the adverse one.
    came_adversely = s * fill < s * prices.open
    earlier = after_open & ~came_adversely & (nearest >= s * prices.open)
    counts = jnp.where(earlier, prices.close, adverse)
    stopped = held & (jnp.minimum(s * counts, s * fill) <= nearest) & ~at_target
    price = s * jnp.minimum(s * fill, nearest)
    if protection is None:
        return Closing(stopped, price, jnp.zeros_like(stopped), reason)
    favourable = jnp.where(s > 0, prices.high, prices.low)
    counts = jnp.where(after_open & came_adversely, prices.close, favourable)
    reached = held & ~stopped & (jnp.maximum(s * counts, s * fill) >= s * protection.target)
    return Closing(
        due=stopped | reached,
        price=jnp.where(reached, protection.target, price),
        passive=reached,
        reason=jnp.where(reached, TARGET, reason),
    )


def follow(held: Protection, prices: Prices, sign: jax.Array, *, after_open: jax.Array) -> Protection:
    """The protection with its best price brought up to date; after a fill inside the bar by the close."""
    if held.best is None:
        return held
    extreme = jnp.where(sign > 0, prices.high, prices.low)
    extreme = jnp.where(after_open, prices.close, extreme)
    return held.replace(best=sign * jnp.maximum(sign * held.best, sign * extreme))
