"""Action spaces: what an action means, which there are, and which may be asked for."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import actions
from envs.orders import LIMIT, MARKET, STOP
from envs.single import Draw, make_single
from envs.types import Limits, Lots, Order, Prices
from tests.envs.test_single import FRAME, Rules, make_params

INF = math.inf
PARAMS = make_params(FRAME, Rules(0, 0, 0, 0.1))


def with_prices():
    flat = jnp.asarray(FRAME["close"].to_numpy(), jnp.float32)
    opened = jnp.asarray(FRAME["open"].to_numpy(), jnp.float32)
    high, low = jnp.maximum(opened, flat), jnp.minimum(opened, flat)
    return PARAMS.replace(market=PARAMS.market.replace(prices=Prices(opened, high, low, flat)))


def test_levels_are_what_their_index_says_and_carry_their_bracket():
    space = actions.levels((-1.0, 0.0, 0.5), stop_loss=0.02)
    order = space.decode(jnp.arange(3))
    assert np.asarray(order.level).tolist() == [-1.0, 0.0, 0.5]
    np.testing.assert_allclose(order.stop_loss, 0.02)
    assert np.isinf(np.asarray(order.take_profit)).all()
    assert order.trail is None
    assert space.protects
    assert not space.trails
    assert actions.levels((0.0, 1.0), trail=0.1).trails


def test_a_continuous_level_is_clipped():
    space = actions.continuous(low=-0.5, high=2.0)
    assert np.asarray(space.decode(jnp.array([-3.0, 0.25, 9.0])).level).tolist() == [-0.5, 0.25, 2.0]


GRID = {
    "directions": (-1.0, 0.0, 1.0),
    "sizes": (0.5, 1.0),
    "orders": ((MARKET, 0.0, 0.0), (LIMIT, 0.01, 0.0)),
    "brackets": ((0.02, 0.04, INF), (INF, INF, 0.05)),
}


def test_a_flat_grid_has_every_combination_once_and_no_size_for_flat():
    space = actions.grid(**GRID)
    order = space.decode(jnp.arange(space.sizes[0]))
    rows = {
        tuple(np.round(np.asarray(column, np.float64)[n], 6) for column in order[:-2])
        for n in range(space.sizes[0])
    }
    assert len(rows) == space.sizes[0] == 2 * 2 * 2 * 2 + 2  # long and short; flat by two kinds of order
    assert set(space.levels) == {-1.0, -0.5, 0.0, 0.5, 1.0}
    np.testing.assert_array_equal(order.level, space.levels)
    np.testing.assert_array_equal(order.label, np.arange(space.sizes[0]))


def test_components_mean_the_product_of_their_lists():
    space = actions.grid(**GRID, flat=False)
    assert space.sizes == (3, 2, 2, 2)
    for index in itertools.product(*map(range, space.sizes)):
        order = space.decode(jnp.array(index))
        direction, size, kind, bracket = (GRID[name][i] for name, i in zip(GRID, index, strict=True))
        assert float(order.level) == direction * size
        assert (int(order.kind), float(order.limit)) == (kind[0], np.float32(kind[1]))
        np.testing.assert_allclose([order.stop_loss, order.take_profit, order.trail], bracket)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: actions.levels(()), "distinct"),
        (lambda: actions.levels((0.0, INF)), "finite"),
        (lambda: actions.levels(stop_loss=0.0), "not positive"),
        (lambda: actions.continuous(low=1.0, high=1.0), "below"),
        (lambda: actions.grid(sizes=()), "at least one"),
        (lambda: actions.grid(sizes=(-1.0,)), "size -1.0"),
        (lambda: actions.grid(orders=((9, 0.0, 0.0),)), "unknown kind"),
        (lambda: make_single(max_latency=-1), "max_latency"),
    ],
)
def test_refuses_what_means_nothing(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def state_of(env, params, level=0.0, start=100):
    return env.begin(Draw(jnp.int32(start), jnp.float32(level)), params)


def test_nothing_is_ruled_out_where_nothing_can_be():
    env = make_single()
    assert env.mask(state_of(env, PARAMS), PARAMS) is None
    assert make_single(actions=actions.continuous()).mask is None


def test_in_a_closed_bar_only_the_level_one_has_may_be_asked_for():
    env = make_single()
    tradable = jnp.ones(len(FRAME), bool).at[101].set(False)
    params = PARAMS.replace(market=PARAMS.market.replace(tradable=tradable))
    assert np.asarray(env.mask(state_of(env, params, level=1.0), params)).tolist() == [False, False, True]
    assert np.asarray(env.mask(state_of(env, params, start=101), params)).all()
    odd = state_of(env, params, level=0.3)
    assert np.asarray(env.mask(odd, params)).all(), "no action is the level: all are allowed, none fills"
    moved, out = env.advance(odd, Order(jnp.float32(1)), params)
    assert float(out.fill.traded) == 0.0
    assert float(moved.account.level) == np.float32(0.3)


def test_a_locked_account_may_only_go_flat():
    env = make_single(guarded=True)
    params = PARAMS.replace(limits=Limits(jnp.float32(1), jnp.float32(1e-9)))
    state = state_of(env, params, level=1.0)
    while int(state.guard.lock) == 0:
        state, _ = env.advance(state, Order(jnp.float32(1)), params)
    assert np.asarray(env.mask(state, params)).tolist() == [False, True, False]
    after, out = env.advance(state, Order(jnp.float32(1)), params)
    assert float(after.account.exposure) == 0.0
    assert float(out.fill.traded) < 0.0


def test_less_than_a_lot_may_not_be_asked_for():
    env = make_single(levels=(0.0, 0.1, 1.0))
    params = with_prices()
    price = float(params.market.prices.close[100])
    params = params.replace(lots=Lots(jnp.float32(1)), capital=jnp.float32(5 * price))
    assert np.asarray(env.mask(state_of(env, params), params)).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("changes", "env", "match"),
    [
        ({"lots": Lots(jnp.float32(1))}, make_single(), "lots needs market.prices.*lots needs capital"),
        ({}, make_single(actions=actions.levels(stop_loss=0.1)), "stops and targets needs market.prices"),
        ({}, make_single(actions=actions.grid(orders=((STOP, 0.0, 0.1),))), "limit and stop orders"),
        ({}, make_single(guarded=True), "needs limits"),
        ({"limits": Limits(jnp.float32(1), jnp.float32(1))}, make_single(), "guarded=True"),
        ({"latency": jnp.int32(1)}, make_single(), "max_latency"),
    ],
)
def test_parameters_that_lack_something_are_refused_by_name(changes, env, match):
    with pytest.raises(ValueError, match=match):
        env.reset(jax.random.key(0), PARAMS.replace(**changes))
