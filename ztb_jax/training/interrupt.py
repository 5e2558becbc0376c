"""Ctrl-C and SIGTERM as a request that is answered between windows."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """Whether, and by which signal, the process was asked to stop.

    Attributes:
      signal: its name, or None.
    """

    signal: str | None = None

    def check(self) -> None:
        """Stop here if asked to: where nothing is in flight that would have to be saved.

        Raises:
          KeyboardInterrupt: a signal came.
        """
        if self.signal is not None:
            raise KeyboardInterrupt


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Inside, the first SIGINT or SIGTERM is noted; a second one stops the process at once."""
    request = StopRequest()
    previous = {}

    def ask(number, frame):
        request.signal = signal.Signals(number).name
        # Not what was there before: a job started in the background of a script inherits "ignore".
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Straight to the descriptor: a signal may have struck in the middle of a buffered write.
        os.write(2, b"\nstopping as soon as all is saved; once more stops at once\n")

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
