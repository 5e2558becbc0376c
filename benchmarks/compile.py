"""Seconds until the main job's learner can train: cold, and with its programs in the cache on disk.

Each figure is of a process of its own, from a loaded market to both programs compiled (`programs.compiled`);
importing and reading prices are told apart from it. The median of three.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Row, finish

REPEATS = 3
BARS = {"cold": 5.0, "cached": 0.7}


def measure() -> dict[str, float]:
    """Seconds of tracing and compiling in this process."""
    import jax

    from benchmarks.train import prepared
    from ztb_jax import build
    from ztb_jax.config import Config
    from ztb_jax.runs import loop, programs

    config = Config()
    ready = prepared(config)
    data = ready.slices["train"]
    jax.block_until_ready(data)
    loop.use_compilation_cache()
    started = time.perf_counter()
    learner = build.make_learner(config, num_features=ready.num_features)
    programs.compiled(learner, data, num_updates=config.run.window_updates, described=repr(config))
    return {"seconds": time.perf_counter() - started}


def in_a_process(cache: str) -> float:
    """As `measure`, in a fresh process whose programs are kept in `cache`."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compile"],
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])["seconds"]


def run(json_file: Path | None) -> int:
    """Measure and report."""
    seconds: dict[str, list[float]] = {name: [] for name in BARS}
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as cache:
            for name in BARS:  # the first fills the cache that the second finds
                seconds[name].append(in_a_process(cache))
    rows = []
    for name, bar in BARS.items():
        spent = seconds[name]
        rows.append(Row(f"init and window, {name}", statistics.median(spent), "s", min(spent), max(spent)))
        rows.append(Row(f"{bar:g} s / {name}", bar / statistics.median(spent), "×", bar=1.0))
    return finish("Compiling", rows, json_file=json_file)


if __name__ == "__main__":
    print(json.dumps(measure()))
