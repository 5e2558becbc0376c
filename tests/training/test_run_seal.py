"""Seals: unique, whole, equal to themselves, and unlike whatever has changed."""

import dataclasses
import json
import subprocess
import sys
from datetime import datetime

import jax
import pytest

import ztb_jax.training
from ztb_jax.errors import RunError
from ztb_jax.training import run_seal
from ztb_jax.training.run_seal import COMPARED, RunSealManager, get_run_seal_manager, read_seal


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory that is a repository of one commit."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("one\n")
    for arguments in (
        ("init", "-q", "-b", "main"),
        ("add", "notes.txt"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"),
    ):
        subprocess.run(["git", *arguments], check=True)
    get_run_seal_manager.cache_clear()


def test_the_documents_example(tmp_path):
    manager = ztb_jax.training.get_run_seal_manager()
    assert not (tmp_path / "run_seals").exists()  # neither the import nor the manager makes anything
    seal = ztb_jax.training.create_run_seal(
        seed=42, config={"learning_rate": 0.001}, metadata={"experiment": "baseline"}
    )
    assert (seal.seed, seal.config, seal.metadata) == (
        42,
        {"learning_rate": 0.001},
        {"experiment": "baseline"},
    )
    same = manager.validate_environment(seal)
    assert set(same) == set(COMPARED)
    assert all(same.values()), same
    assert manager.load_seal(seal.run_id) == seal
    assert manager.list_seals() == [seal.run_id]


def test_the_key_is_the_one_that_the_seed_gives():
    seal = RunSealManager().create_seal(seed=7)
    assert seal.key["words"] == jax.random.key_data(jax.random.key(7)).tolist()
    again = jax.random.wrap_key_data(
        jax.numpy.asarray(seal.key["words"], jax.numpy.uint32), impl=seal.key["impl"]
    )
    assert jax.random.bits(again) == jax.random.bits(jax.random.key(7))


def test_seals_of_one_second_are_all_kept():
    manager = RunSealManager()
    seals = [manager.create_seal() for _ in range(10)]
    assert len({seal.run_id for seal in seals}) == 10
    assert len({seal.seed for seal in seals}) == 10
    assert all(manager.load_seal(seal.run_id) == seal for seal in seals)
    assert sorted(manager.list_seals()) == sorted(seal.run_id for seal in seals)


def test_a_name_that_is_taken_is_not_given_again(monkeypatch):
    manager = RunSealManager()
    drawn = iter(["0000000a", "0000000a", "0000000b"])

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(run_seal, "datetime", Clock)
    monkeypatch.setattr(run_seal.secrets, "token_hex", lambda size: next(drawn))
    ids = [manager.create_seal(seed=1).run_id for _ in range(2)]
    assert ids == ["run_20260102_030405_0000000a", "run_20260102_030405_0000000b"]


@pytest.mark.parametrize("name", COMPARED)
def test_a_change_of_anything_compared_is_found(name):
    manager = RunSealManager()
    seal = manager.create_seal(seed=1)
    before = getattr(seal.environment, name)
    other = before + 1 if isinstance(before, int) else f"{before}x"
    changed = dataclasses.replace(seal, environment=dataclasses.replace(seal.environment, **{name: other}))
    same = manager.validate_environment(changed)
    assert [key for key, equal in same.items() if not equal] == [name]


def test_real_changes_are_found(tmp_path, monkeypatch):
    manager = RunSealManager()
    seal = manager.create_seal(seed=1, config={"a": 1.0})

    def differing(of=seal):
        return {name for name, equal in manager.validate_environment(of).items() if not equal}

    assert differing() == set()
    (tmp_path / "notes.txt").write_text("two\n")
    assert differing() == {"git_commit"}
    dirty = manager.create_seal(seed=1, config={"a": 1.0})
    assert differing(dirty) == set()
    (tmp_path / "notes.txt").write_text("three\n")
    assert differing(dirty) == {"git_commit"}  # dirty then and dirty now are not the same
    (tmp_path / "notes.txt").write_text("one\n")
    (tmp_path / "trade-config.json").write_text("{}")
    assert differing() == {"config_hash"}
    (tmp_path / "trade-config.json").unlink()
    assert differing(dataclasses.replace(seal, config={"a": 1.0000001})) == {"config_hash"}
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
        assert differing() == {"xla_flags"}
    known = dict(run_seal._requirements(), numpy="0.0")
    monkeypatch.setattr(run_seal, "_requirements", lambda: known)
    assert differing() == {"requirements_hash"}


def test_of_two_unknowns_nothing_is_the_same(tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.chdir(outside)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    manager = RunSealManager()
    seal = manager.create_seal(seed=1)
    assert seal.environment.git_commit is None
    same = manager.validate_environment(seal)
    assert [name for name, equal in same.items() if not equal] == ["git_commit"]


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_is_refused(tmp_path, seed):
    with pytest.raises(ValueError, match=r"seed must be within \[0, 2147483647\]"):
        RunSealManager().create_seal(seed=seed)
    assert not (tmp_path / "run_seals").exists()


@pytest.mark.parametrize("name", ["config", "metadata"])
@pytest.mark.parametrize("value", [{"a": object()}, {"a": float("nan")}])
def test_what_json_cannot_hold_is_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} holds what JSON cannot"):
        RunSealManager().create_seal(seed=1, **{name: value})
    assert not (tmp_path / "run_seals").exists()


@pytest.mark.parametrize("name", ["none", "../secret", "run_20260101_000000_00000000"])
def test_a_seal_that_is_not_there_is_none(name):
    assert RunSealManager().load_seal(name) is None
    assert RunSealManager("nowhere").list_seals() == []


def test_damaged_and_later_files_are_refused(tmp_path):
    manager = RunSealManager()
    path = tmp_path / "run_seals" / f"{manager.create_seal(seed=1).run_id}.json"
    whole = path.read_text()
    for text, said in (
        (whole[: len(whole) // 2], "damaged"),
        ("{}", "is not a seal"),
        ("[]", "is not a seal"),
        (json.dumps(json.loads(whole) | {"version": 2}), "is of version 2, this reads up to 1"),
        (json.dumps(json.loads(whole) | {"surprise": 1}), "is not a seal"),
    ):
        path.write_text(text)
        with pytest.raises(RunError, match=said):
            read_seal(path)


def test_an_import_makes_nothing_and_loads_no_jax(tmp_path):
    program = "import sys, ztb_jax.training as t; print('jax' in sys.modules, t.create_run_seal.__name__)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "create_run_seal"]
    assert not (tmp_path / "run_seals").exists()
    assert not hasattr(ztb_jax.training, "seal")


def test_a_difference_in_another_encoding_is_hashed_as_it_is(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *arguments], check=True)

    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    (tmp_path / "f.txt").write_text("plain\n")
    git("add", "f.txt")
    git("commit", "-q", "-m", "one")
    (tmp_path / "f.txt").write_bytes(b"caf\xe9\n")
    commit = run_seal.snapshot({}).git_commit
    assert commit is not None
    assert "-dirty-" in commit


def test_requirements_are_what_an_import_would_find(tmp_path, monkeypatch):
    pytest.importorskip("importlib_metadata")  # whose finder tells a missing file in a way of its own
    (tmp_path / "half_removed-1.0.dist-info").mkdir()
    shadow = tmp_path / "rich-0.0.1.dist-info"
    shadow.mkdir()
    (shadow / "METADATA").write_text("Metadata-Version: 2.1\nName: rich\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert run_seal.snapshot({}).requirements["rich"] == "0.0.1"
