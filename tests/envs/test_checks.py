"""Parameters that do not fit are refused where they are known, and the first step is like every other."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import actions
from envs.adapters import make_task
from envs.checks import value_findings
from envs.orders import LIMIT, MARKET
from envs.portfolio import make_portfolio
from envs.portfolio_market import make_portfolio_market, make_portfolio_params
from envs.risk_limits import RiskLimits
from envs.single import make_single
from envs.transforms import cheapen, vectorise
from envs.types import Limits
from tests.envs.test_bridge import f32, market_of, params_of

STOPPED = actions.levels(stop_loss=0.02, take_profit=0.04, trail=0.03)
GRID = actions.grid(
    orders=((MARKET, 0.0, 0.0), (LIMIT, 0.01, 0.0)), brackets=(actions.NO_BRACKET, (0.1, 0.2, 0.05))
)


def params(**parts):
    return params_of(market_of(), **parts)


@pytest.mark.parametrize("space", [actions.levels(), STOPPED, GRID, actions.continuous()])
def test_a_step_returns_the_very_types_it_was_given(space):
    env = make_single(actions=space, episode_bars=8)
    parts = {"order_bars": jnp.int32(3)} if space.rests else {}
    key, known = jax.random.key(0), params(**parts)
    state, _ = jax.eval_shape(env.reset, key, known)
    action = jnp.zeros(space.shape, jnp.int32 if space.sizes else jnp.float32)
    moved, out = jax.eval_shape(env.step, key, state, action, known)
    assert jax.tree.map(str, jax.tree.leaves(state)) == jax.tree.map(str, jax.tree.leaves(moved))
    for leaf in jax.tree.leaves((state, moved, out.reward, out.fill, out.exit)):
        assert not leaf.weak_type


@pytest.mark.parametrize("latency", [3, -1])
def test_refuses_a_latency_that_the_environment_does_not_know(latency):
    env = make_single(episode_bars=8, max_latency=2)
    with pytest.raises(ValueError, match="must be from 0 to max_latency"):
        env.reset(jax.random.key(0), params(latency=jnp.int32(latency)))


def test_refuses_a_slice_beyond_the_bars_and_one_that_holds_no_window():
    env, num = make_single(episode_bars=8), len(market_of().gap)
    with pytest.raises(ValueError, match=f"must be a slice of the {num} bars"):
        env.reset(jax.random.key(0), params().replace(stop=jnp.int32(num + 1)))
    with pytest.raises(ValueError, match="hold no episode of 8 steps"):
        env.reset(jax.random.key(0), params().replace(first=jnp.int32(num - 8), stop=jnp.int32(num)))
    env.reset(jax.random.key(0), params().replace(first=jnp.int32(num - 9), stop=jnp.int32(num)))
    with pytest.raises(ValueError, match="must be at least 1"):
        make_portfolio(num_instruments=0)


def test_refuses_parts_that_nothing_would_read():
    with pytest.raises(ValueError, match="no order of this action space rests"):
        make_single(episode_bars=8).reset(jax.random.key(0), params(order_bars=jnp.int32(3)))
    guarded, market = make_single(episode_bars=8, guarded=True), market_of().replace(new_day=None)
    with pytest.raises(ValueError, match=r"limits.daily_loss needs market.new_day"):
        guarded.reset(jax.random.key(0), params_of(market, limits=Limits(f32(0.1), f32(0.5))))
    guarded.reset(jax.random.key(0), params_of(market, limits=Limits(f32(1.0), f32(0.5))))
    with pytest.raises(ValueError, match="limit beyond the close"):
        actions.grid(orders=((LIMIT, -0.05, 0.0),))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"ruin_equity": f32(-0.1)}, r"ruin_equity \(-0.1.*\) must be at least 0 and below 1"),
        ({"ruin_equity": f32(1.0)}, "ruin_equity"),
        ({"ruin_equity": f32(float("nan"))}, "ruin_equity"),
        ({"order_bars": jnp.int32(0)}, r"order_bars \(0\) must be at least 1"),
        ({"limits": Limits(f32(-0.1), f32(1.0))}, "limits.daily_loss .* must be from 0 to 1"),
        ({"limits": Limits(f32(1.0), f32(5.0))}, "limits.drawdown .* must be from 0 to 1"),
        ({"limits": RiskLimits(max_portfolio_var=f32(-0.02))}, "limits.max_portfolio_var .* at least 0"),
        ({"limits": RiskLimits(max_weight=f32([0.5, float("nan")]))}, "limits.max_weight .* at least 0"),
    ],
)
def test_tells_known_numbers_that_are_out_of_range(parts, message):
    (finding,) = value_findings(params().replace(**parts))
    assert re.search(message, finding)
    jax.jit(lambda wrong: assert_nothing(value_findings(wrong)))(params().replace(**parts))


def assert_nothing(findings):
    assert findings == []


def test_numbers_at_the_ends_of_their_ranges_are_played():
    ends = {"order_bars": jnp.int32(1), "ruin_equity": f32(0.0), "limits": Limits(f32(0.0), f32(1.0))}
    assert value_findings(params().replace(**ends)) == []
    books = RiskLimits(max_portfolio_var=f32(0.0), max_gross=f32(jnp.inf))
    assert value_findings(params(limits=books)) == []


def test_every_environment_and_adapter_refuses_numbers_out_of_range():
    broke = params().replace(ruin_equity=f32(1.0))
    with pytest.raises(ValueError, match="ruin_equity"):
        make_single(episode_bars=8).reset(jax.random.key(0), broke)
    features = jnp.zeros((len(broke.market.gap), 1))
    with pytest.raises(ValueError, match="ruin_equity"):
        make_task(make_single(episode_bars=8), broke, features=features, lookback=1)
    market = make_portfolio_market(
        100.0 + np.arange(20.0)[:, None], 100.5 + np.arange(20.0)[:, None], window=5
    )
    costs, books = params().costs, RiskLimits(max_gross=f32(-1.0), window=5)
    told = r"ruin_equity \(2.0\).*; limits.max_gross"
    with pytest.raises(ValueError, match=told):
        make_portfolio_params(market, costs, limits=books, ruin_equity=2.0)
    book = make_portfolio_params(market, costs, limits=RiskLimits(window=5))
    with pytest.raises(ValueError, match=told):
        make_portfolio(num_instruments=1, episode_bars=8).reset(
            jax.random.key(0), book.replace(ruin_equity=f32(2.0), limits=books)
        )


def test_refuses_groups_of_nobody_and_parts_that_are_none():
    for num_groups, varied in ((0, ()), (2, ("cost",))):
        with pytest.raises(ValueError, match="varied name parts of EnvParams"):
            vectorise(make_single(), num_groups=num_groups, varied=varied)


def test_a_cheaper_market_is_as_deep():
    market = market_of()
    full = params_of(market).replace(costs=params_of(market).costs.replace(volume_cap=f32(0.1)))
    assert cheapen(full, f32(0.0)).costs.volume_cap == f32(0.1)
    assert float(cheapen(full, f32(0.5)).costs.fee_rate) == float(full.costs.fee_rate) / 2
