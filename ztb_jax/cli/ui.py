"""`ztb ui`: runs in a browser."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ztb_jax.ui import server


@dataclass(frozen=True)
class Ui:
    """Serve a folder of runs to a browser, to be read alone; prints the address."""

    root: str = field(default_factory=lambda: os.environ.get("ABP_RUNS_ROOT", "runs"))
    """Folder of runs; ABP_RUNS_ROOT sets it, too."""
    host: str = "127.0.0.1"
    """Address to listen on; another than the machine's own lets others read, too."""
    port: int = 8420
    """Port to listen on; 0 takes a free one."""
    open_browser: Annotated[bool, tyro.conf.arg(name="open")] = False
    """Open the browser, too."""


def main(arguments: list[str]) -> int:
    """Serve until stopped."""
    command = tyro.cli(Ui, args=arguments, prog="ztb ui")
    root = Path(command.root).expanduser()
    try:
        server.serve(root, host=command.host, port=command.port, open_browser=command.open_browser)
    except KeyboardInterrupt:
        return 0  # the one way to end it
    return 0
