"""Serve a folder of runs: one address, until it is stopped."""

import os
import socket
import sys
import webbrowser
from pathlib import Path

import uvicorn

from ztb_jax.errors import RunError
from ztb_jax.ui import app

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes one that is free.

    Raises:
      RunError: the port is taken or is none, or the host is not of this machine.
    """
    if not 0 <= port <= 65535:
        raise RunError(f"there is no port {port}: give one of 0 to 65535 with --port; 0 takes a free one")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((str(address[0]), port), family=family)
    except OSError as error:
        cause = error.strerror or error
        raise RunError(
            f"cannot listen on {host} port {port}: {cause}; give another --port, 0 takes a free one"
        ) from None


def origins() -> list[str]:
    """Those of `ABP_CORS_ORIGINS`."""
    return [each.strip() for each in os.environ.get("ABP_CORS_ORIGINS", "").split(",") if each.strip()]


def make_server(root: Path, *, host: str) -> uvicorn.Server:
    """A server of the folder, not yet started.

    Args:
      root: folder of run directories.
      host: it will listen on; other names in a request are refused while this is the machine itself.
    """
    application = app.make_app(
        root,
        hosts=app.LOOPBACK if host in LOOPBACK_HOSTS else ("*",),
        origins=origins(),
        is_stopping=lambda: server.should_exit,
    )
    server = uvicorn.Server(
        uvicorn.Config(application, log_level="warning", ws="none", timeout_graceful_shutdown=3)
    )
    return server


def serve(root: Path, *, host: str, port: int, open_browser: bool) -> None:
    """Print the address and answer until Ctrl-C or SIGTERM.

    Raises:
      RunError: there is no such folder, or nothing can listen there.
    """
    if not root.is_dir():
        raise RunError(f"{root} is no directory: give the folder of runs with --root")
    with listen(host, port) as bound:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{bound.getsockname()[1]}/"
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        if open_browser:
            webbrowser.open(address)
        make_server(root, host=host).run(sockets=[bound])
