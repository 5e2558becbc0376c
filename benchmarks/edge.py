"""How often the verdict errs: the rule on returns whose truth is known, without any training.

Nobody can time these markets, so every edge found is a false one: normal, Student's t (3 degrees of freedom)
and GARCH returns without a drift, and a drift of a Sharpe ratio of 1 a year. Policies trade at random and
free of costs, which makes false edges likelier than costs would. On AR(1) markets a policy that follows the
sign of the last return has a known Sharpe ratio. A year has 252 bars.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator

from benchmarks.harness import Row, finish
from ztb_jax.evaluation.edge import judge_edge

YEAR, BARS, SIGMA = 252.0, 2520, 0.01
HISTORIES = 2_000  # of each market
FAR = 15_000  # where a false edge must be rare
TRIALS = 10
# What is promised, less three sampling errors of 2,000 histories: no false edge in 95 %, a Sharpe ratio of
# 2 found in 90 %.
BAR = 0.95 - 3 * 0.005
FOUND = 0.90 - 3 * 0.0067


def normal(rng: Generator, bars: int) -> np.ndarray:
    """Independent, without drift."""
    return SIGMA * rng.standard_normal(bars)


def student(rng: Generator, bars: int) -> np.ndarray:
    """Student's t of three degrees of freedom: no fourth moment."""
    return SIGMA * rng.standard_t(3, bars) / np.sqrt(3.0)


def garch(rng: Generator, bars: int) -> np.ndarray:
    """GARCH(1, 1) with 0.1 and 0.88: volatility in clusters, no drift."""
    noise, moves, variance = rng.standard_normal(bars), np.empty(bars), SIGMA**2
    for bar in range(bars):
        moves[bar] = np.sqrt(variance) * noise[bar]
        variance = 0.02 * SIGMA**2 + 0.1 * moves[bar] ** 2 + 0.88 * variance
    return moves


def drifting(rng: Generator, bars: int) -> np.ndarray:
    """Independent, with a Sharpe ratio of 1 a year for who holds."""
    return normal(rng, bars) + SIGMA / np.sqrt(YEAR)


def autocorrelated(rng: Generator, bars: int, slope: float) -> np.ndarray:
    """AR(1) of the given slope and spread `SIGMA`."""
    moves, last = SIGMA * np.sqrt(1.0 - slope**2) * rng.standard_normal(bars), 0.0
    for bar in range(bars):
        last = moves[bar] = slope * last + moves[bar]
    return moves


def at_random(rng: Generator, bars: int) -> np.ndarray:
    """Long or flat, changing sides every twenty bars on average."""
    return (np.cumsum(rng.uniform(size=bars) < 0.05) + rng.integers(2)) % 2.0


def seldom(rng: Generator, bars: int) -> np.ndarray:
    """Flat but for ten stretches of five bars."""
    position = np.zeros(bars)
    for start in rng.integers(0, bars - 5, 10):
        position[start : start + 5] = 1.0
    return position


def nearly_always(rng: Generator, bars: int) -> np.ndarray:
    """Long but for ten stretches of five bars."""
    return 1.0 - seldom(rng, bars)


def slowly(rng: Generator, bars: int) -> np.ndarray:
    """Long or flat, changing sides every 250 bars on average."""
    return (np.cumsum(rng.uniform(size=bars) < 0.004) + rng.integers(2)) % 2.0


def labels(
    market: Callable[[Generator, int], np.ndarray],
    policy: Callable[[Generator, int], np.ndarray],
    *,
    policies: int = 1,
    trials: int = 1,
    histories: int = HISTORIES,
) -> Counter[str]:
    """Labels of histories, judged at M = `trials`; of several policies on each, an edge if any is one.

    Else the first policy's label stands for the history.
    """
    counts: Counter[str] = Counter()
    for seed in range(histories):
        rng = np.random.default_rng(seed)
        moves = market(rng, BARS)
        found = [
            judge_edge(policy(rng, BARS) * moves, moves, trials=trials, bars_per_year=YEAR).label
            for _ in range(policies)
        ]
        counts["edge" if "edge" in found else found[0]] += 1
    return counts


def followed(slope: float, bars: int, *, trials: int = 1) -> tuple[Counter[str], float]:
    """Labels of a policy that follows the last return's sign, and its mean Sharpe ratio of a year."""
    counts: Counter[str] = Counter()
    ratios = []
    for seed in range(HISTORIES):
        moves = autocorrelated(np.random.default_rng(seed), bars + 1, slope)
        returns = np.sign(moves[:-1]) * moves[1:]
        counts[judge_edge(returns, moves[1:], trials=trials, bars_per_year=YEAR).label] += 1
        ratios.append(returns.mean() / returns.std() * np.sqrt(YEAR))
    return counts, float(np.mean(ratios))


def run(*, json_file: Path | None) -> int:
    """Print how often there is a false edge, and how often a true one is found."""
    rows = []
    markets = {"normal": normal, "Student t(3)": student, "GARCH": garch, "drift of Sharpe 1": drifting}
    policies = {
        "long or flat at random": at_random,
        "ten short stretches": seldom,
        "all but ten short stretches": nearly_always,
        "long or flat, ten changes": slowly,
    }
    for market, draw in markets.items():
        for policy, act in policies.items():
            counts = labels(draw, act)
            rows.append(_honest(f"{market}, {policy}", counts))
    for market in ("normal", "drift of Sharpe 1"):
        counts = labels(markets[market], at_random, policies=TRIALS, trials=TRIALS)
        rows.append(_honest(f"{market}, any of {TRIALS} policies, M = {TRIALS}", counts))
    counts = labels(normal, at_random, policies=TRIALS)
    rows.append(
        Row(
            f"normal, any of {TRIALS} policies, each judged at M = 1: a false edge",
            _percent(counts, "edge"),
            "%",
        )
    )
    for policy in ("long or flat at random", "ten short stretches"):
        for trials in (10, 100):
            counts = labels(drifting, policies[policy], trials=trials, histories=FAR)
            name = f"drift of Sharpe 1, {policy}, M = {trials}: a false edge"
            rows.append(Row(name, _percent(counts, "edge"), "%", note=f"{5 / trials:.2g} % promised"))
    for slope, bars, trials, bar in (
        (0.158, 540, 1, FOUND), (0.158, 940, 10, FOUND), (0.158, 1320, 100, FOUND),
        (0.158, 2520, 1, FOUND), (0.079, 2520, 1, None),
    ):  # fmt: skip
        counts, ratio = followed(slope, bars, trials=trials)
        name = f"AR(1), a Sharpe ratio of {ratio:.2f}, {bars:,} bars, M = {trials}: edge found"
        rows.append(_share(name, counts, "edge", bar))
    return finish("Verdict", rows, json_file=json_file)


def _honest(name: str, counts: Counter[str]) -> Row:
    unharmed = 100.0 - _percent(counts, "edge")
    return Row(f"{name}: no false edge", unharmed, "%", bar=100.0 * BAR, note=_told(counts))


def _share(name: str, counts: Counter[str], label: str, bar: float | None) -> Row:
    wanted = None if bar is None else 100.0 * bar
    return Row(name, _percent(counts, label), "%", bar=wanted, note=_told(counts))


def _percent(counts: Counter[str], label: str) -> float:
    return 100.0 * counts[label] / counts.total()


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {_percent(counts, name):.1f} %" for name in ("edge", "no edge", "inconclusive"))
