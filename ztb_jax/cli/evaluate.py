"""`ztb evaluate RUN`: judge a saved policy again."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from ztb_jax.cli.train import told_edge
from ztb_jax.errors import RunError
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
    ledger: str | None = None
    """File of all scorings, when not where the run had it."""
    require_edge: bool = False
    """End with exit status 3 unless the verdict is an edge; of the test slice alone."""


def main(arguments: list[str]) -> int:
    """Evaluate; the last line on standard output is the report."""
    command = tyro.cli(Evaluate, args=arguments, prog="ztb evaluate")
    if command.require_edge and command.slice != "test":
        raise RunError(
            f"--require-edge asks for a verdict, and there is none on the {command.slice} slice, which made "
            "the policy: leave one of the two out"
        )
    run = directory.find(command.run)
    asked = {"data.cache_dir": command.cache_dir, "run.ledger": command.ledger}
    with Reporter() as reporter:
        reporter.phase("loading", "jax")
        from ztb_jax.runs import loop
        from ztb_jax.training import evaluate

        loop.use_compilation_cache()
        result = evaluate.judge(
            run,
            reporter,
            slice_name=command.slice,
            flags={key: value for key, value in asked.items() if value is not None},
        )
    evaluate.print_result(result)
    sys.stdout.write(f"{run.results(command.slice)[1]}\n")
    return told_edge(result["edge"], "ztb evaluate") if command.require_edge else 0
