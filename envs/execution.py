"""From a target to a fill at the open."""

import jax
import jax.numpy as jnp

from envs.ledger import MAX_LOSS, Book
from envs.types import Costs, Fill


def trade_to(book: Book, level: jax.Array, costs: Costs) -> tuple[Book, Fill]:
    """Move the holding to `level` x equity at the current price, or hold when the level is unchanged.

    A buy pays, and a sale receives, a price worse by `half_spread + slippage`; the fee is charged on the
    notional at that price. Asking again for the level one has keeps the units: a drifting exposure is not
    rebalanced.

    A book that a gap has liquidated trades nothing: there is no equity to size a position by.

    Args:
      book: marked at the price of the fill.
      level: [] target exposure as a fraction of equity.
      costs: fractions of notional.

    Returns:
      The book after the trade, and what was executed.
    """
    level = jnp.where(book.gain <= -MAX_LOSS, book.level, level)
    delta = jnp.where(level == book.level, 0.0, level * (1.0 + book.gain) - book.value)
    notional = jnp.abs(delta)
    edge = costs.half_spread + costs.slippage
    fee = costs.fee_rate * (notional + delta * edge)  # a buy's fill notional is larger, a sale's smaller
    cost = notional * edge + fee
    traded = book.replace(gain=book.gain - cost, value=book.value + delta, level=level)
    return traded, Fill(traded=delta, cost=cost, fee=fee)
