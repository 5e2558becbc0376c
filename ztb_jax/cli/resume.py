"""`ztb resume RUN`: go on with a run that was stopped."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from ztb_jax.cli.train import ending
from ztb_jax.training.interrupt import stop_requests
from ztb_jax.training.progress import Reporter


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its newest checkpoint that is whole, to the bits it would have had."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    allow_drift: bool = False
    """Go on though code, packages, machine, settings or prices have changed; the seal will tell."""
    cache_dir: str | None = field(default_factory=lambda: os.environ.get("ZTB_DATA__CACHE_DIR"))
    """Folder of the prices, when not where the run had them; ZTB_DATA__CACHE_DIR sets it, too."""
    device: str | None = None
    """Another run.device than before; --allow-drift if it is of another kind."""
    devices: int | None = None
    """Another number of devices than before; needs --allow-drift."""
    ledger: str | None = None
    """File of all scorings, when not where the run had it."""
    require_edge: bool = False
    """End with exit status 3 unless the verdict is an edge."""


def main(arguments: list[str]) -> int:
    """Resume; the last line on standard output is the run directory."""
    command = tyro.cli(Resume, args=arguments, prog="ztb resume")
    asked = {
        "data.cache_dir": command.cache_dir,
        "run.device": command.device,
        "run.devices": command.devices,
        "run.ledger": command.ledger,
    }
    with stop_requests() as stop, Reporter() as reporter:
        reporter.phase("loading", "jax")
        from ztb_jax.runs import loop
        from ztb_jax.training import resume

        loop.use_compilation_cache()
        outcome = resume.resume(
            command.run,
            reporter,
            stop,
            allow_drift=command.allow_drift,
            flags={key: value for key, value in asked.items() if value is not None},
        )
    return ending(outcome, "ztb resume", require_edge=command.require_edge)
