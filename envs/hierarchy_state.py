"""The hierarchy's state: messages between meta-controller and specialists, and what an account remembers.

Axes: A instruments, S specialists, L bars of lookback.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs import portfolio, reports
from envs.ledger import Account
from envs.reports import Report
from envs.specialists import Partition, View
from envs.types import Observation


class Decision(NamedTuple):
    """What an action means.

    Attributes:
      allocation: [S] shares that add up to 1.
      risk: [] risk appetite in [0, 1].
      signals: [A] in [-1, 1], of the specialists; None where they are the market's.
    """

    allocation: jax.Array
    risk: jax.Array
    signals: jax.Array | None = None


class Message(struct.PyTreeNode):
    """What the meta-controller has last sent to the specialists.

    Attributes:
      allocation: [S] float32, shares that add up to 1.
      risk: [] float32, in [0, 1].
      wait: [] int32, bars until it is replaced; 0 where the next action replaces it.
    """

    allocation: jax.Array
    risk: jax.Array
    wait: jax.Array


class History(struct.PyTreeNode):
    """What an account remembers; bars before it began count as 0. float32, oldest first.

    Attributes:
      returns: [L] simple returns of its equity.
      earnings: [S, L] what each specialist earned, net of costs, over the equity before the bar.
      peak: [] highest log equity.
    """

    returns: jax.Array
    earnings: jax.Array
    peak: jax.Array


class State(struct.PyTreeNode):
    """Where one account stands.

    Attributes:
      portfolio: `envs.portfolio.State`: clock, holdings, compliance.
      message: from the meta-controller to the specialists.
      report: from the specialists to the meta-controller, on the bars up to the clock's.
      history: what the report is made of.
    """

    portfolio: portfolio.State
    message: Message
    report: Report
    history: History

    @property
    def account(self) -> Account:
        """Marked at the last close."""
        return self.portfolio.account


def open_state(inner: portfolio.State, partition: Partition, *, lookback: int) -> State:
    """An account without history, whose first action allocates."""
    team = len(partition.specialists)
    return State(
        portfolio=inner,
        message=Message(jnp.full(team, 1.0 / team, jnp.float32), jnp.float32(0), jnp.int32(0)),
        report=reports.no_report(team),
        history=History(
            returns=jnp.zeros(lookback, jnp.float32),
            earnings=jnp.zeros((team, lookback), jnp.float32),
            peak=jnp.float32(0),
        ),
    )


def send(message: Message, decision: Decision, update_freq: int) -> Message:
    """The message in force in the next bar: the decision's where one is due, else the last one's."""
    due = message.wait == 0
    return Message(
        allocation=jnp.where(due, decision.allocation, message.allocation),
        risk=jnp.where(due, decision.risk, message.risk),
        wait=jnp.where(due, update_freq, message.wait) - 1,
    )


def capital(message: Message, partition: Partition) -> jax.Array:
    """[A] the capital for each instrument, over equity: that of its specialist in equal parts."""
    parts = partition.membership / partition.membership.sum(axis=0)
    return message.risk * jnp.matmul(parts, message.allocation, precision=jax.lax.Precision.HIGHEST)


def observe(state: State, *, update_freq: int) -> Observation:
    """What is seen of `state`; `envs.specialists.account_layout` has the places."""
    message, report, history, account = state.message, state.report, state.history, state.account
    seen = View(
        returns=history.returns,
        volatility=reports.spread(history.returns)[..., None],
        drawdown=-jnp.expm1(account.log_equity - history.peak)[..., None],
        sharpe=report.sharpe,
        win_rate=report.win_rate,
        max_drawdown=report.max_drawdown,
        allocation=message.allocation,
        risk=message.risk[..., None],
        wait=message.wait[..., None] / jnp.float32(update_freq),
        level=account.level,
        exposure=account.exposure,
    )
    return Observation(bar=state.portfolio.bar, account=jnp.concatenate(seen, axis=-1))
