"""A user's own features by name: found, run anew where the file changed, mistakes told with their line."""

import hashlib
import sys

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from feature_oracles import frame_of, random_bars

from ztb_jax.errors import ConfigError
from ztb_jax.features import own
from ztb_jax.features.recipe import Features, compute, find, stream

FRAME = frame_of(random_bars(1, 100))
SOURCE = """
from __future__ import annotations
import dataclasses
import neighbour_of_own
from ztb_jax.features.indicators import combine, make_sma
from ztb_jax.features.recipe import Recipe

@dataclasses.dataclass
class Made:
    @staticmethod
    def ratio(frame):
        return neighbour_of_own.ratio(frame)

def distance(frame):
    return frame.close / frame.close.rolling(5).mean() - 1

def wrong(frame):
    return frame["Close"]

mine = Recipe(
    "mine", combine(mean=make_sma(5)), lambda bar, out: [bar.close / out["mean"] - 1], ("distance",)
)
torn = mine._replace(combination=lambda bar, out: [out["median"]])
number = 7
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory with `own_of_test.py` and a neighbour that it imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_of_test.py").write_text(SOURCE)
    (tmp_path / "neighbour_of_own.py").write_text("def ratio(frame):\n    return frame.high / frame.low\n")
    yield tmp_path
    for name in ("own_of_test", "neighbour_of_own"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("place", ["own_of_test.py", "own_of_test", "./own_of_test.py"])
def test_a_recipe_and_a_function_are_found_by_name(place, folder):
    expected = (FRAME.close / FRAME.close.rolling(5).mean() - 1).to_numpy()
    function, recipe = compute(f"{place}:distance", FRAME), compute(f"{place}:mine", FRAME)
    np.testing.assert_array_equal(function.values[:, 0], expected)
    np.testing.assert_allclose(recipe.values[:, 0], expected, atol=1e-12)
    assert function.names == ("close",)
    assert recipe.names == ("distance",)
    np.testing.assert_array_equal(function.valid, np.arange(100) >= 4)
    np.testing.assert_array_equal(compute(f"{place}:Made.ratio", FRAME).values[:, 0], FRAME.high / FRAME.low)
    digest = hashlib.sha256((folder / "own_of_test.py").read_bytes()).hexdigest()
    assert own.load(f"{place}:mine").sha256 == digest


def test_a_file_is_run_again_only_where_it_changed(folder):
    first = own.load("own_of_test.py:mine")
    assert own.load("own_of_test.py:mine").made is first.made
    path = folder / "own_of_test.py"
    path.write_text(SOURCE.replace("number = 7", "number = 8"))
    again = own.load("own_of_test.py:number")
    assert again.made == 8
    assert again.sha256 != first.sha256


def test_only_a_recipe_runs_live():
    assert stream("own_of_test.py:mine").init() is not None
    with pytest.raises(ConfigError, match="live use needs a Recipe"):
        stream("own_of_test.py:distance")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_of_test.py:distanse", "has no distanse; did you mean distance"),
        ("own_of_test.py:xyzzy", "has no xyzzy; define it there"),
        ("own_of_test.py:number", "are of type int: give a Recipe, or a function"),
        ("absent.py:mine", "cannot read .*absent.py: No such file.* begins at the working directory"),
        ("absent_module:mine", "no module absent_module, neither installed nor in the working directory"),
        ("absent.module:mine", "no module absent.module"),
        (".:mine", "importing . raised"),
        (":mine", "name nothing: write module:attribute"),
        ("own_of_test.py:", "name nothing"),
        ("sys:path", "sys is no file of Python"),
        ("defualt", "Did you mean default.*write one of your own as module:attribute"),
    ],
)
def test_names_that_lead_nowhere_are_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        find(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", r"raised SyntaxError: .*faulty.py, line 1\)"),
        ("\nimport nothing_such", r"raised ModuleNotFoundError: No module named 'nothing.*faulty.py, line 2"),
        ("1 / 0", r"importing .* raised ZeroDivisionError: division .*faulty.py, line 1, in <module>\)"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
        ("raise RuntimeError", "raised RuntimeError "),
    ],
)
@pytest.mark.parametrize("place", ["faulty.py", "faulty"])
def test_what_a_file_raises_is_told_with_its_line(folder, text, message, place):
    (folder / "faulty.py").write_text(text)
    modules = set(sys.modules)
    with pytest.raises(ConfigError, match=message):
        find(f"{place}:mine")
    assert not {name for name in set(sys.modules) - modules if name.startswith(("faulty", "ztb_own"))}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", r"wrong on 100 bars raised KeyError: 'Close' \(.*own_of_test.py, line 18, in wrong\)"),
        ("torn", r"own_of_test.py:torn' raised KeyError: 'median' \(.*own_of_test.py, line 23, in <lambda>"),
    ],
)
def test_what_features_raise_is_told_with_its_line(name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compute(f"own_of_test.py:{name}", FRAME)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda f: f[["open", "close"]], ("open", "close")),
        (lambda f: f.close, ("close",)),
        (lambda f: f.close.to_numpy(), ("named_0",)),
        (lambda f: f[["open", "close"]].to_numpy(np.float32), ("named_0", "named_1")),
        (lambda f: jnp.asarray(f.close.to_numpy()), ("named_0",)),
        (lambda f: pd.DataFrame({1: f.close > 100}), ("1",)),
        (lambda f: Features(f[["close"]].to_numpy(), np.ones(len(f), bool), ("x",)), ("x",)),
    ],
)
def test_a_function_may_give_any_table(make, names):
    def named(frame):
        return make(frame)

    found = compute(named, FRAME)
    assert found.names == names
    assert found.values.dtype == np.float64
    assert found.values.shape == (100, len(names))
    assert found.valid.all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f.close.dropna()[1:], "it gave 99 rows for 100 bars"),
        (lambda f: f[::-1], "or rows with other stamps"),
        (lambda f: f.close.to_numpy()[1:], r"it gave \[99\] for 100 bars"),
        (lambda f: f.to_numpy().T, r"it gave \[5, 100\] for 100 bars"),
        (lambda f: np.zeros((100, 2, 2)), r"it gave \[100, 2, 2\]"),
        (lambda f: np.zeros((100, 0)), r"it gave \[100, 0\]"),
        (lambda f: None, "for 100 bars|no numbers"),
        (lambda f: f.assign(day="Monday"), "are no numbers"),
        (lambda f: pd.concat([f.close, f.close], axis=1), "one name twice: close"),
        (lambda f: Features(f.to_numpy(), np.ones(100, bool), ("x",)), "5 columns, 1 names"),
        (lambda f: Features(f.to_numpy(), np.ones(99, bool), tuple("abcde")), "they must agree"),
    ],
)
def test_what_is_no_table_of_a_row_for_each_bar_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        compute(make, FRAME)


def test_a_function_gets_a_copy():
    before = FRAME.copy()

    def spoil(frame):
        frame["close"] = 0.0
        return frame.close

    compute(spoil, FRAME)
    pd.testing.assert_frame_equal(FRAME, before)


def test_a_lack_of_memory_is_nobodys_mistake():
    def greedy(frame):
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        compute(greedy, FRAME)
