"""Limit and stop orders: their prices, when they fill, and what rests from bar to bar.

Prices are compared with their side's sign, so that a sale is a purchase in a mirrored market: below, `o` is 1
for a buy and -1 for a sale.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs.types import Lots, Order, Prices, given

MARKET, LIMIT, STOP, STOP_LIMIT = 0, 1, 2, 3
LEVEL, NOTHING, WITHDRAWAL = 0, 1, 2
NO_LABEL = -1


class Ticket(struct.PyTreeNode):
    """An order whose distances have become prices.

    Attributes:
      order: limit and stop are prices in quote currency.
      side: [] float32, 1 for a buy, -1 for a sale; None where no order has a price.
      left: [] int32, bars that it may still fill in; None likewise.
    """

    order: Order
    side: jax.Array | None
    left: jax.Array | None


class Touch(NamedTuple):
    """Whether, where and how an order's price was reached in a bar; all [].

    Attributes:
      filled: bool.
      inside: bool, after the open.
      price: float32, where; the open when not inside.
      passive: bool, as a limit.
      triggered: bool, a stop-limit that has become a limit.
    """

    filled: jax.Array
    inside: jax.Array
    price: jax.Array
    passive: jax.Array
    triggered: jax.Array


def on_tick(price: jax.Array, lots: Lots | None) -> jax.Array:
    """[] the nearest price that can be quoted, half to even."""
    if lots is None or lots.tick is None:
        return price
    return jnp.round(price / lots.tick) * lots.tick


def price_order(
    order: Order, close: jax.Array, *, buys: jax.Array, lots: Lots | None, bars: jax.Array | None
) -> Ticket:
    """The order as a ticket, priced from the `close` [] it was decided at and good for `bars` [] bars."""
    side = jnp.where(buys, jnp.float32(1.0), jnp.float32(-1.0))
    limit = on_tick(close * (1.0 - side * given(order.limit)), lots)
    stop = on_tick(close * (1.0 + side * given(order.stop)), lots)
    left = jnp.full_like(buys, 1, jnp.int32) if bars is None else jnp.broadcast_to(bars, buys.shape)
    return Ticket(order=order._replace(limit=limit, stop=stop), side=side, left=left)


def complete(order: Order, *, protects: bool, trails: bool, rests: bool, holds: bool) -> Order:
    """`order` with every part that its action space has; absent parts ask for nothing.

    Raises:
      ValueError: the order has a part that the space lacks.
    """
    parts = {"kind": rests, "limit": rests, "stop": rests, "label": rests}
    parts |= {"stop_loss": protects, "take_profit": protects, "trail": trails, "asks": holds}
    alien = [name for name, has in parts.items() if not has and getattr(order, name) is not None]
    if alien:
        raise ValueError(f"orders of this action space have no {', '.join(alien)}")
    whole = {"kind": MARKET, "label": NO_LABEL, "asks": LEVEL}
    level = order.level
    given = {
        name: jnp.full_like(level, whole[name], jnp.int32)
        if name in whole
        else jnp.full_like(level, jnp.inf, jnp.float32)
        for name, has in parts.items()
        if has and getattr(order, name) is None
    }
    return order._replace(**given)


def at_market(order: Order, level: jax.Array) -> Ticket:
    """A ticket with the parts of `order` that asks for `level` [] at the market, unprotected."""
    plain = complete(
        Order(level=level),
        protects=order.stop_loss is not None,
        trails=order.trail is not None,
        rests=order.kind is not None,
        holds=order.asks is not None,
    )
    if order.kind is None:
        return Ticket(order=plain, side=None, left=None)
    return Ticket(order=plain, side=jnp.ones_like(level), left=jnp.full_like(level, 0, jnp.int32))


def wants(order: Order, level: jax.Array) -> jax.Array:
    """[] bool, whether `order` asks for another level than `level` []."""
    other = order.level != level
    return other if order.asks is None else other & (order.asks == LEVEL)


def working(resting: Ticket, new: Ticket, level: jax.Array) -> tuple[Ticket, jax.Array]:
    """The ticket that works in this bar, and [] bool whether it asks for anything.

    An order that rests goes on resting when it is asked for again, or when nothing is asked for; asking for
    the level one has withdraws it. An order without a label is like no other.
    """
    asks, alive = new.order.asks, given(resting.left) > 0
    keep = (resting.order.label == new.order.label) & (new.order.label != NO_LABEL)
    if asks is not None:
        keep = (asks == NOTHING) | (keep == (asks == LEVEL))
    keep = alive & keep
    fresh = new.replace(order=new.order._replace(asks=None))  # what rests asks for a level
    ticket = jax.tree.map(lambda old, other: jnp.where(keep, old, other), resting, fresh)
    return ticket, keep | wants(new.order, level)


def reach(ticket: Ticket, prices: Prices) -> Touch:
    """Where the bar fills `ticket`, if it does. An order without a kind fills at the open."""
    order, o = ticket.order, ticket.side
    if order.kind is None or o is None:
        no = jnp.zeros_like(order.level, bool)
        return Touch(filled=~no, inside=no, price=prices.open, passive=no, triggered=no)
    limit, stop = given(order.limit), given(order.stop)
    best, worst = jnp.where(o > 0, prices.low, prices.high), jnp.where(o > 0, prices.high, prices.low)
    limits, both = order.kind == LIMIT, order.kind == STOP_LIMIT
    stops = (order.kind == STOP) | both
    limit_open, limit_in = o * prices.open <= o * limit, o * best <= o * limit
    stop_open, stop_in = o * prices.open >= o * stop, o * worst >= o * stop
    at_open = (order.kind == MARKET) | (limits & limit_open) | (stops & stop_open & (limit_open | ~both))
    at_limit = ~at_open & limit_in & (limits | (both & stop_open))
    at_stop = ~at_open & stops & stop_in & ~stop_open & ((o * stop <= o * limit) | ~both)
    price = jnp.where(at_limit, limit, jnp.where(at_stop, stop, prices.open))
    return Touch(
        filled=at_open | at_limit | at_stop,
        inside=at_limit | at_stop,
        price=price,
        passive=limits | both,
        triggered=both & (stop_open | stop_in),
    )


def rest(ticket: Ticket, triggered: jax.Array, *, waits: jax.Array) -> Ticket:
    """What rests after the bar: the ticket one bar older where it `waits` [], else nothing.

    A stop-limit that was `triggered` [] rests as a limit.
    """
    kind = jnp.where(triggered, LIMIT, given(ticket.order.kind))
    left = jnp.where(waits & (ticket.order.kind != MARKET), given(ticket.left) - 1, 0)
    return ticket.replace(order=ticket.order._replace(kind=kind), left=left)
