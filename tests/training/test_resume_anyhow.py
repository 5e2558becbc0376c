"""Resuming from odd places, with odd files, and under other settings."""

import os
import subprocess
import sys

import pytest

from benchmarks.faults import outcome
from tests.training.resuming import files_of, metadata, resume, stopped
from ztb_jax.cli.main import run
from ztb_jax.runs import directory


def edited_seal(**changes):
    def edit(half):
        seal = directory.read_json(half.seal)
        for place, value in changes.items():
            *parents, name = place.split("__")
            holder = seal
            for parent in parents:
                holder = holder[parent]
            holder[name] = value
        directory.write_json(half.seal, seal)

    return edit


def line_in(name: str, line: bytes):
    def edit(half):
        path = half.path / "metrics" / name
        path.write_bytes(line + b"\n" + path.read_bytes())

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        edited_seal(metadata=None),
        edited_seal(environment__requirements=None),
        edited_seal(seed="abc"),
        edited_seal(seed=None),
        edited_seal(config=[1]),
        line_in("windows.jsonl", b"{}"),
        line_in("windows.jsonl", b"null"),
        line_in("windows.jsonl", b"\xff"),
        line_in("digests.jsonl", b"[]"),
        line_in("digests.jsonl", b"{}"),
    ],
)
def test_edited_records_are_refused_without_a_traceback(half, capsys, edit):
    edit(half)
    assert resume(half) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "seal" in told or "jsonl" in told


def test_paths_may_be_relative(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    half = stopped(tmp_path, "half", 2, monkeypatch, "--run.root", ".")
    assert run(["resume", "half"], prog="ztb") == 0
    assert outcome(half) == outcome(whole)
    assert run(["evaluate", "half"], prog="ztb") == 0
    assert run(["verify", "half", "--windows", "1"], prog="ztb") == 0


def test_a_run_keeps_its_name_wherever_it_is_called_from(half, monkeypatch):
    monkeypatch.chdir(half.path)
    assert run(["resume", "."], prog="ztb") == 0
    assert directory.read_json(half.evaluation)["run_id"] == "half"
    assert {row["run_id"] for row in directory.read_lines(half.windows)} == {"half"}


def test_a_setting_of_jax_that_changes_bits_is_a_change(half):
    command = [sys.executable, "-m", "ztb_jax.training", "--resume", str(half.path)]
    other = os.environ | {"JAX_THREEFRY_PARTITIONABLE": "false"}
    refused = subprocess.run(command, env=other, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "jax_threefry_partitionable was 'True' and is 'False'" in refused.stderr


def with_setting(half, name: str, value) -> None:
    config = directory.read_json(half.config)
    config["gates"][name] = value
    directory.write_json(half.config, config)


def test_gates_of_the_machine_may_be_set_anew(whole, half, capsys):
    with_setting(half, "memory_gb", 500.0)
    with_setting(half, "resume_seconds", 500.0)
    assert resume(half) == 0
    assert outcome(half) == outcome(whole)
    capsys.readouterr()
    assert run(["verify", str(half.path)], prog="ztb") == 0
    assert capsys.readouterr().out.startswith("identical")


def test_another_gate_between_windows_counts_anew(half):
    with_setting(half, "baseline", -1.0)
    assert resume(half) == 2
    assert resume(half, "--allow-drift") == 0


@pytest.mark.parametrize("kind", ["file", "link"])
def test_checkpoints_that_are_out_of_reach_are_no_reason_to_begin_again(half, tmp_path, capsys, kind):
    half.checkpoints.rename(tmp_path / "away")
    if kind == "file":
        half.checkpoints.write_text("")
    else:
        half.checkpoints.symlink_to(tmp_path / "unmounted")
    before = files_of(half)
    assert resume(half) == 2
    assert "is no directory" in capsys.readouterr().err
    assert files_of(half) == before


def test_names_that_are_no_generation_are_left_alone(whole, half):
    for name in ("007", "٣", "-1", "1.5", "notes"):
        (half.checkpoints / name).mkdir()
    assert resume(half) == 0
    assert outcome(half) == outcome(whole)
    assert (half.checkpoints / "007").is_dir()


def test_a_run_killed_as_a_gate_tripped_says_which(half, capsys):
    directory.write_json(
        half.metadata, metadata(half) | {"verdict_code": 1, "failed_window": 2, "error": None}
    )
    assert resume(half) == 2
    assert "stopped being finite" in capsys.readouterr().err
