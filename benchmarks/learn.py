"""Does a learner reach the known optimum? Fixed seeds, unseen bars, markets of `benchmarks.markets`.

The configuration of PPO on all markets: 256 accounts × 32 bars, 4 epochs in minibatches of 512, separate
64×64 tanh networks over the last 8 bars, entropy 0.01 falling to 0, clip 0.2, gradient norm 0.5, rewards over
the train slice's deviation, 524,288 steps on 200,000 bars. Gamma is 0.9, lambda 0.8 and Adam's rate 1e-3,
falling to 0; where gains take many bars, 0.97, 0.95 and 3e-3 (sine, in rollouts of 16 bars), or 0.95, 0.9 and
2e-3 (regime). Windows of 64 bars begin with any of the levels, so that positions which the policy would not
take are seen all the time.

Analytic policy gradients (APG) go through a continuous exposure: 64 accounts × 16 bars, one gradient step a
rollout, 4,194,304 steps, Adam's rate 3e-3 for half of the run and falling to 0, gradient norm 0.2, gamma 0.95
(0.97 where gains take many bars). The optimum is a switch, whose derivative is 0 nearly everywhere: entropy
0.01, which softens it, falls to 0 after four fifths of the run.

A graded market must be reached on every seed: the figure of a row is the worst one. The figure at 131,072
steps is of the same run, whose learning rate is then still three quarters of the first. On shuffled returns
no seed may earn significantly more than nothing. On `factors`, 1,310,720 steps on 10,000 bars learn noise by
heart; the policy is looked at after every tenth of them, the one with the highest realised growth on other
10,000 bars is chosen, and its score is compared with those of the whole curve.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.harness import Row, finish
from benchmarks.markets import LEVELS, LOOKBACK, MARKETS, Graded, data_of, returns_of
from envs import actions
from envs.single import make_single
from envs.types import Env
from ztb_jax.apg.learner import make_apg
from ztb_jax.apg.objective import Hyper as GrowthHyper
from ztb_jax.evaluation import oracle
from ztb_jax.evaluation.backtest import Trace, make_policy_backtest
from ztb_jax.learner import Learner
from ztb_jax.policies.distributions import distribution_for
from ztb_jax.policies.policy import Policy, make_policy
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.learner import Options, make_ppo
from ztb_jax.runs import loop

ENV = make_single(levels=LEVELS, episode_bars=64)
EXPOSURES = make_single(actions=actions.continuous(), episode_bars=64)
TRAIN_SEED, VALIDATION_SEED, TEST_SEED = 0, 500, 1_000
TRAIN_BARS, TEST_BARS, STEPS, EARLY = 200_000, 100_000, 524_288, 131_072
FEW_BARS, MANY_STEPS, APG_STEPS = 10_000, 1_310_720, 4_194_304
GROWTH = GrowthHyper(
    learning_rate=3e-3,
    learning_rate_schedule=(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0),
    entropy_weight=0.01,
    entropy_schedule=(1.0, 0.5, 0.25, 0.1, 0.0, 0.0),
    max_grad_norm=0.2,
)
ACCOUNTS, MINIBATCH = 256, 512


class Tuned(NamedTuple):
    """What PPO has of its own on a market."""

    gamma: float = 0.9
    lam: float = 0.8
    learning_rate: float = 1e-3
    rollout_bars: int = 32

    @property
    def num_minibatches(self) -> int:
        """Of a rollout."""
        return ACCOUNTS * self.rollout_bars // MINIBATCH


LONG = MappingProxyType({"sine": Tuned(0.97, 0.95, 3e-3, 16), "regime": Tuned(0.95, 0.9, 2e-3)})
"""Markets whose gains take many bars."""
SEEDS = MappingProxyType({"ar1": 20, "factors": 5})
EARLY_BAR, KEPT_BAR = 90.0, 95.0


def ppo_learner(
    name: str, num_features: int, steps: int, *, sharing: int = 1, shuffle: str = "auto"
) -> tuple[Policy, Learner]:
    """PPO for a market of that name, whose schedules end after `steps`."""
    policy = make_policy(
        num_features=num_features,
        account_size=2,
        num_actions=len(LEVELS),
        lookback=LOOKBACK,
        shared_torso=False,
    )
    tuned = LONG.get(name, Tuned())
    learner = make_ppo(
        ENV,
        policy,
        num_accounts=ACCOUNTS,
        rollout_bars=tuned.rollout_bars,
        sharing=sharing,
        num_updates=steps // (ACCOUNTS * tuned.rollout_bars),
        hyper=Hyper(learning_rate=tuned.learning_rate, gamma=tuned.gamma, lam=tuned.lam),
        options=Options(num_minibatches=tuned.num_minibatches, shuffle=shuffle),
    )
    return policy, learner


def apg_learner(name: str, num_features: int, steps: int) -> tuple[Policy, Learner]:
    """Analytic policy gradients for a market of that name, whose schedules end after `steps`."""
    policy = make_policy(
        num_features=num_features,
        account_size=2,
        distribution=distribution_for(EXPOSURES.actions),
        lookback=LOOKBACK,
        shared_torso=False,
    )
    num_accounts, rollout_bars = 64, 16
    learner = make_apg(
        EXPOSURES,
        policy,
        num_accounts=num_accounts,
        rollout_bars=rollout_bars,
        sharing=1,
        num_updates=steps // (num_accounts * rollout_bars),
        hyper=GROWTH.replace(gamma=0.97 if name in LONG else 0.95),
    )
    return policy, learner


class Taught(NamedTuple):
    """A learner and what it must reach.

    Attributes:
      make: (name of the market, features, steps) -> the policy and the learner.
      bars: name of the market -> % of the optimum that every seed must reach.
      early: the same after `EARLY` steps, or None.
      env: what it plays in.
      steps: to train.
    """

    make: Callable[[str, int, int], tuple[Policy, Learner]]
    bars: Mapping[str, float]
    early: float | None = None
    env: Env = ENV
    steps: int = STEPS


LEARNERS: Mapping[str, Taught] = MappingProxyType(
    {
        "PPO": Taught(ppo_learner, {"ar1": 98.0, "sine": 98.0, "leak": 98.0, "regime": 95.0}, EARLY_BAR),
        "APG": Taught(
            apg_learner,
            dict.fromkeys(("ar1", "sine", "leak", "regime"), 97.0),
            env=EXPOSURES,
            steps=APG_STEPS,
        ),
    }
)
"""Another learner joins by a line here; the rows of `shuffled` and `factors` are those of PPO."""


class Slice(NamedTuple):
    """Bars to judge on.

    Attributes:
      data: what a policy sees.
      mean: [N] conditional mean of the next return at each decision.
      best: [N] the optimal levels.
    """

    data: Any
    mean: np.ndarray
    best: np.ndarray


class School(NamedTuple):
    """A compiled learner on one market.

    Attributes:
      run: (seed) -> the traces on every slice after each window of `EARLY` steps, and the seconds of
        training.
      slices: by name.
      compiled: seconds of compiling.
    """

    run: Callable[[int], tuple[list[dict[str, Trace]], float]]
    slices: dict[str, Slice]
    compiled: float


def slice_of(market: Graded, seed: int, num_bars: int, scale: float) -> Slice:
    """A draw of `market` to judge on."""
    drawn = market.draw(seed, num_bars)
    decided = slice(LOOKBACK - 1, -1)
    return Slice(data_of(market, drawn, scale), drawn.mean[decided], market.best(drawn.state[decided]))


def score(market: Graded, judged: Slice, path: np.ndarray) -> float:
    """Expected log growth per bar of a path on a slice."""
    return oracle.score_by_conditional_mean(
        np.asarray(path, np.float64), judged.mean, market.cost, sigma=market.sigma
    )


def open_school(
    name: str, taught: Taught, *, train_bars: int, steps: int, slices: Mapping[str, tuple[int, int]]
) -> School:
    """Compile a learner on a market.

    Args:
      name: of the market.
      taught: the learner.
      train_bars: bars to train on.
      steps: to train.
      slices: name -> (seed, bars) of what to judge on.
    """
    market = MARKETS[name]
    drawn = market.draw(TRAIN_SEED, train_bars)
    scale = float(returns_of(drawn.frame).std())
    data = data_of(market, drawn, scale)
    policy, learner = taught.make(name, data.features.shape[1], steps)
    judged = {key: slice_of(market, seed, size, scale) for key, (seed, size) in slices.items()}
    started = time.perf_counter()
    window = loop.compile_window(
        learner, loop.initialise(learner, 0, data), data, num_updates=EARLY // learner.env_steps
    )
    compiled = time.perf_counter() - started
    backtest = make_policy_backtest(policy, taught.env)

    def run(seed: int) -> tuple[list[dict[str, Trace]], float]:
        seconds, curve = 0.0, []
        state = loop.initialise(learner, seed, data)
        for _ in range(steps // EARLY):
            started = time.perf_counter()
            state, _ = jax.block_until_ready(window(state, data))
            seconds += time.perf_counter() - started
            params = learner.params(state)
            curve.append({key: backtest(params, each.data) for key, each in judged.items()})
        return curve, seconds

    return School(run, judged, compiled)


def graded(name: str, learner_name: str, seeds: range) -> list[Row]:
    """The rows of one learner on one market with an optimum."""
    market, taught = MARKETS[name], LEARNERS[learner_name]
    slices = {"test": (TEST_SEED, TEST_BARS)}
    school = open_school(name, taught, train_bars=TRAIN_BARS, steps=taught.steps, slices=slices)
    reached, seconds = curves(market, school, seeds)
    rows = [
        _worst(f"{learner_name}, {market.title}", [curve[-1] for curve in reached], taught.bars[name]),
        _worst(f"the same after {EARLY:,} steps", [curve[0] for curve in reached], taught.early),
    ]
    note = f"compiling {school.compiled:.1f} s, median run {statistics.median(seconds):.1f} s"
    slowest = max(seconds) + school.compiled
    return [*rows, Row("60 s / its slowest run with compiling", 60.0 / slowest, "×", bar=1.0, note=note)]


def curves(market: Graded, school: School, seeds: range) -> tuple[list[list[float]], list[float]]:
    """For each seed % of the optimum on the test after every window, and the seconds of training."""
    test = school.slices["test"]
    best = score(market, test, test.best)
    reached, seconds = [], []
    for seed in seeds:
        curve, spent = school.run(seed)
        reached.append([100.0 * score(market, test, np.asarray(now["test"].level)) / best for now in curve])
        seconds.append(spent)
    return reached, seconds


def references(name: str) -> list[Row]:
    """What the reference policies reach of one market's optimum."""
    market = MARKETS[name]
    test = slice_of(market, TEST_SEED, TEST_BARS, 1.0)
    best = score(market, test, test.best)
    paths = {
        "myopic": oracle.myopic(test.mean, market.cost, sigma=market.sigma, levels=LEVELS),
        "cost-blind": oracle.cost_blind(test.mean, levels=LEVELS),
    }
    note = f"optimum {1e4 * best:.2f} bp/bar"
    return [
        Row(f"{key} policy", 100.0 * score(market, test, path) / best, "% of optimum", note=note)
        for key, path in paths.items()
    ]


def shuffled(learner_name: str, seeds: range) -> list[Row]:
    """Seeds whose net return on shuffled bars is no more than luck."""
    slices = {"test": (TEST_SEED, TEST_BARS)}
    school = open_school(
        "shuffled", LEARNERS[learner_name], train_bars=TRAIN_BARS, steps=STEPS, slices=slices
    )
    gains = [np.asarray(school.run(seed)[0][-1]["test"].gain, np.float64) for seed in seeds]
    threshold = statistics.NormalDist().inv_cdf(1.0 - 0.05 / len(seeds))
    lucky = [gain.mean() > threshold * gain.std() / math.sqrt(gain.size) for gain in gains]
    means = [1e4 * gain.mean() for gain in gains]
    note = f"net {statistics.median(means):+.2f} bp/bar, at most {max(means):+.2f}"
    title = f"{learner_name}, {MARKETS['shuffled'].title}: seeds of {len(seeds)} without a profit"
    return [Row(title, len(seeds) - sum(lucky), "seeds", bar=len(seeds), note=note)]


def stopped(learner_name: str, seeds: range) -> list[Row]:
    """Early stopping on `factors` against the end of the training and the best of the curve."""
    market, taught = MARKETS["factors"], LEARNERS[learner_name]
    slices = {"validation": (VALIDATION_SEED, FEW_BARS), "test": (TEST_SEED, TEST_BARS)}
    school = open_school("factors", taught, train_bars=FEW_BARS, steps=MANY_STEPS, slices=slices)
    test = school.slices["test"]
    best = score(market, test, test.best)
    chosen, last, top, kept = [], [], [], []
    for seed in seeds:
        curve, _ = school.run(seed)
        growth = [np.log1p(np.asarray(now["validation"].gain, np.float64)).mean() for now in curve]
        reached = [100.0 * score(market, test, np.asarray(now["test"].level)) / best for now in curve]
        chosen.append(reached[int(np.argmax(growth))])
        last.append(reached[-1])
        top.append(max(reached))
        kept.append(100.0 * chosen[-1] / top[-1])
    title = f"{learner_name}, {market.title}"
    return [
        _worst(f"{title}, stopped early / best of the curve", kept, KEPT_BAR, unit="%"),
        _worst("the same, stopped early", chosen),
        _worst(f"the same, after {MANY_STEPS:,} steps", last),
        _worst("the same, best of the curve", top),
    ]


def _worst(name: str, values: list[float], bar: float | None = None, unit: str = "% of optimum") -> Row:
    note = f"worst of {len(values)} seeds, median {statistics.median(values):.2f}"
    return Row(name, min(values), unit, min(values), max(values), bar=bar, note=note)


def rows_of(name: str, seeds: int | None) -> list[Row]:
    """Every row of one market."""
    numbers = range(SEEDS.get(name, 10) if seeds is None else seeds)
    special = {"shuffled": shuffled, "factors": stopped}
    if name in special:
        return [*special[name]("PPO", numbers), *(references(name) if name == "factors" else [])]
    learnt = [
        row for key, taught in LEARNERS.items() if name in taught.bars for row in graded(name, key, numbers)
    ]
    return [*learnt, *references(name)]


def run(
    json_file: Path | None,
    *,
    markets: Sequence[str] | None = None,
    seeds: int | None = None,
    beside_sb3: bool = False,
) -> int:
    """Train, grade and report.

    Args:
      json_file: where to write the figures, or None.
      markets: names of `MARKETS`; None is all.
      seeds: of each market; None is 20 of the AR(1), 5 of the factors and 10 of the others.
      beside_sb3: the rows of `benchmarks.learn_sb3` instead; None is then 3 seeds.
    """
    names = tuple(MARKETS) if markets is None else markets
    unknown = [name for name in names if name not in MARKETS]
    if unknown or (seeds is not None and seeds < 1):
        raise SystemExit(
            f"--markets {unknown} --seeds {seeds}: take of {', '.join(MARKETS)}, and 1 seed or more"
        )
    if beside_sb3:
        from benchmarks import learn_sb3

        return finish("Learning beside SB3", learn_sb3.rows(names, seeds), json_file=json_file)
    rows = [row for name in names for row in rows_of(name, seeds)]
    return finish("Learning", rows, json_file=json_file)
