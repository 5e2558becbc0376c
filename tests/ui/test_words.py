"""Numbers as a person reads them."""

import pytest

from ztb_jax.ui import words


@pytest.mark.parametrize(
    "name",
    [
        "total_return",
        "win_rate",
        "cvar",
        "value_at_risk",
        "hit_rate",
        "time_in_market",
        "fees_share",
        "expectancy",
    ],
)
def test_fractions_are_percentages(name):
    assert words.metric(name, 0.0125) == "1.2 %"


@pytest.mark.parametrize(
    "name", ["sortino", "calmar", "profit_factor", "payoff", "omega", "longest_under_water"]
)
def test_ratios_and_bars_are_not(name):
    assert words.metric(name, 12.5) == "12.50"
