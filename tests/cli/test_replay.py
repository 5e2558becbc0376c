"""`ztb replay`: the picture by its text, the needle and the clock, the table of a pipe."""

import itertools
import json
import re
import subprocess
import sys

import pytest
from pydantic import TypeAdapter
from rich.cells import cell_len

from tests.runs.episodes import frames, make_run
from ztb_jax.cli import screen
from ztb_jax.cli.main import run as ztb
from ztb_jax.runs import artifacts, directory, playback, replays


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"))


def test_the_samples_are_as_the_records_of_a_run_say(watched):
    frame, index = TypeAdapter(artifacts.ReplayFrame), TypeAdapter(artifacts.ReplayIndex)
    for each in frames(20):
        frame.validate_python(each)
    index.validate_python(directory.read_json(watched.replay_index))


def scene(watched, count=60, **changes):
    shown = list(frames(count))
    return screen.Scene(watched.id, replays.entry_of(watched, None), shown, 10.0)._replace(**changes)


def bar(opened, high, low, close, *events):
    state = {"bar": {"open": opened, "high": high, "low": low, "close": close}}
    return {"render_state": state, "events": [{"type": "fill", "side": side} for side in events]}


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_picture_fits_and_tells_all(watched, width):
    lines = screen.draw(scene(watched), width=width, height=24).plain.split("\n")
    assert len(lines) == 24
    assert max(map(cell_len, lines)) <= width
    text = " ".join(line.strip() for line in lines)
    last = list(frames(60))[-1]["render_state"]
    expected = [
        "watched · w0005",
        "validation slice · window 5",
        "2020-01-03 11:00",
        f"{last['equity']:,.2f}",
    ]
    expected += ["bought 0.98 of equity at", "cost 6.90", "60%", "60/100 · ETA 0:04 · 10/s", "+98%"]
    assert [words for words in expected if words not in text] == []
    assert ("space pause" in text) == (width > 40)


def test_a_candle_is_drawn_to_half_a_row():
    # Prices 0 to 7 on eight halves: the wick spans them all, the body 2 to 5.
    lines = [line.plain for line in screen.candles([bar(2.0, 7.0, 0.0, 5.0)], width=20, rows=6)]
    assert [line[0] for line in lines] == [" ", "│", "┃", "┃", "│", " "]
    assert [line[1:].strip() for line in lines] == ["", "7.00000", "", "", "0.00000", ""]
    odd = [line.plain[0] for line in screen.candles([bar(1.0, 7.0, 0.0, 6.0)], width=20, rows=6)]
    assert odd == [" ", "╽", "┃", "┃", "╿", " "]


def test_what_was_traded_is_marked_on_its_side():
    column = [line.plain[0] for line in screen.candles([bar(2, 7, 0, 5, "buy", "sell")], width=20, rows=6)]
    assert column == ["▼", "│", "┃", "┃", "│", "▲"]


def test_colours_follow_the_bar_and_the_position(watched):
    (rising,) = {str(span.style) for line in screen.candles([bar(2, 7, 0, 5)], width=20, rows=6)
                 for span in line.spans if str(span.style) != screen.MUTED}  # fmt: skip
    (falling,) = {str(span.style) for line in screen.candles([bar(5, 7, 0, 2)], width=20, rows=6)
                  for span in line.spans if str(span.style) != screen.MUTED}  # fmt: skip
    assert (rising, falling) == (screen.LONG, screen.SHORT)
    short = list(frames(10))
    short[-1]["render_state"]["position"] = -0.5
    lines = screen.draw(scene(watched, frames=short), width=80, height=24).plain.split("\n")
    (told,) = [line for line in lines if line.startswith("position")]
    left, right = told.split("│")
    assert left.endswith("█" * 10)
    assert "█" not in right
    assert told.endswith("−50%")


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({"type": "order", "level": -0.5}, "asked for −50% of equity"),
        ({"type": "fill", "side": "buy", "size": 0.98, "price": 1234.5, "cost": 6.9},
         "bought 0.98 of equity at 1,234.50, cost 6.90"),
        ({"type": "exit", "side": "sell", "size": 1, "price": 0.00012345, "cost": 0, "reason": "stop"},
         "sold 1.00 of equity at 0.000123450, cost 0.00 (stop)"),
        ({"type": "ruin"}, "the account was closed"),
    ],
)  # fmt: skip
def test_events_are_told_in_words(event, told):
    assert screen.words(event) == told


def test_no_text_of_a_file_steers_the_terminal(watched):
    evil = scene(watched).entry | {"replay_id": "\x1b[2Jevil", "tags": ["\x07\n"]}
    text = screen.draw(scene(watched, entry=evil), width=120, height=24).plain
    assert "?[2Jevil" in text
    assert "\x1b" not in text
    assert len(text.split("\n")) == 24


def test_the_needle_moves_both_ways_and_counts_each_frame_once(watched, monkeypatch):
    monkeypatch.setattr(playback, "KEPT", 5)
    path = watched.path / replays.entry_of(watched, None)["replay_path"]
    played = playback.Playback(path, first=20, limit=10)

    def shown():
        return [frame["frame_index"] for frame in played.recent]

    assert shown()[-5:] == [16, 17, 18, 19, 20]
    assert not played.back()
    assert [played.forward() for _ in range(3)] == [True] * 3
    assert played.back()
    assert played.back()
    assert shown()[-5:] == [17, 18, 19, 20, 21]
    while played.forward():
        pass
    assert shown()[-1] == 29
    assert (played.tally.steps, played.tally.trades) == (10, 2)


def test_the_clock_passes_what_is_due_and_keys_hold_it(watched):
    path = watched.path / replays.entry_of(watched, None)["replay_path"]
    player = playback.Player(playback.Playback(path), speed=10.0, now=0.0)
    player.tick(0.05)
    assert player.playback.number == 0
    player.tick(0.51)
    assert player.playback.number == 5
    player.press("pause", 0.6)
    player.tick(9.0)
    assert player.playback.number == 5
    player.press("pause", 9.0)
    player.tick(9.11)
    assert player.playback.number == 6
    player.press("right", 9.2)
    player.press("left", 9.2)
    player.press("left", 9.2)
    assert (player.playback.number, player.paused) == (5, True)
    player.press("faster", 9.2)
    assert player.speed == 20.0
    player.press("slower", 9.2)
    player.press("pause", 9.2)
    player.tick(1_000.0)
    assert player.ended
    assert player.playback.tally.steps == 100


def test_a_pipe_gets_the_trades_and_what_came_of_them(watched, capsys):
    assert ztb(["replay", str(watched.path)], prog="ztb") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    lines = out.splitlines()
    assert lines[0].startswith("watched · w0005 · validation slice · window 5")
    rows = [line.split() for line in lines[2:] if re.match(r"^ +\d", line)]
    assert [row[0] for row in rows] == [str(number) for number in range(3, 100, 4)]
    assert rows[0] == ["3", "2020-01-01", "03:00", "buy", "0.980", "1,016.36", "6.90", "order"]
    assert rows[1][-1] == "stop"
    every = list(frames(100))
    state = every[-1]["render_state"]
    deepest = max(frame["render_state"]["drawdown"] for frame in every)
    assert f"return {state['net_profit'] / 10_000:+.2%}, profit {state['net_profit']:+,.2f}" in out
    assert f"100 steps, 25 trades, deepest drawdown {deepest:.2%}" in out
    assert "the episode came to its end at 2020-01-05" in out


def test_a_part_is_played(watched, capsys):
    assert ztb(["replay", str(watched.path), "w0007", "--from", "10", "--frames", "8"], prog="ztb") == 0
    out = capsys.readouterr().out
    assert "8 steps, 2 trades" in out
    assert "still under way at 2020-01-01T17:00:00Z, 32 bars before its end" in out


def test_replays_are_listed_by_tag(watched, capsys):
    assert ztb(["replay", str(watched.path), "--list"], prog="ztb") == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in rows] == [
        "w0002",
        "w0005",
        "w0007",
    ]
    assert ztb(["replay", str(watched.path), "--list", "--json", "--tag", "milestone"], prog="ztb") == 0
    assert [entry["replay_id"] for entry in json.loads(capsys.readouterr().out)] == ["w0005"]
    assert ztb(["replay", str(watched.path), "--tag", "every_window"], prog="ztb") == 0
    assert "w0007" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["w9"], "has no replay 'w9'"),
        (["--from", "100"], "has no frame 100"),
        (["--from", "-1"], "--from -1 is no frame"),
        (["--speed", "0"], "--speed 0 is no speed"),
        (["--frames", "0"], "--frames 0 plays nothing"),
        (["--json"], "give --list with it"),
        (["--tag", "nothing"], "no replay tagged 'nothing'"),
    ],
)
def test_what_cannot_be_played_is_refused(watched, capsys, arguments, words):
    assert ztb(["replay", str(watched.path), *arguments], prog="ztb") == 2
    assert words in capsys.readouterr().err


def test_the_page_is_written_and_opened(watched, tmp_path, monkeypatch, capsys):
    asked = []

    class Page:
        @staticmethod
        def replay_page(run, entry, *, first=0, limit=20_000):
            asked.append((run.id, entry["replay_id"], first, limit))
            return "<!doctype html>"

    opened = []
    monkeypatch.setitem(sys.modules, "ztb_jax.ui.page", Page)
    monkeypatch.setattr("webbrowser.open", opened.append)
    path = tmp_path / "watched.html"
    assert ztb(["replay", str(watched.path), "--page", str(path), "--from", "5"], prog="ztb") == 0
    assert path.read_text() == "<!doctype html>"
    assert capsys.readouterr().out == f"{path}\n"
    assert opened == []
    assert ztb(["replay", str(watched.path), "--page", str(path), "--frames", "9", "--open"], prog="ztb") == 0
    assert opened == [path.as_uri()]
    assert asked == [("watched", "w0005", 5, 20_000), ("watched", "w0005", 0, 9)]


def test_a_long_replay_is_told_in_the_memory_of_a_short_one(tmp_path):
    path = tmp_path / "long.jsonl.gz"
    endless = itertools.chain.from_iterable(frames(500) for _ in range(40))
    numbered = (frame | {"frame_index": number} for number, frame in enumerate(endless))
    replays.write_frames(path, numbered)
    program = (
        "import sys, tracemalloc; from pathlib import Path; from ztb_jax.runs import playback\n"
        "tracemalloc.start(); tally = playback.Tally()\n"
        "for frame in playback.frames_of(Path(sys.argv[1])): tally.add(frame)\n"
        "print(tally.steps, tracemalloc.get_traced_memory()[1])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    steps, peak = map(int, told.stdout.split())
    assert steps == 20_000
    assert peak < 4_000_000
