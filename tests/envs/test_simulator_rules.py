"""The simulator's rules one at a time by numbers worked out by hand, and what holds for all numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import orders, protection
from envs.single import Draw, make_single
from envs.types import Order
from tests.conftest import REAL_DATA
from tests.envs.simulator_cases import (
    CHUNK,
    EVERYTHING,
    Case,
    draw_case,
    make_world,
    neutral_bars,
    plain_bars,
    single,
)
from tests.envs.simulator_ledger import (
    EQUITY,
    EXIT,
    EXPOSURE,
    FILL,
    LEVEL,
    NEUTRAL,
    ORDER,
    REASON,
    RULES,
    TERMINATED,
)
from tests.envs.simulator_play import check, make_params, simulate, tabulate

WORLD = make_world(REAL_DATA if REAL_DATA.is_dir() else None)
STEPS = 4
FLAT = (100.0, 100.0, 100.0, 100.0)
BY_HAND = frozenset(
    ("rests", "protects", "trails", "order_bars", "margin", "financing", "funding", "tradable", "band")
)
CAPPED = frozenset(("lots", "volume_cap", "limits", "protects"))
FAR = {"stop_loss": np.inf, "take_profit": np.inf, "trail": np.inf}
NO_MARGIN = {"max_leverage": 100.0, "maintenance": 0.0}


def by_hand(
    bars, asked, *, level=0.0, parts: frozenset[str] = BY_HAND, told=(), **numbers: Any
) -> np.ndarray:
    """The implementation's rows [STEPS, COLUMNS], once the oracle agrees; all that is not told is neutral.

    Bar 0 is flat at 100; `bars` follow it and `asked` are decided before them; then nothing happens any more.
    `told` are (name, bar, number) of other columns.
    """
    prices = [FLAT, *bars, *(((bars[-1][3],) * 4,) * (STEPS - len(bars)))]
    table = plain_bars(np.array(prices))
    table["years"], table["funding"] = 1 / 365, numbers.pop("funding", 0.0)
    for name, bar, number in told:
        table[name][bar] = number
    rules, rows = np.zeros(1, RULES), np.zeros((1, STEPS + 2), ORDER)
    numbers.setdefault("maker_rate", numbers.get("fee_rate", 0.0))
    for name, number in (NEUTRAL | NO_MARGIN | numbers).items():
        rules[name] = number
    given = [*asked, *([asked[-1]] * (STEPS - len(asked)))]
    for step, order in enumerate(given):
        for name, number in (FAR | order).items():
            rows[name][0, step] = number
    case = Case(parts, single(rules), single(rows), (np.zeros(1, int), np.array([level])))
    check(case, single(table))
    return tabulate(*simulate(case, table))[0]


def near(x):
    return pytest.approx(x, rel=2e-6, abs=2e-7)


@pytest.mark.parametrize(("level", "opened"), [(1.0, 90.0), (-1.0, 110.0)])
def test_a_gapped_stop_fills_at_the_open(level, opened):
    rows = by_hand([FLAT, (opened, opened, opened, 100.0)], [{"level": level, "stop_loss": 0.05}])
    assert rows[1, REASON] == protection.STOP
    assert rows[1, EXIT + 3] == near(1.0)
    assert rows[1, EQUITY] == near(0.9)
    assert rows[1, EXPOSURE] == rows[1, LEVEL] == 0.0


@pytest.mark.parametrize(("level", "opened", "target"), [(1.0, 110.0, 105.0), (-1.0, 90.0, 95.0)])
def test_a_target_is_not_improved_by_a_gap(level, opened, target):
    bars = [FLAT, (opened, opened, opened, opened)]
    rows = by_hand(bars, [{"level": level, "take_profit": 0.05}], half_spread=0.001, fee_rate=0.01)
    costs = 0.001 + 0.01 * (1 + level * 0.001) + 0.01 * target / 100
    assert rows[1, REASON] == protection.TARGET
    assert rows[1, EXIT + 3] == near(target / opened)
    assert rows[1, EQUITY] == near(1.05 - costs)


@pytest.mark.parametrize("level", [1.0, -1.0])
def test_the_stop_comes_before_the_target_in_one_bar(level):
    bars = [FLAT, (100.0, 110.0, 90.0, 100.0)]
    rows = by_hand(bars, [{"level": level, "stop_loss": 0.05, "take_profit": 0.05}])
    assert rows[1, REASON] == protection.STOP
    assert rows[1, EQUITY] == near(0.95)


def test_protection_works_from_the_bar_of_the_entry_on():
    rows = by_hand([(100.0, 101.0, 94.0, 99.0)], [{"level": 1.0, "stop_loss": 0.05}])
    assert rows[0, FILL] == near(1.0)
    assert rows[0, REASON] == protection.STOP
    assert rows[0, EQUITY] == near(0.95)


def test_what_may_lie_before_the_entry_reaches_no_target():
    order = {"level": 1.0, "kind": orders.LIMIT, "limit": 0.02, "take_profit": 0.02}
    rows = by_hand([(100.0, 104.0, 97.0, 99.0)], [order])
    assert rows[0, FILL + 3] == near(0.98)
    assert rows[0, REASON] == protection.NONE
    assert rows[0, EQUITY] == near(99 / 98)
    rows = by_hand([(100.0, 104.0, 97.0, 103.0)], [order])
    assert rows[0, REASON] == protection.TARGET
    assert rows[0, EQUITY] == near(1.02)


@pytest.mark.parametrize(("level", "opened"), [(1.0, 95.0), (-1.0, 105.0)])
def test_a_limit_fills_at_the_open_of_a_bar_that_gaps_beyond_it(level, opened):
    order = {"level": level, "kind": orders.LIMIT, "limit": 0.02}
    rows = by_hand([(opened, 106.0, 94.0, 100.0)], [order], half_spread=0.01)
    assert rows[0, FILL] == near(level)
    assert rows[0, FILL + 1] == 0.0
    assert rows[0, FILL + 3] == near(1.0)
    assert rows[0, EQUITY] == near(1 + level * (100 / opened - 1))


def test_the_fee_is_charged_once_at_the_entry_and_once_at_the_exit():
    rows = by_hand([FLAT, FLAT, FLAT], [{"level": 1.0}, {"level": 1.0}, {"level": 0.0}], fee_rate=0.01)
    assert rows[:3, EQUITY].tolist() == near([0.99, 0.99, 0.98])
    assert np.count_nonzero(rows[:, FILL]) == 2


def test_borrowing_accrues():
    rows = by_hand([FLAT], [{"level": -1.0}], level=-1.0, borrow_rate=0.365)
    assert rows[:, EQUITY].tolist() == near([0.999, 0.998, 0.997, 0.996])


def test_holding_pays_nothing_but_financing():
    rows = by_hand([FLAT], [{"level": 2.0}], level=2.0, fee_rate=0.01, half_spread=0.01, slippage=0.01)
    assert rows[:, EQUITY].tolist() == [1.0] * STEPS
    numbers: dict[str, Any] = {"fee_rate": 0.01, "half_spread": 0.01, "loan_rate": 0.365, "funding": 0.001}
    rows = by_hand([FLAT], [{"level": 2.0}], level=2.0, **numbers)
    equity, expected = 1.0, []
    for _ in range(STEPS):
        equity -= 0.001 * (2.0 - equity) + 0.001 * 2.0
        expected.append(equity)
    assert rows[:, EQUITY].tolist() == near(expected)
    assert not rows[:, FILL : FILL + 4].any()


@pytest.mark.parametrize(
    ("opened", "equity", "price"), [(92.0, 0.2, 1.0), (99.0, 10 * 90 / 95 - 9, 100 * 90 / 95 / 99)]
)
def test_a_liquidation_gaps_through_and_closes_the_account(opened, equity, price):
    bars = [(opened, opened, 90.0, 99.0)]
    rows = by_hand(bars, [{"level": 10.0}], level=10.0, max_leverage=10.0, maintenance=0.05)
    assert rows[0, REASON] == protection.LIQUIDATION
    assert rows[0, TERMINATED] == 1
    assert rows[0, EXIT + 3] == near(price)
    assert rows[0, EQUITY] == pytest.approx(equity, rel=1e-5)


def test_a_bar_costs_no_more_than_all_but_one_percent():
    for bar in ((80.0, 80.0, 80.0, 80.0), (99.0, 99.0, 80.0, 80.0)):
        rows = by_hand([bar], [{"level": 10.0}], level=10.0)
        assert rows[0, TERMINATED] == 1
        assert rows[0, EXPOSURE] == 0.0
        assert rows[0, EQUITY] == near(0.01) or bar[0] == 99.0


def test_a_trailing_stop_follows_the_high_that_the_holding_has_seen():
    bars = [(100.0, 120.0, 100.0, 118.0), (118.0, 119.0, 107.0, 110.0)]
    rows = by_hand(bars, [{"level": 1.0, "trail": 0.1}])
    assert rows[0, REASON] == protection.NONE
    assert rows[1, REASON] == protection.TRAIL
    assert rows[1, EQUITY] == near(1.08)


def test_a_stop_limit_that_was_triggered_rests_as_a_limit():
    order = {"level": 1.0, "kind": orders.STOP_LIMIT, "stop": 0.02, "limit": -0.01, "label": 3}
    bars = [(100.0, 103.0, 100.0, 103.0), (103.0, 103.0, 100.5, 102.0)]
    rows = by_hand(bars, [order], order_bars=2, half_spread=0.01)
    assert rows[0, FILL] == 0.0
    assert rows[1, FILL + 3] == near(101 / 103)
    assert rows[1, EQUITY] == near(102 / 101)


def test_a_stop_limit_is_not_triggered_in_a_closed_bar():
    order = {"level": 1.0, "kind": orders.STOP_LIMIT, "stop": 0.02, "limit": -0.01, "label": 3}
    bars = [(100.0, 103.0, 100.0, 103.0), (100.5, 101.5, 100.0, 101.0)]
    rows = by_hand(bars, [order], order_bars=2, told=[("tradable", 1, 0.0)])
    assert not rows[:2, FILL].any()


def test_an_order_that_trades_nothing_is_no_fill():
    asked = [{"level": 1.0, "take_profit": 0.05}, {"level": 1.1, "kind": orders.LIMIT, "limit": 0.02}]
    rows = by_hand([FLAT, (100.0, 106.0, 97.0, 100.0)], asked, band=0.3)
    assert rows[1, FILL] == 0.0
    assert rows[1, REASON] == protection.TARGET
    assert rows[1, EQUITY] == near(1.05)


def test_what_a_lock_cannot_sell_keeps_its_stop():
    bars = [FLAT, (100.0, 100.0, 90.0, 90.0), (90.0, 90.0, 79.0, 85.0)]
    numbers = {"capital": 1000.0, "lot": 1.0, "volume_cap": 1.0, "daily_loss": 0.05}
    told = [("depth", slice(None), 1e6), ("depth", 3, 450.0)]
    rows = by_hand(bars, [{"level": 1.0, "stop_loss": 0.2}], parts=CAPPED, told=told, **numbers)
    assert rows[2, FILL] == near(-0.5)
    assert rows[2, REASON] == protection.STOP
    assert rows[2, EQUITY] == near(1.0 - 0.05 - 0.1)


@pytest.mark.parametrize("price", [73.123, 1.2251, 99.7, 4321.7])
def test_a_trade_that_the_volume_cuts_to_the_whole_holding_leaves_nothing(price):
    bars = [(price, price, price, price * 1.01), (price * 1.013,) * 4, (price * 1.017,) * 4]
    numbers = {"capital": 50 * price, "lot": 3.0, "volume_cap": 1.0}
    told = [("depth", slice(None), 1e6), ("depth", 2, 50 * price), ("depth", 3, 0.0)]
    asked = [{"level": 1.0}, {"level": -1.0}, {"level": -1.0, "stop_loss": 0.001}]
    rows = by_hand(bars, asked, parts=CAPPED, told=told, **numbers)
    assert rows[1, FILL] < 0.0
    assert rows[1, EXPOSURE] == rows[1, LEVEL] == 0.0


def test_the_mask_knows_lots_the_calendar_and_the_lock():
    table = plain_bars(np.array([FLAT, FLAT, FLAT, (80.0, 80.0, 80.0, 80.0), FLAT, FLAT]))
    table["tradable"][[1, 4]] = 0.0
    rules = np.zeros(1, RULES)
    for name, number in (NEUTRAL | {"capital": 1000.0, "lot": 4.0, "daily_loss": 0.1}).items():
        rules[name] = number
    parts = frozenset(("lots", "limits", "tradable"))
    case = Case(parts, rules, np.zeros((1, 3), ORDER), (np.zeros(1, int), np.zeros(1)))
    params = jax.tree.map(lambda leaf: leaf[0] if leaf.shape == (1,) else leaf, make_params(case, table))
    env = make_single(levels=(-1.0, 0.0, 0.3, 0.5, 1.0), guarded=True, episode_bars=5)
    mask, advance = jax.jit(env.mask or env.observe), jax.jit(env.advance)
    state = env.begin(Draw(jnp.int32(0), jnp.float32(0.5)), params)
    allowed = [mask(state, params).tolist()]
    for level in (0.5, 1.0, 1.0):
        state, _ = advance(state, Order(jnp.float32(level)), params)
        allowed.append(mask(state, params).tolist())
    assert allowed == [
        [False, False, False, True, False],  # bar 1 is closed: the level stays as it is
        [True, True, False, True, True],  # 0.3 of 1000 is less than a lot of 4 x 100
        [True, True, False, True, True],
        [True, True, True, True, True],  # locked, and bar 4 is closed: nothing is left, so everything is
    ]


def drawn(seed: int, parts: frozenset[str] = EVERYTHING, **numbers) -> Case:
    """Random sequences with some numbers given."""
    case = draw_case(seed, parts, WORLD, CHUNK)
    for name, number in numbers.items():
        case.rules[name] = number
    return case


def table_of(case: Case, bars: np.ndarray) -> np.ndarray:
    return tabulate(*simulate(case, neutral_bars(bars, case.parts)))


def assert_same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_flat_earns_exactly_zero(seed):
    case = drawn(seed, cash_rate=0.0)
    case.orders["level"] = 0.0
    case.start[1][:] = 0.0
    account, _, out = simulate(case, WORLD.bars)
    assert not out.reward.any()
    assert not account.log_equity.any()
    assert not out.exit.cost.any()


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31), low=st.floats(0, 0.01), more=st.floats(1e-4, 0.01))
def test_growth_never_rises_with_the_fee_for_fixed_orders(seed, low, more):
    def growth(fee):
        case = drawn(seed, frozenset(), fee_rate=fee, maker_rate=fee, ruin_equity=0.0)
        account, _, out = simulate(case, neutral_bars(WORLD.bars, case.parts))
        return account.log_equity[:, -1], out.terminated.any(axis=1)

    (few, ended), (many, broken) = growth(low), growth(low + more)
    kept = ~(ended | broken)
    assert kept.mean() > 0.9
    assert (many[kept] <= few[kept] + 2e-6).all()
    assert (many[kept] < few[kept] - 1e-5).mean() > 0.5


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_scaling_money_by_a_power_of_two_changes_no_bit(seed):
    one, other = drawn(seed), drawn(seed)
    bars = WORLD.bars.copy()
    for name in ("open", "high", "low", "close", "depth"):
        bars[name] *= 1024
    for name in ("tick", "capital", "fee_per_lot", "fee_minimum"):
        other.rules[name] *= 1024
    assert_same_bits(simulate(one, WORLD.bars), simulate(other, bars))


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31), kept=st.integers(1, 40))
def test_what_comes_after_a_bar_changes_no_bit_up_to_it(seed, kept):
    case = drawn(seed)
    case.start[0][:] = case.start[0][0]
    future = WORLD.bars.copy()
    after = case.start[0][0] + kept + 1
    for name in future.dtype.names or ():
        future[name][after:] = np.random.default_rng(seed).permutation(future[name][after:])
    one, other = simulate(case, WORLD.bars), simulate(case, future)
    assert_same_bits(*(jax.tree.map(lambda leaf: leaf[:, :kept], x) for x in (one, other)))
    assert (one[0].log_equity[:, -1] != other[0].log_equity[:, -1]).mean() > 0.5


def mirrored(case: Case, *, gaps: bool):
    """Rows of bars that are played alone, of their reflections about the close before, and opens over it."""
    start = case.start[0]
    close, bars = WORLD.bars["close"][start], WORLD.bars[start + 1]
    if not gaps:
        for name, number in (("high", bars["high"]), ("low", bars["low"]), ("close", bars["close"])):
            bars[name] = number * close / bars["open"]
        bars["open"] = close
    pairs = np.repeat(bars, 2)
    for name in ("open", "high", "low", "close"):
        pairs[name][::2] = close
    other = pairs.copy()
    for name, mirror in (("open", "open"), ("high", "low"), ("low", "high"), ("close", "close")):
        other[name] = 2 * np.repeat(close, 2) - pairs[mirror]
    start = 2 * np.arange(len(start)), 0.0 * case.start[1]
    one, two = (case._replace(start=start, orders=case.orders[:, 45:].copy()) for _ in range(2))
    two.orders["level"] *= -1
    return table_of(one, single(pairs))[:, 0], table_of(two, single(other))[:, 0], pairs["open"][1::2] / close


def test_the_first_fill_of_a_short_mirrors_that_of_a_long():
    """In a bar reflected about the close before it (p -> 2 close - p), whatever the kind of the order."""
    case = drawn(5, frozenset(("rests",)), half_spread=0.0, slippage=0.0, fee_rate=0.0, maker_rate=0.0)
    one, two, opened = mirrored(case, gaps=True)
    filled = one[:, FILL] != 0
    assert 200 < filled.sum() < CHUNK - 200
    paid = opened * one[:, FILL + 3], (2 - opened) * two[:, FILL + 3]
    agree = (np.sign(one[:, FILL]) == -np.sign(two[:, FILL])) & (
        ~filled | np.isclose(paid[0], 2 - paid[1], rtol=2e-6)
    )
    assert agree.mean() > 0.998, "but for float32's near-ties"


def test_a_protected_short_earns_what_a_long_earns_on_mirrored_prices():
    """In a bar without a gap, reflected about its open, bought at the open and free of costs."""
    parts = frozenset(("protects", "trails"))
    case = drawn(6, parts, half_spread=0.0, slippage=0.0, fee_rate=0.0, maker_rate=0.0)
    one, two, _ = mirrored(case, gaps=False)
    assert min((one[:, REASON] == reason).sum() for reason in range(4)) > 50
    agree = (one[:, REASON] == two[:, REASON]) & np.isclose(one[:, EQUITY], two[:, EQUITY], rtol=2e-6)
    assert agree.mean() > 0.998, "but for float32's near-ties"
    np.testing.assert_array_equal(np.sign(one[agree, EXPOSURE]), -np.sign(two[agree, EXPOSURE]))


def test_jit_and_vmap_change_nothing():
    case = drawn(7, frozenset(("margin",)))
    expected = table_of(case, WORLD.bars)[:1, :2]
    one = case.at(0)
    with jax.disable_jit():
        got = table_of(one._replace(orders=one.orders[:, [0, 1, -2, -1]]), WORLD.bars)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
