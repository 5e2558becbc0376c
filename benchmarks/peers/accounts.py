"""The accounts of a `Task` in NumPy, all stepped at once: the environment of the peers that are not jitted.

The rules are those of `docs/reference/simulator.md` for market orders at the open;
`tests/test_peer_accounts.py` holds the two together.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.peers.task import Task

MAX_LOSS = np.float32(0.99)  # `envs.ledger.MAX_LOSS`: a bar never takes more of the equity
FOREVER = np.iinfo(np.int64).max


class Stepped(NamedTuple):
    """The outcome of a step of N accounts, before any reset.

    Attributes:
      reward: [N] float32, log growth of the equity.
      terminated: [N] bool, the account is closed.
      truncated: [N] bool, its window has been played.
    """

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class Accounts:
    """N accounts at bars of their own.

    An observation is [lookback * F + 2] float32: the rows of features, then level and exposure.
    """

    def __init__(self, task: Task, num_accounts: int, *, lookback: int | None = None, seed: int = 0):
        self.task, self.table = task, task.windows(int(task.lookback) if lookback is None else lookback)
        fee, half_spread, slippage = task.costs
        self.fee, self.edge = fee, half_spread + slippage
        self.ruin = np.log(task.ruin_equity)
        self.generator = np.random.default_rng(seed)
        self.bar, self.end = np.zeros((2, num_accounts), np.int64)
        self.level, self.exposure, self.log_equity = np.zeros((3, num_accounts), np.float32)
        self.restart(np.arange(num_accounts))

    def restart(self, which: np.ndarray) -> None:
        """Fresh accounts `which` [M]: a uniform start and a uniform level that they already hold."""
        length, count = int(self.task.episode_bars), len(which)
        self.bar[which] = self.generator.integers(self.task.first, self.task.stop - length, count)
        self.end[which] = self.bar[which] + length
        self.level[which] = self.exposure[which] = self.generator.choice(self.task.levels, count)
        self.log_equity[which] = 0.0

    def open_at_first(self) -> None:
        """Flat accounts at the first bar whose windows never end."""
        self.bar[:], self.end[:] = self.task.first, FOREVER
        self.level[:] = self.exposure[:] = self.log_equity[:] = 0.0

    def observe(self, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """[M, lookback * F + 2] what accounts `which` see."""
        bar, width = self.bar[which], self.table.shape[1]
        seen = np.empty((len(bar), width + 2), np.float32)
        seen[:, :width] = self.table[bar]
        seen[:, width], seen[:, width + 1] = self.level[which], self.exposure[which]
        return seen

    def step(self, actions: np.ndarray) -> Stepped:
        """Play the next bar by `actions` [N] int; nothing restarts."""
        self.bar += 1
        gap, body = self.task.gap[self.bar], self.task.body[self.bar]
        gain, value = self.exposure * gap, self.exposure * (1 + gap)
        broke = gain <= -MAX_LOSS
        gain[broke], value[broke] = -MAX_LOSS, 0.0
        wanted = self.task.levels[actions]
        trades = (wanted != self.level) & ~broke
        delta = np.where(trades, wanted * (1 + gain) - value, np.float32(0))
        self.level = np.where(trades, wanted, self.level)
        notional = np.abs(delta)
        gain -= notional * self.edge + self.fee * (notional + delta * self.edge)
        value += delta
        move = value * body
        gain += move
        value += move
        broke = gain <= -MAX_LOSS
        gain[broke], value[broke] = -MAX_LOSS, 0.0
        self.exposure = value / (1 + gain)
        reward = np.log1p(gain)
        self.log_equity += reward
        return Stepped(reward, (self.log_equity <= self.ruin) | broke, self.bar >= self.end)


def played(
    task: Task, act: Callable[[np.ndarray], np.ndarray], *, lookback: int | None = None
) -> list[float]:
    """One account through the whole slice.

    Args:
      task: the slice.
      act: [1, K] float32 observations -> [1] actions.
      lookback: bars in an observation; None is the task's.

    Returns:
      The level asked for at each of the bars first … stop - 2, 0 once the account is closed: as the `Trace`
      of `ztb_jax.evaluation.backtest` has them.
    """
    accounts, asked = Accounts(task, 1, lookback=lookback), []
    accounts.open_at_first()
    bars = int(task.stop) - 1 - int(task.first)
    for _ in range(bars):
        action = act(accounts.observe())
        asked.append(float(task.levels[action[0]]))
        if accounts.step(action).terminated[0]:
            break
    return asked + [0.0] * (bars - len(asked))
