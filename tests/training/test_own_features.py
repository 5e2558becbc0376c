"""A run on a user's own features: they are checked before it, and what they are is sealed."""

import shutil
import sys

import pytest

from tests.training.resuming import metadata, resume, stopped, train
from ztb_jax.cli.main import run
from ztb_jax.features import own
from ztb_jax.runs import directory
from ztb_jax.training import run_seal

SOURCE = """
import numpy as np
from constants_of_own import LENGTH

def mine(frame):
    return np.log(frame.close).diff().ewm(span=LENGTH).mean()

def leaky(frame):
    return frame.close.shift(-1) / frame.close - 1
"""
FLAGS = ("--features.recipe", "own_of_run.py:mine")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_of_run.py").write_text(SOURCE)
    (tmp_path / "constants_of_own.py").write_text("LENGTH = 5\n")
    yield tmp_path
    forget()


def forget() -> None:
    """As if in a process of its own, where a module that is imported is read anew."""
    sys.modules.pop("constants_of_own", None)
    own._run.cache_clear()


def test_what_looks_ahead_is_refused_before_anything_is_written(folder, capsys):
    assert train(folder / "runs", "leaky", "--features.recipe", "own_of_run.py:leaky") == 2
    told = capsys.readouterr().err
    assert "feature close looks ahead: its row 0 (2000-01-03 00:00:00)" in told
    assert "Traceback" not in told
    assert not (folder / "runs" / "leaky").exists()


def test_what_a_run_was_made_of_is_sealed_and_a_change_is_told(folder, monkeypatch, capsys):
    half = stopped(folder / "runs", "half", 2, monkeypatch, *FLAGS)
    sealed = run_seal.read_seal(half.seal)
    assert sealed.config["features"]["recipe"] == "own_of_run.py:mine"
    assert len(sealed.metadata["recipe_file"]) == len(sealed.metadata["recipe_features"]) == 64
    file, imported = folder / "own_of_run.py", folder / "constants_of_own.py"

    file.write_text(SOURCE + "# the same\n")
    assert resume(half) == 2
    told = capsys.readouterr().err
    assert "seal.recipe_file was" in told
    assert "seal.recipe_features" not in told
    assert run(["verify", str(half.path)], prog="ztb") == 1
    assert "seal.recipe_file was" in capsys.readouterr().out

    file.write_text(SOURCE)
    imported.write_text("LENGTH = 6  # other bars\n")
    forget()
    assert resume(half) == 2
    told = capsys.readouterr().err
    assert "seal.recipe_features was" in told
    assert "seal.recipe_file" not in told

    imported.write_text("LENGTH = 5\n")
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    forget()
    assert resume(half) == 0
    assert metadata(half)["status"] == "completed"
    assert run(["verify", str(half.path), "--windows", "1"], prog="ztb") == 0
    file.write_text(SOURCE + "# the same\n")
    assert run(["evaluate", str(half.path)], prog="ztb") == 0

    before = directory.read_json(half.evaluation)
    file.write_text(SOURCE.replace("span=LENGTH", "span=LENGTH + 1"))
    capsys.readouterr()
    assert run(["evaluate", str(half.path)], prog="ztb") == 2
    assert "features own_of_run.py:mine are not those" in capsys.readouterr().err
    assert directory.read_json(half.evaluation) == before
