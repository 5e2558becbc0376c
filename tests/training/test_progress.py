"""What a run says of its progress where nobody watches: little, and the first and the last of it."""

import io

import pytest

from ztb_jax.runs import directory
from ztb_jax.training import progress


@pytest.fixture
def told(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    clock = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    stream = io.StringIO()

    def lines():
        return [line.split("] ", 1)[1] for line in stream.getvalue().splitlines()]

    return progress.Reporter(stream=stream), clock, lines


def play(reporter, clock, count, *, total=100, seconds=1.0, first=1):
    for done in range(first, first + count):
        clock[0] += seconds
        reporter.advance(done, total, rate=1_000.0, note=f"window {done}")


def notes(lines):
    return [line.rsplit(" ", 1)[1] for line in lines if "window" in line]


def test_windows_are_told_once_in_ten_seconds_and_the_last_always(told):
    reporter, clock, lines = told
    with reporter:
        reporter.phase("train")
        play(reporter, clock, 25, total=25)
        reporter.phase("evaluate", "test slice")
    assert notes(lines()) == ["1", "11", "21", "25"]
    assert lines()[-1].startswith("evaluate")


def test_slow_windows_are_all_told(told):
    reporter, clock, lines = told
    reporter.phase("train")
    play(reporter, clock, 5, seconds=10.0)
    assert notes(lines()) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("how", ["phase", "exit"])
def test_the_last_window_of_a_run_that_was_stopped_is_told_once(told, how):
    reporter, clock, lines = told
    with reporter:
        reporter.phase("train")
        play(reporter, clock, 5)
        if how == "phase":
            reporter.phase("evaluate")
    assert notes(lines()) == ["1", "5"]


def test_ci_is_told_phases_alone(told, monkeypatch):
    reporter, clock, lines = told
    monkeypatch.setenv("CI", "true")
    with reporter:
        reporter.phase("train", "4 steps")
        play(reporter, clock, 5, seconds=20.0)
        reporter.phase("evaluate", "test slice")
    assert [line.split()[0] for line in lines()] == ["train", "evaluate"]
    assert reporter.metadata["eta_seconds"] == 0.095


def test_a_sink_may_tell_addresses_and_nothing_else(tmp_path):
    reporter = progress.Reporter(stream=io.StringIO())
    reporter.attach(directory.RunDirectory(tmp_path), status="running")
    reporter.learn({"wandb_run_url": "https://w", "status": "completed", "x": object()})
    told = directory.read_json(tmp_path / "run_metadata.json")
    assert (told["wandb_run_url"], told["status"]) == ("https://w", "running")
    assert told["troubles"] == ["a sink told status, x, which no run has: left out"]
