"""A run that is stopped and resumed ends in the bits of one that never was; or is refused, and told why."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest

from benchmarks.faults import outcome
from tests.training.resuming import files_of, metadata, resume, stop_after, stopped, train
from ztb_jax.cli.main import run
from ztb_jax.runs import checkpoint, directory
from ztb_jax.training import evaluate, run_seal


def resumed(found) -> list[dict]:
    return run_seal.read_seal(found.seal).metadata["resumed"]


def damage(found, number: int) -> None:
    path = next((found.checkpoints / str(number)).rglob("_METADATA"))
    path.write_bytes(path.read_bytes()[:-1])


def test_a_stopped_run_goes_on_to_the_same_bits(whole, half):
    assert resume(half) == 0
    assert outcome(half) == outcome(whole)
    facts = metadata(half)
    assert facts["status"] == "completed"
    assert facts["windows_emitted"] == facts["checkpoints_written"] == 6
    assert facts["halt_reason"] is None
    (told,) = resumed(half)
    assert (told["from_window"], told["changed"], told["passed_over"]) == (3, [], [])


def test_a_run_may_be_stopped_again_and_again(whole, tmp_path, monkeypatch):
    found = stopped(tmp_path, "often", 0, monkeypatch)
    for window in (1, 3):
        with monkeypatch.context() as patch:
            stop_after(patch, window)
            assert resume(found) == 130
    assert run(["train", "--resume", str(found.path)], prog="ztb") == 0
    assert outcome(found) == outcome(whole)
    judged = {row["policy"] for row in directory.read_lines(tmp_path / "scored.jsonl")}
    assert directory.read_json(found.evaluation)["edge"]["trials"] == len(judged) > 1
    assert [told["from_window"] for told in resumed(found)] == [1, 2, 4]


def test_rows_after_the_last_commit_are_made_again(whole, half):
    shutil.rmtree(half.checkpoints / "2")
    assert resume(half) == 0
    assert outcome(half) == outcome(whole)
    assert resumed(half)[0]["from_window"] == 2


def test_rows_that_the_stop_swallowed_are_written_after_all(whole, half):
    rows = directory.read_lines(half.digests)
    directory.write_lines(half.digests, rows[:-1])
    assert resume(half) == 0
    assert outcome(half) == outcome(whole)


def test_without_a_checkpoint_a_run_begins_again(whole, half):
    shutil.rmtree(half.checkpoints)
    half.metadata.unlink()
    assert resume(half) == 0
    assert outcome(half) == outcome(whole)
    assert metadata(half)["status"] == "completed"


def test_from_a_damaged_checkpoint_the_one_before_goes_on_and_that_is_said(whole, half, capsys):
    damage(half, 2)
    assert resume(half) == 0
    assert "generation 2 is damaged" in capsys.readouterr().err
    assert outcome(half) == outcome(whole)
    (told,) = resumed(half)
    assert told["from_window"] == 2
    assert "generation 2 is damaged" in told["passed_over"][0]
    assert (half.checkpoints / "damaged-2-1").is_dir()


def test_when_all_are_damaged_a_run_begins_again_and_that_is_said(whole, half, capsys):
    for number in checkpoint.generations(half.checkpoints):
        damage(half, number)
    assert resume(half) == 0
    assert "from the start" in capsys.readouterr().err
    assert outcome(half) == outcome(whole)


def test_a_run_stopped_while_it_was_judged_is_judged(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "judge_prepared", lambda *parts: (_ for _ in ()).throw(OSError(28, "full")))
        assert train(tmp_path, "late") == 1
    late = directory.find(tmp_path / "late")
    assert resume(late) == 0
    assert outcome(late) == outcome(whole)


def test_patience_is_remembered(tmp_path, monkeypatch):
    flags = ("--run.patience-windows", "2", "--ppo.learning-rate", "1e-12", "--run.total-env-steps", "65536")
    assert train(tmp_path, "patient", *flags) == 0
    patient = directory.find(tmp_path / "patient")
    last = metadata(patient)["windows_emitted"] - 1
    for window in (last - 1, last):
        found = stopped(tmp_path, f"stopped{window}", window, monkeypatch, *flags)
        # The last window of a patient run is its last one also where the stop came first.
        assert resume(found) == 0
        assert outcome(found) == outcome(patient)


def test_the_best_window_is_kept_and_judged_though_it_is_old(half):
    best = metadata(half)["best_window"]
    assert best in checkpoint.generations(half.checkpoints)


def test_a_run_that_completed_has_nothing_to_resume(whole, capsys):
    before = files_of(whole)
    assert resume(whole) == 2
    assert "has completed" in capsys.readouterr().err
    assert files_of(whole) == before


def test_what_a_gate_stopped_is_not_resumed(tmp_path, capsys):
    assert train(tmp_path, "broken", "--ppo.learning-rate", "1e38") == 1
    capsys.readouterr()
    assert resume(directory.find(tmp_path / "broken")) == 2
    assert "stopped by a gate" in capsys.readouterr().err


def changed_config(half, monkeypatch):
    config = directory.read_json(half.config)
    config["ppo"]["gamma"] = 0.5
    directory.write_json(half.config, config)
    return "config.ppo.gamma was 0.95 and is 0.5"


def changed_data(half, monkeypatch):
    frame = evaluate.load_frame(evaluate.saved_config(half))
    frame.iloc[7, 0] *= 1.0001
    monkeypatch.setattr(evaluate, "load_frame", lambda config: frame)
    return "seal.data was"


def changed_environment(half, monkeypatch):
    real = run_seal.snapshot
    monkeypatch.setattr(
        run_seal, "snapshot", lambda config: dataclasses.replace(real(config), cpu_cores=99, xla_flags="--x")
    )
    return "environment.cpu_cores was"


def changed_package(half, monkeypatch):
    real = run_seal._requirements
    monkeypatch.setattr(run_seal, "_requirements", lambda: real() | {"numpy": "0.0"})
    return "requirements.numpy was"


@pytest.mark.parametrize("change", [changed_config, changed_data, changed_environment, changed_package])
def test_what_has_changed_is_refused_unless_it_is_allowed_and_then_told(half, monkeypatch, capsys, change):
    words = change(half, monkeypatch)
    before = files_of(half)
    assert resume(half) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "--allow-drift" in told
    assert files_of(half) == before
    assert resume(half, "--allow-drift") == 0
    (entry,) = resumed(half)
    assert any(words in each for each in entry["changed"])
    assert entry["environment"]["python_version"]


def test_every_change_is_told_at_once(half, monkeypatch, capsys):
    words = [change(half, monkeypatch) for change in (changed_config, changed_data, changed_environment)]
    assert resume(half) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in words)


HOLD = """
import sys, time
from ztb_jax.runs import directory
with directory.locked(directory.find(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_processes_cannot_write_one_run(half, whole, capsys):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(half.path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        before = files_of(half)
        assert resume(half) == 2
        assert f"process {holder.pid}" in capsys.readouterr().err
        assert files_of(half) == before
        holder.kill()  # the lock goes with its holder
    assert resume(half) == 0
    assert outcome(half) == outcome(whole)


def test_without_a_seal_or_a_run_there_is_nothing_to_go_on_with(half, tmp_path, capsys):
    half.seal.unlink()
    assert resume(half) == 2
    assert "seal.json" in capsys.readouterr().err
    assert run(["resume", str(tmp_path / "nowhere")], prog="ztb") == 2
    assert "no directory" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["seal.json", "run_metadata.json", "config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_damaged_records_are_refused_without_a_traceback(half, capsys, name, text):
    (half.path / name).write_text(text)
    assert resume(half) == 2
    told = capsys.readouterr().err
    assert name in told
    assert "Traceback" not in told


def test_a_checkpoint_of_a_later_version_is_refused(half, capsys):
    path = half.checkpoints / "2" / "manifest.json"
    body = json.dumps(json.loads(path.read_text().rsplit("\n", 2)[0]) | {"format": 99})
    path.write_text(f"{body}\n{checkpoint.hashlib.sha256(body.encode()).hexdigest()}\n")
    assert resume(half) == 2
    assert "later version" in capsys.readouterr().err


def test_a_clock_that_goes_backwards_changes_nothing(whole, half, monkeypatch):
    ticks = iter(range(10**6))
    monkeypatch.setattr(directory, "timestamp", lambda: f"1999-12-31T23:{59 - next(ticks) % 60:02d}:00.000Z")
    assert resume(half) == 0
    assert outcome(half) == outcome(whole)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax's threads
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_whose_directory_vanishes_ends_and_is_not_made_again(tmp_path, monkeypatch, capsys):
    append = directory.append_line

    def vanish(path, row):
        append(path, row)
        if path.name == "windows.jsonl" and row["window_id"] == 1:
            (tmp_path / "gone").rename(tmp_path / "elsewhere")

    monkeypatch.setattr(directory, "append_line", vanish)
    assert train(tmp_path, "gone") == 1
    told = capsys.readouterr().err
    assert "is gone" in told
    assert "Traceback" not in told
    assert not (tmp_path / "gone").exists()


def test_a_resume_on_another_number_of_devices(half):
    """The carry is spread over two devices; that is a change, and is told."""
    command = [sys.executable, "-m", "ztb_jax.training", "--resume", str(half.path), "--devices", "2"]
    two = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    refused = subprocess.run(command, env=two, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "config.run.devices was 1 and is 2" in refused.stderr
    subprocess.run([*command, "--allow-drift"], env=two, capture_output=True, check=True)
    assert metadata(half)["status"] == "completed"
    rows = directory.read_lines(half.windows)
    assert [row["window_id"] for row in rows] == list(range(6))


def test_killed_at_any_moment_and_damaged_anyhow(tmp_path):
    """The short version of `python -m benchmarks faults`."""
    from benchmarks import faults

    (tmp_path / "runs").mkdir()
    rows = [*faults.corruption_rows(tmp_path, 60), *faults.kill_rows(tmp_path / "runs", 3)]
    assert [row.value for row in rows] == [60, 3, 3]


def test_what_a_killed_process_left_half_done_and_an_old_verdict_are_gone(half, capsys):
    drafts = [half.path / ".run_metadata.json.17.tmp", half.checkpoints / ".ckpt_000001.pt.17.tmp"]
    for draft in drafts:
        draft.write_text("half")
    assert metadata(half)["verdict"] is not None
    half.evaluation.write_text("{}")
    told = []
    append = directory.append_line
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            directory,
            "append_line",
            lambda path, row: (
                told.append((metadata(half)["verdict"], half.evaluation.exists())),
                append(path, row),
            ),
        )
        assert resume(half) == 0
    assert told[0] == (None, False)
    assert not any(draft.exists() for draft in drafts)
    assert directory.read_json(half.evaluation)["verdict"] == metadata(half)["verdict"]
