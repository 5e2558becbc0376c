"""`ztb verify RUN`: make a run again and compare every bit of it."""

import dataclasses
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from ztb_jax.training.interrupt import stop_requests
from ztb_jax.training.progress import Reporter


@dataclass(frozen=True)
class Verify:
    """Make a run again in memory and compare it with what the run recorded, window by window."""

    run: tyro.conf.Positional[Path]
    """The run directory; nothing is written there."""
    windows: int | None = None
    """Only the first so many windows."""
    cache_dir: str | None = field(default_factory=lambda: os.environ.get("ZTB_DATA__CACHE_DIR"))
    """Folder of the prices, when not where the run had them; ZTB_DATA__CACHE_DIR sets it, too."""
    json: bool = False
    """One JSON object on standard output instead of sentences."""


def main(arguments: list[str]) -> int:
    """Verify; exit status 0 for identical bits or within the tolerance, 1 for anything else."""
    command = tyro.cli(Verify, args=arguments, prog="ztb verify")
    with stop_requests() as stop, Reporter() as reporter:
        reporter.phase("loading", "jax")
        from ztb_jax.runs import loop
        from ztb_jax.training import verify

        loop.use_compilation_cache()
        found = verify.verify(
            command.run, reporter, stop, windows=command.windows, cache_dir=command.cache_dir
        )
    lines = [json.dumps(dataclasses.asdict(found), indent=2)] if command.json else found.sentences()
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if found.result == "different" else 0
