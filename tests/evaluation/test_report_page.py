"""The page: complete, escaped, self-contained, deterministic, small and quick."""

import dataclasses
import re
import subprocess
import sys
import time
from html.parser import HTMLParser

import numpy as np
import pytest

from ztb_jax.evaluation import figures
from ztb_jax.evaluation.metrics import summarise
from ztb_jax.evaluation.provenance import Gates, Resume, Seal
from ztb_jax.evaluation.report import LearningCurve, Report, Slice, Strategy, Trade, render


def strategy(equity, exposure):
    bars = exposure.size
    nothing = np.zeros(bars)
    numbers = summarise(
        equity=equity, value=np.append(0.0, exposure) * equity, held=nothing,
        traded=np.diff(exposure, prepend=0.0), costs=nothing, bars_per_year=252.0,
    )  # fmt: skip
    return Strategy(equity, exposure, numbers)


def report(bars=120, num_trades=30, **changes):
    generator = np.random.default_rng(0)
    returns = generator.normal(0.0003, 0.01, bars)
    exposure = generator.choice([-1.0, 0.0, 1.0], bars)

    def of(levels):
        return strategy(np.append(1.0, np.cumprod(1.0 + levels * returns)), levels)

    stamps = np.datetime64("2015-01-01", "s") + np.arange(bars + 1) * np.timedelta64(1, "D")
    trades = [
        Trade(stamps[1 + i % bars], "buy" if i % 2 else "sell", 1.0, 1000.0 + i, 0.0002)
        for i in range(num_trades)
    ]
    content = {
        "gates": Gates({"kl_runaway": "a KL above 1"}, [(1, 0), (2, 0), (3, 0)]),
        "seal": Seal({"Prices": "ab" * 32, "Seed": 7}, "ztb verify runs/run-7"),
        "run_id": "run-7", "symbol": "SPX", "timeframe": "D1", "slice_name": "test", "bars_per_year": 252.0,
        "stamps": stamps, "price": np.append(100.0, 100.0 * np.cumprod(1.0 + returns)),
        "strategies": {
            "hindsight": of(np.sign(returns)), "random": of(generator.choice([-1.0, 1.0], bars)),
            "flat": of(np.zeros(bars)), "buy_and_hold": of(np.ones(bars)), "policy": of(exposure),
        },
        "trades": trades,
        "learning": LearningCurve(
            np.arange(1, 7), np.linspace(0, 1e-4, 6), np.array([np.nan, 0.1, np.nan, 0.3, np.nan, 0.2]), 4
        ),
        "slices": [Slice("test", stamps[0], stamps[-1], bars)],
        "data": {"Content hash": "0f" * 32}, "environment": {"jax": "0.10.2"},
        "config": {"ppo": {"gamma": 0.9, "sizes": [64, 64]}, "resume": None},
    }  # fmt: skip
    return Report(**(content | changes))


@pytest.fixture(scope="module")
def page():
    return render(report())


class Outline(HTMLParser):
    """Headings and text in order, with every tag closed."""

    VOID = ("meta", "path", "use", "rect", "link", "br", "col")

    def __init__(self):
        super().__init__()
        self.open, self.headings, self.text, self.tags = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)
        self.text.append(data)


def outline(page):
    parsed = Outline()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed


def test_sections_in_order_behind_the_verdict(page):
    headings = outline(page).headings
    assert "buy-and-hold on the test slice" in headings[0]
    assert headings[1:] == [
        "Metrics, net of costs", "Equity against the baselines", "Position", "Learning curve",
        "Gates", "Trades of the policy: 30", "Data and split", "Configuration", "Seal", "Environment",
    ]  # fmt: skip


def test_only_the_test_slice_is_called_untouched(page):
    assert "chosen on the validation slice, never on the test slice." in page
    assert "chosen on the validation slice." in render(report(slice_name="validation"))


def test_columns_are_ordered_and_hindsight_is_labelled(page):
    names = re.findall(r'<th scope="col"[^>]*>([^<]+)', page)[1:6]
    assert names == ["Policy", "Buy-and-hold", "Flat", "Random", "Hindsight optimum"]
    assert "not attainable, needs tomorrow’s prices" in page


def test_rules_have_a_table_of_their_own_and_no_curve(page):
    content = report()
    names = ("momentum", "matched_random", "inverse_volatility")
    rules = {name: content.strategies["random"] for name in names}
    both = render(dataclasses.replace(content, strategies=rules | content.strategies))
    tables = [re.findall(r'<th scope="col"[^>]*>([^<]+)', table) for table in metrics_tables(both)]
    assert tables == [
        ["Metric", "Policy", "Buy-and-hold", "Flat", "Random", "Hindsight optimum"],
        ["Metric", "Policy", "Momentum", "Inverse volatility", "Matched random"],
    ]
    assert metrics_tables(page) == metrics_tables(both)[:1]
    assert re.findall(r"<svg.*?</svg>", both, re.DOTALL) == re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert "Momentum</b>" not in both


def metrics_tables(page):
    return re.findall(r'<table class="metrics">.*?</table>', page, re.DOTALL)


def test_content_reaches_the_page(page):
    text = " ".join(" ".join(outline(page).text).split())
    expected = [
        "0f" * 32, "ppo.gamma", "64, 64", "run-7", "2015-01-01 to 2015-05-01",
        "10 more trades, from 2015-01-12 to 2015-01-21", "120 bars", "1,000.00", "2.0 bp",
        "252.0 bars a year", "Chosen window", "0.10.2",
    ]  # fmt: skip
    assert [words for words in expected if words not in text] == []
    assert page.count("<tr><td class=") == 30


def test_nothing_is_loaded_and_nothing_runs(page):
    parsed = outline(page)
    assert not parsed.tags & {"script", "link", "img", "iframe", "object"}
    assert "default-src 'none'" in page
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"https?://|url\((?!#)|@import|<!DOCTYPE svg", without_namespaces)


def test_light_dark_print_and_narrow(page):
    for expected in ("prefers-color-scheme: dark", "@media print", "max-width: 640px", "width=device-width"):
        assert expected in page
    assert "#fe00" not in page
    assert "var(--policy)" in page
    assert page.count("<svg ") == 6


def test_references_inside_the_drawings_are_unique(page):
    ids = re.findall(r' id="([^"]+)"', page)
    assert ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', page)) == set(ids)


def test_the_page_is_deterministic(page):
    assert render(report()) == page


def test_everything_from_the_user_is_escaped():
    evil = "<script>alert('$x$')</script>"
    content = report()
    hostile = dataclasses.replace(
        content, run_id=evil, symbol=evil, timeframe=evil, slice_name=evil, notes=[evil], data={evil: evil},
        config={evil: {evil: evil}}, environment={evil: [evil]}, slices=[Slice(evil, *content.slices[0][1:])],
        trades=[Trade(content.stamps[1], evil, 1.0, 1.0, 0.0)],
        strategies={**content.strategies, evil: content.strategies["flat"]},
        gates=Gates({evil: evil}, [(1, 0)]), seal=Seal({evil: evil}, evil, [Resume(evil, 1, [evil], [evil])]),
    )  # fmt: skip
    page = render(hostile)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#39;$x$&#39;)") >= 21
    outline(page)


def test_five_thousand_bars_stay_small_and_quick():
    content = report(bars=5_000, num_trades=4_000)
    render(report())
    started = time.perf_counter()
    page = render(content)
    # Three seconds on a quiet core; the margin is for a machine that is not.
    assert time.perf_counter() - started < 9.0
    assert len(page.encode()) < 1_500_000
    # A filled outline goes there and back, a stepped one in two strokes a point.
    assert max(len(re.findall("[ML]", path)) for path in re.findall(' d="([^"]+)"', page)) < 4 * 2_000 + 10


@pytest.mark.parametrize(
    "changes",
    [
        {"learning": None, "gates": None, "seal": None, "trades": [], "slices": [], "data": {}, "config": {}},
        {"learning": LearningCurve(np.array([1]), np.array([np.nan]), np.array([np.nan]), None)},
        {"bars": 1, "slices": [], "num_trades": 1},
    ],
)
def test_sparse_reports_render(changes):
    outline(render(report(**changes)))


def test_constant_and_ruined_curves_render():
    content = report()
    flat = content.strategies["flat"]
    equity = np.maximum(1.0 - np.arange(121) / 60.0, -0.1)
    lost = strategy(equity, np.where(equity[1:] > 0.0, 1.0, 0.0))
    page = render(
        dataclasses.replace(
            content, strategies={"policy": lost, "buy_and_hold": flat}, price=np.full(121, 5.0)
        )
    )
    assert "Ruined on the test slice" in page
    assert '<th scope="row">Ruined</th>' in page


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"price": np.ones(3)}, "price has shape"),
        ({"price": np.full(121, np.nan)}, "price has values that are not finite"),
        ({"strategies": {}}, "policy and buy_and_hold"),
        ({"stamps": np.array(["2020-01-01"], "datetime64[s]")}, "stamps has 1 marks"),
    ],
)
def test_refusals(change, match):
    with pytest.raises(ValueError, match=match):
        render(report(**change))


def test_a_wrong_length_names_the_strategy():
    content = report()
    short = content.strategies["flat"]._replace(exposure=np.zeros(3))
    with pytest.raises(ValueError, match="exposure of flat"):
        render(dataclasses.replace(content, strategies={**content.strategies, "flat": short}))


def test_thinning_keeps_ends_and_extremes():
    values = np.random.default_rng(0).normal(size=10_001)
    values[[1234, 8765]] = [50.0, -50.0]
    kept = figures.thin(values, 500)
    assert kept.size <= 500
    assert np.all(np.diff(kept) > 0)
    assert {0, 1234, 8765, 10_000} <= set(kept.tolist())
    np.testing.assert_array_equal(figures.thin(values[:500], 500), np.arange(500))
    with pytest.raises(ValueError, match="limit is 3"):
        figures.thin(values, 3)


def test_the_axis_fits_what_is_attainable():
    near, far = np.array([1.0, 1.2, 0.9]), np.array([1.0, 50.0, 5000.0])
    low, high, logarithmic = figures.equity_limits({"policy": near, "hindsight": far})
    assert 0.8 < low < 0.9
    assert 1.2 < high < 1.3
    assert not logarithmic
    assert figures.equity_limits({"policy": near, "random": far})[2]
    assert not figures.equity_limits({"policy": near, "random": np.array([1.0, -5.0])})[2]
    assert not figures.equity_limits({"policy": near, "random": np.array([1.0, 0.0])})[2]


def test_shades_follow_the_position():
    assert figures.shades(np.array([0.0, 1.0, 1.0, -1.0, 0.0])) == [(1, 3, 1), (3, 4, -1)]
    assert figures.shades(np.array([1.0])) == [(0, 1, 1)]
    flips = np.tile([1.0, -1.0], 5_000)
    assert figures.shades(flips) == []
    assert len(figures.shades(np.repeat([1.0, -1.0], 5_000))) == 2


def test_the_page_is_drawn_without_jax():
    program = (
        "import sys; import ztb_jax.evaluation.report, ztb_jax.evaluation.metrics; "
        "print(sorted({'jax', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
