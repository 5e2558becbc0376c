"""Ctrl-C and SIGTERM as a request that is answered between windows."""

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
        for known, handler in previous.items():
            signal.signal(known, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, ask)
    try:
        yield requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
