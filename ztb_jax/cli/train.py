"""`ztb train`: configuration from a file, the environment and flags; then the main job."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

from ztb_jax.config import Config, flat, layered, resolve
from ztb_jax.runs import directory
from ztb_jax.training.interrupt import stop_requests
from ztb_jax.training.progress import Reporter

STATUS = {"completed": 0, "failed": 1, "cancelled": 130}
NO_EDGE = 3  # of a command with --require-edge


def main(arguments: list[str]) -> int:
    """Run the main job; its last line on standard output is the run directory.

    `--resume RUN` goes on with a run that was stopped, as `ztb resume RUN` does. With `--require-edge` the
    exit status is 3 unless the verdict is an edge.
    """
    switch = argparse.ArgumentParser(prog="ztb train", add_help=False, allow_abbrev=False)
    switch.add_argument("--resume")
    known, rest = switch.parse_known_args(arguments)
    if known.resume is not None:
        from ztb_jax.cli import resume

        return resume.main([known.resume, *rest])
    require_edge, rest = edge_required(arguments)
    return run(parse(rest), prog="ztb train", require_edge=require_edge)


def edge_required(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether `--require-edge` is among the arguments, and the others."""
    switch = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    switch.add_argument("--require-edge", action="store_true")
    known, rest = switch.parse_known_args(list(arguments))
    return known.require_edge, rest


def run(
    config: Config, *, prog: str, facts: Mapping[str, Any] | None = None, require_edge: bool = False
) -> int:
    """Run the main job and print how it ended; the exit status.

    Args:
      config: resolved.
      prog: the program's name in messages.
      facts: for the run's metadata, beside what the job itself knows.
      require_edge: the status is 3 where all went well and the verdict is no edge.
    """
    directory.check_name(config.run.root, config.run.id)
    # From before jax is imported: an interrupt in the middle of that import ends in its own traceback.
    with stop_requests() as stop, Reporter() as reporter:
        reporter.phase("loading", "jax")
        from ztb_jax.runs import loop
        from ztb_jax.training import job

        loop.use_compilation_cache()
        outcome = job.train(config, reporter, stop, facts=facts)
    return ending(outcome, prog, require_edge=require_edge)


def ending(outcome: Any, prog: str, *, require_edge: bool = False) -> int:
    """Print how a job ended, a `ztb_jax.training.job.Outcome`; the exit status, as of `run`."""
    from ztb_jax.training import evaluate

    if outcome.result is not None:
        evaluate.print_result(outcome.result)
    if outcome.metadata["error"] is not None:
        sys.stderr.write(f"{prog}: {outcome.metadata['error']}\n")
    sys.stdout.write(f"{outcome.run.path}\n")
    status = STATUS[outcome.metadata["status"]]
    if require_edge and status == 0 and outcome.result is not None:
        return told_edge(outcome.result["edge"], prog)
    return status


def told_edge(edge: Mapping[str, Any], prog: str) -> int:
    """The exit status that `--require-edge` asks for: 0 for an edge; else 3, and standard error says why."""
    if edge["label"] == "edge":
        return 0
    sys.stderr.write(f"{prog}: --require-edge: the verdict is {edge['label']}. {edge['reasons'][0]}\n")
    return NO_EDGE


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
        "`--run.device` and `--run.profile`. With `--require-edge` the exit status is 3 unless the verdict "
        "is an edge.",
    )
    # The file, the variables and the short flags were checked above, so what is found wrong now is a flag's.
    return resolve(environ={}, flags=flat(flagged))
