"""Encoders with a memory: once per bar for all accounts, against the same learner that shares no bar.

64 bars of 8 features, 64 units, a shared torso, on the train slice of the embedded S&P 500: each encoder
trained as the main job trains it, and by `per_account`, which encodes the window of every account and step by
itself and computes the same function (`tests/policies/test_sequences.py`). And the GRU beside PPO whose
recurrent state is carried from bar to bar by every account.

4,096 accounts stand on bars of their own, and a minibatch of 65,536 of their steps encodes every bar of the
slice once: the learner does what `per_account`'s does, to rounding. That, and the GRU's learning beside that
of a carried memory, is measured on AR(1) at 20 bp, five seeds at equal steps; and what accounts on the same
bars cost, which fewer accounts or longer markets need.
"""

import json
import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import train_peers
from benchmarks.harness import Row, finish, interleave, rate_row
from benchmarks.markets import LEVELS, MARKETS, data_of, returns_of
from benchmarks.peers import task, wire
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

LOOKBACK, WIDTH, REPEATS = 64, 64, 5
BARS = MappingProxyType({"gru": 100.0, "recurrence": 100.0, "attention": 60.0})
FLAGS = MappingProxyType(
    {
        "features.lookback": LOOKBACK,
        "data.embargo_bars": LOOKBACK,
        "ppo.sharing": 1,
        "ppo.num_accounts": 4096,
    }
)
ALONE = 32  # accounts of the learner that shares nothing; a step costs the same with more
SEEDS, ROLLOUT, SHARINGS = 5, 64, (1, 4, 16)


def alone(data: MarketData, encoder: str) -> Callable[[], dict[str, float]]:
    """An update of the learner that encodes the window of every account: fewer accounts, the same step."""
    flags = FLAGS | {"policy.encoder": encoder, "ppo.num_accounts": ALONE}
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
        shared = trainer(data, FLAGS | {"policy.encoder": encoder}, steps=262_144)
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
    ours = trainer(data, FLAGS | {"policy.encoder": "gru"}, steps=262_144)
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


class Judge(NamedTuple):
    """AR(1) at 20 bp: bars to learn on, and what a path of levels reaches of the optimum on others, in %."""

    train: MarketData
    test: MarketData
    grade: Callable[[Any], float]


def judge() -> Judge:
    """Every learner sees the last `LOOKBACK` bars, of 50,000 to learn on and 50,000 to be judged on."""
    market = MARKETS["ar1"]
    known, unseen = market.draw(0, 50_000), market.draw(1_000, 50_000)
    scale = float(returns_of(known.frame).std())
    train, test = (data_of(market, one, scale, lookback=LOOKBACK) for one in (known, unseen))
    state, mean = (known[LOOKBACK - 1 : -1] for known in (unseen.state, unseen.mean))

    def score(levels: Any) -> float:
        path = np.asarray(levels, np.float64)
        return oracle.score_by_conditional_mean(path, mean, market.cost, sigma=market.sigma)

    best = score(market.best(state))
    return Judge(train, test, lambda levels: 100.0 * score(levels) / best)


class Sizes(NamedTuple):
    """Of a training; minibatches have 1,024 steps in either."""

    accounts: int
    minibatches: int
    steps: int


LONG, SHORT = Sizes(256, 16, 524_288), Sizes(64, 4, 32_768)
TUNED = MappingProxyType({"learning_rate": 1e-3, "gamma": 0.9, "lam": 0.8})


def fractions(
    encoder: str, judged: Judge, sizes: Sizes, *, sharing: int = 1, window_each: bool = False
) -> np.ndarray:
    """[SEEDS] % of the optimum; `window_each` encodes the window of every account and step by itself."""
    env, num_features = make_single(levels=LEVELS, episode_bars=64), judged.train.features.shape[1]
    policy = make_policy(
        num_features=num_features,
        account_size=env.account_size,
        num_actions=len(LEVELS),
        lookback=LOOKBACK,
        width=WIDTH,
        encoder=encoder,
        grid=ROLLOUT,
    )
    updates = sizes.steps // (sizes.accounts * ROLLOUT)
    learner = make_ppo(
        env,
        per_account(policy, num_features=num_features) if window_each else policy,
        num_accounts=sizes.accounts,
        rollout_bars=ROLLOUT,
        sharing=sharing,
        num_updates=updates,
        hyper=Hyper(**TUNED),
        options=Options(num_minibatches=sizes.minibatches),
    )
    window = loop.compile_window(
        learner, loop.initialise(learner, 0, judged.train), judged.train, num_updates=updates
    )
    play = make_policy_backtest(policy, env)
    reached = []
    for seed in range(SEEDS):
        state, _ = window(loop.initialise(learner, seed, judged.train), judged.train)
        reached.append(judged.grade(play(state.params, judged.test).level))
    return np.array(reached)


def recurrent_fractions(judged: Judge) -> dict[str, np.ndarray]:
    """[SEEDS] % of the optimum of either PPO with a carried memory, at the sizes and numbers of `LONG`."""
    settings = {"accounts": LONG.accounts, "rollout_bars": ROLLOUT, "num_minibatches": LONG.minibatches}
    told = json.dumps(settings | TUNED | {"width": WIDTH, "recurrent": True, "threads": 2})
    reached = {}
    with tempfile.TemporaryDirectory() as folder:
        train, test = (str(Path(folder) / f"{name}.npz") for name in ("train", "test"))
        for path, data in ((train, judged.train), (test, judged.test)):
            task.save(Path(path), data, episode_bars=64, levels=LEVELS)
        calls = {
            "recurrent": ("sb3_learn", "recurrent", train, test, told),
            "ppo_rnn": ("ppo_rnn", train, told, test),
        }
        for name, (module, *arguments) in calls.items():
            with wire.worker(f"benchmarks.peers.{module}", *arguments) as ask:
                done = [ask("learn", seed=seed, steps=LONG.steps) for seed in range(SEEDS)]
                reached[name] = np.array([judged.grade(one["levels"]) for one in done])
    return reached


def learning_rows() -> list[Row]:
    """Ours against every learner whose speed it is compared with, at equal steps."""
    judged, rows = judge(), []
    for encoder in BARS:
        once = fractions(encoder, judged, SHORT)
        each = fractions(encoder, judged, SHORT, window_each=True)
        rows += _compared(
            SHORT, f"{encoder}, once per bar", once, f"{encoder}, every account's windows", each
        )
    ours = fractions("gru", judged, LONG)
    for name, theirs in recurrent_fractions(judged).items():
        rows += _compared(LONG, "gru", ours, name, theirs)
    return rows


def _reached_row(name: str, sizes: Sizes, reached: np.ndarray) -> Row:
    title = f"{name}, {sizes.steps:,} steps"
    return Row(title, float(reached.mean()), "% of optimum", float(reached.min()), float(reached.max()))


def _compared(sizes: Sizes, mine: str, ours: np.ndarray, its: str, theirs: np.ndarray) -> list[Row]:
    lead = float(ours.mean() - theirs.mean())
    error = math.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / SEEDS)
    note = f"mean lead {lead:+.2f} points, standard error {error:.2f}"
    return [
        _reached_row(mine, sizes, ours),
        _reached_row(its, sizes, theirs),
        Row("our lead and one standard error", lead + error, "points", bar=0.0, note=note),
    ]


def sharing_rows() -> list[Row]:
    """What accounts on the same bars do to learning."""
    judged = judge()
    return [
        _reached_row(
            f"{encoder}, {sharing} accounts on the same bars",
            LONG,
            fractions(encoder, judged, LONG, sharing=sharing),
        )
        for encoder in BARS
        for sharing in SHARINGS
    ]


PARTS = MappingProxyType(
    {
        "speed": speed_rows,
        "carry": carry_rows,
        "learning": lambda data: learning_rows(),
        "sharing": lambda data: sharing_rows(),
    }
)


def run(json_file: Path | None, *, parts: Sequence[str] | None = None) -> int:
    """Measure and report.

    Args:
      json_file: where to write the figures, or None.
      parts: of `PARTS`; None is all.
    """
    data = prepared(resolve(environ={}, flags=FLAGS)).slices["train"]
    rows = [row for part in parts or PARTS for row in PARTS[part](data)]
    return finish("Encoders", rows, json_file=json_file)
