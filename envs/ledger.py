"""The account, free of scale: exposure and the growth of equity, never a sum of money.

Within a step everything is counted in units of the equity at the last close (a `Book`), so gains stay small
numbers that float32 holds to seven digits, and no equity can overflow however long the account lives.
"""

import jax
import jax.numpy as jnp
from flax import struct

MAX_LOSS = 0.99  # a bar never takes more of the equity: losses are capped at what was posted


class Account(struct.PyTreeNode):
    """One account, marked at a close.

    Attributes:
      log_equity: [] float32, log of equity over the equity it started with.
      gain: [] float32, simple return of the equity over the last bar, net of costs.
      exposure: [] float32, signed market value of the holding over equity.
      level: [] float32, the exposure that was last asked for.
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
      level: [] float32, the exposure that was last asked for.
    """

    gain: jax.Array
    value: jax.Array
    level: jax.Array


def open_account(level: jax.Array) -> Account:
    """A fresh account that already holds `level` [], bought free of charge."""
    zero = jnp.zeros_like(level)
    return Account(log_equity=zero, gain=zero, exposure=level, level=level)


def open_book(account: Account) -> Book:
    """The account at the start of a bar."""
    return Book(gain=jnp.zeros_like(account.gain), value=account.exposure, level=account.level)


def mark(book: Book, simple_return: jax.Array) -> Book:
    """The book after the price moved by `simple_return` []."""
    move = book.value * simple_return
    return book.replace(gain=book.gain + move, value=book.value + move)


def liquidate(book: Book) -> Book:
    """The book without its holding where the loss has reached `MAX_LOSS`: what was posted is gone."""
    broke = book.gain <= -MAX_LOSS
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
