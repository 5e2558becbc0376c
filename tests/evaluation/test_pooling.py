"""Accounts to a history, against a loop over every bar in float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ztb_jax.evaluation import pooling

RETURNS = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 12)),
    elements=st.floats(-0.5, 1.0, allow_subnormal=False),
)


@given(RETURNS)
def test_capital_is_spread_once_and_left_there(returns):
    money = [1.0 / len(returns)] * len(returns)
    found = []
    for bar in range(returns.shape[1]):
        before = math.fsum(money)
        money = [held * (1.0 + float(moved[bar])) for held, moved in zip(money, returns, strict=True)]
        found.append(math.fsum(money) / before - 1.0)
    assert pooling.pooled(returns) == pytest.approx(found, rel=1e-9, abs=1e-12)


def test_what_is_lost_stays_lost():
    assert pooling.pooled(np.array([[-1.0, 0.5], [-1.0, 0.5]])).tolist() == [-1.0, 0.0]
    assert pooling.pooled(np.array([[-1.0, 0.5], [0.0, 0.5]])) == pytest.approx([-0.5, 0.5])
    with pytest.raises(ValueError, match="not finite"):
        pooling.pooled(np.array([[np.nan]]))


@given(st.floats(-3.0, 3.0), st.floats(0.0, 0.01), st.floats(0.0, 0.01), st.floats(-0.2, 0.2))
def test_closing_trades_every_unit_at_the_worse_price(exposure, edge, fee_rate, gain):
    """In money: units at a price of 1, sold or bought back at a worse price, and the fee on that."""
    equity = 1.0 + gain
    units, price = exposure * equity, 1.0 - math.copysign(edge, exposure)
    cash = equity - units
    cash += units * price - abs(units) * price * fee_rate
    found = pooling.closed(np.array([0.1, gain]), exposure, edge=edge, fee_rate=fee_rate)
    assert found.tolist() == pytest.approx([0.1, cash - 1.0], abs=1e-12)


def test_a_flat_account_closes_for_nothing_and_its_returns_are_copied():
    returns = np.array([0.1, -0.2])
    assert pooling.closed(returns, 0.0, edge=0.1, fee_rate=0.1) == pytest.approx(returns)
    pooling.closed(returns, 1.0, edge=0.1, fee_rate=0.1)
    assert returns.tolist() == [0.1, -0.2]
    with pytest.raises(ValueError, match="at least 1"):
        pooling.closed(np.array([]), 0.0, edge=0.0, fee_rate=0.0)


def best_of(scores: np.ndarray) -> int:
    """The rule in words: most trainings with a policy, then the best mean of those, then the first."""
    ranked = []
    for number, seeds in enumerate(scores):
        known = [float(score) for score in seeds if not math.isnan(score)]
        ranked.append((len(known), math.fsum(known) / len(known) if known else 0.0, -number))
    return -max(ranked)[2]


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
        elements=st.sampled_from([-1.0, 0.0, 0.25, 2.0, math.nan]),
    )
)
def test_the_best_validation_is_chosen_in_each_fold(validation):
    wanted = [best_of(validation[:, fold]) for fold in range(validation.shape[1])]
    assert pooling.chosen_configs(validation).tolist() == wanted


def test_a_configuration_that_failed_on_a_seed_is_not_chosen_for_its_other_one():
    validation = np.array([[[9.0, math.nan]], [[-1.0, -2.0]]])
    assert pooling.chosen_configs(validation).tolist() == [1]
    assert pooling.chosen_configs(np.full((3, 2, 2), math.nan)).tolist() == [0, 0]
