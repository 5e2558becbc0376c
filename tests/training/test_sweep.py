"""Sweeps through their command: the validation slice chooses, and one run alone plays the test slice."""

import json

import numpy as np
import pytest

from tests.training.studying import FAST, chunks_of, command, result_of, study_in
from ztb_jax import space
from ztb_jax.cli.main import run
from ztb_jax.runs import artifacts, directory, ledger
from ztb_jax.runs.studied import Search
from ztb_jax.training import chunks, sweep

RATES = (1e-2, 1e-4, 3e-3)
VARY = (*FAST, "--vary", "ppo.learning_rate=1e-2,1e-4,3e-3")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("swept")
    assert command(root, "sweep", *VARY, "--seeds", "2", "--id", "sw") == 0
    return root


@pytest.fixture(scope="module")
def store(root):
    return study_in(root, "sw")


def test_the_best_mean_validation_is_chosen(store):
    rows, arrays = chunks_of(store)
    result = result_of(store)
    artifacts.parse("study_result", store.result.read_bytes())
    artifacts.parse("study", store.study.read_bytes())
    assert directory.read_lines(store.trials) == rows
    scores = np.array([row["validation_log_growth"] for row in rows]).reshape(3, 2)
    assert [point["validation_log_growth"] for point in result["points"]] == scores.tolist()
    assert [point["settings"] for point in result["points"]] == [
        {"ppo.learning_rate": rate} for rate in RATES
    ]
    assert [point["mean"] for point in result["points"]] == pytest.approx(scores.mean(axis=1))
    assert result["best"] == int(np.argmax(scores.mean(axis=1)))
    assert result["trainings"] == 6
    assert not any(row["tests"] for row in rows)
    assert not any(name.startswith("returns") for each in arrays for name in each)


def test_one_run_alone_plays_the_test_slice(root, store):
    (row,) = ledger.read(root / "scored.jsonl").rows
    assert (row["kind"], row["run_id"], row["slice"]) == ("sweep", "sw", "test")
    metadata = directory.read_json(root / "sw" / "run_metadata.json")
    assert (metadata["kind"], metadata["study"], metadata["status"]) == ("sweep", "sw", "completed")
    config = directory.read_json(root / "sw" / "config.json")
    assert config["ppo"]["learning_rate"] == RATES[result_of(store)["best"]]
    assert config["seed"] == 3
    edge = directory.read_json(root / "sw" / "evaluation.json")["edge"]
    assert edge["trials"] == 1


def test_the_run_is_what_the_sweep_trained(root, store):
    """The first seed of the best configuration, window by window."""
    best = result_of(store)["best"]
    row = directory.read_lines(store.trials)[2 * best]
    windows = directory.read_lines(root / "sw" / "metrics" / "windows.jsonl")
    growth = [window["validation_log_growth"] for window in windows]
    assert row["validation_log_growth"] == pytest.approx(max(growth), rel=1e-4)
    assert row["chosen_window"] == int(np.argmax(growth))


def test_a_finished_sweep_tells_its_end_again_and_makes_no_other_run(root, store, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError("nothing is left to train")

    before = sorted(path.name for path in root.iterdir())
    monkeypatch.setattr(chunks, "compile_trials", never)
    monkeypatch.setattr(sweep.job, "train", never)
    for flags in ((), ("--no-run",)):
        assert run(["sweep", "--resume", str(store.path), *flags], prog="ztb") == 0
        out = capsys.readouterr().out
        assert out.rstrip().split("\n")[-1] == str(store.path if flags else root / "sw")
    assert sorted(path.name for path in root.iterdir()) == before
    assert len(ledger.read(root / "scored.jsonl").rows) == 1


def test_another_run_of_that_name_is_left_alone(root, store, tmp_path, capsys):
    import shutil

    copy = shutil.copytree(root, tmp_path / "runs")
    path = copy / "sw" / "run_metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"study": "other"}))
    assert run(["sweep", "--resume", str(copy / "studies" / "sw")], prog="ztb") == 2
    assert "is no run of this sweep" in capsys.readouterr().err


DRAWN = (*FAST, "--vary", "ppo.learning_rate=1e-4..1e-1:log", "--seeds", "2", "--no-run")


def test_random_points_are_drawn_once_and_kept(tmp_path):
    assert command(tmp_path, "sweep", "--method", "random", "--points", "3", "--id", "r", *DRAWN) == 0
    store = study_in(tmp_path, "r")
    told, result = json.loads(store.study.read_text()), result_of(store)
    wanted = space.random(space.parse_axes(["ppo.learning_rate=1e-4..1e-1:log"]), 3, seed=0)
    assert told["batches"] == [wanted, []]
    assert [point["settings"] for point in result["points"]] == wanted
    assert not (tmp_path / "r").exists()
    assert not (tmp_path / "scored.jsonl").exists()


def test_optuna_goes_on_from_batch_to_batch_and_every_row_is_kept(tmp_path, monkeypatch):
    """Stopped in its second batch and resumed, so that what is read back is what was told."""
    pytest.importorskip("optuna")
    seen, real, trained = [], sweep.proposed, []

    def proposed(search, axes, tried):
        seen.append(len(tried))
        return real(search, axes, tried)

    def train_study(*parts, **rest):
        trained.append(rest["batch"])
        return None if trained == [0, 1] else chunks.train_study(*parts, **rest)

    monkeypatch.setattr(sweep, "proposed", proposed)
    monkeypatch.setattr(sweep, "train_study", train_study)
    flags = ("--method", "optuna", "--points", "6", "--batch", "3", "--id", "o", *DRAWN)
    assert command(tmp_path, "sweep", *flags) == 130
    store = study_in(tmp_path, "o")
    assert not store.result.exists()
    assert run(["sweep", "--resume", str(store.path), "--no-run"], prog="ztb") == 0
    rows, result = directory.read_lines(store.trials), result_of(store)
    assert seen == [0, 3, 6]
    assert trained == [0, 1, 0, 1]
    assert [row["trial"] for row in rows] == list(range(12))
    assert [row["config"] for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    told = [score for point in result["points"] for score in point["validation_log_growth"]]
    assert told == [row["validation_log_growth"] for row in rows]
    batches = json.loads(store.study.read_text())["batches"]
    assert [len(batch) for batch in batches] == [3, 3, 0]
    assert [point["settings"] for point in result["points"]] == [*batches[0], *batches[1]]
    assert result["trainings"] == 12


def quadratic(search: Search, axes) -> list[float]:
    """Optuna on a parabola whose top is at 0.7, in place of trainings."""
    tried: list[dict] = []
    while points := sweep.proposed(search, axes, tried):
        assert len(points) <= search.batch
        assert points == sweep.proposed(search, axes, json.loads(json.dumps(tried)))  # as it is read back
        tried += [
            {"settings": point, "validation_log_growth": [-((point["ppo.gamma"] - 0.7) ** 2)]}
            for point in points
        ]
    assert len(tried) == search.points
    return [each["settings"]["ppo.gamma"] for each in tried]


def test_what_optuna_is_told_makes_its_points_better():
    pytest.importorskip("optuna")
    axes = space.parse_axes(["ppo.gamma=0.0..1.0", "ppo.epochs=1..4", "env.levels=[0,1],[-1,0,1]"])
    points = quadratic(Search(vary=(), method="optuna", points=48, batch=4), axes)
    assert np.abs(np.array(points[-16:]) - 0.7).mean() < 0.6 * np.abs(np.array(points[:16]) - 0.7).mean()


def test_optuna_goes_on_where_trainings_failed():
    pytest.importorskip("optuna")
    axes = space.parse_axes(["ppo.gamma=0.1,0.2"])
    tried = [{"settings": {"ppo.gamma": 0.1}, "validation_log_growth": [None, 1.0]}] * 12
    (point,) = sweep.proposed(Search(vary=(), method="optuna", points=13, batch=8), axes, tried)
    assert point["ppo.gamma"] in {0.1, 0.2}


def test_without_any_policy_there_is_no_best_and_no_run(tmp_path, capsys):
    gate = ("--gates.least-trades", "1.0", "--gates.patience-updates", "1")
    flags = ("--vary", "env.fee_rate=1e-4", "--learner", "random", "--run.total-env-steps", "512")
    assert command(tmp_path, "sweep", *flags, *gate, "--id", "n") == 1
    result = result_of(study_in(tmp_path, "n"))
    assert result["best"] is None
    assert [point["mean"] for point in result["points"]] == [None]
    assert "no training passed its gates on every seed" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()
