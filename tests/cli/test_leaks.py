"""`ztb data check-causality` and `check-recursive`: exit statuses, tables, JSON and mistakes."""

import json

import pytest

from ztb_jax.cli.main import run
from ztb_jax.data.synthetic import GENERATORS

SOURCE = """
import numpy as np
import pandas as pd

def clean(frame):
    print("computing")
    moves = np.log(frame.close).diff()
    return pd.DataFrame({"mean": moves.rolling(20).mean(), "size": moves.ewm(span=9).std()})

def leaky(frame):
    return clean(frame).assign(next=frame.close.shift(-1) / frame.close)

def forgetful(frame):
    return clean(frame).assign(sum=frame.close.diff().cumsum())

def drawn(frame):
    return np.random.default_rng().normal(size=len(frame))

def wrong(frame):
    return frame["Close"]
"""
BARS = 200


@pytest.fixture
def prices(tmp_path, monkeypatch):
    """A file of bars beside one of features, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    GENERATORS["ar1"](0, BARS, timeframe="1h").to_csv("prices.csv")
    return ("--from", "prices.csv", "--timeframe", "1h")


def check(what: str, *arguments: str) -> int:
    return run(["data", f"check-{what}", *arguments], prog="ztb")


def test_clean_features_pass(prices, capsys):
    assert check("causality", "mine.py:clean", *prices) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].startswith("mine.py:clean: 2 features of 200 bars, the future changed")
    assert printed.out.endswith("no feature looks ahead\n")
    assert "computing" in printed.err


def test_a_leak_is_a_row_of_a_table_and_exit_status_one(prices, capsys):
    assert check("causality", "mine.py:leaky", *prices) == 1
    _, names, row, remedy = capsys.readouterr().out.splitlines()
    assert names.split("  ")[0] == "feature"
    assert row.split()[:5] == ["next", "1", "0", "2000-01-03", "00:00:00"]
    assert row.endswith("redrawn, raised, lowered, reversed, left out")
    assert remedy == "compute each row from its own and earlier bars"


def test_json_is_one_object(prices, capsys):
    assert check("causality", "mine.py:leaky", *prices, "--json", "--points", "200") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["causal"] is False
    assert told["bars"] == list(range(BARS - 1))
    assert told["features"] == ["mean", "size", "next"]
    (leak,) = told["leaks"]
    assert (leak["feature"], leak["bar"], leak["ahead"], leak["gaps"]) == ("next", 0, 1, True)
    assert leak["stamp"] == "2000-01-03 00:00:00"
    assert check("recursive", "mine.py:forgetful", *prices, "--json", "--starts", "10", "100") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["starts"] == [10, 100]
    assert told["settled"] is False
    mean, size, total = told["features"]
    assert mean["differences"][0] is None  # NaN within its window
    assert (mean["near"], size["near"], total["near"]) == (100, 100, None)


def test_how_much_history_is_a_table(prices, capsys):
    assert check("recursive", "mine.py:clean", *prices, "--starts", "10", "25", "50", "100") == 0
    names, mean, size, note = capsys.readouterr().out.splitlines()
    assert "100 bars" in names
    assert mean.split()[:2] == ["mean", "–"]
    assert mean.split()[-4:] == ["25", "bars", "25", "bars"]
    assert size.split()[-4:] == ["50", "bars", "100", "bars"]
    assert note.startswith("differences to the whole history")
    assert check("recursive", "mine.py:forgetful", *prices, "--starts", "50", "100") == 1
    printed = capsys.readouterr().out
    assert "never" in printed
    assert "feature sum does not settle within 100 bars" in printed


def test_a_built_in_recipe_on_a_market_by_its_name(capsys):
    arguments = ("returns", "--symbol", "synthetic/gbm", "--timeframe", "1h")
    assert check("causality", *arguments, "--points", "1") == 0
    assert "returns: 1 feature of 20,000 bars" in capsys.readouterr().out
    assert check("causality", "returns", "--points", "1") == 0
    assert "5,031 bars" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("defualt",), "Did you mean default"),
        (("absent.py:x",), "cannot read"),
        (("absent:x",), "there is no module absent"),
        (("mine.py:wrong",), "wrong on 200 bars raised KeyError: 'Close' ("),
        (("mine.py:drawn",), "not deterministic"),
        (("mine.py:clean", "--points", "0"), "points is 0"),
        (("mine.py:clean", "--symbol", "NOSUCH", "--from", "None"), "there are no bars of NOSUCH 1h"),
        (("mine.py:clean", "--from", "absent.csv"), "absent.csv"),
        (("mine.py:clean", "--timeframe", "1d"), "`ztb data check prices.csv 1d` says whether"),
    ],
)
def test_mistakes_are_exit_status_two_without_a_traceback(prices, capsys, arguments, words):
    assert check("causality", arguments[0], *prices, *arguments[1:]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told


def test_histories_longer_than_the_bars_are_exit_status_two(prices, capsys):
    assert check("recursive", "mine.py:clean", *prices) == 2
    assert "histories up to 100" in capsys.readouterr().err


def test_the_tolerance_is_of_the_features_deviation(prices, tmp_path, capsys):
    (tmp_path / "rounded.py").write_text(
        "import numpy as np\n"
        "def rounded(frame):\n"
        "    return np.fft.irfft(np.fft.rfft(frame.close), len(frame))\n"
    )
    assert check("causality", "rounded.py:rounded", *prices) == 1
    assert "a tolerance of 1e-09 lets it pass" in capsys.readouterr().out
    assert check("causality", "rounded.py:rounded", *prices, "--tolerance", "1e-9") == 0
