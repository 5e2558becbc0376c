"""A command in a pseudo-terminal of 100 columns and 30 lines."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

START = "from ztb_jax.cli.main import main; main()"


class Terminal:
    """The command `ztb ARGUMENTS`, which must leave the terminal as it found it."""

    def __init__(self, *arguments, stdin=None, **variables):
        self.end, self.inside = pty.openpty()
        termios.tcsetwinsize(self.inside, (30, 100))
        self.before = termios.tcgetattr(self.inside)
        self.seen = ""
        kept = {
            k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, arguments)],
            stdin=self.inside if stdin is None else stdin, stdout=self.inside, stderr=self.inside,
            env={**kept, "TERM": "xterm-256color", **variables}, start_new_session=True,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.end)
        os.close(self.inside)

    def read(self, seconds: float) -> str:
        """What came within that time, also kept in `seen`."""
        text, deadline = "", time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and select.select([self.end], [], [], left)[0]:
            text += os.read(self.end, 1 << 16).decode(errors="replace")
        self.seen += text
        return text

    def wait_for(self, pattern: str, seconds: float = 30.0) -> re.Match[str]:
        """The first match in what comes from now on."""
        text, deadline = "", time.monotonic() + seconds
        while not (found := re.search(pattern, text)):
            assert time.monotonic() < deadline, f"{pattern} did not come in {text[-3000:]!r}"
            text += self.read(0.1)
        return found

    def press(self, key: str) -> None:
        os.write(self.end, key.encode())

    def ended(self) -> int:
        deadline = time.monotonic() + 30.0
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            self.read(0.1)
        self.read(0.2)
        assert termios.tcgetattr(self.inside) == self.before
        return self.process.returncode
