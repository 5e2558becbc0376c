"""`ztb replay` in a pseudo-terminal: keys, colours, and a terminal that is left as it was found."""

import os
import pty
import re
import signal
import subprocess
import termios

import pytest

from tests.cli.terminal import Terminal
from tests.runs.episodes import make_run
from ztb_jax.cli import keys

LEAVES = "\x1b[?1049l"  # the alternate screen


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"))


def test_a_replay_is_paused_stepped_through_and_quit(watched):
    with Terminal("replay", watched.path, "--speed", "4") as terminal:
        terminal.wait_for(r"\b[1-9]/100 · ETA")
        assert termios.tcgetattr(terminal.inside) != terminal.before
        terminal.press(" ")
        stopped = int(terminal.wait_for(r"(\d+)/100 · paused")[1])
        terminal.read(0.5)
        terminal.press("\x1b[C")
        assert int(terminal.wait_for(r"(\d+)/100 · paused")[1]) == stopped + 1
        terminal.press("\x1b[D")
        assert int(terminal.wait_for(r"(\d+)/100 · paused")[1]) == stopped
        terminal.press("-")
        terminal.wait_for("paused · 2/s")
        terminal.press(" ")
        # A busy machine may pass over some, so that none is waited for by name.
        while int(terminal.wait_for(r"(\d+)/100 · ETA")[1]) < stopped + 2:
            pass
        terminal.press("q")
        assert terminal.ended() == 0
        _, told = terminal.seen.split(LEAVES)
        assert re.search(r"\d+ steps, \d+ trades, deepest drawdown", told)
        assert "still under way" in told


def test_a_replay_ends_by_itself_and_leaves_its_last_picture(watched):
    with Terminal("replay", watched.path, "w0002", "--speed", "200", "--from", "20") as terminal:
        assert terminal.ended() == 0
        assert "\x1b[3" in terminal.seen
        _, told = terminal.seen.split(LEAVES)
        assert "40/40" in told
        assert "20 steps, 5 trades" in told
        assert "the episode came to its end" in told


@pytest.mark.parametrize("how", ["key", "SIGTERM"])
def test_whatever_stops_it_the_terminal_is_as_before(watched, how):
    with Terminal("replay", watched.path, "--speed", "1") as terminal:
        terminal.wait_for(r"/100 · ETA")
        if how == "key":
            # A terminal that controls the session turns ^C into this signal.
            terminal.process.send_signal(signal.SIGINT)
        else:
            terminal.process.send_signal(signal.SIGTERM)
        assert terminal.ended() == 130
        assert LEAVES in terminal.seen
        assert "Traceback" not in terminal.seen


def test_colours_are_left_out_where_nobody_wants_them(watched):
    with Terminal("replay", watched.path, "w0002", "--speed", "1000", NO_COLOR="1") as terminal:
        assert terminal.ended() == 0
        assert "┃" in terminal.seen
        assert not re.search(r"\x1b\[[0-9;]*[34][0-9]", terminal.seen.replace("\x1b[?1049", ""))


def test_without_a_keyboard_it_plays_to_the_end(watched):
    with Terminal("replay", watched.path, "w0002", "--speed", "500", stdin=subprocess.DEVNULL) as terminal:
        assert terminal.ended() == 0
        assert "40/40" in terminal.seen
        assert "space pause" not in terminal.seen


def test_a_terminal_that_knows_no_pictures_gets_the_table(watched):
    with Terminal("replay", watched.path, "w0002", TERM="dumb") as terminal:
        assert terminal.ended() == 0
        assert "\x1b" not in terminal.seen
        assert "40 steps, 10 trades" in terminal.seen
        assert terminal.seen.count("order\r\n") == terminal.seen.count("stop\r\n") == 5


def test_keys_are_named_also_when_several_come_at_once():
    main_end, terminal = pty.openpty()
    try:
        os.write(main_end, b"\x1b[D\x1bOC +q?")
        with os.fdopen(os.dup(terminal), "rb", buffering=0) as stream, keys.keyboard(stream) as wait:
            assert wait(5.0) == ["left", "right", "pause", "faster", "quit"]
            assert wait(0.0) == []
    finally:
        os.close(main_end)
        os.close(terminal)
