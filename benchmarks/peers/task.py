"""The trading task as an .npz that every peer reads, and the sizes that a peer is asked for. NumPy alone."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Task(NamedTuple):
    """A market, what trading on it costs, and how it is observed.

    Attributes:
      features: [T, F] float32, scaled.
      gap: [T] float32, close[t - 1] -> open[t], a simple return.
      body: [T] float32, open[t] -> close[t].
      costs: [3] float32, fee rate, half spread, slippage.
      ruin_equity: [] float32, share of the starting equity at which an account is closed.
      reward_scale: [] float32, what learners multiply rewards by.
      first: [] int32, first bar that may be observed.
      stop: [] int32, one past the last bar that may be reached.
      lookback: [] int32, rows of features in an observation.
      episode_bars: [] int32, steps of an episode.
      levels: [A] float32, target exposure of each action.
    """

    features: np.ndarray
    gap: np.ndarray
    body: np.ndarray
    costs: np.ndarray
    ruin_equity: np.ndarray
    reward_scale: np.ndarray
    first: np.ndarray
    stop: np.ndarray
    lookback: np.ndarray
    episode_bars: np.ndarray
    levels: np.ndarray

    def windows(self, lookback: int) -> np.ndarray:
        """[T, lookback * F] the window at each bar, oldest row first; zeros where it is not whole."""
        num_bars, width = self.features.shape
        seen = np.lib.stride_tricks.sliding_window_view(self.features, lookback, axis=0)
        table = np.zeros((num_bars, lookback * width), np.float32)
        table[lookback - 1 :] = seen.swapaxes(1, 2).reshape(len(seen), -1)
        return table


@dataclass(frozen=True)
class Settings:
    """Sizes and hyperparameters of a peer; the defaults are those of `ztb_jax.settings.PPOConfig`.

    Attributes:
      accounts: environments stepped together.
      rollout_bars: steps of each before an update.
      num_minibatches: gradient steps in an epoch.
      epochs: passes over a batch.
      width: of the two hidden layers of actor and of critic, apart from each other.
      recurrent: see one bar instead of a window, and remember the rest in `width` units.
      learning_rate: of Adam.
      gamma: discount.
      lam: of the generalised advantage.
      clip: of the probability ratio.
      entropy: weight of the entropy bonus.
      value_weight: of the value loss.
      max_grad_norm: above which gradients are scaled down.
      threads: of torch.
      seed: of everything.
    """

    accounts: int = 1024
    rollout_bars: int = 64
    num_minibatches: int = 4
    epochs: int = 4
    width: int = 64
    recurrent: bool = False
    learning_rate: float = 3e-4
    gamma: float = 0.95
    lam: float = 0.9
    clip: float = 0.2
    entropy: float = 0.01
    value_weight: float = 0.5
    max_grad_norm: float = 0.5
    threads: int = 1
    seed: int = 0

    @property
    def batch(self) -> int:
        """Steps between two updates."""
        return self.accounts * self.rollout_bars


def save(path: Path, data: Any, *, episode_bars: int, levels: tuple[float, ...]) -> None:
    """Write a slice for the peers.

    Args:
      path: of the file, ending in .npz.
      data: a `ztb_jax.data.market.MarketData` of returns and plain costs.
      episode_bars: steps of an episode.
      levels: target exposure of each action.
    """
    params = data.env_params
    costs = [params.costs.fee_rate, params.costs.half_spread, params.costs.slippage]
    task = Task(
        features=np.asarray(data.features),
        gap=np.asarray(params.market.gap),
        body=np.asarray(params.market.body),
        costs=np.asarray(costs, np.float32),
        ruin_equity=np.asarray(params.ruin_equity),
        reward_scale=np.asarray(data.reward_scale),
        first=np.asarray(params.first),
        stop=np.asarray(params.stop),
        lookback=np.asarray(data.lookback, np.int32),
        episode_bars=np.asarray(episode_bars, np.int32),
        levels=np.asarray(levels, np.float32),
    )
    np.savez(path, **task._asdict())


@cache
def load(path: str) -> Task:
    """The task that `save` wrote to `path`."""
    with np.load(path) as saved:
        return Task(**{name: saved[name] for name in Task._fields})


def settings_of(text: str) -> Settings:
    """The settings in a JSON object; what is not in it is the default."""
    return Settings(**json.loads(text))
