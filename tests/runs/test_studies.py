"""The directory of a study: made whole, read back, and never believed when it is damaged."""

import json
import os

import numpy as np
import pytest

from ztb_jax.errors import RunError
from ztb_jax.runs import studies

TOLD = {
    "kind": "walkforward",
    "config": {"seed": 0},
    "scheme": {"vary": ["ppo.gamma=0.9,0.95"], "folds": 3},
    "members": {},
    "trained": {"env_steps": 0, "seconds": 0.0, "compile_seconds": 0.0},
    "started_at": "2026-11-28T00:00:00.000Z",
}


def row(trial: int) -> dict:
    return {
        "trial": trial, "config": 0, "fold": 0, "seed": 0, "policy": "0" * 64, "chosen_window": 1,
        "validation_log_growth": 0.5, "reward_mean": None, "verdict": 0, "tests": [],
    }  # fmt: skip


@pytest.fixture
def study(tmp_path) -> studies.StudyDirectory:
    return studies.create(tmp_path, "s", TOLD)


def test_a_study_is_there_whole_and_found_again(tmp_path, study, monkeypatch):
    assert study.path == tmp_path / "studies" / "s"
    assert studies.read_study(study) == TOLD
    assert studies.find(study.path).path == study.path
    (tmp_path / "runs").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert studies.find("s").id == "s"


def test_names_that_are_generated_never_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(studies.directory, "timestamp", lambda: "2026-11-28T01:02:03.456Z")
    names = [studies.create(tmp_path, None, TOLD).id for _ in range(3)]
    assert names == [f"walkforward-20261128T010203Z{more}" for more in ("", "-2", "-3")]


@pytest.mark.parametrize("name", ["a/b", "..", "", "-x", "x" * 200])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path, name):
    with pytest.raises(RunError, match="--id"):
        studies.create(tmp_path, name, TOLD)
    assert not (tmp_path / "studies").exists()


def test_a_taken_name_is_refused_and_left_alone(tmp_path, study):
    before = study.study.read_bytes()
    with pytest.raises(RunError, match="choose another --id, go on with --resume"):
        studies.create(tmp_path, "s", TOLD | {"kind": "sweep"})
    assert study.study.read_bytes() == before


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"give a folder that you can write with --run\.root"):
        studies.create(tmp_path / "file", "s", TOLD)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(studies.directory, "write_json", full)
    with pytest.raises(RunError, match="No space left"):
        studies.create(tmp_path, "s", TOLD)
    assert list((tmp_path / "studies").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_read_only_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="Permission denied"):
        studies.create(tmp_path, "s", TOLD)


def test_no_study_is_no_study(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere", "nowhere"):
        with pytest.raises(RunError, match=r"holds no study\.json"):
            studies.find(place)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "null", '{"kind": "walkforward"}', json.dumps(TOLD | {"kind": "other"}),
        json.dumps(TOLD | {"members": {"000-000": 0}}), json.dumps(TOLD | {"scheme": {"fold": 3}}),
        json.dumps(TOLD | {"scheme": {"folds": "3"}}), json.dumps(TOLD | {"more": 1}),
        json.dumps(TOLD | {"kind": "sweep"}),
    ],
)  # fmt: skip
def test_a_damaged_study_is_refused(study, text):
    study.study.write_text(text)
    with pytest.raises(RunError, match=r"study\.json"):
        studies.read_study(study)


def test_no_other_record_is_written(study):
    before = study.study.read_bytes()
    with pytest.raises(ValueError, match="members"):
        studies.write_study(study, TOLD | {"members": {"a": "b"}})
    assert study.study.read_bytes() == before


ARRAYS = {"weights/a": np.arange(6, dtype=np.float32).reshape(2, 3), "returns_0": np.ones((2, 4))}


def test_a_chunk_is_read_back_as_it_was(study):
    rows = [row(4), row(5)]
    assert studies.read_chunk(study, "c", trials=[4, 5]) is None
    studies.write_chunk(study, "c", rows, ARRAYS)
    found = studies.read_chunk(study, "c", trials=[4, 5])
    assert found is not None
    assert found[0] == rows
    assert set(found[1]) == set(ARRAYS)
    for name, values in ARRAYS.items():
        assert found[1][name].dtype == values.dtype
        assert np.array_equal(found[1][name], values)
    before = (study.chunks / "c.npz").read_bytes()
    studies.write_chunk(study, "c", rows, ARRAYS)
    assert (study.chunks / "c.npz").read_bytes() == before


def test_no_damage_goes_unnoticed(study):
    """A bit of each byte turned round: told, or without effect."""
    studies.write_chunk(study, "c", [row(4), row(5)], ARRAYS)
    path = study.chunks / "c.npz"
    whole, told = path.read_bytes(), 0
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        try:
            rows, arrays = studies.read_chunk(study, "c", trials=[4, 5]) or ([], {})
        except RunError:
            told += 1
        else:
            assert rows == [row(4), row(5)]
            assert all(np.array_equal(arrays[name], values) for name, values in ARRAYS.items())
    assert told > len(whole) / 5


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_chunk_that_was_cut_off_is_told(study, size):
    studies.write_chunk(study, "c", [row(4), row(5)], ARRAYS)
    path = study.chunks / "c.npz"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RunError, match="remove it and resume, which trains its trials again"):
        studies.read_chunk(study, "c", trials=[4, 5])


@pytest.mark.parametrize(
    ("rows", "arrays"),
    [
        ([row(4)], {}),
        ([row(5), row(4)], {}),
        ([row(4), row(5) | {"seed": "0"}], {}),
        ([row(4), {"trial": 5}], {}),
        ([row(4), row(5)], {"returns_0": np.ones((3, 2))}),
        ([row(4), row(5)], {"returns_0": np.array([object(), object()])}),
        ({"trial": 4}, {}),
    ],
)
def test_a_chunk_of_other_trainings_is_told(study, rows, arrays):
    studies.write_chunk(study, "c", rows, arrays)
    with pytest.raises(RunError, match="is damaged"):
        studies.read_chunk(study, "c", trials=[4, 5])


def test_a_chunk_that_cannot_be_written_is_not_there(study, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        studies.write_chunk(study, "c", [row(0)], {})
    assert list(study.chunks.iterdir()) == []


def test_drafts_of_a_killed_process_are_cleared(study):
    for folder in (study.path, study.chunks):
        (folder / ".x.npz.123.tmp").write_text("half")
    studies.write_chunk(study, "c", [row(0)], {})
    studies.clear_drafts(study)
    assert sorted(path.name for path in study.path.rglob("*")) == ["c.npz", "study.json", "trials"]


def test_a_result_of_another_kind_is_refused(study):
    with pytest.raises(ValueError, match="kind"):
        studies.write_result(study, {"kind": "other"})
    assert not study.result.exists()
