"""M is counted from a record that many processes write, that survives a crash and hides no damage."""

import datetime
import json
import os
import random
import subprocess
import sys
import tempfile

import pytest

from ztb_jax.errors import RunError
from ztb_jax.runs import ledger


def digest(number: int) -> str:
    return f"{number:064x}"


def day(number: int) -> str:
    return (datetime.datetime(2015, 1, 1) + datetime.timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%SZ")


def scored(policy: int = 0, first: int = 0, last: int = 99, **changes):
    row = {
        "kind": "run", "run_id": f"run-{policy}", "seed": policy, "config": digest(7),
        "policy": digest(policy),
        "symbol": "SP500", "timeframe": "1d", "data": digest(1), "slice": "test", "first": day(first),
        "last": day(last), "bars": last - first + 1, "sharpe": 1.0, "sharpe_per_bar": (6 + policy) / 100.0,
        "scored_at": "2026-11-28T00:00:00.000Z",
    }  # fmt: skip
    return row | changes


def filled(path, *rows):
    for row in rows:
        ledger.append(path, row)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scored.jsonl"


def test_the_record_lies_in_the_folder_of_runs_unless_it_is_named(tmp_path):
    assert ledger.place(tmp_path, None) == tmp_path / "scored.jsonl"
    assert str(ledger.place(tmp_path, "~/all.jsonl")) == os.path.expanduser("~/all.jsonl")


def test_what_was_appended_is_read(path):
    rows = [scored(0), scored(1, sharpe=None, sharpe_per_bar=None)]
    assert ledger.read(path) == ([], [])
    assert ledger.append(path, rows[0]).rows == rows[:1]
    assert ledger.append(path, rows[1]) == (rows, [])
    assert ledger.read(path).rows == rows
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows


def test_the_same_weights_count_once(path):
    found = ledger.read(filled(path, scored(0), scored(1), scored(0, sharpe_per_bar=0.5))).rows
    assert ledger.trials(found, scored(1)) == (2, 2, (0.5, 0.07))


def test_the_same_weights_with_other_settings_or_another_end_are_another_look():
    rows = [scored(0), scored(0, config=digest(8)), scored(0, last=90), scored(0, first=3), scored(0)]
    assert ledger.trials(rows, rows[0]).policies == 4
    assert len(ledger.trials(rows, rows[0]).sharpes) == 4


def test_what_m_was_when_a_policy_was_first_scored():
    rows = [scored(0), scored(1), scored(0), scored(2), scored(1)]
    assert [ledger.trials(rows, scored(policy)).at_first for policy in range(3)] == [1, 2, 3]
    assert {ledger.trials(rows, scored(policy)).policies for policy in range(3)} == {3}


def test_only_the_same_bars_of_the_same_instrument_count():
    seen = scored(0, first=100, last=199)
    alike = [
        scored(1, first=0, last=100),
        scored(2, first=199, last=300),
        scored(3, first=120, last=130, slice="validation"),
        scored(4, first=0, last=300, data=digest(2)),  # newer bars of it
        scored(5, first=100, last=199, symbol="^GSPC", timeframe="1D"),  # the same file under another name
    ]
    others = [
        scored(6, first=0, last=99),
        scored(7, first=200, last=300),
        scored(8, first=100, last=199, symbol="NASDAQ", data=digest(2)),
        scored(9, first=100, last=199, timeframe="4h", data=digest(2)),
    ]
    assert ledger.trials([seen, *others], seen).policies == 1
    for number, row in enumerate(alike):
        assert ledger.trials([seen, row], seen).policies == 2, number
    assert ledger.trials([*others, *alike, seen], seen).policies == 6


def test_m_is_that_of_a_count_of_days():
    draw = random.Random(0)
    for _ in range(50):
        rows = []
        for _ in range(20):
            first = draw.randrange(60)
            rows.append(
                scored(
                    draw.randrange(8), first, first + draw.randrange(1, 12),
                    symbol=draw.choice(["A", "B"]), data=digest(draw.randrange(3)),
                )
            )  # fmt: skip
        days = [range(_day(row["first"]), _day(row["last"]) + 1) for row in rows]
        for at, row in enumerate(rows):
            policies = {
                tuple(other[key] for key in ("policy", "config", "first", "last"))
                for other, span in zip(rows, days, strict=True)
                if set(span) & set(days[at])
                and (other["symbol"] == row["symbol"] or other["data"] == row["data"])
            }
            assert ledger.trials(rows, row).policies == len(policies)


def _day(stamp: str) -> int:
    return (datetime.datetime.fromisoformat(stamp[:-1]) - datetime.datetime(2015, 1, 1)).days


WRITER = """
import sys
from tests.runs.test_ledger import scored
from ztb_jax.runs import ledger
from pathlib import Path
who, path = int(sys.argv[1]), Path(sys.argv[2])
for number in range(20):
    row = scored(100 * who + number)
    found = ledger.append(path, row)
    print(len(found.rows), ledger.trials(found.rows, row).policies)
"""


def test_processes_that_write_at_once_lose_nothing_and_each_sees_all_before_it(path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(who), str(path)], stdout=subprocess.PIPE, text=True
        )
        for who in range(4)
    ]
    told = []
    for writer in writers:
        out, _ = writer.communicate(timeout=120)
        assert writer.returncode == 0
        told += [tuple(map(int, line.split())) for line in out.splitlines()]
    assert sorted(told) == [(number, number) for number in range(1, 81)]
    assert len({row["policy"] for row in ledger.read(path).rows}) == 80


def test_a_line_that_was_cut_off_is_told_and_the_next_writer_removes_it(path):
    whole = filled(path, scored(0), scored(1)).read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first + 1, len(whole), 7):
        path.write_bytes(whole[:cut])
        found = ledger.read(path)
        assert found.rows == [scored(0)]
        assert "line 2 was cut off" in found.told[0]
    assert ledger.append(path, scored(2)).told
    assert ledger.read(path) == ([scored(0), scored(2)], [])


@pytest.mark.parametrize(
    "line",
    [
        "", "{", "[]", "null", "\x00", "{}", '{"policy": NaN}', "\xff",
        json.dumps(scored(0) | {"policy": "weights"}), json.dumps(scored(0) | {"first": "2015-01-01"}),
        json.dumps(scored(0, sharpe=float("nan"))), json.dumps(scored(0, bars=0)),
        json.dumps({key: value for key, value in scored(0).items() if key != "policy"}),
    ],
)  # fmt: skip
def test_other_damage_is_refused_with_its_place_and_nothing_is_written(path, line):
    good = filled(path, scored(0), scored(1)).read_text().splitlines()
    path.write_text("\n".join([good[0], line, good[1]]) + "\n", encoding="latin-1")
    before = path.read_bytes()
    for attempt in (ledger.read, ledger.check, lambda path: ledger.append(path, scored(2))):
        with pytest.raises(RunError) as refused:
            attempt(path)
        assert f"{path}, line 2 is damaged" in str(refused.value)
        assert "restore" in str(refused.value)
    assert path.read_bytes() == before


def test_what_a_later_version_adds_to_a_line_is_no_damage(path):
    filled(path, scored(0, regime="calm"))
    assert ledger.trials(ledger.append(path, scored(1)).rows, scored(1)).policies == 2


def test_a_row_that_is_no_scoring_is_not_written(path):
    with pytest.raises(ValueError, match="policy"):
        ledger.append(path, scored(0) | {"policy": "x"})
    assert not path.exists()


@pytest.mark.parametrize("attempt", [ledger.check, lambda path: ledger.append(path, scored(0))])
def test_a_place_that_cannot_be_written_is_refused_with_a_remedy(tmp_path, attempt):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for bad in (tmp_path / "file" / "scored.jsonl", tmp_path / "folder"):
        with pytest.raises(RunError, match=r"--run\.ledger"):
            attempt(bad)


NOBODY = """
import os, sys
from pathlib import Path
from tests.runs.test_ledger import scored
from ztb_jax.errors import RunError
from ztb_jax.runs import ledger
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere
for attempt in (ledger.check, lambda path: ledger.append(path, scored(0))):
    try:
        attempt(Path(sys.argv[1]))
    except RunError as error:
        print(error)
"""


@pytest.mark.parametrize("rights", [0o555, 0o000])
def test_a_folder_that_is_read_only_or_closed_is_refused(rights):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        os.chmod(folder, rights)
        told = subprocess.run(
            [sys.executable, "-c", NOBODY, f"{folder}/scored.jsonl"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        os.chmod(folder, 0o700)
    assert len(told) == 2
    assert all("Permission denied" in line and "--run.ledger" in line for line in told)


def test_a_full_disk_leaves_the_record_as_it_was(path, monkeypatch):
    before = filled(path, scored(0)).read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        ledger.append(path, scored(1))
    monkeypatch.undo()
    assert path.read_bytes() == before


def test_a_record_of_many_lines(path):
    line = filled(path, scored(0)).read_bytes()
    path.write_bytes(line * 99_999)
    found = ledger.append(path, scored(1))
    assert len(found.rows) == 100_000
    assert ledger.trials(found.rows, scored(1)) == (2, 2, (0.06, 0.07))
