"""`ztb evaluate RUN`: judge a saved policy again."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from ztb_jax.runs import directory
from ztb_jax.training.progress import Reporter


@dataclass(frozen=True)
class Evaluate:
    """Judge a run's saved policy, and write its evaluation.json and report.html anew."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    slice: Literal["test", "validation", "train"] = "test"
    """Which slice; another than test goes to files of its own, for it was trained or chosen on."""
    cache_dir: str | None = field(default_factory=lambda: os.environ.get("ZTB_DATA__CACHE_DIR"))
    """Folder of the prices, when not where the run had them; ZTB_DATA__CACHE_DIR sets it, too."""


def main(arguments: list[str]) -> int:
    """Evaluate; the last line on standard output is the report."""
    command = tyro.cli(Evaluate, args=arguments, prog="ztb evaluate")
    run = directory.find(command.run)
    with Reporter() as reporter:
        reporter.phase("loading", "jax")
        from ztb_jax.runs import loop
        from ztb_jax.training import evaluate

        loop.use_compilation_cache()
        result = evaluate.judge(run, reporter, slice_name=command.slice, cache_dir=command.cache_dir)
    evaluate.print_result(result)
    sys.stdout.write(f"{run.results(command.slice)[1]}\n")
    return 0
