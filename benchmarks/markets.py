"""The markets that learning is graded on, each with its optimum.

| market | what it asks of a learner | myopic | cost-blind |
|---|---|---|---|
| ar1: AR(1), φ 0.3, σ 1 %, 20 bp | to weigh costs | .99 | .68 |
| sine: period 60, amplitude 2 %, 60 bp | credit over many bars, no noise | .00 | 1.00 |
| leak: the next return is a feature, σ 1 %, 50 bp | to weigh costs, no noise | 1.00 | .75 |
| regime: hidden drift ±0.165 %, persistence .98, σ 0.3 %, 50 bp | credit under noise | .00 | .76 |
| factors: 4 weak signals of 16 features, 10 bp, few bars | not to learn noise by heart | .98 | .93 |
| shuffled: the AR(1) in random order, 20 bp | not to trade | – | – |

The last two columns are fractions of the optimum. Costs are one-way. A sine's path is known, so its optimum
is dynamic programming over the path; all others are value iteration over what can be known: the last
return, the leaked one, the belief in a regime, the signal. All policies are scored by the known conditional
mean of the next return, never by the returns that were drawn.

σ of the leak, and drift and σ of the regimes, were chosen for the fractions .75 and .76. Many pairs of drift
and σ have that; with quieter returns the last 8, all that an agent sees here, tell more of the regime, and
come nearer to the filter that remembers every bar.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from ztb_jax.data import synthetic
from ztb_jax.data.market import MarketData, make_costs, make_market_data
from ztb_jax.evaluation import markov, oracle

LEVELS, LOOKBACK = (-1.0, 0.0, 1.0), 8
PHI, SIGMA = 0.3, 0.01
DRIFT, PERSISTENCE, VOLATILITY = 0.00165, 0.98, 0.003
SIGNALS, NOISE, RHO, STRENGTH = 4, 12, 0.9, 0.002


class Drawn(NamedTuple):
    """One draw of a market.

    Attributes:
      frame: [T] bars.
      features: [T, F - 1] what is seen beside the return, of order one; F - 1 may be 0.
      state: [T] float64, what the oracle decides by.
      mean: [T] float64, mean of the next return given all that can be known; the last one means nothing.
    """

    frame: pd.DataFrame
    features: np.ndarray
    state: np.ndarray
    mean: np.ndarray


class Graded(NamedTuple):
    """A market whose policies can be graded.

    Attributes:
      title: for the table.
      draw: (seed, num_bars) -> Drawn.
      cost: one-way, a fraction of the value traded.
      sigma: standard deviation of the next return around its mean, None where its path is known.
      best: (state [T]) -> the optimal levels [T], starting flat.
    """

    title: str
    draw: Callable[[int, int], Drawn]
    cost: float
    sigma: float | None
    best: Callable[[np.ndarray], np.ndarray]


def returns_of(frame: pd.DataFrame) -> np.ndarray:
    """[T] simple returns close to close; the first from its open."""
    closed = frame["close"].to_numpy(np.float64)
    return closed / np.concatenate([[frame["open"].iloc[0]], closed[:-1]]) - 1.0


def data_of(market: Graded, drawn: Drawn, scale: float, *, lookback: int = LOOKBACK) -> MarketData:
    """A draw to train or test on: the features are the return over `scale`, and the market's own."""
    costs = make_costs(fee_rate=market.cost, half_spread=0.0, slippage=0.0)
    features = np.column_stack([returns_of(drawn.frame) / scale, drawn.features])
    return make_market_data(drawn.frame, features, costs=costs, lookback=lookback, start=lookback - 1)


def _ar1(seed: int, num_bars: int) -> Drawn:
    frame = synthetic.ar1(seed, num_bars, phi=PHI, sigma=SIGMA)
    returns = returns_of(frame)
    return Drawn(frame, _nothing(num_bars), returns, PHI * returns)


def _sine(seed: int, num_bars: int) -> Drawn:
    frame = synthetic.sine(seed, num_bars, period=60, amplitude=0.02)
    coming = _next(returns_of(frame))
    return Drawn(frame, _nothing(num_bars), coming, coming)


def _leak(seed: int, num_bars: int) -> Drawn:
    frame = synthetic.ar1(seed, num_bars, phi=0.0, sigma=SIGMA)
    coming = _next(returns_of(frame))
    return Drawn(frame, coming[:, None] / SIGMA, coming, coming)


def _regime(seed: int, num_bars: int) -> Drawn:
    frame = synthetic.regimes(
        seed, num_bars, drift=DRIFT, persistence=PERSISTENCE, volatility=VOLATILITY, arch=0.0, garch=0.0
    )
    belief = markov.regime_belief(
        returns_of(frame), drift=DRIFT, persistence=PERSISTENCE, volatility=VOLATILITY
    )
    return Drawn(frame, _nothing(num_bars), belief, DRIFT * (2.0 * belief - 1.0))


def _factors(seed: int, num_bars: int) -> Drawn:
    frame, features = synthetic.factors(
        seed,
        num_bars,
        num_signals=SIGNALS,
        num_noise=NOISE,
        persistence=RHO,
        strength=STRENGTH,
        volatility=SIGMA,
    )
    mean = STRENGTH / SIGNALS**0.5 * features[:, :SIGNALS].sum(axis=1)
    return Drawn(frame, features, mean, mean)


def _shuffled(seed: int, num_bars: int) -> Drawn:
    frame = synthetic.shuffled(seed, synthetic.ar1(seed, num_bars, phi=PHI, sigma=SIGMA))
    nothing = np.zeros(num_bars)
    return Drawn(frame, _nothing(num_bars), nothing, nothing)


def _nothing(num_bars: int) -> np.ndarray:
    return np.empty((num_bars, 0))


def _next(returns: np.ndarray) -> np.ndarray:
    """[T] the return of the bar that follows; nobody trades at the last one."""
    return np.append(returns[1:], 0.0)


def _best_factors(state: np.ndarray) -> np.ndarray:
    innovation = STRENGTH * (1.0 - RHO**2) ** 0.5
    return markov.signal_policy(RHO, innovation, 10e-4, sigma=SIGMA, levels=LEVELS).follow(state)


MARKETS: Mapping[str, Graded] = MappingProxyType(
    {
        "ar1": Graded(
            "AR(1) φ=0.3 σ=1 % at 20 bp",
            _ar1,
            20e-4,
            SIGMA,
            lambda state: markov.ar1_policy(PHI, SIGMA, 20e-4, levels=LEVELS).follow(state),
        ),
        "sine": Graded(
            "sine of 60 bars at 60 bp",
            _sine,
            60e-4,
            None,
            lambda state: oracle.hindsight(np.zeros_like(state), state, levels=LEVELS, cost=60e-4).path,
        ),
        "leak": Graded(
            "leaked return σ=1 % at 50 bp",
            _leak,
            50e-4,
            0.0,
            lambda state: markov.signal_policy(0.0, SIGMA, 50e-4, levels=LEVELS).follow(state),
        ),
        "regime": Graded(
            "regimes ±0.165 % σ=0.3 % at 50 bp",
            _regime,
            50e-4,
            VOLATILITY,
            lambda state: markov.regime_policy(DRIFT, PERSISTENCE, VOLATILITY, 50e-4, levels=LEVELS).follow(
                state
            ),
        ),
        "factors": Graded("4 signals of 16 features at 10 bp", _factors, 10e-4, SIGMA, _best_factors),
        "shuffled": Graded("shuffled AR(1) at 20 bp", _shuffled, 20e-4, SIGMA, np.zeros_like),
    }
)
