"""What a trade is priced at, at the ends: no depth, too much traded, too much or too little equity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import protection
from envs.single import Draw, make_single
from envs.types import Lots
from tests.envs.simulator_ledger import EQUITY, EXIT, FILL, REASON
from tests.envs.test_bridge import f32, market_of, params_of
from tests.envs.test_simulator_rules import FLAT, by_hand, near

IMPACT = frozenset(("impact", "protects"))


def by_depth(depth, bars, asked, **numbers):
    """`by_hand` where bar 2 has traded `depth` and all others plenty."""
    told = [("volatility", slice(None), 0.02), ("depth", slice(None), 1e12), ("depth", 2, depth)]
    return by_hand(bars, asked, parts=IMPACT, told=told, impact=1.0, **numbers)


@pytest.mark.parametrize(("side", "low", "high", "price"), [(1, 85.0, 100.0, 0.9), (-1, 100.0, 115.0, 1.1)])
def test_a_stop_in_a_bar_without_depth_counts_as_all_of_it(side, low, high, price):
    bars = [FLAT, (100.0, high, low, 100.0)]
    rows = by_depth(0.0, bars, [{"level": 0.4 * side, "stop_loss": 0.1}], capital=1000.0)
    assert rows[1, REASON] == protection.STOP
    assert rows[1, EXIT + 3] == near(price * (1 - side * 0.02))
    assert rows[1, EQUITY] == pytest.approx(1 - 0.4 * 0.1 - 0.4 * price * 0.02, rel=1e-4)


def test_an_edge_is_never_more_than_what_is_sold():
    for level, price in ((1.0, 0.01), (-1.0, 1.99)):
        asked = [{"level": level}, {"level": 0.0}]
        rows = by_depth(100.0, [FLAT, FLAT], asked, capital=1e6, fee_rate=1e-3)
        assert rows[1, FILL + 3] == near(price)
        assert rows[1, FILL + 2] == pytest.approx(1e-3 * price, rel=5e-3)
    rows = by_hand([FLAT], [{"level": 0.0}], level=0.5, half_spread=0.6, slippage=0.6)
    assert rows[0, FILL + 3] == near(0.01)


def test_the_less_depth_the_more_a_stop_costs():
    bars, asked = [FLAT, (100.0, 100.0, 85.0, 90.0)], [{"level": 0.4, "stop_loss": 0.1}]
    depths = (1e9, 1e6, 1e4, 1e3, 1.0, 1e-3)
    costs = [by_depth(depth, bars, asked, capital=1e6)[1, EXIT + 1] for depth in depths]
    assert all(np.diff(costs) >= 0)
    assert costs[0] < 1e-3 < 0.35 < costs[-1]


@pytest.mark.parametrize("log_equity", [80.0, 300.0, -100.0, -300.0])
@pytest.mark.parametrize("price", [1e-4, 1e5])
def test_no_equity_is_too_large_or_too_small_for_lots(log_equity, price):
    ones = f32(np.ones(8))
    market = market_of(price * np.ones((8, 4)), depth=1e6 * ones, volatility=0.01 * ones)
    costs = {name: f32(1) for name in ("fee_per_lot", "fee_minimum", "impact", "volume_cap")}
    params = params_of(market, costs, lots=Lots(f32(1e4))).replace(ruin_equity=f32(0), stop=jnp.int32(8))
    env = make_single(episode_bars=6)
    step = jax.jit(env.step)
    for first in (0.0, 1.0):
        state = env.begin(Draw(jnp.int32(0), f32(first)), params)
        state = state.replace(account=state.account.replace(log_equity=f32(log_equity)))
        for action in (2, 0, 1):
            state, out = step(jax.random.key(0), state, jnp.int32(action), params)
            numbers = (state.account, out.reward, out.observation.account)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(numbers)), numbers
