"""Real runs are recorded, judged with the M of their record, and told so everywhere."""

import json
import math
import shutil

import numpy as np
import pytest

from tests.training.resuming import resume, stopped, train
from tests.training.test_windowed import windowed
from ztb_jax.cli.main import run
from ztb_jax.evaluation import metrics
from ztb_jax.runs import artifacts, directory, ledger, listing
from ztb_jax.training import evaluate, job, scoring

SHORT = ("--run.total-env-steps", "1")


def result(root, name: str = "a") -> dict:
    return directory.read_json(root / name / "evaluation.json")


def told(root) -> list:
    return ledger.read(root / "scored.jsonl").rows


def judge_again(root, name: str, *flags: str) -> int:
    return run(["evaluate", str(root / name), *flags], prog="ztb")


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A folder with a short run of seed 3, and one of seed 4 after it."""
    root = tmp_path_factory.mktemp("judged")
    assert train(root, "a", *SHORT) == 0
    assert train(root, "b", *SHORT, "--seed", "4") == 0
    return root


@pytest.fixture
def root(judged, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(judged, tmp_path / "runs")


def test_a_run_leaves_a_verdict_and_a_line_in_the_record(judged):
    row, other = told(judged)
    found = directory.find(judged / "a")
    config = evaluate.saved_config(found)
    told_of, metadata = result(judged), directory.read_json(found.metadata)
    policy = told_of["strategies"]["policy"]
    assert (row["run_id"], row["seed"], row["slice"], row["kind"]) == ("a", 3, "test", "run")
    assert (row["symbol"], row["timeframe"], row["bars"]) == ("synthetic/ar1", "1h", told_of["bars"])
    assert row["data"] == metadata["data"]["content_hash"]
    assert row["sharpe"] == pytest.approx(policy["sharpe"])
    assert row["sharpe_per_bar"] == pytest.approx(policy["sharpe"] / math.sqrt(told_of["bars_per_year"]))
    assert row["last"] == told_of["last_bar"].replace(" ", "T") + "Z"
    frame = evaluate.load_frame(config)
    bars = frame.index.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert ((bars >= row["first"]) & (bars <= row["last"])).sum() == row["bars"]
    edge = told_of["edge"]
    assert (edge["trials"], edge["trials_at_first"], edge["ledger"]) == (1, 1, None)
    assert metadata["edge"] == edge["label"] in ("edge", "no edge", "inconclusive")
    artifacts.check("scored", row)
    artifacts.check("evaluation", told_of)
    page = found.report.read_text()
    assert f">{edge['label'].capitalize()}</p>" in page
    assert "M = 1: nothing else was ever scored" in page
    assert len(told_of["targets"]) == 8
    assert (other["run_id"], result(judged, "b")["edge"]["trials"]) == ("b", 2)


def test_the_weights_name_the_policy(judged, monkeypatch):
    """Independent of how they are restored: the same as of the leaves' own bytes."""
    seen = []
    monkeypatch.setattr(scoring, "judge", lambda *parts, params, **rest: seen.append(params) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        judge_again(judged, "a")
    (params,) = seen
    again = scoring.policy_digest(params)
    assert told(judged)[0]["policy"] == again
    changed = scoring.policy_digest(_nudged(params))
    assert changed != again


def _nudged(params):
    import jax

    leaves, tree = jax.tree.flatten(params)
    leaves = [np.asarray(leaf) for leaf in leaves]
    leaves[0] = leaves[0] + np.float32(1e-6)
    return jax.tree.unflatten(tree, leaves)


def test_m_grows_over_seeds_and_not_over_looks(root, capsys):
    before = (root / "b" / "evaluation.json").read_bytes()
    for _ in range(2):
        assert judge_again(root, "b") == 0
        assert "M = 2: 2 policies were ever scored" in capsys.readouterr().out
    assert (root / "b" / "evaluation.json").read_bytes() == before
    assert len(told(root)) == 4
    assert judge_again(root, "a") == 0
    assert "M was 1 when this one was first scored" in capsys.readouterr().out
    edge = result(root)["edge"]
    assert (edge["trials"], edge["trials_at_first"]) == (2, 1)
    assert "M was 1 when" in (root / "a" / "report.html").read_text()


def test_the_same_settings_on_other_dates_are_another_trial(root):
    later = ("--data.start", "2000-01-04", "--data.synthetic-bars", "1224")  # a day later, as many bars
    assert train(root, "c", *SHORT, *later) == 0
    first, _, last = told(root)
    assert first["config"] != last["config"]
    assert first["first"] < last["first"] < first["last"] < last["last"]
    assert result(root, "c")["edge"]["trials"] == 3


def test_seeds_share_a_digest_of_settings_and_places_are_none():
    config = evaluate.layered(environ={})
    for flags in ({"seed": 9}, {"run.root": "elsewhere", "run.id": "x", "run.ledger": "all.jsonl"}):
        assert scoring.settings_digest(evaluate.layered(environ={}, flags=flags)) == scoring.settings_digest(
            config
        )
    other = evaluate.layered(environ={}, flags={"env.fee_rate": 0.0})
    assert scoring.settings_digest(other) != scoring.settings_digest(config)


def test_a_look_at_a_seen_slice_is_recorded_and_gets_no_label(root, capsys):
    assert judge_again(root, "a", "--slice", "validation") == 0
    edge = directory.read_json(root / "a" / "evaluation-validation.json")["edge"]
    assert edge["label"] is None
    assert edge["evidence"] is None
    assert "the policy was chosen on these bars" in edge["reasons"][0]
    assert [row["slice"] for row in told(root)] == ["test", "test", "validation"]
    assert "Verdict:" not in capsys.readouterr().out
    assert judge_again(root, "a") == 0
    assert result(root)["edge"]["trials"] == 2  # those were other bars, and the same policy


def test_a_record_that_was_lost_makes_m_no_smaller(root):
    (root / "scored.jsonl").unlink()
    assert judge_again(root, "b") == 0
    found = result(root, "b")
    assert found["edge"]["trials"] == 2
    assert any("holds 1 of the 2 policies" in note for note in found["notes"])


def test_folders_share_a_record_that_is_named(judged, tmp_path, capsys):
    shared = tmp_path / "shared" / "all.jsonl"
    for number, name in ((1, "a"), (2, "b")):
        root = shutil.copytree(judged / name, tmp_path / name / name).parent
        (root / name / "evaluation.json").unlink()
        assert judge_again(root, name, "--ledger", str(shared)) == 0
        assert result(root, name)["edge"]["trials"] == number
        assert not (root / "scored.jsonl").exists()
    assert f"says {shared}" in capsys.readouterr().out


def test_a_damaged_record_is_refused_before_anything_is_trained(root, capsys):
    (root / "scored.jsonl").write_text("{}\n")
    before = (root / "a" / "evaluation.json").read_bytes()
    assert train(root, "c", *SHORT) == 2
    assert "scored.jsonl, line 1 is damaged" in capsys.readouterr().err
    assert not (root / "c").exists()
    assert judge_again(root, "a") == 2
    assert (root / "a" / "evaluation.json").read_bytes() == before
    assert (root / "scored.jsonl").read_text() == "{}\n"


def test_a_half_line_is_told_and_the_run_goes_on(root, capsys):
    whole = (root / "scored.jsonl").read_text()
    (root / "scored.jsonl").write_text(whole + whole[:50])
    assert judge_again(root, "a") == 0
    assert "line 3 was cut off" in capsys.readouterr().err
    assert len(told(root)) == 3


def test_it_is_recorded_before_it_is_judged(root, monkeypatch):
    """Whatever ends the process then, nobody has seen a verdict that is not counted."""

    def dies(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring.judgement, "judge", dies)
    assert judge_again(root, "a") == 130
    assert len(told(root)) == 3


def with_label(monkeypatch, label: str) -> None:
    """Every verdict from here on has that label; all else of it is real."""
    judge = scoring.judgement.judge
    monkeypatch.setattr(
        scoring.judgement, "judge", lambda *parts, **rest: judge(*parts, **rest) | {"label": label}
    )


@pytest.mark.parametrize(("label", "status"), [("edge", 0), ("no edge", 3), ("inconclusive", 3)])
def test_require_edge_decides_the_exit_status(root, monkeypatch, capsys, label, status):
    with_label(monkeypatch, label)
    assert judge_again(root, "a", "--require-edge") == status
    assert judge_again(root, "a") == 0
    told = capsys.readouterr()
    assert ("--require-edge: the verdict is" in told.err) == (status == 3)
    assert told.out.rstrip().endswith("report.html")
    assert directory.read_json(root / "a" / "run_metadata.json")["edge"] == label


def test_a_windowed_run_is_asked_too(tmp_path, monkeypatch, capsys):
    with_label(monkeypatch, "inconclusive")
    flags = ("--run-id", "a", "--total-env-steps", "40", "--window-env-steps", "40", "--require-edge")
    assert windowed(tmp_path, *flags) == 3
    said = capsys.readouterr()
    assert "ztb windowed: --require-edge: the verdict is inconclusive." in said.err
    assert said.out.rstrip().endswith(str(tmp_path / "a"))
    assert directory.read_json(tmp_path / "a" / "run_metadata.json")["status"] == "completed"


def test_a_stopped_run_keeps_its_status_and_a_resumed_one_is_another_trial(tmp_path, monkeypatch):
    with_label(monkeypatch, "no edge")
    half = stopped(tmp_path, "half", 2, monkeypatch, "--require-edge")
    assert directory.read_json(half.evaluation)["edge"]["trials"] == 1
    assert resume(half, "--require-edge") == 3
    policies = {row["policy"] for row in told(tmp_path)}
    assert directory.read_json(half.evaluation)["edge"]["trials"] == len(policies)


def test_no_verdict_can_be_required_of_a_slice_that_was_seen(root, capsys):
    assert judge_again(root, "a", "--slice", "train", "--require-edge") == 2
    assert "leave one of the two out" in capsys.readouterr().err
    assert len(told(root)) == 2


def test_the_label_is_listed_and_shown(root, capsys):
    label = result(root)["edge"]["label"]
    (listed,) = [each for each in listing.list_runs(root) if each["run_id"] == "a"]
    assert listed["edge"] == label
    assert listing.result(listed).startswith(f"{label.capitalize()}. ")
    assert run(["runs", "--root", str(root)], prog="ztb") == 0
    assert f"{label.capitalize()}. " in capsys.readouterr().out
    assert run(["runs", "show", str(root / "a")], prog="ztb") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["summary"]["edge"] == shown["evaluation"]["edge"]["label"] == label
    assert run(["runs", "show", str(root / "a"), "--follow"], prog="ztb") == 0
    assert f"completed: {label.capitalize()}. " in capsys.readouterr().out


def test_a_training_is_asked_and_its_kind_is_recorded_where_the_settings_say(tmp_path, monkeypatch, capsys):
    """A sweep says so in the facts of its runs' metadata, where a later evaluation finds it."""
    real, place = job.train, tmp_path / "all.jsonl"
    with_label(monkeypatch, "inconclusive")
    monkeypatch.setattr(job, "train", lambda *parts, facts=None: real(*parts, facts={"kind": "sweep"}))
    assert train(tmp_path / "runs", "a", *SHORT, "--require-edge", "--run.ledger", str(place)) == 3
    assert "ztb train: --require-edge: the verdict is inconclusive." in capsys.readouterr().err
    assert judge_again(tmp_path / "runs", "a") == 0
    assert [row["kind"] for row in ledger.read(place).rows] == ["sweep", "sweep"]
    assert result(tmp_path / "runs")["edge"]["ledger"] == str(place)


def test_the_returns_that_are_judged_are_those_of_the_account(judged, monkeypatch):
    seen = {}

    def keep(returns, baselines, **rest):
        seen.update(returns=returns, baselines=baselines, **rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring.judgement, "judge", keep)
    assert judge_again(judged, "a") == 130
    found = result(judged)
    grown = {"policy": seen["returns"], **seen["baselines"]}
    for name, returns in grown.items():
        told_of = found["strategies"][name]
        assert returns.shape == (found["bars"],)
        assert np.prod(1.0 + returns) - 1.0 == pytest.approx(told_of["total_return"])
        assert metrics.sharpe(returns, found["bars_per_year"]) == pytest.approx(told_of["sharpe"])
    assert seen["trials"] == 2
    assert seen["trial_sharpes"] == pytest.approx([row["sharpe_per_bar"] for row in told(judged)[:2]])


def test_the_best_run_before_plays_beside_a_new_one(tmp_path):
    """By validation, at the new one's costs; one that cannot be played any more is passed over."""
    # Bars that do not depend on the seed.
    bars = (*SHORT, "--data.symbol", "SP500", "--data.timeframe", "1d")
    assert train(tmp_path, "a", *bars) == 0
    assert train(tmp_path, "b", *bars, "--seed", "4") == 0
    assert "previous_best" not in result(tmp_path)["strategies"]
    beside = result(tmp_path, "b")["strategies"]["previous_best"]
    assert beside == result(tmp_path)["strategies"]["policy"]
    assert train(tmp_path, "c", *bars, "--seed", "5", "--env.fee-rate", "0.01") == 0
    scores = {
        name: directory.read_windows(tmp_path / name / "metrics/windows.jsonl")[-1]["validation_log_growth"]
        for name in "ab"
    }
    best = max(scores, key=lambda name: scores[name])
    dearer, own = result(tmp_path, "c")["strategies"]["previous_best"], result(tmp_path, best)["strategies"]
    # It sees what it has paid, so not every trade is the same.
    assert (
        dearer["fees_paid"] / dearer["num_trades"]
        > 5 * own["policy"]["fees_paid"] / own["policy"]["num_trades"]
    )
    shutil.rmtree(tmp_path / best / "checkpoints")
    assert judge_again(tmp_path, "c") == 0
    kept = result(tmp_path, "c")["strategies"]["previous_best"]
    assert kept != dearer
    assert kept["num_trades"] > 0


def test_a_record_that_is_gone_is_missed_by_the_next_run(root):
    (root / "scored.jsonl").unlink()
    assert train(root, "c", *SHORT, "--seed", "5") == 0
    assert any("is new, though 2 runs" in note for note in result(root, "c")["notes"])
    assert judge_again(root, "c") == 0
    assert not any("is new" in note for note in result(root, "c")["notes"])
