"""The account, free of scale: exposure and the growth of equity, never a sum of money.

Within a step everything is counted in units of the equity at the last close (a `Book`), so gains stay small
numbers that float32 holds to seven digits, and no equity can overflow however long the account lives.
"""

import jax
import jax.numpy as jnp
from flax import struct

from envs.types import Financing, Market, given

MAX_LOSS = 0.99  # a bar never takes more of the equity: losses are capped at what was posted


class Account(struct.PyTreeNode):
    """One account, marked at a close.

    Attributes:
      log_equity: [] float32, log of equity over the equity it started with.
      gain: [] float32, simple return of the equity over the last bar, net of costs.
      exposure: [] float32, signed market value of the holding over equity.
      level: [] float32, the level that was last asked for and reached.
    """

    log_equity: jax.Array
    gain: jax.Array
    exposure: jax.Array
    level: jax.Array


class Book(struct.PyTreeNode):
    """An account in the course of a bar, in units of its equity at the last close.

    Attributes:
      gain: [] float32, equity now less one.
      value: [] float32, signed market value of the holding.
      level: [] float32, the level that was last asked for and reached.
    """

    gain: jax.Array
    value: jax.Array
    level: jax.Array


def open_account(level: jax.Array, exposure: jax.Array | None = None) -> Account:
    """A fresh account that already holds `level` [], bought free of charge; `exposure` is the level sized."""
    zero = jnp.zeros_like(level)
    return Account(log_equity=zero, gain=zero, exposure=level if exposure is None else exposure, level=level)


def open_book(account: Account) -> Book:
    """The account at the start of a bar."""
    return Book(gain=jnp.zeros_like(account.gain), value=account.exposure, level=account.level)


def finance(book: Book, now: Market, financing: Financing | None) -> Book:
    """The book after interest, borrowing and funding since the last close; it is not marked yet."""
    charge = 0.0
    if financing is not None:
        long, short = jnp.maximum(book.value, 0.0), jnp.maximum(-book.value, 0.0)
        charge = given(now.years) * interest(financing, long=long, short=short)
    if now.funding is not None:
        charge += now.funding * book.value
    return book.replace(gain=book.gain - charge)


def interest(rates: Financing, *, long: jax.Array, short: jax.Array) -> jax.Array:
    """[] owed for a year by holdings of `long` [] and `short` [] over equity, less what idle cash earns.

    Proceeds of a short sale fund nothing and earn nothing.
    """
    owed = rates.borrow_rate * short + rates.loan_rate * jnp.maximum(long - 1.0, 0.0)
    return owed - rates.cash_rate * jnp.clip(1.0 - long, 0.0, 1.0)


def mark(book: Book, simple_return: jax.Array, conversion: jax.Array | None = None) -> Book:
    """The book after the price moved by `simple_return` [] and the currency by `conversion` [].

    Profits are converted when they arise: equity changes by value x return x (1 + conversion).
    """
    move = book.value * simple_return
    if conversion is None:
        return book.replace(gain=book.gain + move, value=book.value + move)
    return book.replace(
        gain=book.gain + move * (1.0 + conversion), value=(book.value + move) * (1.0 + conversion)
    )


def floored(book: Book) -> jax.Array:
    """[] bool: the loss of the bar has reached `MAX_LOSS`: what was posted is gone."""
    return book.gain <= -MAX_LOSS


def liquidate(book: Book) -> Book:
    """The book without its holding where it is `floored`."""
    broke = floored(book)
    return book.replace(gain=jnp.where(broke, -MAX_LOSS, book.gain), value=jnp.where(broke, 0.0, book.value))


def close_book(account: Account, book: Book) -> Account:
    """The account at the close; its loss over the bar is at most `MAX_LOSS` of the equity."""
    book = liquidate(book)
    return Account(
        log_equity=account.log_equity + jnp.log1p(book.gain),
        gain=book.gain,
        exposure=book.value / (1.0 + book.gain),
        level=book.level,
    )
