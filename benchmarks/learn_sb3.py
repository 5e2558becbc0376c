"""Stable-Baselines3's PPO on the markets of `benchmarks.learn`, beside ours: equal sizes, numbers and steps.

Both learn with schedules that end with the run, for 131,072 and for 524,288 steps, and are judged on the same
20,000 unseen bars. Ours begins windows with any of the levels, SB3's environment flat.
"""

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import learn
from benchmarks.harness import Row
from benchmarks.markets import LEVELS, MARKETS, data_of, returns_of
from benchmarks.peers import task, wire

SEEDS, TEST_BARS = 3, 20_000
HORIZONS = (learn.EARLY, learn.STEPS)


def rows(names: Sequence[str], seeds: int | None) -> list[Row]:
    """Both learners' per cent of the optimum on every graded market of `names`, and ours less SB3's."""
    if not wire.PYTHON.is_file():
        raise SystemExit(f"{wire.PYTHON} is not there: `make peers` builds what SB3 needs")
    numbers = range(SEEDS if seeds is None else seeds)
    graded = [name for name in names if name in learn.LEARNERS["PPO"].bars]
    return [row for name in graded for row in _market(name, numbers)]


def _market(name: str, seeds: range) -> list[Row]:
    told = []
    with tempfile.TemporaryDirectory() as folder:
        train, test, score = _slices(name, Path(folder))
        with wire.worker(
            "benchmarks.peers.sb3_learn", "sb3", train, test, json.dumps(_settings(name))
        ) as ask:
            for steps in HORIZONS:
                theirs = [score(ask("learn", seed=seed, steps=steps)["levels"]) for seed in seeds]
                told += _rows(f"{MARKETS[name].title}, {steps:,} steps", _ours(name, steps, seeds), theirs)
    return told


def _slices(name: str, folder: Path) -> tuple[str, str, Callable[[Any], float]]:
    """The files of both slices, and what a path of levels reaches of the optimum on the second."""
    market = MARKETS[name]
    drawn = market.draw(learn.TRAIN_SEED, learn.TRAIN_BARS)
    scale = float(returns_of(drawn.frame).std())
    test = learn.slice_of(market, learn.TEST_SEED, TEST_BARS, scale)
    paths = []
    for part, data in (("train", data_of(market, drawn, scale)), ("test", test.data)):
        paths.append(str(folder / f"{part}.npz"))
        task.save(Path(paths[-1]), data, episode_bars=learn.ENV.episode_bars, levels=LEVELS)
    best = learn.score(market, test, test.best)
    return paths[0], paths[1], lambda levels: 100.0 * learn.score(market, test, levels) / best


def _settings(name: str) -> dict[str, Any]:
    tuned = learn.LONG.get(name, learn.Tuned())
    sizes = {"accounts": learn.ACCOUNTS, "num_minibatches": tuned.num_minibatches}
    return sizes | tuned._asdict()


def _ours(name: str, steps: int, seeds: range) -> list[float]:
    school = learn.open_school(
        name,
        learn.LEARNERS["PPO"],
        train_bars=learn.TRAIN_BARS,
        steps=steps,
        slices={"test": (learn.TEST_SEED, TEST_BARS)},
    )
    return [curve[-1] for curve in learn.curves(MARKETS[name], school, seeds)[0]]


def _rows(title: str, ours: list[float], theirs: list[float]) -> list[Row]:
    told = [
        Row(f"{who}, {title}", float(np.mean(values)), "% of optimum", min(values), max(values))
        for who, values in (("PPO", ours), ("SB3", theirs))
    ]
    lead = float(np.mean(ours) - np.mean(theirs))
    error = math.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / len(ours)) if len(ours) > 1 else 0.0
    note = f"mean lead {lead:+.2f} points, standard error {error:.2f}"
    return [*told, Row("our lead and one standard error", lead + error, "points", bar=0.0, note=note)]
