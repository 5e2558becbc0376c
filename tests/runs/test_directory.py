"""The run directory: names, refusals, and files that are whole at any instant."""

import json
import os
import threading
from datetime import UTC, datetime

import pytest

from ztb_jax.errors import RunError
from ztb_jax.runs import directory

NOW = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)


def test_a_generated_name_tells_time_and_commit_and_never_collides(tmp_path):
    names = [directory.create(tmp_path, None, {}, now=NOW).id for _ in range(3)]
    assert len(set(names)) == 3
    assert all(name.startswith("20261121T080000Z-") for name in names)


@pytest.mark.parametrize("name", ["", "..", "a/b", "/abs", "-x", "a b", "a" * 200, "x\n"])
def test_a_name_that_is_no_plain_folder_is_refused(tmp_path, name):
    with pytest.raises(RunError, match="cannot name a directory"):
        directory.create(tmp_path, name, {})
    assert not list(tmp_path.iterdir())


def test_an_existing_run_is_refused(tmp_path):
    directory.create(tmp_path, "once", {})
    with pytest.raises(RunError, match=r"exists: choose another --run\.id"):
        directory.create(tmp_path, "once", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match=r"--run\.root"):
        directory.create(tmp_path / "runs", None, {})


def test_find_refuses_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match="no directory"):
        directory.find(tmp_path / "absent")
    with pytest.raises(RunError, match=r"config\.json"):
        directory.find(tmp_path)


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, stop, seen = tmp_path / "live.json", threading.Event(), []
    directory.write_json(path, {"n": 0, "pad": "x" * 50_000})

    def read():
        while not stop.is_set():
            seen.append(json.loads(path.read_text())["n"])

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(200):
        directory.write_json(path, {"n": n, "pad": "x" * 50_000})
    stop.set()
    reader.join()
    assert seen == sorted(seen)
    assert [p.name for p in tmp_path.iterdir()] == ["live.json"]


def test_numbers_that_json_cannot_hold_are_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "live.json"
    directory.write_json(path, {"n": 1})
    with pytest.raises(ValueError, match="JSON"):
        directory.write_json(path, {"n": float("nan")})
    assert directory.read_json(path) == {"n": 1}


def test_a_torn_last_line_is_left_out_and_a_damaged_one_is_told(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert directory.read_lines(path) == []
    directory.append_line(path, {"a": 1})
    directory.append_line(path, {"a": 2})
    with path.open("a") as file:
        file.write('{"a": 3')
    assert directory.read_lines(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\nnonsense\n')
    with pytest.raises(RunError, match="damaged"):
        directory.read_lines(path)


def test_damaged_json_is_told_with_its_path(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        directory.read_json(path)


def test_a_failed_write_leaves_neither_half_a_file_nor_half_a_run(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "live.json"
    directory.write_json(path, {"n": 1})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        directory.write_json(path, {"n": 2})
    assert directory.read_json(path) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["live.json"]
    with pytest.raises(RunError, match="No space left on device; give a folder"):
        directory.create(tmp_path / "runs", "x", {"a": 1})
    assert not list((tmp_path / "runs").iterdir())


def test_one_who_looks_whether_a_run_is_written_stands_in_nobodys_way(tmp_path):
    run = directory.create(tmp_path, "looked-at", {})
    with directory.locked(run):
        pass
    over = threading.Event()

    def look():
        while not over.is_set():
            directory.is_locked(run)

    onlookers = [threading.Thread(target=look) for _ in range(3)]
    for onlooker in onlookers:
        onlooker.start()
    try:
        for _ in range(50):
            with directory.locked(run):
                assert directory.is_locked(run)
    finally:
        over.set()
        for onlooker in onlookers:
            onlooker.join()
