"""From a target to a fill: quantities, the price that is paid, and fees."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.fusion import materialise
from envs.ledger import MAX_LOSS, Book
from envs.types import EnvParams, Fill, Market, given

_NORMAL = (1e-30, 1e30)  # float32 holds these and their products with prices; beyond, lots would be 0 / 0


class Venue(NamedTuple):
    """Where a trade happens.

    Attributes:
      now: the bar, every leaf [].
      params: costs, lots, band.
      money: [] float32, equity at the last close in account currency; None where nothing needs it.
      inside: what happens within the bar is looked at, so much is made of a fill (see `envs.fusion`).
    """

    now: Market
    params: EnvParams
    money: jax.Array | None
    inside: bool = False


def money_of(log_equity: jax.Array, params: EnvParams) -> jax.Array | None:
    """[] equity in account currency, or None without a starting capital."""
    return None if params.capital is None else jnp.clip(params.capital * jnp.exp(log_equity), *_NORMAL)


def sized(level: jax.Array, market: Market, params: EnvParams, bar: jax.Array) -> jax.Array:
    """[] exposure that `level` [] asks for, by what close[bar] knows: scaled, then capped."""
    if market.scale is not None:
        level = level * market.scale[bar]
    if market.cap is not None:
        level = jnp.clip(level, -market.cap[bar], market.cap[bar])
    if params.margin is not None:
        level = jnp.clip(level, -params.margin.max_leverage, params.margin.max_leverage)
    return level


def lot_value(venue: Venue, price: jax.Array) -> jax.Array:
    """[] one lot at `price` [] over the equity at the last close."""
    value = given(venue.params.lots).size * price
    if venue.now.conversion is not None:
        value = value * venue.now.conversion.rate
    return jnp.clip(value / given(venue.money), *_NORMAL)


def trade_to(
    book: Book,
    level: jax.Array,
    exposure: jax.Array,
    venue: Venue,
    *,
    active: jax.Array,
    price: jax.Array | None = None,
    passive: jax.Array | None = None,
) -> tuple[Book, Fill]:
    """Bring the holding to `exposure` x equity at the price that `book` is marked at.

    Args:
      book: marked at the price of the fill, before spread and slippage.
      level: [] what was asked for; the book's level when all of it was reached.
      exposure: [] `level`, sized.
      venue: the bar, costs and grids.
      active: [] bool, whether the order trades at all.
      price: [] the price itself, needed by lots; None is the bar's open.
      passive: [] bool, the fill is a resting limit's; None never is.

    Returns:
      The book after the trade, and what was executed.
    """
    price = _open_of(venue) if price is None else price
    delta, complete = _quantity(book, exposure, venue, price)
    delta = jnp.where(active, delta, 0.0)
    if venue.inside:
        delta = materialise(delta)
    traded, fill = settle(book, delta, venue, price=price, passive=passive)
    if complete is not None:
        level = jnp.where(complete, level, traded.value / (1.0 + traded.gain))
    return traded.replace(level=jnp.where(active, level, book.level)), fill


def settle(
    book: Book,
    delta: jax.Array,
    venue: Venue,
    *,
    price: jax.Array | None,
    passive: jax.Array | None = None,
    penalty: jax.Array | None = None,
) -> tuple[Book, Fill]:
    """Buy `delta` [], a signed notional at the price the book is marked at, and pay for it.

    Fill price = price x (1 + sign x edge); fee = rate x notional at the fill price, plus fees per lot, at
    least the minimum. A passive fill has no edge and pays the maker's rate. `penalty` [] is charged on the
    notional on top.
    """
    costs, notional = venue.params.costs, jnp.abs(delta)
    edge = _edge(notional, venue)
    rate = costs.fee_rate
    if passive is not None:
        edge = jnp.where(passive, 0.0, edge)
        rate = rate if costs.maker_rate is None else jnp.where(passive, costs.maker_rate, rate)
    fee = rate * (notional + delta * edge)  # a buy's fill notional is larger, a sale's smaller
    if costs.fee_per_lot is not None and price is not None:
        fee += costs.fee_per_lot * notional / lot_value(venue, price) / given(venue.money)
    if costs.fee_minimum is not None:
        fee = jnp.where(delta == 0.0, 0.0, jnp.maximum(fee, costs.fee_minimum / given(venue.money)))
    if penalty is not None:
        fee += penalty * notional
    cost = notional * edge + fee
    over_open = 1.0 if price is None else price / given(venue.now.prices).open
    paid = jnp.where(delta == 0.0, 0.0, over_open * (1.0 + jnp.sign(delta) * edge))
    fill = Fill(traded=delta, cost=cost, fee=fee, price=paid)
    return book.replace(gain=book.gain - cost, value=book.value + delta), fill


def _open_of(venue: Venue):
    return None if venue.now.prices is None else venue.now.prices.open


def _quantity(book: Book, exposure: jax.Array, venue: Venue, price):
    """The signed notional to trade, and whether it is all that was wanted (None: always)."""
    lots, equity = venue.params.lots, 1.0 + book.gain
    target = exposure * equity
    if lots is None:
        delta = target - book.value
        unit = None
    else:
        unit = lot_value(venue, price)
        delta = jnp.trunc(target / unit) * unit - book.value
        delta = jnp.where(jnp.abs(delta) < 0.5 * unit, 0.0, delta)
    if venue.params.band is not None:
        delta = jnp.where(jnp.abs(delta) < venue.params.band * equity, 0.0, delta)
    if venue.params.costs.volume_cap is None:
        return delta, None
    most = venue.params.costs.volume_cap * given(venue.now.depth) / given(venue.money)
    complete = jnp.abs(delta) <= most
    if unit is None:
        return jnp.where(complete, delta, jnp.sign(delta) * most), complete
    most = jnp.floor(most / unit) * unit
    # A trace of a lot is a rounding error: it neither is left to be traded, nor stays behind as a holding.
    complete |= jnp.abs(delta) <= most + 1e-3 * unit
    delta = jnp.where(complete, delta, jnp.sign(delta) * most)
    emptied = (delta != 0) & (jnp.abs(book.value + delta) < 1e-3 * unit)
    return jnp.where(emptied, -book.value, delta), complete


def _edge(notional: jax.Array, venue: Venue) -> jax.Array:
    """[] how much worse than the price a taker's fill is, as a fraction: at most `MAX_LOSS`, either side.

    So that a sale still brings something, and a buy on mirrored prices costs the same.
    """
    costs, now = venue.params.costs, venue.now
    edge = costs.half_spread + costs.slippage
    if now.half_spread is not None:
        edge += now.half_spread
    if costs.volatility_slippage is not None:
        edge += costs.volatility_slippage * given(now.volatility)
    if costs.impact is not None:
        # Without depth only closing trades come here: each counts as all the volume that there was.
        depth = given(now.depth)
        share = jnp.where(depth > 0, notional * given(venue.money) / jnp.where(depth > 0, depth, 1.0), 1.0)
        edge += costs.impact * given(now.volatility) * jnp.sqrt(share)
    return jnp.minimum(edge, MAX_LOSS)
