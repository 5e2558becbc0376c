"""Stress and regimes in words: every number that is shown is one of the report's."""

import copy

import pytest

from ztb_jax.evaluation import report_stress

TOLD = {"total_return": -0.1234, "sharpe": -0.5, "max_drawdown": 0.2, "num_trades": 1234.0, "p_loss": 0.5}
REGIME = {
    "bars": 1500,
    "total_return": 0.05,
    "sharpe": None,
    "benchmark_return": -0.02,
    "benchmark_sharpe": -0.1,
}
STRESS = {
    "variants": {name: dict(TOLD) for name in (*report_stress.LABELS, "jitter_1", "jitter_2")},
    "breakeven_costs": None,
    "shuffled": {"edges": 3, "draws": 100, "contradicts": False},
    "leak": {"label": "edge", "reason": "…"},
    "regimes": {"trend": REGIME, "range": REGIME, "crisis": REGIME},
}


def changed(**parts):
    stress = copy.deepcopy(STRESS)
    stress.update(parts)
    return stress


def test_every_variant_has_a_row_and_of_jitters_the_worst_is_shown():
    stress = changed()
    stress["variants"]["jitter_2"]["total_return"] = -0.5
    rows = report_stress.view(stress)["rows"]
    assert [row["name"] for row in rows] == [
        *report_stress.LABELS.values(),
        "Worst of 2 jittered weights",
    ]
    assert rows[0]["cells"] == ["−12.3\N{NBSP}%", "−0.50", "20.0\N{NBSP}%", "1,234"]
    assert rows[-1]["cells"][0] == "−50.0\N{NBSP}%"


def test_what_is_undefined_is_a_dash():
    stress = changed()
    stress["variants"]["costs_x0"] = dict.fromkeys(TOLD)
    view = report_stress.view(stress)
    assert view["rows"][0]["cells"] == ["–"] * 4
    assert view["regimes"][0] == {
        "name": "Trend",
        "bars": "1,500",
        "cells": ["+5.0\N{NBSP}%", "–", "−2.0\N{NBSP}%", "−0.10"],
    }


@pytest.mark.parametrize(
    ("multiple", "free", "words"),
    [
        (1.454, 0.2, "Nothing is left at 1.45 times the costs."),
        (None, -0.1, "It earns nothing even without costs."),
        (None, 0.2, "It earns at every cost that was tried."),
    ],
)
def test_the_costs_at_which_nothing_is_left(multiple, free, words):
    stress = changed(breakeven_costs=multiple)
    stress["variants"]["costs_x0"]["total_return"] = free
    assert report_stress.breakeven(stress) == words
    assert words in report_stress.line(stress)
    assert words in report_stress.view(stress)["sentences"]


def test_controls_are_told():
    found = report_stress.view(changed(shuffled={"edges": 30, "draws": 100, "contradicts": True}))[
        "sentences"
    ]
    assert "30 of 100 draws, more than chance explains" in found[1]
    assert "in 3 of 100 draws, as chance explains" in report_stress.view(changed())["sentences"][1]
    assert len(report_stress.view(changed(shuffled=None))["sentences"]) == 2
