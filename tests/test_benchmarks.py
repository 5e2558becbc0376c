"""The benchmark harness says what was missed, and exits with it."""

import json

import numpy as np
import pytest

from benchmarks.harness import Row, finish, interleave, rate_row


@pytest.mark.parametrize(
    ("value", "bar", "status"),
    [(2.0, 1.0, 0), (1.0, 1.0, 0), (0.5, 1.0, 1), (0.5, None, 0), (np.float64(2), 1, 0), (np.int64(0), 1, 1)],
)
def test_a_missed_bar_is_an_exit_status_and_a_word(tmp_path, capsys, value, bar, status):
    rows = [Row("other", 1.0, "×"), Row("this", value, "×", bar=bar)]
    assert finish("Title", rows, json_file=tmp_path / "out.json") == status
    assert ("MISSED" in capsys.readouterr().out) == bool(status)
    saved = json.loads((tmp_path / "out.json").read_text())
    assert saved["rows"][1]["reached"] == (not status)
    assert {"commit", "jax", "cores", "device"} <= set(saved["machine"])


def test_runs_are_interleaved_after_one_uncounted_turn():
    turns = []
    seconds = interleave({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, repeats=3)
    assert turns == ["a", "b"] * 4
    assert [len(seconds[name]) for name in ("a", "b")] == [3, 3]


def test_a_rate_is_the_median_with_its_spread():
    row = rate_row("speed", 12.0, [1.0, 2.0, 4.0], unit="/s")
    assert (row.value, row.low, row.high) == (6.0, 3.0, 12.0)
