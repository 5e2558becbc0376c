"""Single keys of a terminal, which is left as it was found whatever happens. POSIX; imports no jax."""

import os
import re
import select
import signal
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

Wait = Callable[[float], list[str]]

NAMES = {
    " ": "pause", "\x1b[D": "left", "\x1bOD": "left", "\x1b[C": "right", "\x1bOC": "right",
    "+": "faster", "=": "faster", "-": "slower", "_": "slower", "q": "quit", "Q": "quit", "\x04": "quit",
}  # fmt: skip
_KEY = re.compile(r"\x1b[\[O][0-9;]*.|.", re.DOTALL)
_SUSPENDING = (termios.VSUSP, termios.VQUIT)  # they would leave a shell with our settings


@contextmanager
def keyboard(stream: IO[Any]) -> Iterator[Wait]:
    """Inside, keys come one by one and unseen, and SIGTERM is a KeyboardInterrupt as Ctrl-C is.

    Args:
      stream: standard input. Where it is no terminal there are no keys.

    Yields:
      (seconds) -> the keys pressed until then, as `Player.press` names them; it returns at the first.
    """
    with _interruptible():
        if not stream.isatty():
            yield _sleep
            return
        descriptor = stream.fileno()
        before = termios.tcgetattr(descriptor)
        try:
            tty.setcbreak(descriptor, termios.TCSADRAIN)
            settings = termios.tcgetattr(descriptor)
            for key in _SUSPENDING:
                settings[6][key] = b"\0"
            termios.tcsetattr(descriptor, termios.TCSADRAIN, settings)
            yield lambda seconds: _pressed(descriptor, seconds)
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _sleep(seconds: float) -> list[str]:
    time.sleep(seconds)
    return []


def _pressed(descriptor: int, seconds: float) -> list[str]:
    if not select.select([descriptor], [], [], seconds)[0]:
        return []
    told = os.read(descriptor, 64).decode(errors="replace")
    if not told:  # the terminal is gone
        return ["quit"]
    return [NAMES[key] for key in _KEY.findall(told) if key in NAMES]
