"""What shuffles and shared bars do to learning and to speed, on AR(1) at 20 bp with the settings of `learn`.

256 accounts on bars of their own, or 16 groups of 16 on the same bars; minibatches of 512 out of 8,192 steps
as each shuffle cuts them. Three seeds each; the speed is that of the same runs.
"""

import statistics
from functools import partial
from pathlib import Path

from benchmarks import learn
from benchmarks.harness import Row, finish
from benchmarks.markets import MARKETS

SEEDS, TEST_BARS, MARKET = range(3), 50_000, "ar1"
CUTS = (
    (1, "segments"),
    (1, "full"),
    (1, "affine"),
    (16, "accounts"),
    (16, "segments"),
    (16, "full"),
    (16, "affine"),
)


def rows_of(sharing: int, shuffle: str) -> list[Row]:
    """Learning, early and at the end, and speed of one way to cut a rollout."""
    taught = learn.LEARNERS["PPO"]._replace(make=partial(learn.ppo_learner, sharing=sharing, shuffle=shuffle))
    school = learn.open_school(
        MARKET,
        taught,
        train_bars=learn.TRAIN_BARS,
        steps=learn.STEPS,
        slices={"test": (learn.TEST_SEED, TEST_BARS)},
    )
    reached, seconds = learn.curves(MARKETS[MARKET], school, SEEDS)
    title = f"{shuffle}, {sharing} accounts on the same bars"
    told = []
    for name, index in ((f"after {learn.EARLY:,} steps", 0), (f"after {learn.STEPS:,}", -1)):
        values = [curve[index] for curve in reached]
        told.append(
            Row(f"{title}, {name}", statistics.mean(values), "% of optimum", min(values), max(values))
        )
    rates = [learn.STEPS / 1e3 / spent for spent in seconds]
    return [*told, Row(f"{title}, speed", statistics.median(rates), "k steps/s", min(rates), max(rates))]


def run(json_file: Path | None) -> int:
    """Measure and report."""
    rows = [row for sharing, shuffle in CUTS for row in rows_of(sharing, shuffle)]
    return finish("Shuffles and shared bars", rows, json_file=json_file)
