"""One bar of one account, by the rules of `docs/reference/simulator.md`; the numbers below are theirs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs import execution, ledger, limits, orders, protection
from envs.execution import Venue
from envs.fusion import materialise
from envs.ledger import Account, Book
from envs.limits import Guard
from envs.orders import Ticket, Touch
from envs.protection import Closing, Protection
from envs.types import EnvParams, Fill, given


class State(struct.PyTreeNode):
    """Where one account stands; what is None does not exist in the environment.

    Attributes:
      bar: [] int32, the bar whose close was last seen.
      end: [] int32, the bar at which the episode is truncated.
      account: the account, marked at close[bar].
      close: [] float32, close[bar], where the holding is protected.
      protection: what protects the holding.
      resting: the order that waits for its price.
      queue: [L] orders that latency delays, newest first.
      guard: what losses are measured from.
      memory: the reward's.
    """

    bar: jax.Array
    end: jax.Array
    account: Account
    close: jax.Array | None = None
    protection: Protection | None = None
    resting: Ticket | None = None
    queue: Ticket | None = None
    guard: Guard | None = None
    memory: object = ()


class Outcome(NamedTuple):
    """A bar played, before the account is closed."""

    book: Book
    protection: Protection | None
    resting: Ticket | None
    fill: Fill
    exit: Fill | None
    reason: jax.Array | None


def play(state: State, ticket: Ticket, params: EnvParams) -> Outcome:
    """Rules 5 to 12: the bar after `state.bar` with `ticket` in effect."""
    before, bar = state.account, state.bar + 1
    now = params.market.at(bar)
    venue = Venue(now, params, execution.money_of(before.log_equity, params))
    book = ledger.finance(ledger.open_book(before), now, params.financing)
    book = ledger.mark(book, now.gap, None if now.conversion is None else now.conversion.gap)
    alive = ~ledger.floored(book)
    if now.tradable is not None:
        alive &= now.tradable
    if params.costs.impact is not None or params.costs.volume_cap is not None:
        alive &= given(now.depth) > 0
    book = ledger.liquidate(book)
    if state.protection is None and state.resting is None and params.margin is None:
        played = _at_open(state, book, ticket, venue, may_trade=alive)
    else:
        book, venue = materialise(book), venue._replace(inside=True)
        played = _inside(state, book, ticket, venue, may_trade=alive)
    return played._replace(book=materialise(played.book))


def _at_open(state: State, book: Book, ticket: Ticket, venue: Venue, *, may_trade) -> Outcome:
    """A bar in which nothing happens after the open."""
    level = ticket.order.level
    exposure = execution.sized(level, venue.params.market, venue.params, state.bar)
    active = may_trade & orders.wants(ticket.order, book.level)
    book, fill = execution.trade_to(book, level, exposure, venue, active=active)
    return Outcome(_to_close(book, venue, venue.now.body), None, None, fill, None, None)


def _to_close(book: Book, venue: Venue, move) -> Book:
    conversion = venue.now.conversion
    return ledger.mark(book, move, None if conversion is None else conversion.body)


def _inside(state: State, book: Book, ticket: Ticket, venue: Venue, *, may_trade) -> Outcome:
    """A bar in which orders, stops and liquidation look at high and low."""
    prices, margin, held = given(venue.now.prices), venue.params.margin, state.protection
    ticket, wants = _in_effect(state, ticket)
    at_stop, at_target = protection.passed(held, book, prices.open, margin, price=prices.open)  # 8
    touch = orders.reach(ticket, prices)
    active = may_trade & wants & touch.filled & ~at_stop & ~at_target
    if state.resting is not None:
        before = protection.passed(held, book, prices.open, margin, price=touch.price)
        active &= ~(before[0] | before[1])
    was = book.value
    book, fill, after_open = _fill(state, book, ticket, venue, touch=touch, active=active)  # 9
    at = jnp.where(after_open, touch.price, prices.open)
    if held is not None:
        # An order for level 0 brings no protection: what a volume cap leaves of the holding keeps its own.
        hangs = (fill.traded != 0) & (ticket.order.level != 0)
        hung = protection.hang(held, ticket.order, at, was=was, now=book.value, lots=venue.params.lots)
        held = jax.tree.map(lambda new, old: jnp.where(hangs, new, old), hung, held)
    closing = protection.inside(  # 10
        held, book, prices, margin, fill=at, after_open=after_open, at_target=at_target
    )
    book, exit_fill = _close_out(book, closing, venue, at=at)
    if held is not None:
        held = protection.follow(held, prices, protection.sign_of(book.value), after_open=after_open)  # 12
    rested = None
    if state.resting is not None:
        triggered = touch.triggered & may_trade
        rested = orders.rest(ticket, triggered, waits=wants & ~active & ~closing.due)
    move = jnp.where(after_open, prices.close / at - 1.0, venue.now.body)
    reason = jnp.where(closing.due, closing.reason, protection.NONE)
    return Outcome(_to_close(book, venue, move), held, rested, fill, exit_fill, reason)  # 11


def _fill(state: State, book: Book, ticket: Ticket, venue: Venue, *, touch: Touch, active):
    """Rule 9: the book after, the fill, and whether it came inside the bar."""
    level, opened = ticket.order.level, given(venue.now.prices).open
    exposure = execution.sized(level, venue.params.market, venue.params, state.bar)
    inside = active & touch.inside
    at = jnp.where(inside, touch.price, opened)
    marked = ledger.mark(book, jnp.where(inside, at / opened - 1.0, 0.0))
    traded, fill = execution.trade_to(
        marked, level, exposure, venue, active=active, price=at, passive=touch.passive
    )
    if state.resting is None:
        return traded, fill, inside
    # An order that is reached and trades nothing leaves the bar as it was.
    happened = fill.traded != 0
    kept = jax.tree.map(lambda new, old: jnp.where(happened, new, old), traded, book)
    return kept.replace(level=traded.level), fill, inside & happened


def _in_effect(state: State, ticket: Ticket):
    """Rule 4: the order that works, and whether it asks for anything."""
    if state.resting is None:
        return ticket, orders.wants(ticket.order, state.account.level)
    return orders.working(state.resting, ticket, state.account.level)


def _close_out(book: Book, closing: Closing, venue: Venue, *, at) -> tuple[Book, Fill]:
    """The closing trade, if it is due, of a book marked at price `at`; it leaves level 0."""
    margin, penalty = venue.params.margin, None
    if margin is not None and margin.penalty is not None:
        penalty = jnp.where(closing.reason == protection.LIQUIDATION, margin.penalty, 0.0)
    price = jnp.where(closing.due, closing.price, at)
    book = ledger.mark(book, price / at - 1.0)
    delta = jnp.where(closing.due, -book.value, 0.0)
    book, fill = execution.settle(book, delta, venue, price=price, passive=closing.passive, penalty=penalty)
    return book.replace(level=jnp.where(closing.due, 0.0, book.level)), fill


def due(state: State, new: Ticket, params: EnvParams) -> tuple[Ticket, Ticket | None]:
    """Rules 2 and 3: the ticket that takes effect, and the queue with the new one in it."""
    queue, ticket = state.queue, new
    if queue is not None:
        line = jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), new, queue)
        ticket = jax.tree.map(lambda leaf: leaf[params.latency], line)
        queue = jax.tree.map(lambda leaf: leaf[:-1], line)
    if state.guard is not None:
        locked = state.guard.lock != limits.OPEN
        flatten = orders.at_market(new.order, jnp.zeros_like(new.order.level))
        ticket = jax.tree.map(lambda one, other: jnp.where(locked, one, other), flatten, ticket)
    return ticket, queue
