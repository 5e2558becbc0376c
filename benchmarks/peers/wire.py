"""Peers whose packages need an environment of their own, as processes: one JSON object a line, in and out.

The peer's side calls `serve`; ours opens a `worker` and asks. A request blocks until its reply, so timing one
is timing the peer's work, and a peer that is not asked waits for input and leaves the machine alone.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"

Ask = Callable[..., dict[str, Any]]


def serve(functions: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer requests `{"call": name, **arguments}` from standard input until it closes.

    What a peer prints goes to standard error; standard output carries replies alone.
    """
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            request = json.loads(line)
            reply = functions[request.pop("call")](**request)
            print(json.dumps(reply), file=replies, flush=True)


@contextmanager
def worker(module: str, *arguments: str, python: Path = PYTHON) -> Iterator[Ask]:
    """`ask(name, **arguments)` of the functions that `module` serves, in a process that ends with the block.

    Raises:
      RuntimeError: when asking, that the process ended; its traceback is on standard error.
    """
    command = [str(python), "-m", module, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        requests, replies = process.stdin, process.stdout
        assert requests is not None
        assert replies is not None

        def ask(name: str, **rest: Any) -> dict[str, Any]:
            try:
                print(json.dumps({"call": name, **rest}), file=requests, flush=True)
                line = replies.readline()
            except BrokenPipeError:
                line = ""
            if not line:
                raise RuntimeError(f"{module} ended with status {process.wait()}; its last words are above")
            return json.loads(line)

        yield ask
