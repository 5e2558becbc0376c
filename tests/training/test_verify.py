"""Verifying makes a run again: equal bits are called identical, a planted bit is found, with its place."""

import dataclasses
import json
import shutil

import pytest

from tests.training.resuming import stopped
from ztb_jax.cli.main import run
from ztb_jax.runs import directory, packing
from ztb_jax.training import evaluate, run_seal


@pytest.fixture
def found(whole, tmp_path) -> directory.RunDirectory:
    """A copy to plant changes in."""
    shutil.copytree(whole.path, tmp_path / "made")
    return directory.find(tmp_path / "made")


def verify(found, capsys, *flags: str) -> tuple[int, dict]:
    status = run(["verify", str(found.path), "--json", *flags], prog="ztb")
    return status, json.loads(capsys.readouterr().out)


def test_a_run_is_identical_twice_and_untouched_by_it(whole, capsys):
    before = {path: path.read_bytes() for path in whole.path.rglob("*") if path.is_file()}
    for flags, windows in (((), 6), (("--windows", "2"), 2)):
        status, told = verify(whole, capsys, *flags)
        assert (status, told["result"], told["windows"]) == (0, "identical", windows)
        assert (told["changed"], told["first_difference"], told["resumed"]) == ([], None, [])
    assert {path: path.read_bytes() for path in whole.path.rglob("*") if path.is_file()} == before


def test_a_person_reads_the_answer_first(whole, capsys):
    assert run(["verify", str(whole.path), "--windows", "1"], prog="ztb") == 0
    assert capsys.readouterr().out == "identical: every bit of 1 windows\n"


def test_a_resumed_run_is_identical(tmp_path, monkeypatch, capsys):
    half = stopped(tmp_path, "half", 2, monkeypatch)
    assert run(["resume", str(half.path)], prog="ztb") == 0
    capsys.readouterr()
    status, told = verify(half, capsys)
    assert (status, told["result"], told["resumed"]) == (0, "identical", [])


def config_bit(found, monkeypatch):
    text = found.config.read_text()
    assert '"gamma": 0.95' in text
    found.config.write_text(text.replace('"gamma": 0.95', '"gamma": 0.96'))
    return "config.ppo.gamma was 0.95 and is 0.96"


def data_bit(found, monkeypatch):
    frame = evaluate.load_frame(evaluate.saved_config(found))
    bits = frame["close"].to_numpy().view("uint64").copy()
    bits[700] ^= 1
    frame["close"] = bits.view("float64")
    monkeypatch.setattr(evaluate, "load_frame", lambda config: frame)
    return "seal.data was"


def key_bit(found, monkeypatch):
    seal = directory.read_json(found.seal)
    seal["key"]["words"][1] ^= 1
    directory.write_json(found.seal, seal)
    return "key of the seal was"


def seed_bit(found, monkeypatch):
    seal = directory.read_json(found.seal)
    seal["seed"] ^= 1
    directory.write_json(found.seal, seal)
    return "seed of the seal was 2 and config.seed is 3"


@pytest.mark.parametrize("plant", [config_bit, data_bit, key_bit, seed_bit])
def test_one_planted_bit_is_found(found, monkeypatch, capsys, plant):
    words = plant(found, monkeypatch)
    status, told = verify(found, capsys)
    assert (status, told["result"]) == (1, "different")
    assert any(words in each for each in told["changed"])


def test_another_version_of_a_package_is_told_though_the_bits_agree(found, capsys):
    seal = directory.read_json(found.seal)
    seal["environment"]["requirements"]["numpy"] = "0.0"
    directory.write_json(found.seal, seal)
    status, told = verify(found, capsys)
    assert (status, told["result"]) == (1, "different")
    assert (
        "requirements of the seal do not agree with their hash: it was edited or damaged" in told["changed"]
    )

    seal["environment"]["requirements_hash"] = run_seal._digest(seal["environment"]["requirements"])
    directory.write_json(found.seal, seal)
    status, told = verify(found, capsys)
    assert (status, told["result"]) == (0, "identical")
    assert any("requirements.numpy was '0.0'" in each for each in told["changed"])


def rewritten(found, change) -> None:
    """Digests with rows changed and the chain made good again: a forger's work."""
    chain, rows = "", directory.read_lines(found.digests)
    for row in rows:
        change(row)
        chain = row["chain"] = packing.chained(chain, row["leaves"])
    directory.write_lines(found.digests, rows)


def test_the_first_window_and_leaf_that_differ_are_named(found, capsys):
    leaf = "carry/learner/updates"

    def change(row):
        if row["window_id"] >= 3:
            assert leaf in row["leaves"]
            row["leaves"][leaf] = "0" * 64

    rewritten(found, change)
    status, told = verify(found, capsys)
    assert (status, told["result"]) == (1, "different")
    assert told["first_difference"] == {"window_id": 3, "leaves": [leaf]}
    assert told["deviation"] == pytest.approx(0.0, abs=1e-9)


def test_an_edited_digest_breaks_the_chain(found, capsys):
    rows = directory.read_lines(found.digests)
    rows[2]["leaves"]["carry/learner/updates"] = "0" * 64
    directory.write_lines(found.digests, rows)
    status, told = verify(found, capsys)
    assert (status, told["result"]) == (1, "different")
    assert "digests of window 2 are not what was written" in told["changed"]


def test_a_damaged_checkpoint_is_told(found, capsys):
    path = next((found.checkpoints / "5").rglob("_METADATA"))
    path.write_bytes(path.read_bytes() + b" ")
    status, told = verify(found, capsys)
    assert (status, told["result"]) == (1, "different")
    assert any("generation 5 is damaged" in each for each in told["changed"])


def test_in_other_surroundings_metrics_may_deviate_a_little(found, monkeypatch, capsys):
    real = run_seal.snapshot
    monkeypatch.setattr(run_seal, "snapshot", lambda config: dataclasses.replace(real(config), cpu_cores=99))
    rewritten(found, lambda row: row["leaves"].update({"carry/learner/updates": "0" * 64}))
    status, told = verify(found, capsys)
    assert (status, told["result"]) == (0, "within tolerance")
    rows = directory.read_lines(found.windows)
    rows[0]["entropy_mean"] *= 1.5
    directory.write_lines(found.windows, rows)
    status, told = verify(found, capsys)
    assert (status, told["result"]) == (1, "different")
    assert told["deviation"] > 0.05


def test_what_cannot_be_verified_is_refused(found, tmp_path, capsys):
    assert run(["verify", str(found.path), "--windows", "0"], prog="ztb") == 2
    found.digests.unlink()
    assert run(["verify", str(found.path)], prog="ztb") == 2
    assert "stopped before its first checkpoint" in capsys.readouterr().err
    found.seal.unlink()
    assert run(["verify", str(found.path)], prog="ztb") == 2
    assert "nothing to compare with" in capsys.readouterr().err
    assert run(["verify", str(tmp_path / "nowhere")], prog="ztb") == 2


def test_checkpoints_of_a_run_that_is_being_made_come_and_go(found, capsys):
    path = next((found.checkpoints / "5").rglob("_METADATA"))
    path.write_bytes(path.read_bytes() + b" ")
    with directory.locked(found):
        status, told = verify(found, capsys, "--windows", "1")
    assert (status, told["changed"]) == (0, [])


@pytest.mark.parametrize("row", [{"window_id": 0}, {"window_id": 0, "leaves": "x", "chain": ""}])
def test_rows_that_are_none_are_told(found, capsys, row):
    rows = directory.read_lines(found.digests)
    directory.write_lines(found.digests, [row, *rows[1:]])
    status, told = verify(found, capsys)
    assert (status, told["result"]) == (1, "different")


def test_without_metrics_a_difference_is_still_told(found, capsys):
    rewritten(found, lambda row: row["leaves"].update({"carry/learner/updates": "0" * 64}))
    found.windows.unlink()
    status, told = verify(found, capsys)
    assert (status, told["result"]) == (1, "different")
