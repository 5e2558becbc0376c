"""What TensorBoard's own reader finds in `logs`, and what a person finds in the text log there."""

import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from tests.runs.sinking import Settings, begun, checkpoint, ended, make_run, story, window
from ztb_jax.runs.sinks import Event, Sinks, make_sinks


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


@pytest.fixture
def logs(tmp_path):
    return tmp_path / "logs"


def tell(run, logs, events, **names) -> None:
    told = []
    sinks = make_sinks(Settings(logs=str(logs), tensorboard=True), run, **names)
    with Sinks(sinks, report=told.append, learnt=told.append) as each:
        for event in events:
            each.tell(event)
    assert not told


def read(folder) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def points(found: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in found.Scalars(tag)]


def text(found: EventAccumulator, tag: str) -> list[tuple[int, str]]:
    return [
        (point.step, point.tensor_proto.string_val[0].decode())
        for point in found.Tensors(f"{tag}/text_summary")
    ]


def test_tensorboard_shows_numbers_by_group_at_their_steps(run, logs):
    tell(run, logs, story(run))
    found = read(logs / "r-1")
    assert set(found.Tags()["scalars"]) == {
        "episode/reward",
        "episode/length",
        "episode/completed",
        "loss/loss",
        "loss/policy_loss",
        "performance/steps_per_second",
        "risk/survival_rate",
        "risk/drawdown",
        "risk/ruined",
        "risk/turnover",
        "risk/verdict",
        "train/reward",
        "train/entropy",
        "train/env_steps_in_window",
        "evaluation/policy/sharpe",
        "evaluation/flat/sharpe",
    }
    assert points(found, "episode/reward") == [(1024, 0.25), (2048, 1.25)]
    assert points(found, "loss/loss") == [(1024, 0.75), (2048, 0.75)]
    assert points(found, "risk/verdict") == [(1024, 0.0), (2048, 13.0)]
    assert points(found, "evaluation/policy/sharpe") == [(2048, 1.5)]


def test_tensorboard_shows_configuration_checkpoints_and_replays_as_text(run, logs):
    tell(run, logs, story(run))
    found = read(logs / "r-1")
    ((step, config),) = text(found, "config")
    assert step == 0
    assert '| `data.symbol` | `"SP500"` |' in config
    assert text(found, "checkpoint") == [
        (1024, "window 0: `checkpoints/0`"),
        (2048, "window 1: `checkpoints/ckpt_000001.pt`"),
    ]
    assert text(found, "replay") == [(2048, "window 1: `replays/best.jsonl.gz`, best, return:100%")]
    assert text(found, "status") == [(2048, "completed: no error")]
    assert set(found.PluginTagToContent("hparams")) == {
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }


def test_every_run_stands_under_its_name(run, logs):
    tell(run, logs, story(run))
    tell(run, logs, story(run), name="phase1")
    found = EventMultiplexer().AddRunsFromDirectory(str(logs)).Reload()
    assert set(found.Runs()) == {"r-1", "phase1"}
    assert (logs / "phase1" / "training.log").is_file()


def test_a_window_is_there_before_the_run_ends(run, logs):
    sinks = make_sinks(Settings(logs=str(logs), tensorboard=True), run)
    for event in (begun(run), window(run, 0)):
        for sink in sinks.values():
            sink(event)
    assert points(read(logs / "r-1"), "episode/reward") == [(1024, 0.25)]
    assert len((logs / "r-1" / "training.log").read_text().splitlines()) == 2
    for sink in sinks.values():
        sink(ended(run, 0))


def test_windows_of_a_run_that_goes_on_supersede_those_of_its_first_attempt(run, logs):
    first = [begun(run), *(window(run, number) for number in range(4)), checkpoint(run, 1, "checkpoints/0")]
    tell(run, logs, [*first, ended(run, 3, "failed", "no space")])
    again = [begun(run, 2048), *(window(run, number, return_mean=9.0) for number in (2, 3)), ended(run, 3)]
    tell(run, logs, again)
    found = read(logs / "r-1")
    assert points(found, "episode/reward") == [(1024, 0.25), (2048, 1.25), (3072, 9.0), (4096, 9.0)]
    assert points(found, "evaluation/policy/sharpe") == [(4096, 1.5)]
    log = (logs / "r-1" / "training.log").read_text().splitlines()
    assert len(log) == len(first) + 1 + len(again)
    assert "failed" in log[len(first)]
    assert "no space" in log[len(first)]
    assert log[len(first) + 1].endswith("run r-1 resumed after 2,048 steps")


def test_a_run_begun_anew_supersedes_all(run, logs):
    tell(run, logs, [begun(run), window(run, 0), ended(run, 0, "failed")])
    tell(run, logs, [begun(run), window(run, 0, return_mean=9.0), ended(run, 0)])
    found = read(logs / "r-1")
    assert points(found, "episode/reward") == [(1024, 9.0)]


def test_the_log_has_one_line_for_each_event(run, logs):
    tell(run, logs, story(run))
    stamp = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")
    lines = (logs / "r-1" / "training.log").read_text().splitlines()
    assert all(stamp.match(line) for line in lines)
    measured = "training_loss=0.75 evaluation_metric=-"
    assert [stamp.sub("", line) for line in lines] == [
        "run r-1 begun",
        "train      2,048 steps in 2 windows",
        f"window 0 env_steps=1024 episode_reward=0.25 {measured} risk_violations=none",
        f"checkpoint window=0 path={run.path}/checkpoints/0",
        f"window 1 env_steps=2048 episode_reward=1.25 {measured} risk_violations=drawdown,ruined:3",
        f"checkpoint window=1 path={run.path}/checkpoints/ckpt_000001.pt",
        f"replay window=1 tags=best,return:100% path={run.path}/replays/best.jsonl.gz",
        "ended status=completed Beat buy-and-hold.",
    ]


def test_a_run_that_was_not_judged_ends_with_its_error(run, logs):
    end = Event("ended", run, 0, {"status": "failed", "error": "no space"})
    tell(run, logs, [begun(run), end])
    assert (logs / "r-1" / "training.log").read_text().splitlines()[-1].endswith("failed error: no space")


def test_logs_that_cannot_be_written_are_reported_and_name_their_setting(run, logs):
    logs.write_text("a file")
    told = []
    sinks = make_sinks(Settings(logs=str(logs), tensorboard=True), run)
    with Sinks(sinks, report=told.append, learnt=told.append) as each:
        each.tell(begun(run))
    assert len(told) == 2
    assert any("NotADirectoryError" in line and "change sinks.logs" in line for line in told)
