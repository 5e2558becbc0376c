"""The verdict as the report shows it: one word, the deciding sentence, and a row for each piece of evidence.

Texts alone: every number was computed by `judgement` and `targets`. Imports no jax.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ztb_jax.evaluation.edge import WORTHWHILE
from ztb_jax.evaluation.judgement import counted, further_bars
from ztb_jax.evaluation.targets import LABELS, in_words, mark

UNDEFINED = "–"
PASSES, CONTRADICTS, SILENT = ("✓ passes", "good"), ("✗ contradicts", "bad"), ("not measured", "none")
FAILS, TOLD = ("✗ fails", "bad"), ("", "none")


class Row(NamedTuple):
    """One piece of evidence: its name, what is asked of it, what was seen, what that says, and why not."""

    name: str
    asked: str
    seen: str
    mark: str
    kind: str
    why: str = ""


def view(edge: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of `evaluation.json`'s `edge`."""
    label = edge["label"]
    return {
        "word": "No verdict" if label is None else label.capitalize(),
        "kind": "none" if label is None else label.replace(" ", "-"),
        "deciding": edge["reasons"][0],
        "counted": counted(edge),
        "further": further_bars(edge),
        "level": f"{edge['alpha'] / edge['trials']:.2g}",
        "alpha": f"{edge['alpha']:.0%}".replace("%", "\N{NBSP}%"),
        "rows": [] if edge["evidence"] is None else list(_rows(edge)),
        "more": [] if edge["evidence"] is None else list(_more(edge["evidence"])),
    }


def target_rows(targets: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the template shows of `evaluation.json`'s `targets`, a row for each name; None without any."""
    if not targets:
        return None
    phases = list(dict.fromkeys(each["phase"] for each in targets))
    by_name = {each["name"]: each["value"] for each in targets}
    cells = {
        (each["name"], each["phase"]): (
            ("n/a", "", "none")
            if each["target"] is None
            else (each["target"], mark(each["met"]), {True: "good", False: "bad", None: "none"}[each["met"]])
        )
        for each in targets
    }
    rows = [
        {
            "name": LABELS[name],
            "value": in_words(name, value),
            "cells": [cells[name, phase] for phase in phases],
        }
        for name, value in by_name.items()
    ]
    return {"phases": [phase.capitalize() for phase in phases], "rows": rows}


def _rows(edge: Mapping[str, Any]) -> Iterator[Row]:
    """What may decide: the two tests and the bound, and what may contradict them."""
    level, alpha, evidence = edge["alpha"] / edge["trials"], edge["alpha"], edge["evidence"]
    for name, key in (("Mean net return above 0", "p_mean"), ("Alpha on buy-and-hold above 0", "p_alpha")):
        passes = PASSES if edge[key] <= level else FAILS
        yield Row(name, f"p ≤ {level:.2g}", f"p = {edge[key]:.2g}", *passes)
    upper = edge["sharpe_upper"]
    passes = TOLD if upper is None else PASSES if upper >= WORTHWHILE else FAILS
    yield Row(
        "Sharpe ratio of a year, upper bound",
        f"≥ {WORTHWHILE:.0f}",
        _number(upper, ".2f") or UNDEFINED,
        *passes,
    )
    bootstrap, spa, controls = evidence["bootstrap"], evidence["spa"], evidence["controls"]
    worst = max(spa, key=lambda name: spa[name]) if spa else None
    for name, field, text, asked, seen in (
        ("deflated_sharpe", "deflated_sharpe", "Deflated Sharpe ratio, with all trials",
         f"≥ {1.0 - alpha:.2f}", _number(evidence["deflated_sharpe"], ".3f")),
        ("bootstrap", "bootstrap_low", "Mean return per bar in redrawn histories", "> 0",
         None if bootstrap is None else _ends(bootstrap, "mean", "+.3%")),
        ("spa", "spa_p_value", "Superior to every baseline (SPA)", f"p ≤ {alpha:.2g}",
         None if worst is None else f"p = {spa[worst]:.2g}, {_plain(worst)}"),
        ("doubled_costs", "doubled_costs", "Total return with doubled costs", "> 0",
         _number(evidence["doubled_costs"], "+.1%")),
        ("latency", "latency", "Loss with orders a bar late", f"p > {alpha:.2g}",
         _number(evidence["latency"], ".2g")),
        ("controls", "controls", "Controls on which an edge was found", "none",
         None if controls is None else ", ".join(controls) or "none"),
    ):  # fmt: skip
        if seen is None:
            yield Row(text, asked, UNDEFINED, *SILENT, evidence["missing"][name])
        else:
            yield Row(text, asked, seen, *(CONTRADICTS if field in edge["contradictions"] else PASSES))


def _more(evidence: Mapping[str, Any]) -> Iterator[Row]:
    """What decides nothing."""
    bootstrap, superior = evidence["bootstrap"], evidence["superior"]
    for name, text, seen in (
        ("probabilistic_sharpe", "Probability that the Sharpe ratio is above 0",
         _number(evidence["probabilistic_sharpe"], ".3f")),
        ("min_track_record_length", "Bars that such a Sharpe ratio needs",
         _number(evidence["min_track_record_length"], ",.0f")),
        ("bootstrap", "Sharpe ratio in redrawn histories",
         None if bootstrap is None else _ends(bootstrap, "sharpe", "+.2f")),
        ("bootstrap", "Total return in redrawn histories",
         None if bootstrap is None else _ends(bootstrap, "total_return", "+.1%")),
        ("superior", "Better than nothing, all counted at once (StepM)",
         None if superior is None else ", ".join(map(_plain, superior)) or "none"),
    ):  # fmt: skip
        yield Row(text, "", seen or UNDEFINED, *TOLD, "" if seen else evidence["missing"][name])
    for name, p_value in (evidence["spa"] or {}).items():
        yield Row(f"Superior to {_plain(name)} (SPA)", "", f"p = {p_value:.2g}", *TOLD)


def _ends(bootstrap: Mapping[str, Any], name: str, form: str) -> str:
    low, high = (_number(bootstrap[name][end], form) or UNDEFINED for end in ("low", "high"))
    return f"{low} … {high} in {_number(bootstrap['confidence'], '.0%')}"


def _plain(name: str) -> str:
    return name.replace("_", "-")


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form).replace("-", "−").replace("%", "\N{NBSP}%")
