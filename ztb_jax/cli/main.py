"""`ztb <command>`: the same functions from a shell. Commands import what they need when they run."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ztb_jax.cli.tables import clean
from ztb_jax.errors import JobError, UserError

# Modules of this package.
COMMANDS = (
    "train", "windowed", "walkforward", "sweep", "resume", "verify", "evaluate", "replay", "runs", "ui",
    "data", "devices",
)  # fmt: skip
USAGE = """usage: {prog} COMMAND [OPTION ...]

  train              train, choose and judge a policy; prints the run directory last
  windowed           the same in windows of environment steps, with a policy file and a replay of each
  walkforward        train on the past and judge on what came next, fold after fold, all in one program
  sweep              try settings on the validation slice, and make a run of the best
  resume RUN         go on with a run that was stopped, to the bits it would have had
  verify RUN         make a run again, and say whether it is the same to the bit
  evaluate RUN       judge a run's saved policy again
  replay RUN [ID]    play a recorded episode in the terminal; --list tells what there is, --page writes it
  runs               what runs there are; show RUN tells of one and --follow watches it, compare A B
  ui                 the same in a browser, live, with replays
  data load|list|check   import price data, see what there is, or check a file
  data check-causality|check-recursive RECIPE   whether features look ahead, and the history they need
  devices            what a run can be trained on; --json for programs

`{prog} COMMAND --help` shows a command's options. The exit status is 0 for success, 1 for a failed run, 2 for
a mistake and 130 for a stop; with --require-edge, which train, windowed, walkforward, resume and evaluate
have, it is 3 unless the verdict is an edge.
"""


def main() -> None:
    """Entry point of the `ztb` script."""
    sys.exit(run(sys.argv[1:], prog="ztb"))


def run(arguments: Sequence[str], *, prog: str) -> int:
    """Run one command; the exit status.

    0, 1 for a failed run, 2 for a user's mistake, 3 where `--require-edge` asked for an edge and the verdict
    is none, 130 if stopped.

    Args:
      arguments: the command and its options.
      prog: the program's name in messages.
    """
    if not arguments or arguments[0] in {"-h", "--help"}:
        sys.stdout.write(USAGE.format(prog=prog))
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        sys.stderr.write(f"{prog}: no command {arguments[0]!r}; there are: {known}\n")
        return 2
    try:
        return import_module(f"ztb_jax.cli.{arguments[0]}").main(list(arguments[1:]))
    except BrokenPipeError:
        # Whoever read has enough; nothing may be written at the exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, JobError, OSError, MemoryError, KeyboardInterrupt) as error:
        findings, status = _told(error)
        # What a file said may be in it.
        sys.stderr.write("".join(f"{prog}: {clean(finding)}\n" for finding in findings))
        return status


def _told(error: BaseException) -> tuple[list[str], int]:
    """What to say of an error, and the exit status."""
    if isinstance(error, UserError):
        return error.findings, 2
    if isinstance(error, KeyboardInterrupt):
        return ["interrupted"], 130
    return [str(error) or "out of memory"], 1
