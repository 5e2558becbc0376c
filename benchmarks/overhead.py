"""What trust costs: gates, and a checkpoint after every window; and for how long a save stops training.

The main job's learner at its defaults. Training is timed in turn with nothing around it, with the gates in
the window and between windows, and with a checkpoint of the carry and of the best policy after each window,
on the disk before the next one is saved, as in the main job. Ratios are of neighbours in time, the median of
all.

With every sink and with a replay of every window: see `benchmarks.watching`.

The save is of 200 MB of random numbers in 40 arrays: from the call to its return, while training stands
still.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.harness import Row, finish, in_turn, rate_row
from benchmarks.train import prepared
from benchmarks.watching import watching_rows
from ztb_jax import build, gates, gating, schedule
from ztb_jax.config import Config
from ztb_jax.runs import checkpoint, loop

REPEATS, WINDOWS, SAVES = 15, 4, 9
ARRAYS, ELEMENTS = 40, 1_250_000  # 200 MB of float32
MOST_BLOCKED = 0.020  # seconds


class Trainer:
    """A compiled learner that goes on for `WINDOWS` windows at every call."""

    def __init__(self, config: Config, learner: Any, data: Any, after: Callable[[int, Any], Any]):
        self.data, self.after, self.number = data, after, 0
        self.state = loop.initialise(learner, config.seed, data)
        self.window = loop.compile_window(learner, self.state, data, num_updates=config.run.window_updates)

    def __call__(self) -> None:
        """Train."""
        for _ in range(WINDOWS):
            self.state, metrics = self.window(self.state, self.data)
            jax.device_get(metrics)
            self.after(self.number, self.state)
            self.number += 1


def training_rows(folder: Path) -> list[Row]:
    """Training alone, with gates, and with checkpoints."""
    config = Config()
    ready = prepared(config)
    data = ready.slices["train"]
    plain = build.LEARNERS[config.learner](
        config,
        build.make_environment(config, measured=ready.measured),
        build.make_network(config, num_features=ready.num_features),
    )
    gated = gates.gated(plain, gating.make_update_gates(config))
    watch = gating.make_window_gates(config, memory_gb=1e3)
    judge, judged = jax.jit(watch.update), watch.init()
    facts = gates.facts(rss_gb=1.0, validation=0.0, repeated_steps=0.0)
    with checkpoint.Checkpoints(folder, keep=config.run.keep_checkpoints) as writer:

        def save(number: int, state: Any) -> None:
            writer.save(number, {"carry": state, "best": plain.params(state)}, {"window": number})

        ways = {
            "alone": Trainer(config, plain, data, lambda number, state: None),
            "with gates": Trainer(config, gated, data, lambda number, state: int(judge(judged, facts)[1])),
            "with checkpoints": Trainer(config, plain, data, save),
        }
        seconds = in_turn(ways, REPEATS)
    steps = WINDOWS * schedule.window_env_steps(config) / 1e3
    rows = [rate_row(f"training {name}", steps, spent, unit="k steps/s") for name, spent in seconds.items()]
    for name, bar in (("with gates", 0.99), ("with checkpoints", 0.97)):
        ratios = [alone / its for alone, its in zip(seconds["alone"], seconds[name], strict=True)]
        rows.append(Row(f"{name} / alone", statistics.median(ratios), "×", min(ratios), max(ratios), bar=bar))
    return rows


def blocking_rows(folder: Path) -> list[Row]:
    """Seconds for which a save of 200 MB stops what calls it, and until it is durable."""
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1.0, state), donate_argnums=0)
    draw = np.random.default_rng(0)
    state = step({str(n): draw.normal(size=ELEMENTS).astype(np.float32) for n in range(ARRAYS)})
    blocked, durable = [], []
    with checkpoint.Checkpoints(folder, keep=2) as writer:
        for number in range(1 + SAVES):
            jax.block_until_ready(state)
            started = time.perf_counter()
            writer.save(number, {"state": state}, {})
            blocked.append(time.perf_counter() - started)
            state = step(state)
            writer.wait()
            durable.append(time.perf_counter() - started)
    blocked, durable = blocked[1:], durable[1:]
    typical = statistics.median(blocked)
    return [
        Row("a save of 200 MB blocks", 1e3 * typical, "ms", 1e3 * min(blocked), 1e3 * max(blocked)),
        Row("20 ms / what it blocks", MOST_BLOCKED / typical, "×", bar=1.0),
        Row("it is durable after", statistics.median(durable), "s", min(durable), max(durable)),
    ]


PARTS = {"trust": training_rows, "watching": watching_rows, "blocking": blocking_rows}


def run(json_file: Path | None, *, parts: Sequence[str] | None = None) -> int:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for part in parts or PARTS for row in PARTS[part](Path(folder) / part)]
    return finish("Overhead", rows, json_file=json_file)
