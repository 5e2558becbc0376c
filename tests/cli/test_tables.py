"""Tables keep ids and numbers whole on any terminal."""

import os
import sys

import pytest

from ztb_jax.cli.main import run
from ztb_jax.cli.tables import table_lines, write_page
from ztb_jax.errors import RunError

NAMES = ("id", "steps", "result")
ROWS = [
    ("20261128T114000Z-abc", "1,048,576", "Did not beat buy-and-hold: −19.2 % against +22.3 %"),
    ("b", "7", "–"),
]


@pytest.mark.parametrize("width", [None, 200, 100, 70, 50, 40])
def test_ids_and_numbers_are_never_cut(width):
    lines = table_lines(NAMES, ROWS, width=width, right=("steps",))
    whole = "\n".join(lines)
    for row in ROWS:
        assert row[0] in whole
        assert row[1] in whole
    if width is not None:
        assert max(map(len, lines)) <= width


def test_where_there_is_room_the_result_is_whole_and_stands_beside():
    assert ROWS[0][2] in table_lines(NAMES, ROWS, width=None)[1]
    assert len(table_lines(NAMES, ROWS, width=100)) == 3


def test_where_there_is_none_it_stands_below():
    lines = table_lines(NAMES, ROWS, width=50, right=("steps",))
    assert lines[1] == "20261128T114000Z-abc  1,048,576"
    assert lines[2].startswith("  Did not beat buy-and-hold")
    assert lines[2].endswith("…")


def test_numbers_stand_below_each_other():
    first, second = table_lines(NAMES, ROWS, width=None, right=("steps",))[1:]
    assert first.index("1,048,576") + 8 == second.index("7")


def test_a_page_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(RunError, match="No such file or directory"):
        write_page(tmp_path / "none" / "page.html", "")


def test_a_reader_that_has_enough_is_no_failure(tmp_path, monkeypatch):
    taken, given = os.pipe()
    os.close(taken)
    with os.fdopen(given, "w", buffering=1) as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        (tmp_path / "runs").mkdir()
        assert run(["runs", "--root", str(tmp_path / "runs")], prog="ztb") == 0
