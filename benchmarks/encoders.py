"""Encoders with a memory: once per bar for all accounts, against the same learner that shares no bar.

64 bars of 8 features, 64 units, a shared torso, on the train slice of the embedded S&P 500: each encoder
trained as the main job trains it, and by `per_account`, which encodes the window of every account and step by
itself and computes the same function (`tests/policies/test_sequences.py`). And the GRU beside PPO whose
recurrent state is carried from bar to bar by every account.

What sharing does to learning is measured on AR(1) at 20 bp, five seeds in one program each: the same number
of steps with as many accounts on the same bars as the speeds have, and with every account on bars of its own,
as a learner has that shares nothing.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from benchmarks import train_peers
from benchmarks.harness import Row, finish, interleave, rate_row
from benchmarks.markets import LEVELS, MARKETS, data_of, returns_of
from benchmarks.train import prepared, trainer
from envs.single import make_single
from ztb_jax import build
from ztb_jax.config import resolve
from ztb_jax.data.market import MarketData
from ztb_jax.evaluation import oracle
from ztb_jax.evaluation.backtest import make_policy_backtest
from ztb_jax.policies.policy import make_policy
from ztb_jax.policies.transforms import per_account
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.learner import Options, make_ppo
from ztb_jax.runs import loop

LOOKBACK, WIDTH, SHARING, REPEATS = 64, 64, 16, 5
BARS = MappingProxyType({"gru": 100.0, "recurrence": 100.0, "attention": 60.0})
FLAGS = MappingProxyType(
    {"features.lookback": LOOKBACK, "ppo.sharing": SHARING, "data.embargo_bars": LOOKBACK}
)
ALONE = 32  # accounts of the learner that shares nothing; a step costs the same with more
SEEDS, STEPS, ACCOUNTS, ROLLOUT = 5, 524_288, 256, 64


def alone(data: MarketData, encoder: str) -> Callable[[], dict[str, float]]:
    """An update of the learner that encodes the window of every account: fewer accounts, the same step."""
    flags = FLAGS | {"policy.encoder": encoder, "ppo.num_accounts": ALONE, "ppo.sharing": 1}
    config = resolve(environ={}, flags=flags)
    size = data.features.shape[1]
    policy = per_account(build.make_network(config, num_features=size), num_features=size)
    learner = make_ppo(
        build.make_environment(config),
        policy,
        num_accounts=ALONE,
        rollout_bars=config.ppo.rollout_bars,
        sharing=1,
    )
    window = loop.compile_window(learner, state := loop.initialise(learner, 0, data), data, num_updates=1)
    holder = {"state": state}

    def go_on() -> Any:
        holder["state"], metrics = window(holder["state"], data)
        return metrics

    return lambda: jax.block_until_ready(go_on())


def speed_rows(data: MarketData) -> list[Row]:
    """Each encoder once per bar, alone, and the ratio pair by pair."""
    rows = []
    for encoder, bar in BARS.items():
        shared = trainer(data, FLAGS | {"policy.encoder": encoder}, steps=131_072)
        steps = int(shared()["steps"])
        seconds = interleave({"shared": shared, "alone": alone(data, encoder)}, repeats=REPEATS)
        slow = ALONE * ROLLOUT
        ratios = [
            (steps / ours) / (slow / its)
            for ours, its in zip(seconds["shared"], seconds["alone"], strict=True)
        ]
        rows += [
            rate_row(f"{encoder}, once per bar", steps / 1e3, seconds["shared"], unit="k steps/s"),
            rate_row(f"{encoder}, every account's windows", slow / 1e3, seconds["alone"], unit="k steps/s"),
            Row(f"{encoder}: ratio", statistics.median(ratios), "×", min(ratios), max(ratios), bar=bar),
        ]
    return rows


def carry_rows(data: MarketData) -> list[Row]:
    """The GRU beside recurrent-carry PPO: Stable-Baselines3's and one in JAX."""
    ours = trainer(data, FLAGS | {"policy.encoder": "gru"}, steps=131_072)
    ours()
    config = resolve(environ={}, flags=FLAGS)
    names = ("recurrent", "ppo_rnn")
    with train_peers.peers(names, data, episode_bars=config.env.episode_bars, levels=LEVELS) as others:
        pairs = train_peers.interleave(ours, others, repeats=REPEATS)
        rows = train_peers.rows(others, pairs, bars=dict.fromkeys(names, 3.0))
    learnt = [done["reward"] for done in pairs["ppo_rnn"].ours]
    note = f"train reward {learnt[0]:+.1f} to {learnt[-1]:+.1f} bp/bar"
    seconds = [done["seconds"] / done["steps"] for done in pairs["ppo_rnn"].ours]
    return [rate_row("gru beside them", 1e-3, seconds, unit="k steps/s", note=note), *rows]


def fractions(encoder: str, sharing: int) -> np.ndarray:
    """[SEEDS] per cent of the optimum that is reached on unseen bars of AR(1) at 20 bp."""
    market = MARKETS["ar1"]
    known, unseen = market.draw(0, 50_000), market.draw(1_000, 50_000)
    scale = float(returns_of(known.frame).std())
    train, test = (data_of(market, one, scale, lookback=LOOKBACK) for one in (known, unseen))
    env = make_single(levels=LEVELS, episode_bars=64)
    policy = make_policy(
        num_features=train.features.shape[1],
        account_size=env.account_size,
        num_actions=len(LEVELS),
        lookback=LOOKBACK,
        width=WIDTH,
        encoder=encoder,
        grid=ROLLOUT,
    )
    updates = STEPS // (ACCOUNTS * ROLLOUT)
    learner = make_ppo(
        env,
        policy,
        num_accounts=ACCOUNTS,
        rollout_bars=ROLLOUT,
        sharing=sharing,
        num_updates=updates,
        hyper=Hyper(learning_rate=1e-3, gamma=0.9, lam=0.8),
        options=Options(num_minibatches=16),
    )
    state, mean = (known[LOOKBACK - 1 : -1] for known in (unseen.state, unseen.mean))
    best = oracle.score_by_conditional_mean(market.best(state), mean, market.cost, sigma=market.sigma)
    window = loop.compile_window(learner, loop.initialise(learner, 0, train), train, num_updates=updates)
    play = make_policy_backtest(policy, env)
    reached = []
    for seed in range(SEEDS):
        state, _ = window(loop.initialise(learner, seed, train), train)
        level = np.asarray(play(state.params, test).level, np.float64)
        reached.append(oracle.score_by_conditional_mean(level, mean, market.cost, sigma=market.sigma) / best)
    return 100.0 * np.array(reached)


def learning_rows() -> list[Row]:
    """Sharing against none at equal steps: the difference in standard errors."""
    rows = []
    for encoder in BARS:
        told = {sharing: fractions(encoder, sharing) for sharing in (SHARING, 1)}
        for sharing, reached in told.items():
            name = f"{encoder}, {sharing} accounts on the same bars, {STEPS / 1e3:.0f} k steps"
            rows.append(Row(name, reached.mean(), "% of optimum", reached.min(), reached.max()))
        error = math.sqrt(sum(reached.var(ddof=1) / SEEDS for reached in told.values()))
        behind = max(0.0, told[1].mean() - told[SHARING].mean())
        rows.append(
            Row(
                f"{encoder}: one standard error / what sharing costs",
                min(error / max(behind, 1e-9), 99.0),
                "×",
                bar=1.0,
                note=f"behind by {behind:.2f} points, standard error {error:.2f}",
            )
        )
    return rows


PARTS = MappingProxyType({"speed": speed_rows, "carry": carry_rows, "learning": lambda data: learning_rows()})


def run(json_file: Path | None, *, parts: Sequence[str] | None = None) -> int:
    """Measure and report.

    Args:
      json_file: where to write the figures, or None.
      parts: of `PARTS`; None is all.
    """
    data = prepared(resolve(environ={}, flags=FLAGS)).slices["train"]
    rows = [row for part in parts or PARTS for row in PARTS[part](data)]
    return finish("Encoders", rows, json_file=json_file)
