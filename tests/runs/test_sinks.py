"""Sinks in their threads: nothing of theirs delays a run or ends it."""

import queue
import subprocess
import sys
import threading
import time

import pytest

from tests.runs.sinking import Settings, begun, make_run, window
from ztb_jax.errors import ConfigError
from ztb_jax.runs.sinks import Event, Sinks, check_sinks, make_sinks


class Told(list):
    """Facts and sentences, with a moment to wait for."""

    def __init__(self):
        self.some = threading.Event()

    def __call__(self, what):
        self.append(what)
        self.some.set()


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


@pytest.fixture
def report():
    return Told()


@pytest.fixture
def learnt():
    return Told()


def lines(run, count: int) -> list[Event]:
    return [Event("line", run, number, {"text": str(number)}) for number in range(count)]


def test_every_sink_is_told_every_event_in_order(run, report, learnt):
    one, other, told = [], [], lines(run, 500)
    with Sinks({"one": one.append, "other": other.append}, report=report, learnt=learnt) as sinks:
        for event in told:
            sinks.tell(event)
    assert one == other == told
    assert not report
    assert not learnt


def test_what_a_sink_returns_is_learnt(run, report, learnt):
    def sink(event):
        return {"url": None} if event.kind == "begun" else {}

    with Sinks({"one": sink}, report=report, learnt=learnt) as sinks:
        sinks.tell(begun(run))
        sinks.tell(window(run, 0))
    assert learnt == [{"url": None}]


def test_facts_are_those_of_the_moment(run, report, learnt):
    go, seen, facts = threading.Event(), [], {"text": "first"}

    def sink(event):
        go.wait(10.0)
        seen.append(event.facts["text"])

    with Sinks({"one": sink}, report=report, learnt=learnt) as sinks:
        sinks.tell(Event("line", run, 0, facts))
        facts["text"] = "changed"
        go.set()
    assert seen == ["first"]


@pytest.mark.parametrize("error", [ValueError("no\nspace"), SystemExit(1)])
def test_a_sink_that_fails_is_reported_once_and_told_nothing_more(run, report, learnt, error):
    calls, others = [], queue.SimpleQueue()

    def broken(event):
        calls.append(event)
        raise error

    with Sinks({"wandb": broken, "other": others.put}, report=report, learnt=learnt, bound=9) as sinks:
        sinks.tell(window(run, 0))
        assert report.some.wait(10.0)
        for number in range(1, 20):
            others.get(timeout=10.0)  # of the one before: nobody loses what waits no longer
            sinks.tell(window(run, number))
    assert len(calls) == 1
    assert others.qsize() == 1
    (told,) = report
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    for part in ("wandb", "'window'", "1,024 steps", cause, "change sinks.wandb"):
        assert part in told


def test_telling_does_not_wait_for_a_slow_sink_and_closing_does(run, report, learnt):
    seen = []

    def slow(event):
        time.sleep(0.02)
        seen.append(event)

    with Sinks({"slow": slow}, report=report, learnt=learnt) as sinks:
        for event in lines(run, 20):
            sinks.tell(event)
        assert len(seen) < 20
    assert len(seen) == 20
    assert not report


def test_a_sink_that_hangs_is_given_up_once_for_all(run, report, learnt):
    never, seen = threading.Event(), []

    def hanging(event):
        never.wait(60.0)
        seen.append(event)
        return {"late": True}

    begun_at = time.monotonic()
    with Sinks({"one": hanging, "two": hanging}, report=report, learnt=learnt, patience=0.3) as sinks:
        for event in lines(run, 5):
            sinks.tell(event)
    assert time.monotonic() - begun_at < 5.0
    assert [line.split(";")[0] for line in report] == [
        f"{name} has not taken everything after 0.3 s: given up with 5 events left" for name in ("one", "two")
    ]
    never.set()
    for thread in threading.enumerate():
        if thread.name.startswith("sink-"):
            thread.join(10.0)
    assert len(seen) == 2  # what it hung in, and nothing after
    assert not learnt


def test_a_sink_that_is_too_slow_loses_what_is_frequent_and_nothing_else(run, report, learnt):
    begun_with, go, seen = threading.Event(), threading.Event(), []

    def stuck(event):
        begun_with.set()
        go.wait(10.0)
        seen.append(event.kind)

    with Sinks({"slow": stuck}, report=report, learnt=learnt, bound=3) as sinks:
        sinks.tell(begun(run))
        assert begun_with.wait(10.0)
        for event in lines(run, 10):
            sinks.tell(event)
        sinks.tell(Event("ended", run, 0, {}))
        go.set()
    assert seen == ["begun", "line", "line", "line", "ended"]
    first, last = report
    assert "slow is too slow: 3 events wait for it" in first
    assert last == "slow was too slow and lost 7 lines and windows"


def test_a_process_ends_although_a_sink_hangs():
    code = """
import time
from pathlib import Path
from ztb_jax.runs import directory
from ztb_jax.runs.sinks import Event, Sinks
with Sinks({"x": lambda event: time.sleep(100)}, report=print, learnt=print, patience=0.1) as sinks:
    sinks.tell(Event("line", directory.RunDirectory(Path("x")), 0))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout.startswith("x has not taken everything after 0.1 s: given up with 1 events left")


def test_no_tracker_is_loaded_before_it_is_asked_for(run):
    assert make_sinks(Settings(), run) == {}
    trackers = "{'jax', 'tensorboardX', 'wandb', 'mlflow'}"
    code = f"import sys, ztb_jax.runs.sinks\nsys.exit(bool({trackers} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_packages_are_all_refused_with_what_to_install(run, monkeypatch):
    for package in ("tensorboardX", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)
    settings = Settings(tensorboard=True, wandb="offline", mlflow="file:x")
    with pytest.raises(ConfigError) as refused:
        make_sinks(settings, run)
    for finding, (setting, install) in zip(
        refused.value.findings,
        {
            "sinks.tensorboard": "pip install tensorboardX",
            "sinks.wandb": "pip install wandb",
            "sinks.mlflow": "pip install mlflow-skinny",
        }.items(),
        strict=True,
    ):
        assert finding.startswith(f"{setting} needs the package")
        assert "not installed" in finding
        assert f"`{install}`" in finding


@pytest.mark.parametrize("line", ["import no_such_module_of_wandb", "raise RuntimeError('torn install')"])
def test_a_broken_package_is_refused_with_its_cause(tmp_path, monkeypatch, line):
    (tmp_path / "wandb.py").write_text(line)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError) as refused:
        check_sinks(Settings(wandb="offline"))
    (finding,) = refused.value.findings
    assert "whose import fails" in finding
    assert "no_such_module_of_wandb" in finding or "torn install" in finding
