"""Ctrl-C and SIGTERM as a request that is answered between windows."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event


@contextmanager
def stop_requests() -> Iterator[Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one stops the process as usual."""
    requested = Event()
    previous = {}

    def ask(number, frame):
        requested.set()
        # Straight to the descriptor: a signal may have struck in the middle of a buffered write.
        os.write(2, b"\nstopping when this window ends; once more stops at once\n")
        for known, handler in previous.items():
            signal.signal(known, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, ask)
    try:
        yield requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
