"""Does PPO reach the known optimum? Fixed seeds, unseen data, one configuration for all markets.

AR(1) returns at 20 bp a side and a sine at 60 bp a side: the former punishes a policy that ignores costs, the
latter one that looks a single bar ahead. The optimum is the oracle's: value iteration, scored like every
other policy by the known conditional mean, and dynamic programming over the known path.

The configuration, for both: 256 accounts × 64 bars, 4 epochs × 16 minibatches of 1,024, separate 64×64 tanh
networks over 8 returns, Adam 1e-3 falling to 0, gamma 0.97, lambda 0.95, entropy 0.01 falling to 0, clip 0.2,
gradient norm 0.5, rewards over the train slice's deviation, 1,048,576 steps on 200,000 bars.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from benchmarks.harness import Row, finish
from envs.single import make_single
from ztb_jax.data import synthetic
from ztb_jax.data.market import MarketData, make_costs, make_market_data
from ztb_jax.evaluation import oracle
from ztb_jax.evaluation.backtest import make_policy_backtest
from ztb_jax.policies.policy import make_policy
from ztb_jax.ppo.learner import make_ppo
from ztb_jax.runs import loop

LEVELS, LOOKBACK, EPISODE = (-1.0, 0.0, 1.0), 8, 256
ENV = make_single(levels=LEVELS, episode_bars=EPISODE)
TRAIN_BARS, TEST_BARS, STEPS = 200_000, 100_000, 1_048_576
SEEDS, TEST_SEED = range(5), 1_000
BAR = 95.0
PHI, SIGMA = 0.3, 0.01


class Graded(NamedTuple):
    """A market whose policies can be graded.

    Attributes:
      name: for the table.
      make: (seed, num_bars) -> frame.
      cost: one-way, a fraction of the value traded.
      mean: (returns [T]) -> conditional mean [T] of the next return, NaN where there is none.
      sigma: standard deviation of the next return around it, None when it is certain.
      best: (returns seen, conditional mean) -> the optimal levels.
    """

    name: str
    make: Callable[[int, int], pd.DataFrame]
    cost: float
    mean: Callable[[np.ndarray], np.ndarray]
    sigma: float | None
    best: Callable[[np.ndarray, np.ndarray], np.ndarray]


MARKETS = (
    Graded(
        "AR(1) φ=0.3 σ=1 % at 20 bp",
        lambda seed, bars: synthetic.ar1(seed, bars, phi=PHI, sigma=SIGMA),
        20e-4,
        lambda returns: PHI * returns,
        SIGMA,
        lambda seen, mean: oracle.ar1_policy(PHI, SIGMA, 20e-4, levels=LEVELS).follow(seen),
    ),
    Graded(
        "sine of 60 bars at 60 bp",
        lambda seed, bars: synthetic.sine(seed, bars, period=60, amplitude=0.02),
        60e-4,
        lambda returns: np.append(returns[1:], np.nan),
        None,
        lambda seen, mean: oracle.hindsight(np.zeros_like(mean), mean, levels=LEVELS, cost=60e-4).path,
    ),
)


def returns_of(frame: pd.DataFrame) -> np.ndarray:
    """[T] simple returns close to close; the first from its open."""
    closed = frame["close"].to_numpy()
    return closed / np.concatenate([[frame["open"].iloc[0]], closed[:-1]]) - 1.0


def data_of(frame: pd.DataFrame, market: Graded, scale: float) -> MarketData:
    """A frame to train or test on: the only feature is the return, in train deviations."""
    costs = make_costs(fee_rate=market.cost, half_spread=0.0, slippage=0.0)
    features = (returns_of(frame) / scale)[:, None]
    return make_market_data(frame, features, costs=costs, lookback=LOOKBACK, start=LOOKBACK - 1)


def train(market: Graded) -> tuple[Any, Callable[[int], tuple[Any, float]], float]:
    """The policy, (seed) -> (weights, seconds), and the seconds of compiling."""
    frame = market.make(0, TRAIN_BARS)
    data = data_of(frame, market, float(returns_of(frame).std()))
    policy = make_policy(
        num_features=1, account_size=2, num_actions=len(LEVELS), lookback=LOOKBACK, shared_torso=False
    )
    updates = STEPS // (256 * 64)
    learner = make_ppo(
        ENV,
        policy,
        num_accounts=256,
        rollout_bars=64,
        sharing=1,
        num_minibatches=16,
        num_updates=updates,
        learning_rate=1e-3,
        gamma=0.97,
        lam=0.95,
    )
    started = time.perf_counter()
    window = loop.compile_window(learner, loop.initialise(learner, 0, data), data, num_updates=updates)
    compiled = time.perf_counter() - started

    def one(seed: int) -> tuple[Any, float]:
        started = time.perf_counter()
        state, _ = window(loop.initialise(learner, seed, data), data)
        return jax.block_until_ready(state.params), time.perf_counter() - started

    return policy, one, compiled


def grade(market: Graded) -> list[Row]:
    """Rows of one market: every seed's fraction of the optimum, and the reference policies'."""
    policy, train_seed, compiled = train(market)
    scale = float(returns_of(market.make(0, TRAIN_BARS)).std())
    frame = market.make(TEST_SEED, TEST_BARS)
    test, returns = data_of(frame, market, scale), returns_of(frame)
    seen = returns[LOOKBACK - 1 : -1]
    mean = market.mean(returns)[LOOKBACK - 1 : -1]
    backtest = make_policy_backtest(policy, ENV)

    def score(path):
        return oracle.score_by_conditional_mean(path, mean, market.cost, sigma=market.sigma)

    best = score(market.best(seen, mean))
    rows, seconds = [], []
    for seed in SEEDS:
        params, spent = train_seed(seed)
        seconds.append(spent)
        reached = 100.0 * score(np.asarray(backtest(params, test).level, np.float64)) / best
        rows.append(Row(f"PPO, {market.name}, seed {seed}", reached, "% of optimum", bar=BAR))
    references = {
        "myopic": oracle.myopic(mean, market.cost, sigma=market.sigma, levels=LEVELS),
        "cost-blind": oracle.cost_blind(mean, levels=LEVELS),
    }
    rows += [
        Row(f"{name} policy, {market.name}", 100.0 * score(path) / best, "% of optimum")
        for name, path in references.items()
    ]
    slowest = max(seconds) + compiled
    median = statistics.median(seconds)
    note = f"optimum {1e4 * best:.2f} bp/bar; compiling {compiled:.1f} s, median run {median:.1f} s"
    rows.append(
        Row(f"60 s / slowest run with compiling, {market.name}", 60.0 / slowest, "×", bar=1.0, note=note)
    )
    return rows


def run(json_file: Path | None) -> int:
    """Train, grade and report."""
    rows = [row for market in MARKETS for row in grade(market)]
    return finish(f"Learning, {STEPS:,} steps", rows, json_file=json_file)
