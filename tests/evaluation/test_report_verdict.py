"""The page opens with the verdict, and marks every piece of evidence."""

import re

import numpy as np
import pytest

from tests.evaluation.test_judgement import BASELINES, earning, fewer_draws, judged
from tests.evaluation.test_report_page import Outline, report
from ztb_jax.evaluation import judgement
from ztb_jax.evaluation.edge import Evidence
from ztb_jax.evaluation.report import render
from ztb_jax.evaluation.report_verdict import view
from ztb_jax.evaluation.targets import targets

__all__ = ["fewer_draws"]  # a fixture of these tests, too
METRICS = {"sharpe": 1.7, "max_drawdown": 0.1, "win_rate": None}


def page(edge, **changes):
    told = edge | {"trials_at_first": 1, "ledger": None}
    asked = targets(METRICS, phase="phase 1") + targets(METRICS)
    return render(report(edge=told, targets=asked, **changes))


def marks(text):
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>.*?<span class="mark (\w+)">(.*?)</span>', text)
    return {name: (kind, mark) for name, kind, mark in rows}


@pytest.mark.parametrize(
    ("sharpe", "word", "kind"),
    [(4.0, "Edge", "edge"), (0.8, "Inconclusive", "inconclusive"), (-1.0, "No edge", "no-edge")],
)
def test_it_opens_with_one_word_and_the_deciding_sentence(sharpe, word, kind):
    edge = judged(earning(sharpe))
    text = page(edge)
    assert f'<p class="word {kind}">{word}</p>' in text
    opening = text[text.index("<header>") : text.index("<h1>")]
    assert edge["reasons"][0].split("(")[0] in opening
    assert "M = 1: nothing else" in opening
    assert ("more bars would decide" in opening) == (kind == "inconclusive")
    assert "One slice is not evidence" not in text
    outline = Outline()
    outline.feed(text)
    assert not outline.open
    assert "Evidence" in outline.headings
    assert "Targets" in outline.headings


def test_every_piece_is_marked():
    seen = marks(page(judged(earning(4.0), further=Evidence(latency=0.02, controls=()))))
    assert seen["Mean net return above 0"] == ("good", "✓ passes")
    assert seen["Superior to every baseline (SPA)"][0] == "good"
    assert seen["Loss with orders a bar late"] == ("bad", "✗ contradicts")
    assert seen["Controls on which an edge was found"][0] == "good"
    assert seen["Total return with doubled costs"] == ("none", "not measured")
    poor = marks(page(judged(earning(-1.0), trials=2, ratios=(0.1, 0.2))))
    assert poor["Mean net return above 0"] == ("bad", "✗ fails")
    assert poor["Deflated Sharpe ratio, with all trials"][0] == "bad"
    assert poor["Mean return per bar in redrawn histories"][0] == "bad"
    assert poor["Sharpe ratio of a year, upper bound"][0] == "bad"


@pytest.mark.parametrize("bars", [1, 2, 50])
def test_what_is_missing_says_why(bars):
    shown = view(judged(earning(1.0)[:bars]) | {"trials_at_first": 1, "ledger": None})
    rows = {row.name: row for row in shown["rows"]}
    assert rows["Total return with doubled costs"].why == "the policy was not played with doubled costs"
    few = [row for row in shown["rows"] + shown["more"] if f"{bars} bars are too few" in row.why]
    assert len(few) == {1: 8, 2: 8, 50: 0}[bars]
    assert all(row.seen == "–" for row in few)


def test_targets_are_met_missed_or_have_no_meaning():
    text = page(judged(earning(1.0)))
    rows = text[text.index("<h2>Targets</h2>") :]
    assert re.search(
        r"Sharpe ratio, annual</th><td>1\.70</td><td>&gt; 1\.50 .*?met.*?&gt; 2\.00 .*?missed", rows
    )
    assert re.search(r"VaR compliance</th><td>n/a</td><td>n/a.*?= 100 % .*?n/a", rows)


def test_a_slice_that_was_seen_has_no_label_and_no_evidence():
    text = page(judgement.no_judgement("the policy was trained on these bars", trials=1), slice_name="train")
    assert '<p class="word none">No verdict</p>' in text
    assert "the policy was trained on these bars" in text
    assert "<h2>Evidence</h2>" not in text


def test_a_report_without_a_verdict_is_as_before():
    text = render(report())
    assert 'class="word' not in text
    assert "<h2>Evidence</h2>" not in text
    assert "<h2>Targets</h2>" not in text


def test_names_are_escaped():
    evil = "<script>alert(1)</script>"
    baselines = BASELINES | {evil: np.roll(BASELINES["random"], 5)}
    edge = judged(earning(4.0), baselines=baselines, further=Evidence(controls=(evil,)))
    assert evil not in page(edge)
