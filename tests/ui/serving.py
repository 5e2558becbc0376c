"""The real server over a folder, in a thread, and a real browser before it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ztb_jax.ui import server

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """The address of a server that ends with the block."""
    with server.listen("127.0.0.1", 0) as bound:
        served = server.make_server(root, host="127.0.0.1")
        thread = threading.Thread(target=served.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not served.started:  # uvicorn has no event for it
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        served.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
