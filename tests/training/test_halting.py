"""Gates between windows stop a run, say why and what to do; those of the machine let it go on elsewhere."""

import pytest

from benchmarks.faults import outcome
from tests.training.resuming import train
from ztb_jax.cli.main import run
from ztb_jax.runs import directory


def metadata(found) -> dict:
    return directory.read_json(found.metadata)


@pytest.mark.parametrize(
    ("flags", "name", "windows"),
    [
        (("--gates.baseline", "1.0", "--gates.patience-windows", "2"), "gates.baseline", 2),
        (("--gates.drawdown", "1e-6", "--gates.patience-windows", "1"), "gates.drawdown", 1),
        (("--gates.gap", "0.0", "--gates.patience-windows", "6"), None, 6),
        (("--gates.behind-buy-and-hold", "0.0", "--gates.patience-windows", "1"), None, None),
        (("--gates.least-trades", "1.0", "--gates.patience-updates", "3"), "gates.least_trades", 2),
    ],
)
def test_a_gate_stops_the_run_with_a_sentence_and_a_remedy(tmp_path, capsys, flags, name, windows):
    status = train(tmp_path, "gated", *flags)
    facts, told = metadata(directory.find(tmp_path / "gated")), capsys.readouterr().err
    assert "Traceback" not in told
    if windows is not None:
        assert facts["windows_emitted"] == windows
    assert status == (0 if facts["status"] == "completed" else 1)
    if name is not None:
        assert (status, facts["status"]) == (1, "failed")
        assert name in facts["error"]
        assert facts["error"] in told
        assert run(["resume", str(tmp_path / "gated")], prog="ztb") == 2


def test_a_run_that_took_too_much_memory_goes_on_where_there_is_more(tmp_path, capsys, monkeypatch):
    assert train(tmp_path, "whole") == 0
    monkeypatch.setenv("ZTB_MAX_MEMORY_GB", "0.01")
    assert train(tmp_path, "large") == 1
    large = directory.find(tmp_path / "large")
    assert "memory" in metadata(large)["error"]
    assert metadata(large)["windows_emitted"] == 1
    monkeypatch.delenv("ZTB_MAX_MEMORY_GB")
    assert run(["resume", str(large.path)], prog="ztb") == 0
    assert "failed_window" not in metadata(large)
    (rows, *rest), (wanted, *others) = outcome(large), outcome(directory.find(tmp_path / "whole"))
    assert rows[0].pop("verdict") != wanted[0].pop("verdict") == 0
    assert (rows, rest[0]) == (wanted, others[0])


def test_healthy_gates_change_no_bit(tmp_path):
    assert train(tmp_path, "default") == 0
    every = ("--gates.drawdown", "0.99", "--gates.baseline", "-1.0", "--gates.gap", "1.0")
    inside = ("--gates.falling-reward", "50", "--gates.most-trades", "9", "--gates.least-entropy", "-9")
    assert train(tmp_path, "every", *every, *inside) == 0
    learnt = [
        [{name: leaf for name, leaf in row["leaves"].items() if "/learner/" in name} for row in rows]
        for rows in (
            directory.read_lines(directory.find(tmp_path / name).digests) for name in ("default", "every")
        )
    ]
    assert learnt[0] == learnt[1]
    assert learnt[0][0]
