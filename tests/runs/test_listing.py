"""The list of runs is read from their metadata, quickly, and none hides another."""

import json
import subprocess
import sys

import pytest

from ztb_jax.cli.main import run
from ztb_jax.errors import RunError
from ztb_jax.runs import directory, listing


def make(root, name: str, **facts):
    found = directory.create(root, name, {"data": {"symbol": "SP500", "timeframe": "1d"}})
    directory.write_json(found.metadata, {"run_id": name, "status": "completed", "fraction": 1.0} | facts)
    return found


@pytest.fixture
def root(tmp_path):
    make(tmp_path, "old", started_at="2026-01-01T00:00:00.000Z", env_steps_total=900)
    make(tmp_path, "new", started_at="2026-01-03T00:00:00.000Z", env_steps_total=100, verdict="Beat it.")
    make(tmp_path, "gone", started_at="2026-01-02T00:00:00.000Z", status="running")
    (tmp_path / "notes").mkdir()
    return tmp_path


def names(runs) -> list[str]:
    return [each["run_id"] for each in runs]


def test_the_newest_come_first_and_other_orders_are_asked_for(root):
    assert names(listing.list_runs(root)) == ["new", "gone", "old"]
    assert names(listing.list_runs(root, sort="env_steps_total")) == ["old", "new", "gone"]
    with pytest.raises(RunError, match="to sort by"):
        listing.list_runs(root, sort="nothing")
    with pytest.raises(RunError, match="no directory"):
        listing.list_runs(root / "nowhere")


def test_a_run_that_nobody_writes_to_was_killed(root):
    assert names(listing.list_runs(root, status="killed")) == ["gone"]
    with directory.locked(directory.find(root / "gone")):
        assert names(listing.list_runs(root, status="running")) == ["gone"]


@pytest.mark.parametrize("text", ["", "[]", "null"])
def test_a_damaged_run_is_listed_as_such(root, text):
    (root / "old" / "config.json").write_text(text)
    (found,) = listing.list_runs(root, status="damaged")
    assert found["run_id"] == "old"
    assert found["error"]


@pytest.mark.parametrize("text", ["[]", "null", "{}", '{"status": {}}', '{"status": "x", "fraction": NaN}'])
def test_damaged_metadata_are_told_and_hide_no_other_run(root, text):
    (root / "old" / "run_metadata.json").write_text(text)
    assert names(listing.list_runs(root, status="damaged")) == ["old"]
    assert len(listing.list_runs(root, sort="fraction")) == 3


def test_the_command_lists_and_shows(root, capsys):
    assert run(["runs", "--root", str(root)], prog="ztb") == 0
    told = capsys.readouterr().out
    assert told.index("new") < told.index("gone") < told.index("old")
    assert "Beat it." in told
    assert run(["runs", "--root", str(root), "--status", "killed", "--json"], prog="ztb") == 0
    assert names(json.loads(capsys.readouterr().out)) == ["gone"]
    assert run(["runs", "show", str(root / "new")], prog="ztb") == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["summary"]["verdict"] == "Beat it."
    assert whole["evaluation"] is None
    assert run(["runs", "--root", str(root / "nowhere")], prog="ztb") == 2


def test_a_thousand_runs_are_listed_without_jax(root):
    for number in range(1000):
        make(root, f"run{number}", started_at=f"2026-02-01T00:00:00.{number:03d}Z")
    code = (
        "import sys\nfrom ztb_jax.cli.main import run\n"
        f"status = run(['runs', '--root', {str(root)!r}], prog='ztb')\n"
        "assert 'jax' not in sys.modules\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("run") >= 1000


def test_runs_are_compared_where_they_differ(root, capsys):
    config = {"data": {"symbol": "SP500", "timeframe": "1h"}, "ppo": {"gamma": 0.9}}
    directory.write_json(root / "new" / "config.json", config)
    directory.write_json(root / "new" / "evaluation.json", {"strategies": {"policy": {"sharpe": 1.25}}})
    both = [str(root / name) for name in ("old", "new")]
    assert run(["runs", "compare", *both, "--json"], prog="ztb") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"] == {"data.timeframe": ["1d", "1h"], "ppo.gamma": [None, 0.9]}
    assert told["metrics"] == {"sharpe": [None, 1.25]}
    assert run(["runs", "compare", *both], prog="ztb") == 0
    assert "data.timeframe" in capsys.readouterr().out
    assert run(["runs", "compare", both[0]], prog="ztb") == 2
    assert "two or more" in capsys.readouterr().err


def test_a_run_that_ends_while_it_is_looked_at_was_not_killed(tmp_path, monkeypatch):
    run = directory.create(tmp_path, "ending", {"data": {"symbol": "S", "timeframe": "1d"}})
    directory.write_json(run.metadata, {"status": "running"})

    def ends(looked_at):
        directory.write_json(looked_at.metadata, {"status": "completed"})
        return False

    monkeypatch.setattr(directory, "is_locked", ends)
    assert listing.summary(run)["status"] == "completed"
