import subprocess
import sys

import pytest

from ztb_jax.cli.data import main
from ztb_jax.data import cache
from ztb_jax.errors import DataError


def test_load_then_list(good, save, capsys):
    assert main(["load", "GOOD", "D1", "--from", str(save(good.iloc[::-1]))]) == 0
    out = capsys.readouterr().out
    path = cache.default_cache_dir() / "GOOD" / "1d.parquet"
    assert "note: the file descends" in out
    assert out.endswith(f"GOOD 1d: 200 bars, 2000-01-03 00:00:00 to 2000-07-20 00:00:00, in {path}\n")
    assert path.is_file()
    (path.parent / "1h.parquet").write_bytes(b"x")
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["GOOD", "1d", "200", "bars"]
    assert lines[1].split() == ["SP500", "1d", "embedded"]
    assert lines[-1].startswith(f"damaged: {path.parent / '1h.parquet'}. Delete it")


def test_an_empty_cache_lists_what_needs_no_import(capsys, tmp_path):
    assert main(["list", "--cache-dir", str(tmp_path / "absent")]) == 0
    out = capsys.readouterr().out
    assert "NASDAQ" in out
    assert "synthetic/ar1" in out


@pytest.mark.parametrize("form", [["--drop", "duplicate", "nan"], ["--drop", "duplicate", "--drop", "nan"]])
def test_every_option_reaches_the_import(good, save, tmp_path, capsys, form):
    bad = good.rename(columns={"close": "settle"})[["settle"]].iloc[[0, 0, *range(1, 200)]]
    bad.iloc[7, 0] = float("nan")
    arguments = [
        "load",
        "X",
        "1d",
        "--from",
        str(save(bad)),
        "--columns",
        "close=settle",
        "--cache-dir",
        str(tmp_path),
    ]
    with pytest.raises(DataError, match="no column for open, high, low"):
        main([*arguments, *form])
    assert main([*arguments, *form, "--close-only"]) == 0
    assert "dropped 1 rows by duplicate" in capsys.readouterr().out
    assert cache.read("X", "1d", cache_dir=tmp_path)[1].num_rows == 199
    with pytest.raises(DataError, match="`--replace`"):
        main([*arguments[:4], str(save(good)), *arguments[-2:]])
    assert main([*arguments[:4], str(save(good)), *arguments[-2:], "--replace"]) == 0


def test_check_says_what_is_wrong_and_writes_nothing(good, save, capsys):
    assert main(["check", str(save(good)), "1d"]) == 0
    assert "it imports as 1d, 365.2 bars a year" in capsys.readouterr().out
    bad = good.copy()
    bad.iloc[4, 0] = -1
    assert main(["check", str(save(bad)), "D1"]) == 2
    out = capsys.readouterr().out
    assert "non_positive: 1 of 200 rows have a price of zero or less: row 6 (2000-01-07" in out
    assert out.endswith("it imports with --drop non_positive range\n")
    assert main(["check", str(save(good)), "1h"]) == 2
    assert capsys.readouterr().out.endswith("no option mends it\n")
    assert not list(cache.default_cache_dir().iterdir())


def test_columns_are_pairs(good, save):
    with pytest.raises(DataError, match="--columns 'settle' is no NAME=COLUMN"):
        main(["load", "X", "1d", "--from", str(save(good)), "--columns", "settle"])


@pytest.mark.parametrize("argv", [[], ["lode"], ["load", "X"], ["load", "X", "1d"], ["list", "--colour"]])
def test_arguments_that_do_not_parse_exit_with_two(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err


def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["load", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(
        option in out
        for option in ("--from", "--drop", "--columns", "--close-only", "--replace", "--cache-dir")
    )


def test_the_command_needs_neither_jax_nor_arch():
    code = (
        "import sys, ztb_jax.cli.data, ztb_jax.data.split; print({'jax', 'arch', 'flax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
