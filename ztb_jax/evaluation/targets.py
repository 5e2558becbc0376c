"""What the source documents want a policy to reach, phase by phase: told beside the result, and no gate.

Imports no jax.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

OVERALL = "overall"
PHASES = ("phase 1", "phase 2", "phase 3", OVERALL)
"""Phase 1 trains specialists of one instrument each, 2 the controller above them, 3 all of them together."""
RULES = {"above": (">", operator.gt), "below": ("<", operator.lt), "of": ("=", operator.eq)}
# Of `metrics.summarise`, but for `var_compliance`; the limits are in the order of the phases.
TARGETS: dict[str, tuple[tuple[str, float | None], ...]] = {
    "sharpe": (("above", 1.5), ("above", 1.8), ("above", 2.0), ("above", 2.0)),
    "max_drawdown": (("below", 0.20), ("below", 0.18), ("below", 0.15), ("below", 0.15)),
    "win_rate": (("above", 0.55), ("above", 0.60), ("above", 0.65), ("above", 0.60)),
    "var_compliance": (("above", None), ("above", 0.95), ("above", 0.98), ("of", 1.0)),
}
LABELS = {
    "sharpe": "Sharpe ratio, annual",
    "max_drawdown": "Maximum drawdown",
    "win_rate": "Winning round trips",
    "var_compliance": "VaR compliance",
}


def targets(metrics: Mapping[str, float | None], *, phase: str = OVERALL) -> list[dict[str, Any]]:
    """Whether a policy reaches the targets of a phase; `ztb_jax.runs.judged.Target` says what a row holds.

    Compliance with a limit on value at risk is of portfolios: where `metrics` have no "var_compliance", as of
    a single instrument, it has neither value nor verdict. Nor has what a phase asks nothing of.

    Args:
      metrics: of the policy by name, fractions as fractions.
      phase: one of `PHASES`.

    Raises:
      ValueError: there is no such phase.
    """
    if phase not in PHASES:
        raise ValueError(f"phase is {phase!r}: give one of {', '.join(PHASES)}.")
    rows = []
    for name, limits in TARGETS.items():
        rule, limit = limits[PHASES.index(phase)]
        sign, meets = RULES[rule]
        value = metrics.get(name)
        rows.append(
            {
                "phase": phase,
                "name": name,
                "target": None if limit is None else f"{sign} {in_words(name, limit)}",
                "value": value,
                "met": None if limit is None or value is None else bool(meets(value, limit)),
            }
        )
    return rows


def in_words(name: str, value: float | None) -> str:
    """A target's or a policy's number."""
    if value is None:
        return "n/a"
    return f"{value:.2f}" if name == "sharpe" else f"{100.0 * value:.1f} %".replace(".0 %", " %")


def mark(met: bool | None) -> str:
    """Whether a target is reached, in a word."""
    return "n/a" if met is None else "met" if met else "missed"


def line(rows: Sequence[Mapping[str, Any]]) -> str:
    """The overall targets in a line."""
    told = [
        f"{LABELS[row['name']]} {in_words(row['name'], row['value'])} ({row['target']}: {mark(row['met'])})"
        for row in rows
        if row["phase"] == OVERALL
    ]
    return "Targets: " + ", ".join(told) + "."
