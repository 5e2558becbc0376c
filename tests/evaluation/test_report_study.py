"""The page of a walk-forward study: what it shows, what it may not fetch, and that it fits a phone."""

import json
import re
from functools import cache

import numpy as np
import pytest

from tests.ui.serving import ARGUMENTS, CHROMIUM
from ztb_jax.evaluation import judgement, metrics, ratios, report_study
from ztb_jax.runs import artifacts

EVIL = "<script>alert(1)</script>"
NAMED = [EVIL, "ppo.gamma 0.9"]
YEAR = 252.0
NAMES = ("buy_and_hold", "flat", "random", "moving_average_cross", "momentum", "hindsight")


def summary(returns) -> dict:
    equity = np.append(1.0, np.cumprod(1.0 + returns))
    sortino = ratios.sortino(returns, YEAR)
    return {
        "total_return": metrics.total_return(equity),
        "annual_return": metrics.annual_return(equity, YEAR),
        "volatility": metrics.volatility(returns, YEAR),
        "sharpe": metrics.sharpe(returns, YEAR),
        "sortino": sortino if np.isfinite(sortino) else None,
        "max_drawdown": metrics.max_drawdown(equity),
    }


@cache
def verdict(strategy: bytes, beside: tuple[bytes, ...]) -> dict:
    """A real one, which takes a second, once."""
    series = [np.frombuffer(each) for each in (strategy, *beside)]
    baselines = dict(zip(NAMES, series[1:], strict=True))
    return judgement.judge(series[0], baselines, trials=7, trial_sharpes=[0.1, 0.2], bars_per_year=YEAR)


def study(paths: int = 1, **changes) -> tuple[dict, dict]:
    """A result and its arrays, of three folds, two configurations and three seeds."""
    rng = np.random.default_rng(0)
    bars = 300
    strategy = rng.normal(0.002, 0.01, bars)
    beside = {name: rng.normal(0.0, 0.01, bars) for name in NAMES} | {"flat": np.zeros(bars)}
    dates = ["2020-01-01 00:00:00", "2020-06-30 00:00:00"]
    ranges = 2 if paths > 1 else 1
    fold = {
        "train": [dates] * ranges, "validation": dates, "test": [dates] * ranges, "configuration": 1,
        "validation_log_growth": 1e-4, "total_return": [0.1] * ranges, "buy_and_hold": [-0.05] * ranges,
        "seeds": [[0.1] * ranges] * 3, "without_policy": 0,
    }  # fmt: skip
    seeds = {"sharpe": [1.0, 2.0, -3.0], "interquartile_mean": {"seen": 1.5, "low": 0.5, "high": 2.0}}
    configuration = {
        "settings": {"policy.encoder": EVIL, "ppo.gamma": 0.9}, "chosen": 3, "validation_log_growth": 2e-4,
        "summary": summary(strategy), "seeds": seeds,
    }  # fmt: skip
    edge = verdict(strategy.tobytes(), tuple(returns.tobytes() for returns in beside.values()))
    result = {
        "id": "s", "kind": "walkforward", "symbol": EVIL, "timeframe": "1d",
        "scheme": {"scheme": "combinatorial" if paths > 1 else "anchored", "vary": [EVIL]},
        "first_bar": dates[0], "last_bar": dates[1], "bars": bars, "bars_per_year": YEAR, "trainings": 18,
        "without_policy": 1, "stopped": {"kl_runaway": 2}, "strategy": summary(strategy), "seeds": seeds,
        "baselines": {name: summary(returns) for name, returns in beside.items()},
        "configurations": [configuration, configuration | {"validation_log_growth": None}],
        "paths": list(np.linspace(-1.0, 2.0, paths)), "folds": [fold] * 3,
        "overfitting": {"probability": 0.25, "blocks": 16},
        "edge": edge | {"trials_at_first": 7, "ledger": None},
        "controls": {
            "shuffled": {"draws": 100, "edges": 12, "allowed": 11, "contradicts": True, "t": 1.0,
                         "p_value": 0.2, "share": 0.12},
            "leak": {"label": "edge", "p_mean": 0.0, "p_alpha": 0.0, "trades": 40, "reason": "So it is."},
        },
    } | changes  # fmt: skip
    artifacts.parse("study_result", json.dumps(result).encode())
    arrays = {
        "stamps": np.datetime64("2020-01-02", "s") + np.arange(bars) * np.timedelta64(86_400, "s"),
        "stretch": np.repeat([0, 1, 2], bars // 3), "strategy": strategy,
        **{f"baselines/{name}": returns for name, returns in beside.items()},
    }  # fmt: skip
    return result, arrays


def page(paths: int = 1, **changes) -> str:
    return report_study.render(*study(paths, **changes), names=NAMED, config={"run": {"root": EVIL}})


def test_the_verdict_comes_first_and_every_part_is_there():
    result, _ = study()
    text = page()
    assert text == page()
    first = text.index('<p class="word')
    order = ["<h1>", ">Evidence<", "Strategy and baselines", "Equity out of sample", "Folds: 3",
             "Configurations: 2", ">Scheme<", ">Settings<"]  # fmt: skip
    places = [text.index(each) for each in order]
    assert [first, *places] == sorted([first, *places])
    assert f">{result['edge']['label'].capitalize()}</p>" in text
    assert "Sharpe ratio of the seeds: middle half 1.50, 95 % interval 0.50 to 2.00." in text
    assert "Probability of backtest overfitting: 25%" in text
    assert "on shuffled bars are an edge in 12 of 100 draws, more than chance explains." in text
    assert "Trades that know the next bar are judged “edge” here" in text
    assert "Gates stopped 2 trainings: kl_runaway 2." in text
    assert "1 of 18 trainings brought no policy" in text
    assert "1.50 (0.50 … 2.00)" in text
    for name in NAMES[:3]:
        total = result["baselines"][name]["total_return"]
        assert f"{100 * total:+.1f}".replace("-", "−").replace("+0.0", "0.0") in text


def test_seams_are_drawn_where_tests_end():
    result, arrays = study()
    with_seams = report_study.render(result, arrays, names=NAMED, config={})
    without = report_study.render(result, arrays | {"stretch": np.zeros(300, int)}, names=NAMED, config={})
    dashes = [text.count("stroke-dasharray") for text in (with_seams, without)]
    assert dashes[0] - dashes[1] == 2 * 2 * 2  # two seams, two panels, two sizes


def test_paths_are_told_where_there_are_several():
    assert "Paths:" not in page()
    text = page(15)
    assert "Paths: 15" in text
    for name, value in (("Lowest", "−1.00"), ("Median", "0.50"), ("Highest", "2.00")):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text


def test_what_a_user_wrote_is_text_and_nothing_is_fetched():
    text = page(3)
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"<script|<img|<link|<iframe|\ssrc=|@import|url\((?!#)", text)
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "Beat buy-and-hold out of sample"),
        ({"without_policy": 18}, "No training brought a policy"),
    ],
)
def test_the_headline_says_what_happened(changes, told):
    assert told in report_study.headline(study(**changes)[0])


def test_a_strategy_that_is_behind_is_said_to_be():
    result, _ = study()
    behind = result | {"strategy": result["strategy"] | {"total_return": -0.9}}
    assert report_study.headline(behind).startswith("Did not beat buy-and-hold out of sample: −90.0")


@pytest.mark.skipif(not CHROMIUM.is_file(), reason="chromium is not installed")
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_it_fits_the_screen_and_asks_for_nothing(tmp_path, width, scheme):
    sync_api = pytest.importorskip("playwright.sync_api")
    (tmp_path / "report.html").write_text(page(15))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        asked, said = [], []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.goto((tmp_path / "report.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert tab.locator("svg:visible").count() == 2
        assert (len(asked), said) == (1, [])
        browser.close()
