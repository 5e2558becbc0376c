"""A moment of a replay as text of a given width: candles, position, equity, words. Imports no jax."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.text import Text

from ztb_jax.cli.tables import clean
from ztb_jax.runs.playback import Frame, trades_of

LONG, SHORT, MUTED = "green", "red", "bright_black"
KEYS = "space pause · ←/→ step · +/− speed · q quit"
SHORT_KEYS = "space · ←/→ · +/− · q"
EVENT_ROWS = 2
FIXED_ROWS = 10  # all but the candles
LEAST_ROWS = 5
LABEL = 9
SPARKS = "▁▂▃▄▅▆▇█"
# (upper half, lower half) of a cell -> its character; halves hold nothing, a wick or a body.
HALVES = {
    ("", ""): " ", ("wick", "wick"): "│", ("", "wick"): "╷", ("wick", ""): "╵",
    ("body", "body"): "┃", ("", "body"): "╻", ("body", ""): "╹", ("wick", "body"): "╽", ("body", "wick"): "╿",
}  # fmt: skip

Cell = tuple[str, str]


class Scene(NamedTuple):
    """What is shown.

    Attributes:
      run: name of the run.
      entry: of the replay in the index.
      frames: the latest, at least one; the last is under the needle.
      speed: frames a second.
      paused: whether the clock stands.
      keys: whether there are keys to tell of.
    """

    run: str
    entry: Mapping[str, Any]
    frames: Sequence[Frame]
    speed: float
    paused: bool = False
    keys: bool = True


def draw(scene: Scene, *, width: int, height: int) -> Text:
    """The scene in at most `height` lines of at most `width` columns; no fewer than 15 of 30."""
    frame = scene.frames[-1]
    rows = max(LEAST_ROWS, height - FIXED_ROWS)
    lines = [
        *_header(scene),
        *candles(scene.frames, width=width, rows=rows),
        _position(scene.frames, width),
        _equity(scene.frames, width),
        _drawdown(frame, width),
        *_events(frame, width),
        _progress(scene, width),
        Text((KEYS if len(KEYS) <= width else SHORT_KEYS) if scene.keys else "", style=MUTED),
    ]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return Text("\n", no_wrap=True).join(lines)


def words(event: Mapping[str, Any]) -> str:
    """An event as a person would say it."""
    kind = event["type"]
    if kind == "order":
        return f"asked for {signed(event['level'])} of equity"
    if kind == "ruin":
        return "the account was closed"
    done = "bought" if event["side"] == "buy" else "sold"
    why = f" ({clean(event['reason'])})" if "reason" in event else ""
    return f"{done} {event['size']:.2f} of equity at {price(event['price'])}, cost {event['cost']:,.2f}{why}"


def moment(time: str) -> str:
    """A time of a frame to the minute."""
    return clean(time)[:16].replace("T", " ")


def price(number: float) -> str:
    """Six significant digits, at least two decimals."""
    return f"{number:,.{_decimals(number)}f}"


def _decimals(number: float) -> int:
    return min(max(5 - math.floor(math.log10(abs(number))), 2), 10) if number else 2


def signed(share: float) -> str:
    """A share in percent with its sign."""
    return f"{share:+.0%}".replace("-", "−")


def _header(scene: Scene) -> list[Text]:
    entry, state = scene.entry, scene.frames[-1]["render_state"]
    title = Text().append(clean(scene.run), style="bold").append(f" · {clean(entry['replay_id'])}")
    facts = (f"{entry['slice']} slice", f"window {entry['window_id']}", ", ".join(entry["tags"]))
    bar = state["bar"]
    moved = bar["close"] / bar["open"] - 1.0
    return [
        title,
        Text(clean(" · ".join(facts)), style=MUTED),
        Text(moment(state["time"]) + " · ").append(
            f"close {price(bar['close'])} ({moved:+.2%})", style=LONG if moved >= 0.0 else SHORT
        ),
    ]


def candles(frames: Sequence[Frame], *, width: int, rows: int) -> list[Text]:
    """The latest bars, one a column and as many as fit, with the prices of the highest and lowest beside.

    A triangle under a bar tells that something was bought in it, one above that something was sold.
    """
    highest = _span(frames)[1]
    decimals = _decimals(highest)
    label = len(f"{highest:,.{decimals}f}")
    room = max(width - label - 1, 1)
    shown = frames[-room:]
    low, high = _span(shown)
    grid = [[(" ", "")] * len(shown) for _ in range(rows)]
    for column, frame in enumerate(shown):
        for row, cell in _candle(frame, low=low, high=high, rows=rows):
            grid[row][column] = cell
    lines = []
    for row, cells in enumerate(grid):
        line = Text()
        for letter, style in cells:
            line.append(letter, style=style or None)
        line.append(" " * (room - len(shown) + 1))
        told = {1: high, rows - 2: low}.get(row)
        line.append("" if told is None else f"{told:>{label},.{decimals}f}", style=MUTED)
        lines.append(line)
    return lines


def _span(frames: Sequence[Frame]) -> tuple[float, float]:
    bars = [frame["render_state"]["bar"] for frame in frames]
    return min(bar["low"] for bar in bars), max(bar["high"] for bar in bars)


def _candle(frame: Frame, *, low: float, high: float, rows: int) -> list[tuple[int, Cell]]:
    """(row, cell) of a bar, the first and the last row left to its triangles."""
    bar, last = frame["render_state"]["bar"], 2 * (rows - 2) - 1

    def half(level: float) -> int:
        return 2 + round((high - level) / (high - low) * last) if high > low else rows

    body = range(half(max(bar["open"], bar["close"])), half(min(bar["open"], bar["close"])) + 1)
    wick = range(half(bar["high"]), half(bar["low"]) + 1)

    def kind(place: int) -> str:
        return "body" if place in body else "wick" if place in wick else ""

    style = LONG if bar["close"] >= bar["open"] else SHORT
    top, bottom = wick.start // 2, (wick.stop - 1) // 2
    cells = [(row, (HALVES[kind(2 * row), kind(2 * row + 1)], style)) for row in range(top, bottom + 1)]
    sides = {event["side"] for event in trades_of(frame)}
    if "buy" in sides:
        cells.append((bottom + 1, ("▲", f"bold {LONG}")))
    if "sell" in sides:
        cells.append((top - 1, ("▼", f"bold {SHORT}")))
    return cells


def _events(frame: Frame, width: int) -> list[Text]:
    told = "; ".join(map(words, frame["events"])) or "nothing was done"
    lines = textwrap.wrap(told, width, max_lines=EVENT_ROWS, placeholder=" …")
    return [Text(line, style="bold") for line in [*lines, ""][:EVENT_ROWS]]


def _row(label: str, middle: Text, value: str) -> Text:
    return Text().append(f"{label:<{LABEL}}", style=MUTED).append_text(middle).append(f" {value}")


def _room(width: int, value: str) -> int:
    return max(width - LABEL - len(value) - 1, 1)


def _position(frames: Sequence[Frame], width: int) -> Text:
    """The share of equity held as a bar from the middle, to the left when short."""
    held = frames[-1]["render_state"]["position"]
    reach = max(1.0, *(abs(frame["render_state"]["position"]) for frame in frames))
    value = f"{signed(held):>7}"
    side = max((_room(width, value) - 1) // 2, 1)
    filled = min(round(abs(held) / reach * side), side)
    left, right = (filled, 0) if held < 0.0 else (0, filled)
    bar = (
        Text()
        .append("─" * (side - left), style=MUTED)
        .append("█" * left, style=SHORT)
        .append("│", style=MUTED)
    )
    bar.append("█" * right, style=LONG).append("─" * (side - right), style=MUTED)
    return _row("position", bar, value)


def _equity(frames: Sequence[Frame], width: int) -> Text:
    """The equity at the latest closes, from the lowest to the highest of them."""
    state = frames[-1]["render_state"]
    start = state["equity"] - state["net_profit"]
    earned = f" ({state['net_profit'] / start:+.1%})" if start > 0.0 else ""
    value = f"{state['equity']:,.2f}{earned}"
    shown = [frame["render_state"]["equity"] for frame in frames[-_room(width, value) :]]
    low, span = min(shown), max(shown) - min(shown)
    line = "".join(SPARKS[int((each - low) / span * 7.999)] if span else SPARKS[3] for each in shown)
    return _row("equity", Text(line, style=LONG if state["net_profit"] >= 0.0 else SHORT), value)


def _drawdown(frame: Frame, width: int) -> Text:
    fall = frame["render_state"]["drawdown"]
    value = f"{fall:7.1%}"
    room = _room(width, value)
    filled = min(round(fall * room), room)
    bar = Text().append("█" * filled, style=SHORT).append("─" * (room - filled), style=MUTED)
    return _row("drawdown", bar, value)


def _progress(scene: Scene, width: int) -> Text:
    frame, steps = scene.frames[-1], scene.entry["steps"]
    share = min(frame["t"] / steps, 1.0)
    left = max(steps - frame["t"], 0) / frame["dt"] / scene.speed
    clock = "paused" if scene.paused else f"ETA {_clock(left)}"
    value = f"{share:.0%} · {frame['t']:,}/{steps:,} · {clock} · {scene.speed:g}/s"
    room = max(width - len(value) - 1, 1)
    filled = round(share * room)
    return Text("━" * filled).append("─" * (room - filled), style=MUTED).append(f" {value}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
