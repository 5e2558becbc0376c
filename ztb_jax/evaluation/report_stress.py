"""Stress and regimes as the report shows them, texts alone. Imports no jax."""

from collections.abc import Mapping
from typing import Any

LABELS = {
    "costs_x0": "No costs",
    "costs_x1": "As it was",
    "costs_x2": "Costs × 2",
    "costs_x5": "Costs × 5",
    "latency_plus_1": "Orders a bar late",
    "latency_plus_2": "Orders two bars late",
    "slippage_plus_5bp": "Slippage + 5 bp",
    "slippage_plus_10bp": "Slippage + 10 bp",
}
JITTER = "jitter_"
UNDEFINED = "–"


def view(stress: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of `evaluation.json`'s `stress`."""
    variants = stress["variants"]
    rows = [_row(label, variants[name]) for name, label in LABELS.items()]
    jittered = [told for name, told in variants.items() if name.startswith(JITTER)]
    rows.append(_row(f"Worst of {len(jittered)} jittered weights", min(jittered, key=_total)))
    regimes = [
        {
            "name": name.capitalize(),
            "bars": f"{told['bars']:,}",
            "cells": [
                _text(told["total_return"], "+.1%"),
                _text(told["sharpe"], ".2f"),
                _text(told["benchmark_return"], "+.1%"),
                _text(told["benchmark_sharpe"], ".2f"),
            ],
        }
        for name, told in stress["regimes"].items()
    ]
    return {"rows": rows, "regimes": regimes, "sentences": [breakeven(stress), *controls(stress)]}


def line(stress: Mapping[str, Any]) -> str:
    """The same in a line, for a terminal."""
    variants = stress["variants"]
    told = {
        "no costs": "costs_x0",
        "costs x 2": "costs_x2",
        "x 5": "costs_x5",
        "a bar late": "latency_plus_1",
        "10 bp slippage more": "slippage_plus_10bp",
    }
    parts = [f"{label} {_text(variants[name]['total_return'], '+.1%')}" for label, name in told.items()]
    return f"Stress, total return: {', '.join(parts)}. {breakeven(stress)}"


def breakeven(stress: Mapping[str, Any]) -> str:
    """At what costs nothing is left, as a sentence."""
    multiple = stress["breakeven_costs"]
    if multiple is not None:
        return f"Nothing is left at {multiple:.2f} times the costs."
    free = stress["variants"]["costs_x0"]["total_return"]
    if free is not None and free <= 0.0:
        return "It earns nothing even without costs."
    return "It earns at every cost that was tried."


def controls(told_of: Mapping[str, Any]) -> list[str]:
    """On shuffled bars and on the next bar leaked, sentences: of `robustness.controls_report`."""
    shuffled = told_of["shuffled"]
    told = []
    if shuffled is not None:
        chance = "more than chance explains" if shuffled["contradicts"] else "as chance explains"
        told.append(
            f"The same orders on shuffled bars are an edge in {shuffled['edges']} of {shuffled['draws']} "
            f"draws, {chance}."
        )
    leak = told_of["leak"]["label"]
    return [*told, f"Trades that know the next bar are judged “{leak}” here, as a check of the rule."]


def _row(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "cells": [
            _text(told["total_return"], "+.1%"),
            _text(told["sharpe"], ".2f"),
            _text(told["max_drawdown"], ".1%"),
            _text(told["num_trades"], ",.0f"),
        ],
    }


def _total(told: Mapping[str, Any]) -> float:
    total = told["total_return"]
    return float("inf") if total is None else total


def _text(number: float | None, form: str) -> str:
    if number is None:
        return UNDEFINED
    return format(number, form).replace("-", "\N{MINUS SIGN}").replace("%", "\N{NBSP}%")
