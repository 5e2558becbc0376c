"""A replay as it is watched: one frame under the needle, those before it, and the clock. Imports no jax."""

import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ztb_jax.errors import RunError
from ztb_jax.runs import replays

KEPT = 240  # frames before the needle that a view can show
SPEEDS = 0.25, 10_000.0
BURST = 256  # frames passed between two looks at the keys, where reading is slower than the speed asked for
TRADES = ("fill", "exit")

Frame = Mapping[str, Any]


def frames_of(path: Path, *, first: int = 0, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """As `replays.read_frames`, of a replay that must have a frame `first`.

    Raises:
      RunError: it has none, or the file is missing or damaged.
    """
    source = replays.read_frames(path, offset=first, limit=limit)
    begun = next(source, None)
    if begun is None:
        raise RunError(f"{path} has no frame {first}: begin earlier with --from")
    yield begun
    yield from source


def trades_of(frame: Frame) -> list[dict[str, Any]]:
    """The events of a frame in which something was bought or sold."""
    return [event for event in frame["events"] if event["type"] in TRADES]


class Tally:
    """What came of the frames that were played, each counted once; of any number in constant memory.

    Attributes:
      steps: frames counted.
      trades: fills and exits in them.
      deepest: largest drawdown of the episode that one of them saw.
      last: the newest of them, or None.
    """

    def __init__(self):
        self.steps, self.trades, self.deepest = 0, 0, 0.0
        self.last: Frame | None = None

    def add(self, frame: Frame) -> None:
        """Count a frame."""
        self.steps += 1
        self.trades += len(trades_of(frame))
        self.deepest = max(self.deepest, frame["render_state"]["drawdown"])
        self.last = frame

    def sentences(self) -> list[str]:
        """Return, profit, steps, trades, deepest drawdown, and how it ended."""
        if self.last is None:
            return ["nothing was played"]
        state = self.last["render_state"]
        start = state["equity"] - state["net_profit"]
        earned = f"{state['net_profit'] / start:+.2%}" if start > 0.0 else "undefined"
        return [
            f"return {earned}, profit {state['net_profit']:+,.2f}",
            f"{self.steps:,} steps, {self.trades:,} trades, deepest drawdown {self.deepest:.2%}",
            ending(self.last),
        ]


def ending(frame: Frame) -> str:
    """How the episode stands after `frame`."""
    at = frame["render_state"]["time"]
    if frame["terminated"]:
        return f"the account was closed at {at}"
    if frame["truncated"]:
        return f"the episode came to its end at {at}"
    left = frame["render_state"]["time_remaining"]
    return f"still under way at {at}, {left:,} bars before its end"


class Playback:
    """A replay with a needle that moves by one frame in either direction.

    Args:
      path: of the replay.
      first: frame to begin with, and the earliest to go back to.
      limit: frames to play; None is all.

    Attributes:
      recent: at most `KEPT` frames; the last one is under the needle.
      tally: of every frame that the needle has been on, once.

    Raises:
      RunError: there is no such frame, or the file is missing or damaged.
    """

    def __init__(self, path: Path, *, first: int = 0, limit: int | None = None):
        self.path, self.first = path, first
        self.stop = None if limit is None else first + limit
        self.recent: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.tally = Tally()
        self._seek(first)

    def _seek(self, number: int) -> None:
        """Put the needle on a frame, with those before it that a view can show."""
        start = max(0, number - KEPT + 1)
        limit = None if self.stop is None else self.stop - start
        self.recent.clear()
        self._source = replays.read_frames(self.path, offset=start, limit=limit)
        self.recent.extend(itertools.islice(self._source, number - start + 1))
        if len(self.recent) <= number - start:
            raise RunError(f"{self.path} has no frame {number}: begin earlier with --from")
        self.number = number
        self._count()

    def _count(self) -> None:
        if self.number == self.first + self.tally.steps:
            self.tally.add(self.recent[-1])

    def forward(self) -> bool:
        """To the next frame; whether there was one."""
        frame = next(self._source, None)
        if frame is None:
            return False
        self.recent.append(frame)
        self.number += 1
        self._count()
        return True

    def back(self) -> bool:
        """To the frame before, read anew from the file; whether there is one to be shown."""
        if self.number == self.first:
            return False
        self._seek(self.number - 1)
        return True


class Player:
    """A playback that the clock and keys move.

    Args:
      playback: what is played.
      speed: frames a second.
      now: seconds of any clock.

    Attributes:
      paused: whether the clock stands.
      ended: whether there is no frame left, or someone wants to quit.
    """

    def __init__(self, playback: Playback, *, speed: float, now: float):
        self.playback, self.speed = playback, speed
        self.paused = self.ended = False
        self.due = now + 1.0 / speed

    def tick(self, now: float) -> None:
        """Pass all frames that are due by `now`."""
        for _ in range(BURST):
            if self.paused or self.ended or now < self.due:
                return
            self.ended = not self.playback.forward()
            self.due += 1.0 / self.speed
        self.due = max(self.due, now)

    def press(self, key: str, now: float) -> None:
        """What a key does: `pause`, `left`, `right`, `faster`, `slower`, `quit`; a step pauses."""
        if key == "quit":
            self.ended = True
        elif key == "pause":
            self.paused = not self.paused
        elif key in ("left", "right"):
            self.paused = True
            self.playback.back() if key == "left" else self.playback.forward()
        elif key in ("faster", "slower"):
            slowest, fastest = SPEEDS
            self.speed = min(max(self.speed * (2.0 if key == "faster" else 0.5), slowest), fastest)
        self.due = now + 1.0 / self.speed
