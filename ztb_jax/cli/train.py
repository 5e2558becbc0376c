"""`ztb train`: configuration from a file, the environment and flags; then the main job."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

import tyro

from ztb_jax.config import Config, flat, layered, resolve
from ztb_jax.runs import directory
from ztb_jax.training.interrupt import stop_requests
from ztb_jax.training.progress import Reporter

STATUS = {"completed": 0, "failed": 1, "cancelled": 130}


def main(arguments: list[str]) -> int:
    """Run the main job; its last line on standard output is the run directory.

    `--resume RUN` goes on with a run that was stopped, as `ztb resume RUN` does.
    """
    switch = argparse.ArgumentParser(prog="ztb train", add_help=False, allow_abbrev=False)
    switch.add_argument("--resume")
    known, rest = switch.parse_known_args(arguments)
    if known.resume is not None:
        from ztb_jax.cli import resume

        return resume.main([known.resume, *rest])
    return run(parse(arguments), prog="ztb train")


def run(config: Config, *, prog: str, facts: Mapping[str, Any] | None = None) -> int:
    """Run the main job and print how it ended; the exit status.

    Args:
      config: resolved.
      prog: the program's name in messages.
      facts: for the run's metadata, beside what the job itself knows.
    """
    directory.check_name(config.run.root, config.run.id)
    # From before jax is imported: an interrupt in the middle of that import ends in its own traceback.
    with stop_requests() as stop, Reporter() as reporter:
        reporter.phase("loading", "jax")
        from ztb_jax.runs import loop
        from ztb_jax.training import job

        loop.use_compilation_cache()
        outcome = job.train(config, reporter, stop, facts=facts)
    return ending(outcome, prog)


def ending(outcome: Any, prog: str) -> int:
    """Print how a job ended, a `ztb_jax.training.job.Outcome`; the exit status."""
    from ztb_jax.training import evaluate

    if outcome.result is not None:
        evaluate.print_result(outcome.result)
    if outcome.metadata["error"] is not None:
        sys.stderr.write(f"{prog}: {outcome.metadata['error']}\n")
    sys.stdout.write(f"{outcome.run.path}\n")
    return STATUS[outcome.metadata["status"]]


def parse(
    arguments: list[str],
    *,
    prog: str = "ztb train",
    flags: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration that `--config FILE`, the environment and the flags in `arguments` make.

    `--device NAME` and `--profile` are short for `--run.device NAME` and `--run.profile`, which beat them.

    Args:
      arguments: the flags.
      prog: the program's name in messages.
      flags: settings by dotted key that were asked for otherwise; those in `arguments` beat them.
      defaults: settings by dotted key that are weaker than all that is asked for.

    Raises:
      ConfigError: see `ztb_jax.config.resolve`.
      SystemExit: a flag does not parse (2), or help was asked for (0); the message is printed.
    """
    short = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    short.add_argument("--config")
    short.add_argument("--preset")  # what it lays down must be there before flags go over it
    short.add_argument("--device", dest="run.device")
    short.add_argument("--profile", dest="run.profile", action="store_const", const=True)
    known, rest = short.parse_known_args(arguments)
    asked = {key: value for key, value in vars(known).items() if value is not None}
    file = asked.pop("config", None)
    base = layered(file=file, flags=dict(flags or {}) | asked, defaults=defaults)
    flagged = tyro.cli(
        Config,
        args=rest,
        default=base,
        prog=prog,
        description="Train, choose and judge a policy. `--config FILE` reads YAML first; then "
        "ZTB_SECTION__KEY variables; then these flags. `--device` and `--profile` are short for "
        "`--run.device` and `--run.profile`.",
    )
    # The file, the variables and the short flags were checked above, so what is found wrong now is a flag's.
    return resolve(environ={}, flags=flat(flagged))
