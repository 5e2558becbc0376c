"""The windowed trainer with odd policies, odd files and odd moments."""

import shutil

import pytest

from tests.training.resuming import metadata, resume, stop_after
from tests.training.test_windowed import SMALL_PPO, entries_of, trained, windowed
from ztb_jax.runs import directory, policy_files, replays


@pytest.mark.parametrize("backend", ["ppo", "apg"])
def test_policies_with_statistics_in_their_weights_are_kept_and_played(tmp_path, backend):
    """Counts are numbers without an axis, and stay so in the file."""
    flags = ("--total-env-steps", "64", "--window-env-steps", "64", "--ppo-num-envs", "4")
    more = ("--ppo-rollout-steps", "16", "--policy.width", "8", "--eval-replays-per-window", "1")
    scales = ("--policy.normalise-observations", "--policy.value-scale", "popart")
    found = trained(tmp_path, backend, "--trainer-backend", backend, *flags, *more, *scales)
    assert metadata(found)["troubles"] == []
    assert len(entries_of(found)) == 1


def test_what_only_a_stop_had_kept_goes_with_the_resume(tmp_path, monkeypatch):
    """Stopped after a window whose policy is not due: files, replays and tags become those of a whole run."""
    flags = ("--total-env-steps", "160", "--window-env-steps", "20", "--eval-replays-per-window", "1")
    more = ("--checkpoint-every-windows", "3", "--eval-max-steps-per-episode", "30")
    whole = trained(tmp_path, "whole", *flags, *more)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        assert windowed(tmp_path, "--run-id", "cut", *flags, *more) == 130
    cut = directory.find(tmp_path / "cut")
    assert [policy_files.window_of(path) for path in policy_files.paths(cut)] == [0, 3, 4]
    assert resume(cut) == 0
    assert [policy_files.window_of(path) for path in policy_files.paths(cut)] == [0, 3, 6, 7]
    told = [[(entry["window_id"], entry["tags"]) for entry in entries_of(each)] for each in (whole, cut)]
    assert told[0] == told[1]


def damaged_index(cut):
    cut.replay_index.write_text("{")


def of_another_run(cut):
    directory.write_json(cut.replay_index, directory.read_json(cut.replay_index) | {"run_id": "other"})


def lost_replay(cut):
    replays.path_of(cut, entries_of(cut)[0]).unlink()


def cut_replay(cut):
    path = replays.path_of(cut, entries_of(cut)[0])
    path.write_bytes(path.read_bytes()[:-40])


def lost_folder(cut):
    shutil.rmtree(cut.replays)


@pytest.mark.parametrize("damage", [damaged_index, of_another_run, lost_replay, cut_replay, lost_folder])
def test_replays_that_were_damaged_are_recorded_again(tmp_path, monkeypatch, damage):
    flags = ("--total-env-steps", "80", "--window-env-steps", "20", "--eval-replays-per-window", "1")
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        assert windowed(tmp_path, "--run-id", "cut", *flags, "--eval-max-steps-per-episode", "30") == 130
    cut = directory.find(tmp_path / "cut")
    before = entries_of(cut)
    own = cut.checkpoints / "ckpt_best.pt"
    own.write_text("somebody's own")
    damage(cut)
    assert resume(cut) == 0
    entries = entries_of(cut)
    assert [entry["window_id"] for entry in entries] == [0, 1, 2, 3]
    assert [{**entry, "created_at": ""} for entry in entries[:2]] == [{**e, "created_at": ""} for e in before]
    assert all(sum(1 for _ in replays.read_frames(replays.path_of(cut, each))) == 30 for each in entries)
    assert bool(metadata(cut)["troubles"]) == (damage in (damaged_index, of_another_run))
    assert own.is_file()


def test_patience_counts_windows_that_something_was_learnt_in(tmp_path):
    """Of an update that reaches over many windows the validation is told in each, and judged once."""
    flags = ("--trainer-backend", "puffer_ppo", "--total-env-steps", "400", "--window-env-steps", "10")
    found = trained(tmp_path, "patient", *flags, *SMALL_PPO, "--run.patience-windows", "2")
    rows = directory.read_lines(found.windows)
    judged = {row["env_steps_end"] // 64 for row in rows if row["best_window"] is not None}
    assert len(judged) > 2
