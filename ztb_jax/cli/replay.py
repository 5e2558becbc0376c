"""`ztb replay RUN [ID]`: play an episode in the terminal, list what was recorded, or write the page of it."""

import json
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.live import Live

from ztb_jax.cli import keys, screen
from ztb_jax.cli.tables import clean, print_table, write_page
from ztb_jax.errors import RunError
from ztb_jax.runs import directory, playback, replays

PAGE_FRAMES = 20_000
LOOKS = 30.0  # drawings a second at the most
COLUMNS = ("frame", "time", "side", "size", "price", "cost", "reason")
FILLS = "{:>9}  {:<16} {:<4} {:>8} {:>14} {:>12}  {}"


@dataclass(frozen=True)
class Replay:
    """Play an episode that a run recorded: live on a terminal, as a table of its trades elsewhere."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    id: tyro.conf.Positional[str | None] = None
    """Which replay; without it the newest that was the best so far."""
    list: bool = False
    """Tell what replays there are, and play none."""
    tag: str | None = None
    """Only those with this tag: every_window, best_so_far, milestone or milestone:profit:100."""
    json: bool = False
    """With --list: one JSON array on standard output."""
    speed: float = 10.0
    """Frames a second."""
    start: Annotated[int, tyro.conf.arg(name="from")] = 0
    """First frame."""
    frames: int | None = None
    """Frames to play; without it all."""
    page: Path | None = None
    """Write a page of it that needs no network to this file, and play nothing."""
    open: bool = False
    """Show the page in the browser; without --page it is a temporary file."""


def main(arguments: list[str]) -> int:
    """List, write a page, or play."""
    command = tyro.cli(Replay, args=arguments, prog="ztb replay")
    _check(command)
    run = directory.find(command.run)
    entries = [entry for entry in replays.read_index(run) if _has(entry, command.tag)]
    if command.list:
        _list(entries, as_json=command.json)
        return 0
    entry = _chosen(run, command, entries)
    if command.page is not None or command.open:
        return _write_page(run, command, entry)
    console = Console(highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        _play(run, command, entry, console)
    else:
        _tell(run, command, entry)
    return 0


def _check(command: Replay) -> None:
    slowest, fastest = playback.SPEEDS
    findings = []
    if not slowest <= command.speed <= fastest:
        findings.append(f"--speed {command.speed:g} is no speed: give {slowest:g} to {fastest:,.0f} frames")
    if command.start < 0:
        findings.append(f"--from {command.start} is no frame: the first one is 0")
    if command.frames is not None and command.frames < 1:
        findings.append(f"--frames {command.frames} plays nothing: give 1 or more")
    if command.json and not command.list:
        findings.append("--json tells what replays there are: give --list with it")
    if findings:
        raise RunError(findings)


def _has(entry: Mapping[str, Any], tag: str | None) -> bool:
    return tag is None or any(each == tag or each.startswith(f"{tag}:") for each in entry["tags"])


def _chosen(run: directory.RunDirectory, command: Replay, entries: list[dict[str, Any]]) -> dict[str, Any]:
    if command.id is not None or command.tag is None:
        return replays.entry_of(run, command.id)
    if not entries:
        raise RunError(f"{run.path} has no replay tagged {command.tag!r}: see `ztb replay {run.path} --list`")
    return entries[-1]


def _list(entries: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(entries, indent=2) + "\n")
        return
    names = ("id", "window", "return %", "profit", "steps", "survival", "tags")
    rows = [
        (
            clean(entry["replay_id"]),
            str(entry["window_id"]),
            f"{entry['return_percent']:+.2f}",
            f"{entry['profit']:+,.2f}",
            f"{entry['steps']:,}",
            f"{entry['survival']:.0%}",
            clean(", ".join(entry["tags"])),
        )
        for entry in entries
    ]
    print_table(names, rows, right=names[1:-1])


def _write_page(run: directory.RunDirectory, command: Replay, entry: dict[str, Any]) -> int:
    page = import_module("ztb_jax.ui.page")  # its templates are loaded by this command alone
    limit = PAGE_FRAMES if command.frames is None else command.frames
    text = page.replay_page(run, entry, first=command.start, limit=limit)
    path = command.page
    if path is None:
        path = Path(tempfile.mkdtemp(prefix="ztb-")) / "replay.html"
    write_page(path, text)
    if command.open:
        webbrowser.open(path.resolve().as_uri())
    sys.stdout.write(f"{path}\n")
    return 0


def _tell(run: directory.RunDirectory, command: Replay, entry: Mapping[str, Any]) -> None:
    """The trades as lines and what came of them; one frame is held at a time."""
    say = sys.stdout.write
    say(f"{_title(run, entry)}\n{FILLS.format(*COLUMNS)}\n")
    tally = playback.Tally()
    source = playback.frames_of(replays.path_of(run, entry), first=command.start, limit=command.frames)
    for number, frame in enumerate(source, command.start):
        tally.add(frame)
        for event in playback.trades_of(frame):
            say(
                FILLS.format(
                    f"{number:,}",
                    screen.moment(frame["render_state"]["time"]),
                    clean(event["side"]),
                    f"{event['size']:.3f}",
                    screen.price(event["price"]),
                    f"{event['cost']:,.2f}",
                    clean(event.get("reason", "order")),
                )
                + "\n"
            )
    say("\n".join(["", *map(clean, tally.sentences()), ""]))


def _title(run: directory.RunDirectory, entry: Mapping[str, Any]) -> str:
    tags = ", ".join(entry["tags"])
    return clean(
        f"{run.id} · {entry['replay_id']} · {entry['slice']} slice · window {entry['window_id']} · {tags}"
    )


def _play(run: directory.RunDirectory, command: Replay, entry: Mapping[str, Any], console: Console) -> None:
    """Live, until the end or a key; the last picture and the summary stay."""
    played = playback.Playback(replays.path_of(run, entry), first=command.start, limit=command.frames)
    player = playback.Player(played, speed=command.speed, now=time.monotonic())
    steered = sys.stdin.isatty()

    def picture(*, keys: bool):
        scene = screen.Scene(run.id, entry, tuple(played.recent), player.speed, player.paused, keys)
        return screen.draw(scene, width=console.width, height=console.height)

    with keys.keyboard(sys.stdin) as wait, _screen(console) as live:
        while not player.ended:
            live.update(picture(keys=steered), refresh=True)
            idle = 1.0 if player.paused else player.due - time.monotonic()
            for key in wait(max(idle, 1.0 / LOOKS)):
                player.press(key, time.monotonic())
            player.tick(time.monotonic())
    console.print(picture(keys=False))
    for sentence in played.tally.sentences():
        console.print(clean(sentence), markup=False)


@contextmanager
def _screen(console: Console) -> Iterator[Live]:
    with Live(
        console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as live:
        yield live
