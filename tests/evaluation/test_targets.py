"""The documents' targets: their numbers, met or missed, and what one instrument has none of."""

import pytest

from ztb_jax.evaluation.targets import PHASES, line, targets

GOOD = {"sharpe": 1.9, "max_drawdown": 0.16, "win_rate": 0.62}


def met(phase, metrics):
    return {row["name"]: row["met"] for row in targets(metrics, phase=phase)}


def test_the_numbers_of_the_documents():
    asked = {phase: [row["target"] for row in targets({}, phase=phase)] for phase in PHASES}
    assert asked == {
        "phase 1": ["> 1.50", "< 20 %", "> 55 %", None],
        "phase 2": ["> 1.80", "< 18 %", "> 60 %", "> 95 %"],
        "phase 3": ["> 2.00", "< 15 %", "> 65 %", "> 98 %"],
        "overall": ["> 2.00", "< 15 %", "> 60 %", "= 100 %"],
    }


@pytest.mark.parametrize(
    ("phase", "wanted"),
    [
        ("phase 1", (True, True, True, None)),
        ("phase 2", (True, True, True, False)),
        ("phase 3", (False, False, False, False)),
        ("overall", (False, False, True, False)),
    ],
)
def test_each_phase_asks_for_its_own(phase, wanted):
    assert tuple(met(phase, GOOD | {"var_compliance": 0.95}).values()) == wanted


def test_what_is_just_reached():
    edge = {"sharpe": 2.0, "max_drawdown": 0.15, "win_rate": 0.6, "var_compliance": 1.0}
    assert tuple(met("overall", edge).values()) == (False, False, False, True)


def test_what_a_single_instrument_or_an_idle_policy_has_not_is_neither_met_nor_missed():
    assert met("overall", {"sharpe": None, "max_drawdown": 0.0, "win_rate": None}) == {
        "sharpe": None, "max_drawdown": True, "win_rate": None, "var_compliance": None,
    }  # fmt: skip


def test_in_a_line():
    assert line(targets(GOOD, phase="phase 1") + targets(GOOD)) == (
        "Targets: Sharpe ratio, annual 1.90 (> 2.00: missed), Maximum drawdown 16 % (< 15 %: missed), "
        "Winning round trips 62 % (> 60 %: met), VaR compliance n/a (= 100 %: n/a)."
    )


def test_an_unknown_phase_is_refused():
    with pytest.raises(ValueError, match="phase 4"):
        targets({}, phase="phase 4")
