"""Following a run reads what it appends, sees how it ends, and leaves it alone."""

import json
import signal
import subprocess
import sys

import pytest

from ztb_jax.cli import follow
from ztb_jax.cli.main import run as ztb
from ztb_jax.errors import RunError
from ztb_jax.runs import directory, following


def row(number, **changes):
    return {
        "window_id": number, "env_steps_total": 100 * (number + 1), "steps_per_second": 250_000.0,
        "reward_mean": 1.5e-4, "validation_log_growth": -2e-5, "best_window": 0, "verdict": 0,
    } | changes  # fmt: skip


@pytest.fixture
def run(tmp_path):
    made = directory.create(tmp_path, "followed", {"data": {"symbol": "SP500", "timeframe": "1d"}})
    say(made, status="running", phase="train", fraction=0.5)
    return made


def say(run, **facts):
    directory.write_json(
        run.metadata, {"target_env_steps": 1_000, "error": None, "halt_reason": None} | facts
    )


def ids(read):
    rows, more = read
    assert not more
    return [each["window_id"] for each in rows]


def test_only_what_is_appended_is_read(run):
    tail = following.Tail(run.windows, newest=5)
    assert ids(tail.read()) == []
    for number in range(8):
        directory.append_line(run.windows, row(number))
    assert ids(tail.read()) == [3, 4, 5, 6, 7]
    assert ids(tail.read()) == []
    whole = directory.line(row(8))
    with run.windows.open("a") as file:
        file.write(whole[:20])
        file.flush()
        assert ids(tail.read()) == []
        file.write(whole[20:])
    assert ids(tail.read()) == [8]
    before = run.windows.stat().st_size
    directory.append_line(run.windows, row(9))
    # What was read stays unread: damage to it goes unnoticed.
    with run.windows.open("r+b") as file:
        file.write(b"x" * (before - 1))
    assert ids(tail.read()) == [9]


def test_of_a_long_file_only_the_end_is_read(run, monkeypatch):
    directory.write_lines(run.windows, [row(number) for number in range(100)])
    monkeypatch.setattr(following, "REACH", 3 * len(directory.line(row(99))) + 10)
    tail = following.Tail(run.windows, newest=5)
    assert ids(tail.read()) == [97, 98, 99]
    directory.append_line(run.windows, row(100))
    assert ids(tail.read()) == [100]


def test_a_file_that_a_resume_replaced_goes_on(run):
    directory.write_lines(run.windows, [row(number) for number in range(4)])
    tail = following.Tail(run.windows)
    assert ids(tail.read()) == [0, 1, 2, 3]
    directory.write_lines(run.windows, [row(number) for number in range(3)])
    assert ids(tail.read()) == []
    for number in (3, 4):
        directory.append_line(run.windows, row(number))
    assert ids(tail.read()) == [4]


def test_what_is_known_is_not_told(run):
    directory.write_lines(run.windows, [row(number) for number in range(4)])
    assert ids(following.Tail(run.windows, after=1).read()) == [2, 3]


def test_a_long_file_is_read_in_parts(run, monkeypatch):
    monkeypatch.setattr(following, "CHUNK", 500)
    directory.write_lines(run.windows, [row(number) for number in range(100)])
    tail, found, more = following.Tail(run.windows), [], True
    while more:
        rows, more = tail.read()
        assert len(rows) < 10
        found += [each["window_id"] for each in rows]
    assert found == list(range(100))


@pytest.mark.parametrize("line", ['{"verdict":0}', '{"window_id":1,"seconds":NaN}', "[]"])
def test_a_line_of_no_window_is_damage(run, line):
    run.windows.write_text(f"{line}\n")
    with pytest.raises(RunError, match="is damaged"):
        following.Tail(run.windows).read()


def test_a_run_is_killed_when_nobody_holds_its_lock_twice(run):
    follower = following.Follower(run)
    assert follower.look().status == "running"
    with directory.locked(run):
        assert [follower.look().status for _ in range(3)] == ["running"] * 3
    assert [follower.look().status for _ in range(2)] == ["running", "killed"]
    say(run, status="completed")
    assert follower.look().status == "completed"


@pytest.mark.parametrize(
    ("facts", "exit_status", "words"),
    [
        ({"status": "completed", "verdict": "Beat it."}, 0, "completed: Beat it."),
        ({"status": "failed", "error": "window 3: no"}, 1, "failed: window 3: no"),
        ({"status": "cancelled", "halt_reason": "stopped by SIGINT"}, 130, "cancelled (stopped by SIGINT)"),
    ],
)
def test_a_run_that_has_ended_is_told_with_its_exit_status(run, capsys, facts, exit_status, words):
    directory.append_line(run.windows, row(3, verdict=2, validation_log_growth=None))
    say(run, **facts)
    assert ztb(["runs", "show", str(run.path), "--follow"], prog="ztb") == exit_status
    assert capsys.readouterr().out.splitlines() == [
        "window 3 · 40% · 250 k steps/s · train +1.50 bp/bar · best window 0 · kl_runaway", words,
    ]  # fmt: skip


def test_a_killed_run_is_told_so(run, capsys, monkeypatch):
    monkeypatch.setattr(follow, "EVERY", 0.0)
    assert ztb(["runs", "show", str(run.path), "--follow"], prog="ztb") == 1
    assert "was killed" in capsys.readouterr().err


def command(run):
    program = "from ztb_jax.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "runs", "show", str(run.path), "--follow"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_run_is_followed_to_its_end(run):
    with directory.locked(run):
        directory.append_line(run.windows, row(0))
        process = command(run)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("window 0 · 10% · 250 k steps/s · train +1.50 bp/bar")
        directory.append_line(run.windows, row(1))
        assert process.stdout.readline().startswith("window 1 · 20%")
        say(run, status="completed", verdict="Did not beat it.")
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "completed: Did not beat it.\n", "")


def test_who_stops_following_leaves_the_run_alone(run):
    with directory.locked(run):
        directory.append_line(run.windows, row(0))
        files = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
        process = command(run)
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert directory.is_locked(run)
        assert files == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
        assert json.loads(run.metadata.read_text())["status"] == "running"
