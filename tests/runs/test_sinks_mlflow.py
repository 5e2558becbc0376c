"""A real MLflow store in a folder, read back by MLflow's own client."""

import pytest

from tests.runs.sinking import Settings, begun, ended, make_run, story, window
from ztb_jax.errors import ConfigError
from ztb_jax.runs.sinks import Event, Sinks, check_sinks, make_sinks


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


@pytest.fixture
def uri(tmp_path):
    return f"file:{tmp_path / 'store'}"


def tell(run, uri, events):
    """Tell the events; the client and the one run that it finds."""
    told = []
    sinks = make_sinks(Settings(mlflow=uri), run)
    with Sinks(sinks, report=told.append, learnt=told.append, patience=60.0) as each:
        for event in events:
            each.tell(event)
    assert not told
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("ztb_jax")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    return client, found


def points(client, found, key):
    return [(metric.step, metric.value) for metric in client.get_metric_history(found.info.run_id, key)]


def test_a_run_holds_its_settings_windows_and_artifacts(run, uri):
    client, found = tell(run, uri, story(run))
    assert (found.info.run_name, found.info.status) == ("r-1", "FINISHED")
    assert found.data.params["data.symbol"] == "SP500"
    assert found.data.params["env.levels"] == "[-1.0, 0.0, 1.0]"
    assert found.data.params["data.start"] == "null"
    assert points(client, found, "episode/reward") == [(1024, 0.25), (2048, 1.25)]
    assert points(client, found, "evaluation/policy/sharpe") == [(2048, 1.5)]
    assert "performance/profit_mean" not in found.data.metrics
    listed = {
        file.path
        for folder in ("model/window-000000", "model/window-000001", "replays")
        for file in client.list_artifacts(found.info.run_id, folder)
    }
    assert listed == {
        "model/window-000001/ckpt_000001.pt",
        "replays/best.jsonl.gz",
    }


@pytest.mark.parametrize(("status", "told"), [("failed", "FAILED"), ("cancelled", "KILLED")])
def test_the_end_is_told(run, uri, status, told):
    _, found = tell(run, uri, [begun(run), Event("ended", run, 0, {"status": status})])
    assert found.info.status == told


def test_a_run_that_goes_on_is_the_same_run(run, uri):
    _, first = tell(run, uri, [begun(run), window(run, 0), ended(run, 0, "cancelled")])
    client, found = tell(run, uri, [begun(run, 1024), window(run, 1), ended(run, 1)])
    assert found.info.run_id == first.info.run_id
    assert found.info.status == "FINISHED"
    assert points(client, found, "episode/reward") == [(1024, 0.25), (2048, 1.25)]


def test_a_long_setting_is_shortened_and_says_so(run, uri, monkeypatch):
    from mlflow import MlflowClient

    sizes, log_batch = [], MlflowClient.log_batch

    def counted(self, run_id, metrics=(), params=(), tags=(), **options):
        sizes.append(len(params))
        return log_batch(self, run_id, metrics, params, tags, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    config = {"data": {"symbol": "x" * 7000}, **{f"key{number:03}": number for number in range(150)}}
    _, found = tell(run, uri, [Event("begun", run, 0, config)])
    assert found.data.params["data.symbol"] == "x" * 5986 + " … (shortened)"
    assert len(found.data.params) == 151
    assert sizes == [100, 51]  # servers refuse more at once


def test_a_uri_of_no_kind_that_is_installed_is_refused():
    with pytest.raises(ConfigError, match=r"sinks\.mlflow gopher://x cannot be used \(.+\): give file:"):
        check_sinks(Settings(mlflow="gopher://x"))


def test_a_server_that_is_not_there_is_reported_and_nothing_else(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told = []
    sinks = make_sinks(Settings(mlflow="http://127.0.0.1:9"), run)
    with Sinks(sinks, report=told.append, learnt=told.append, patience=60.0) as each:
        each.tell(begun(run))
    (line,) = told
    assert line.startswith("mlflow could not take the 'begun' at 0 steps (MlflowException: ")
