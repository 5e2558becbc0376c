"""What specialists earned, how they did, and what the team is worth together. Pure functions.

Axes: A instruments, S specialists, L bars of lookback.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs.fusion import product
from envs.ledger import Account
from envs.risk_limits import Exposures, RiskLimits
from envs.types import Fill, row

FLOOR = 1e-8  # deviation of a bar's earnings below which there is no Sharpe ratio


class Report(struct.PyTreeNode):
    """How each specialist did over the last L bars, known at the close that ends them. [S] float32 each.

    Attributes:
      sharpe: mean over deviation of what it earned in a bar; 0 where that does not vary.
      win_rate: share of the bars in which it earned more than nothing.
      max_drawdown: largest fall of its earnings, added up from 0, under their highest so far, over equity.
    """

    sharpe: jax.Array
    win_rate: jax.Array
    max_drawdown: jax.Array


def earned(before: Account, fill: Fill, market: Any, bar: jax.Array) -> jax.Array:
    """[A] what each instrument earned in `bar`, net of its costs, over the equity before it.

    They add up to the account's gain, but for interest and the floor under losses.
    """
    gap, body, value = row(market.gap, bar), row(market.body, bar), before.exposure
    return value * gap + (value * (1.0 + gap) + fill.traded) * body - fill.cost


def make_report(earnings: jax.Array) -> Report:
    """The report on `earnings` [S, L], oldest first."""
    deviation = spread(earnings)
    varies = deviation > FLOOR
    num_bars = earnings.shape[1]
    curve = product(earnings, np.triu(np.ones((num_bars, num_bars), np.float32)))
    return Report(
        sharpe=jnp.where(varies, _mean(earnings) / jnp.where(varies, deviation, 1.0), 0.0),
        win_rate=_mean((earnings > 0.0).astype(jnp.float32)),
        max_drawdown=(_highest(curve) - curve).max(axis=1),
    )


def spread(rows: jax.Array) -> jax.Array:
    """[...] deviation of `rows` [..., L]."""
    return jnp.sqrt(_mean((rows - _mean(rows)[..., None]) ** 2))


def no_report(num_specialists: int) -> Report:
    """Of an account that has not played."""
    return Report(*[jnp.zeros(num_specialists, jnp.float32)] * 3)


def team_reward(
    report: Report,
    *,
    allocation: jax.Array,
    exposure: jax.Array,
    asked: Exposures,
    limits: RiskLimits,
    membership: np.ndarray,
) -> jax.Array:
    """[] the joint reward: 0.5 x individual + 0.5 x coordination.

    individual = mean over specialists of their Sharpe ratios, each clipped to [-1, 1]
    coordination = 0.3 x entropy + 0.2 x balance + 0.3 x compliance + 0.2 x (limit - correlation exposure)

    Entropy is the allocation's, over log S. Balance is 1 less the difference between the largest and the
    smallest specialist's share of the gross held; 0 where nothing is. Compliance is max_portfolio_var over
    the value at risk asked for, at most 1. The limit is max_correlation_exposure, 0.7 by default.

    Args:
      report: of the bar that was played.
      allocation: [S] in force during it.
      exposure: [A] held at its close.
      asked: risk of the book asked for, before the limits cut it.
      limits: with max_portfolio_var and max_correlation_exposure.
      membership: [A, S] 1 where the instrument is the specialist's.
    """
    most, correlated = limits.max_portfolio_var, limits.max_correlation_exposure
    assert most is not None
    assert correlated is not None
    logs = jnp.log(jnp.where(allocation > 0, allocation, 1.0))
    entropy = -(allocation * logs).sum() / math.log(max(len(allocation), 2))
    held = product(jnp.abs(exposure), membership)
    gross = held.sum()
    apart = (held.max() - held.min()) / jnp.where(gross > 0, gross, 1.0)
    balance = jnp.where(gross > 0, 1.0 - apart, 0.0)
    compliance = most / jnp.maximum(asked.var, most)
    coordination = 0.3 * entropy + 0.2 * balance + 0.3 * compliance + 0.2 * (correlated - asked.correlation)
    return 0.5 * jnp.clip(report.sharpe, -1.0, 1.0).mean() + 0.5 * coordination


# XLA's own means, sums and maxima along so few bars cost a CPU three times what the rest of the step does.
def _mean(rows):
    num_bars = rows.shape[-1]
    return product(rows, np.full(num_bars, 1.0 / num_bars, np.float32))


def _highest(curve):
    """[S, L] the highest of 0 and `curve` [S, L] up to each bar."""
    highest, span = curve, 1  # the 0 comes in with the padding
    while span < curve.shape[1]:
        before = jnp.pad(highest[:, :-span], ((0, 0), (span, 0)))
        highest, span = jnp.maximum(highest, before), 2 * span
    return highest
