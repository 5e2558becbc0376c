"""256 trainings as one command, beside a single long one, and beside 256 commands.

8 folds x 8 seeds x 4 configurations of 524,288 environment steps on the S&P 500, by the functions behind
`ztb walkforward` and `ztb train`, everything included that they do: validation after every window, chunks or
checkpoints on the disk, the out-of-sample result. The single training has the steps of the 256 together: half
of them before and half after, so that a machine that slows down harms neither. Rates are of the phase
`train`, in which the one program compiles, too.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, finish
from ztb_jax.cli.walkforward import DEFAULTS
from ztb_jax.config import Config, resolve
from ztb_jax.runs import loop
from ztb_jax.training import job, walkforward
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.progress import Reporter

SCHEME = walkforward.Scheme(
    folds=8, seeds=8, vary=("ppo.learning_rate=1e-3,3e-4", "ppo.entropy_weight=0.01,0.03")
)
TRAININGS = SCHEME.folds * SCHEME.seeds * 4
ALONE = 2  # trainings one after the other, each a command of its own
BAR = 0.85


class _Timed(Reporter):
    """Seconds of each phase, beside what a reporter does."""

    def __init__(self):
        super().__init__()
        self.seconds: dict[str, float] = {}
        self.began = time.perf_counter()

    def phase(self, name: str, note: str = "") -> None:
        now = time.perf_counter()
        self.seconds[self.phase_name] = self.seconds.get(self.phase_name, 0.0) + now - self.began
        self.began = now
        super().phase(name, note)


def _config(root: str, **flags: Any) -> Config:
    return resolve(environ={}, flags=DEFAULTS | {"run.root": root} | flags)


def _single(root: str, steps: int, name: str) -> float:
    """Seconds of the phase `train` of a run of its own."""
    reporter = _Timed()
    with reporter:
        job.train(_config(root, **{"run.total_env_steps": steps, "run.id": name}), reporter, StopRequest())
    return reporter.seconds["train"]


def _commands(root: str) -> list[float]:
    """Seconds of whole commands, one training each, in processes of their own; the first one warms caches."""
    flags = [f"--{key}={value}" for key, value in DEFAULTS.items()]
    taken = []
    for number in range(ALONE + 1):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "ztb_jax.training", *flags, f"--seed={number}", f"--run.root={root}"],
            check=True,
            capture_output=True,
            env={**os.environ, "CI": "1"},
        )
        taken.append(time.perf_counter() - begun)
    return taken[1:]


def run(*, json_file: Path | None) -> int:
    """Print the rates; the bar is that of one program over that of one training."""
    loop.use_compilation_cache()
    total = TRAININGS * DEFAULTS["run.total_env_steps"]
    with tempfile.TemporaryDirectory() as root:
        before = _single(root, total // 2, "before")
        reporter, begun = _Timed(), time.perf_counter()
        with reporter:
            outcome = walkforward.walk_forward(_config(root), SCHEME, reporter, StopRequest())
        whole = time.perf_counter() - begun
        after = _single(root, total // 2, "after")
        alone = _commands(root)
    assert outcome.result is not None
    together = total / reporter.seconds["train"]
    single = total / (before + after)
    mean = sum(alone) / len(alone)
    result = outcome.result
    rows = [
        Row(
            "one program, of which a single training's",
            together / single,
            "x",
            bar=BAR,
            note=f"{TRAININGS} trainings of {DEFAULTS['run.total_env_steps']:,} steps, compiling included",
        ),
        Row("one program", together / 1e3, "k steps/s", note=f"{whole:.0f} s, the whole command"),
        Row(
            "a single training",
            single / 1e3,
            "k steps/s",
            total / 2e3 / max(before, after),
            total / 2e3 / min(before, after),
            note=f"{total // 2:,} steps before, as many after",
        ),
        Row(
            "one after the other, 256 commands",
            TRAININGS * mean,
            "s",
            TRAININGS * min(alone),
            TRAININGS * max(alone),
            note=f"from {ALONE} of them, {mean:.1f} s each; {TRAININGS * mean / whole:.1f} x the one program",
        ),
        Row(
            "Sharpe ratio out of sample",
            result["strategy"]["sharpe"],
            "",
            note=f"verdict {result['edge']['label']}, M = {result['edge']['trials']}, "
            f"buy-and-hold {result['baselines']['buy_and_hold']['sharpe']:.2f}",
        ),
    ]
    return finish("Walk-forward in one program", rows, json_file=json_file)
