"""`ztb runs show --follow` on a terminal: a bar below the windows' lines."""

import signal

import pytest

from tests.cli.terminal import Terminal
from ztb_jax.runs import directory


@pytest.fixture
def run(tmp_path):
    made = directory.create(tmp_path, "followed", {"data": {"symbol": "SP500", "timeframe": "1d"}})
    say(made, phase="compile", fraction=0.0)
    return made


def say(run, status="running", **facts):
    known = {"target_env_steps": 1_000, "error": None, "halt_reason": None, "status": status}
    directory.write_json(run.metadata, known | {"steps_per_second": 2.5e5, "eta_seconds": 3.0} | facts)


def test_a_bar_tells_how_far_it_is(run):
    row = {
        "window_id": 0,
        "env_steps_total": 250,
        "steps_per_second": 2.5e5,
        "verdict": 0,
        "best_window": None,
    }
    with directory.locked(run), Terminal("runs", "show", run.path, "--follow") as terminal:
        before = terminal.wait_for("compile")
        assert "k steps/s" not in before.string
        directory.append_line(run.windows, row)
        say(run, phase="train", fraction=0.25)
        terminal.wait_for("window 0 · 25% · 250 k steps/s · best window –")
        terminal.wait_for("train .* 25% · 250 k steps/s · ETA 3 s")
        say(run, status="completed", verdict="Beat it.")
        assert terminal.ended() == 0
        assert terminal.seen.rstrip().endswith("completed: Beat it.")


def test_who_stops_following_has_the_cursor_back(run):
    with directory.locked(run), Terminal("runs", "show", run.path, "--follow") as terminal:
        terminal.wait_for("compile")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.ended() == 130
        hidden, shown = terminal.seen.rfind("\x1b[?25l"), terminal.seen.rfind("\x1b[?25h")
        assert 0 <= hidden < shown
        assert "Traceback" not in terminal.seen
