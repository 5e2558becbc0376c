"""Round trips of one account and what they made, one pure function each, NumPy float64 on the host.

Axes: T bars traded, K closed round trips. A round trip runs from the fill that opens a position to the one
that closes or turns it. Profits are net of the trip's own costs, in the unit of the account's money.

NaN policy: an input that is not finite raises ValueError naming it; a number that the inputs leave undefined
is NaN.
"""

import math

import numpy as np

from ztb_jax.evaluation.series import checked

# Holdings that come out of float32 arithmetic close to within a few of its last digits.
CLOSED = 1e-6


def round_trips(held: np.ndarray, traded: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """[K] profit of each closed round trip net of its own costs, in order of closing.

    A round trip runs from the fill that opens a position to the one that closes or turns it; resizing in
    between belongs to it. Its profit is the cash received less the cash paid and the costs. A turn is a close
    and an open: its cost is shared by the values closed and opened. A position still open at the end is no
    round trip.

    Args:
      held: [T] signed value of the holding at each fill's price, before the fill.
      traded: [T] value bought (positive) or sold (negative) by the fill; 0 where nothing was traded.
      costs: [T] paid at each fill, positive.
    """
    held, traded, costs = checked(held, "held"), checked(traded, "traded"), checked(costs, "costs")
    if not held.shape == traded.shape == costs.shape:
        raise ValueError(
            f"held, traded and costs have {held.size}, {traded.size} and {costs.size} bars: align them."
        )
    left = held + traded
    left = np.where(np.abs(left) <= CLOSED * np.abs(held), 0.0, left)
    closes = (held != 0.0) & (np.sign(left) != np.sign(held))
    opens = (left != 0.0) & (np.sign(left) != np.sign(held))
    # A fill's closing part belongs to the trip under way, its opening part to the one it starts.
    closed, opened = np.where(closes, np.abs(held), 0.0), np.where(opens, np.abs(left), 0.0)
    moved = closed + opened
    share_old = np.where(moved > 0.0, closed / np.where(moved > 0.0, moved, 1.0), 1.0)
    cash_old = np.where(closes, held, np.where(opens, 0.0, -traded)) - costs * share_old
    cash_new = np.where(opens, -left - costs * (1.0 - share_old), 0.0)
    started = np.cumsum(opens)
    trips = int(started[-1]) if started.size else 0
    cash = np.bincount(started - opens, cash_old, trips + 1) + np.bincount(started, cash_new, trips + 1)
    return cash[(started - opens)[closes]]


def win_rate(profits: np.ndarray) -> float:
    """Share of round trips [K] with a profit above zero after costs, a fraction; NaN when none was closed."""
    profits = checked(profits, "profits")
    return float(np.mean(profits > 0.0)) if profits.size else math.nan


def profit_factor(profits: np.ndarray) -> float:
    """Sum of the profits above zero / sum of the losses, of round trips [K]; NaN when none lost."""
    profits = checked(profits, "profits")
    lost = -float(profits[profits < 0.0].sum())
    return float(profits[profits > 0.0].sum()) / lost if lost > 0.0 else math.nan


def expectancy(profits: np.ndarray) -> float:
    """Mean profit of a round trip [K], in the unit of `profits`; NaN when none was closed."""
    profits = checked(profits, "profits")
    return float(profits.mean()) if profits.size else math.nan


def average_win(profits: np.ndarray) -> float:
    """Mean of the profits above zero of round trips [K], in their unit; NaN when none won."""
    profits = checked(profits, "profits")
    won = profits[profits > 0.0]
    return float(won.mean()) if won.size else math.nan


def average_loss(profits: np.ndarray) -> float:
    """Mean of the losses of round trips [K], positive, in the unit of `profits`; NaN when none lost."""
    return average_win(-checked(profits, "profits"))


def payoff(profits: np.ndarray) -> float:
    """`average_win` / `average_loss` of round trips [K]; NaN unless at least one won and one lost."""
    return average_win(profits) / average_loss(profits)
