"""The verdict as the report shows it: one word, the deciding sentence, and a row for each piece of evidence.

Texts alone: every number was computed by `judgement` and `targets`. Imports no jax.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ztb_jax.evaluation.edge import WORTHWHILE
from ztb_jax.evaluation.judgement import counted, further_bars
from ztb_jax.evaluation.targets import LABELS, in_words, mark

UNDEFINED = "–"
SUPPORTS, CONTRADICTS, SILENT = ("✓ passes", "good"), ("✗ contradicts", "bad"), ("not measured", "none")
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
        "rows": [] if edge["evidence"] is None else list(_rows(edge)),
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
    yield from _tests(edge)
    evidence, alpha = edge["evidence"], edge["alpha"]
    found = _Evidence(edge["contradictions"], evidence["missing"])
    yield found.row(
        "deflated_sharpe", "Deflated Sharpe ratio, with all trials", f"≥ {1.0 - alpha:.2f}",
        _number(evidence["deflated_sharpe"], ".3f"),
    )  # fmt: skip
    yield found.told(
        "probabilistic_sharpe", "Probability that the Sharpe ratio is above 0",
        _number(evidence["probabilistic_sharpe"], ".3f"),
    )  # fmt: skip
    yield found.told(
        "min_track_record_length", "Bars that such a Sharpe ratio needs",
        _number(evidence["min_track_record_length"], ",.0f"),
    )  # fmt: skip
    yield from _intervals(evidence["bootstrap"], found)
    yield from _superiority(evidence["spa"], evidence["superior"], found, alpha)
    for name, text in (
        ("doubled_costs", "Total return with doubled costs"),
        ("latency", "Total return with orders a bar late"),
    ):
        yield found.row(name, text, "> 0", _number(evidence[name], "+.1%"))
    controls = evidence["controls"]
    seen = None if controls is None else ", ".join(controls) or "none"
    yield found.row("controls", "Controls on which an edge was found", "none", seen)


def _tests(edge: Mapping[str, Any]) -> Iterator[Row]:
    level = edge["alpha"] / edge["trials"]
    for name, key in (("Mean net return above 0", "p_mean"), ("Alpha on buy-and-hold above 0", "p_alpha")):
        passes = SUPPORTS if edge[key] <= level else FAILS
        yield Row(name, f"p ≤ {level:.2g}", f"p = {edge[key]:.2g}", *passes)
    upper = edge["sharpe_upper"]
    worth = TOLD if upper is None else SUPPORTS if upper >= WORTHWHILE else FAILS
    asked = f"may be {WORTHWHILE:.0f}"
    yield Row("Sharpe ratio of a year, upper bound", asked, _number(upper, ".2f") or UNDEFINED, *worth)


class _Evidence(NamedTuple):
    """What contradicts by name, and why what is missing is."""

    contradictions: Mapping[str, str]
    missing: Mapping[str, str]

    def row(self, name: str, text: str, asked: str, seen: str | None, *, field: str | None = None) -> Row:
        """Of a piece that may contradict, under the name that it has in `edge.Evidence`."""
        if seen is None:
            return Row(text, asked, UNDEFINED, *SILENT, f": {self.missing[name]}")
        return Row(text, asked, seen, *(CONTRADICTS if (field or name) in self.contradictions else SUPPORTS))

    def told(self, name: str, text: str, seen: str | None) -> Row:
        """Of a number that decides nothing."""
        why = "" if seen is not None else self.missing[name]
        return Row(text, UNDEFINED, seen or UNDEFINED, *TOLD, why)


def _intervals(bootstrap: Mapping[str, Any] | None, found: _Evidence) -> Iterator[Row]:
    text = "Mean return per bar in redrawn histories"
    if bootstrap is None:
        yield found.row("bootstrap", text, "> 0", None)
        return
    share = f"{bootstrap['confidence']:.0%}"
    for name, title, form in (
        ("mean", text, "+.3%"),
        ("sharpe", "Sharpe ratio in redrawn histories", "+.2f"),
        ("total_return", "Total return in redrawn histories", "+.1%"),
    ):
        ends = [_number(bootstrap[name][end], form) or UNDEFINED for end in ("low", "high")]
        seen = f"{share} in {ends[0]} … {ends[1]}"
        if name == "mean":
            yield found.row("bootstrap", title, "> 0", seen, field="bootstrap_low")
        else:
            yield Row(title, UNDEFINED, seen, *TOLD)


def _superiority(
    spa: Mapping[str, float] | None, superior: Sequence[str] | None, found: _Evidence, alpha: float
) -> Iterator[Row]:
    if spa is None:
        yield found.row("spa", "Superior to the baselines (SPA)", f"p ≤ {alpha:.2g}", None)
    for name, p_value in (spa or {}).items():
        says = SUPPORTS if p_value <= alpha else CONTRADICTS
        yield Row(f"Superior to {_plain(name)} (SPA)", f"p ≤ {alpha:.2g}", f"p = {p_value:.2g}", *says)
    seen = None if superior is None else ", ".join(map(_plain, superior)) or "none"
    yield found.told("superior", "Better than nothing, all counted at once (StepM)", seen)


def _plain(name: str) -> str:
    return name.replace("_", "-")


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form).replace("-", "−").replace("%", "\N{NBSP}%")
