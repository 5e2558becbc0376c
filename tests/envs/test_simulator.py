"""The simulator against its float64 oracle: a hundred thousand random sequences over real bars with gaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import orders, protection
from tests.conftest import REAL_DATA
from tests.envs import simulator_ledger as ledger
from tests.envs.simulator_cases import CHUNK, EVERYTHING, Case, draw_case, make_world
from tests.envs.simulator_ledger import FILL, FILLED, KIND, LEVEL, LOCKED, REASON, TERMINATED
from tests.envs.simulator_play import check

WORLD = make_world(REAL_DATA if REAL_DATA.is_dir() else None)
ALONE = (
    "",
    "half_spread",
    "volatility_slippage",
    "impact",
    "volume_cap",
    "fee_minimum",
    "tradable",
    "funding",
    "scale",
    "cap",
    "conversion",
    "latency",
    "holds",
    "band",
    "lots",
    "margin",
    "financing",
    "limits",
    "rests",
    "protects",
)
TOGETHER = {
    "waiting orders": "rests order_bars latency tradable",
    "brackets": "protects trails rests order_bars",
    "contracts": "lots tick fee_per_lot volume_cap rests protects",
    "leverage": "margin financing funding protects trails conversion",
    "nothing new": "holds latency protects trails rests order_bars limits",
    "losses": "limits latency band tradable scale cap lots",
}
KINDS = (ledger.MARKET, ledger.LIMIT, ledger.STOP, ledger.STOP_LIMIT)
ASKS = (ledger.ASKS_LEVEL, ledger.ASKS_NOTHING, ledger.WITHDRAWS)


def parts_of(names: str) -> frozenset[str]:
    return frozenset(names.split())


def test_the_oracle_and_the_environment_number_kinds_and_reasons_alike():
    assert (orders.MARKET, orders.LIMIT, orders.STOP, orders.STOP_LIMIT) == KINDS
    assert (orders.LEVEL, orders.NOTHING, orders.WITHDRAWAL) == ASKS
    told = protection.NONE, protection.STOP, protection.TARGET, protection.TRAIL, protection.LIQUIDATION
    assert told == (
        ledger.NONE,
        ledger.BY_STOP,
        ledger.BY_TARGET,
        ledger.BY_TRAIL,
        ledger.BY_LIQUIDATION,
    )


@pytest.mark.parametrize("part", ALONE)
def test_every_part_alone_equals_the_oracle(part):
    check(draw_case(1, parts_of(part), WORLD, CHUNK), WORLD.bars)


@pytest.mark.parametrize("name", TOGETHER)
def test_parts_that_meet_equal_the_oracle(name):
    for seed in range(4):
        check(draw_case(seed, parts_of(TOGETHER[name]), WORLD, CHUNK), WORLD.bars)


def count(case: Case, rows: np.ndarray) -> dict[str, int]:
    """How often what the rules tell apart has happened."""
    found = {f"reason {reason}": (rows[..., REASON] == reason).sum() for reason in range(1, 5)}
    for kind in KINDS:
        for place, where in ((1, "at the open"), (2, "inside the bar")):
            if kind != ledger.MARKET or place == 1:
                filled = (rows[..., FILLED] == place) & (rows[..., KIND] == kind)
                found[f"kind {kind} filled {where}"] = filled.sum()
    asked = case.orders[:, :-2]["level"]
    held = np.isin(rows[..., LEVEL], (-12, -6, -2.4, -1.2, -1, -0.5, 0, 0.5, 1, 1.2, 2.4, 6, 12))
    found |= {
        "orders that had nothing to trade": (rows[..., FILLED] == 3).sum(),
        "partial fills": ((np.abs(rows[..., FILL]) > 0) & ~held & (rows[..., LEVEL] != 0)).sum(),
        "exits after a fill in one bar": ((rows[..., FILL] != 0) & (rows[..., REASON] > 0)).sum(),
        "locks": (rows[..., LOCKED] == 1).sum(),
        "holds": ((asked == rows[..., LEVEL]) & (rows[..., FILL] == 0)).sum(),
        "ends": (rows[..., TERMINATED] == 1).sum(),
        "floors": ((rows[..., TERMINATED] == 1) & (rows[..., REASON] == 0)).sum(),
    }
    return {name: int(number) for name, number in found.items()}


def test_everything_together_equals_the_oracle_and_everything_happens():
    happened: dict[str, int] = {}
    for seed in range(14):
        case = draw_case(seed, EVERYTHING, WORLD, CHUNK)
        for name, number in count(case, check(case, WORLD.bars).expected).items():
            happened[name] = happened.get(name, 0) + number
    assert min(happened.values()) >= 200, happened


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    name=st.sampled_from(sorted(TOGETHER)),
    numbers=st.fixed_dictionaries(
        {},
        optional={
            "fee_rate": st.sampled_from([0.0, 0.05]),
            "half_spread": st.sampled_from([0.0, 0.03]),
            "volume_cap": st.sampled_from([1e-3, 0.3]),
            "maintenance": st.sampled_from([0.0, 0.3, 0.95]),
            "max_leverage": st.sampled_from([0.5, 1.0, 20.0]),
            "penalty": st.sampled_from([0.0, 0.1]),
            "borrow_rate": st.sampled_from([0.0, 2.0]),
            "daily_loss": st.sampled_from([0.001, 1.0]),
            "latency": st.sampled_from([0, 3]),
            "order_bars": st.sampled_from([1, 7, 1000]),
            "band": st.sampled_from([0.0, 0.9]),
            "ruin_equity": st.sampled_from([0.0, 0.99]),
        },
    ),
)
def test_extreme_numbers_equal_the_oracle(seed, name, numbers):
    case = draw_case(seed, parts_of(TOGETHER[name]), WORLD, CHUNK)
    for number, x in numbers.items():
        there = ~np.isclose(case.rules[number], ledger.NEUTRAL[number], equal_nan=True)
        if there.any():
            case.rules[number] = np.float32(x)
    if "maker_rate" not in case.parts:
        case.rules["maker_rate"] = case.rules["fee_rate"]
    check(case, WORLD.bars)
