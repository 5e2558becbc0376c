"""An order that asks for nothing: by itself, as an action, and as what the broker says in a quiet bar."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import actions
from envs.bridge import PaperBroker, Rejected
from envs.orders import LEVEL, LIMIT, NOTHING, WITHDRAWAL
from envs.single import Draw, make_single
from envs.types import Limits, Order
from tests.envs.test_bridge import CASES, GRID, NUM, f32, market_of, opened, params_of
from ztb_jax.data.market import MarketData
from ztb_jax.evaluation.backtest import make_policy_backtest
from ztb_jax.policies.distributions import categorical
from ztb_jax.policies.policy import Policy

FLAT = (100.0, 100.0, 100.0, 100.0)
DROP = (100.0, 100.0, 90.0, 90.0)
LIMIT_ORDER = Order(level=f32(1.0), kind=jnp.int32(LIMIT), limit=f32(0.01))
STOPPED = actions.levels((-1.0, 0.0, 1.0), stop_loss=0.05)


class Told(NamedTuple):
    """The account's level and exposure after each bar, and the notional that an order traded in it."""

    level: list[float]
    exposure: list[float]
    traded: list[float]


def played(env, orders, bars, *, level=0.0, **params):
    """What came of `orders`, each given for one of `bars`."""
    params = params_of(market_of(np.array([FLAT, *bars])), **params)
    state, told = env.begin(Draw(jnp.int32(0), f32(level)), params), []
    advance = jax.jit(env.advance)
    for order in orders:
        state, out = advance(state, order, params)
        told.append((float(state.account.level), float(state.account.exposure), float(out.fill.traded)))
    return Told(*map(list, zip(*told, strict=True)))


def asks(what, level=0.0):
    return Order(level=f32(level), asks=jnp.int32(what))


@pytest.fixture
def slice_of_bars():
    params = params_of(market_of()).replace(stop=jnp.int32(20))
    return MarketData(features=jnp.zeros((20, 1)), env_params=params, reward_scale=f32(1.0), lookback=1)


@pytest.mark.parametrize("what", [NOTHING, WITHDRAWAL])
def test_without_latency_an_order_may_ask_for_nothing_in_any_environment(what):
    for env in (make_single(), make_single(actions=STOPPED), make_single(actions=GRID)):
        told = played(env, [asks(LEVEL, 1.0), asks(what, -1.0), asks(LEVEL)], [FLAT] * 3)
        assert told.level == [1.0, 1.0, 0.0]


def test_a_level_asked_for_again_is_an_order_and_asking_for_nothing_is_none():
    bars, late = [FLAT, DROP, FLAT, FLAT], {"latency": jnp.int32(1)}
    again = [STOPPED.decode(jnp.int32(2))] * 4
    assert played(make_single(actions=STOPPED, max_latency=1), again, bars, **late).level == [0, 0, 1, 1]
    space = actions.holding(STOPPED)
    holds = make_single(actions=space, max_latency=1)
    quiet = [space.decode(jnp.int32(choice)) for choice in (2, 3, 3, 3)]
    assert played(holds, again, bars, **late).level == [0, 0, 1, 1]
    assert played(holds, quiet, bars, **late).level == [0, 0, 0, 0], "entered and stopped in bar 2"
    assert played(holds, quiet, [FLAT] * 4, **late).level == [0, 1, 1, 1]


def test_nothing_is_on_its_way_to_a_fresh_account():
    """The initial level, sent again, would reopen what a day's lock closed."""
    bars = [DROP, FLAT, FLAT, FLAT]
    market = market_of(np.array([FLAT, *bars]), new_day=jnp.array([True, False, False, True, False]))
    params = params_of(market, limits=Limits(f32(0.05), f32(1.0)), latency=jnp.int32(4))
    for holds, last in ((False, 1.0), (True, 0.0)):
        space = actions.holding(actions.levels()) if holds else actions.levels()
        env = make_single(actions=space, guarded=True, max_latency=4)
        state = env.begin(Draw(jnp.int32(0), f32(1.0)), params)
        order = asks(NOTHING) if holds else Order(level=f32(0.0))
        for _ in range(4):
            state, _ = env.advance(state, order, params)
        assert float(state.account.level) == last


def test_what_is_not_asked_for_is_not_there():
    params = params_of(market_of(), latency=jnp.int32(1))
    state = make_single(max_latency=1).begin(Draw(jnp.int32(0), f32(0.0)), params)
    assert state.queue.order.asks is None
    with pytest.raises(ValueError, match="orders of this action space have no asks"):
        make_single(max_latency=1).advance(state, asks(NOTHING), params)


def test_the_last_action_holds_and_is_always_allowed():
    space = actions.holding(actions.levels((-1.0, 0.5)))
    order = space.decode(jnp.arange(3))
    assert np.asarray(order.asks).tolist() == [LEVEL, LEVEL, NOTHING]
    assert np.asarray(order.level)[:2].tolist() == [-1.0, 0.5]
    assert int(actions.holding(GRID).decode(jnp.int32(GRID.sizes[0])).label) in range(GRID.sizes[0])
    env = make_single(actions=space)
    assert (env.num_actions, env.levels) == (3, (-1.0, 0.5))
    params = params_of(market_of(tradable=jnp.zeros(NUM, bool)))
    state = env.begin(Draw(jnp.int32(0), f32(0.5)), params)
    assert env.mask(state, params).tolist() == [False, True, True]
    state = env.begin(Draw(jnp.int32(0), f32(0.0)), params)
    assert env.mask(state, params).tolist() == [False, False, True]
    with pytest.raises(ValueError, match="list of actions"):
        actions.holding(actions.continuous())


def test_a_backtest_tells_the_level_that_was_kept(slice_of_bars):
    """A policy that goes long at the first bar and holds for ever."""
    env = make_single(actions=actions.holding(actions.levels((0.0, 1.0))))

    def apply(params, context, account):
        return jnp.where(account[0] == 0.0, jnp.log(f32([0.1, 0.8, 0.1])), jnp.log(f32([0.1, 0.1, 0.8]))), 0.0

    policy = Policy(
        lambda key: (),
        lambda params, rows, first=0: rows[first:],
        apply,
        lookback=1,
        distribution=categorical(3),
    )
    trace = make_policy_backtest(policy, env)((), slice_of_bars)
    assert np.asarray(trace.level).tolist() == [1.0] * len(trace.level)
    assert np.count_nonzero(trace.fill.traded) == 1


def broker_of(latency, space=GRID, **params):
    env = make_single(actions=space, max_latency=2)
    return opened(env, params_of(market_of(), latency=jnp.int32(latency), **params))


def test_latency_delays_an_order_that_can_then_not_be_withdrawn():
    broker = broker_of(2)
    number = broker.submit(Order(level=f32(1.0)))
    for _ in range(2):
        assert broker.on_bar(100.0, 100.0, 100.0, 100.0) == []
        assert [(one.id, one.status) for one in broker.orders()] == [(number, "delayed")]
        with pytest.raises(Rejected, match="on its way"):
            broker.cancel(number)
    (fill,) = broker.on_bar(100.0, 100.0, 100.0, 100.0)
    assert fill.order == number
    for _ in range(4):
        assert broker.on_bar(100.0, 100.0, 100.0, 100.0) == []
        assert broker.orders() == ()


@pytest.mark.parametrize("latency", [0, 1, 2])
def test_the_broker_opens_nothing_anew_that_a_stop_has_closed(latency):
    broker = broker_of(latency)
    broker.submit(Order(level=f32(1.0), stop_loss=f32(0.05)))
    for _ in range(latency):
        assert broker.on_bar(*FLAT) == []
    entry, exit_ = broker.on_bar(*DROP)
    assert (entry.reason, exit_.reason) == ("order", "stop")
    for _ in range(4):
        assert broker.on_bar(*FLAT) == []
    assert broker.positions() == broker.orders() == ()


def test_nothing_is_on_its_way_to_a_fresh_account_at_the_broker():
    params = params_of(
        market_of(new_day=jnp.zeros(NUM, bool)),
        limits=Limits(f32(0.05), f32(1.0)),
        latency=jnp.int32(4),
    )
    broker = PaperBroker(make_single(guarded=True, max_latency=4), params, level=1.0)
    fills = [broker.on_bar(*bar, new_day=False) for bar in (FLAT, DROP)]
    broker.submit(asks(NOTHING, 1.0))  # a locked account may say that
    fills += [broker.on_bar(*FLAT, new_day=n == 1) for n in range(5)]
    assert [[fill.reason for fill in bar] for bar in fills] == [[], [], ["lock"], [], [], [], []]


def test_what_asks_for_nothing_fills_nothing():
    broker = broker_of(0, actions.holding(GRID), order_bars=jnp.int32(9))
    number = broker.submit(LIMIT_ORDER)
    broker.on_bar(*FLAT)
    broker.submit(asks(NOTHING))
    (fill,) = broker.on_bar(100.0, 100.0, 98.0, 98.0)
    assert fill.order == number


def test_orders_follow_one_another_on_the_way():
    broker = broker_of(2)
    first = broker.submit(Order(level=f32(1.0)))
    assert broker.on_bar(*FLAT) == []
    second = broker.submit(Order(level=f32(-1.0)))
    fills = [fill for _ in range(4) for fill in broker.on_bar(*FLAT)]
    assert [(fill.order, fill.bar) for fill in fills] == [(first, 3), (second, 4)]


def test_a_withdrawal_is_late_and_sells_nothing():
    broker = broker_of(1, order_bars=jnp.int32(9))
    number = broker.submit(LIMIT_ORDER)
    broker.on_bar(*FLAT)
    broker.on_bar(*FLAT)
    broker.cancel(number)
    assert [(one.id, one.status) for one in broker.orders()] == [(number, "leaving")]
    (fill,) = broker.on_bar(100.0, 100.0, 98.0, 98.0)
    assert fill.order == number, "filled before the withdrawal arrived"
    assert broker.orders() == ()
    assert broker.on_bar(98.0, 98.0, 98.0, 98.0) == []
    assert broker.positions()[0].level == 1.0


def test_a_withdrawal_ends_the_order_that_it_names_and_no_other():
    broker = broker_of(1, order_bars=jnp.int32(9))
    first = broker.submit(LIMIT_ORDER)
    broker.on_bar(*FLAT)
    second = broker.submit(LIMIT_ORDER._replace(limit=f32(0.02)))
    broker.on_bar(*FLAT)
    broker.cancel(first)
    broker.on_bar(*FLAT)  # the second replaces the first here, and its withdrawal is on the way
    assert [(one.id, one.status) for one in broker.orders()] == [(second, "resting")]
    broker.on_bar(*FLAT)
    assert [one.id for one in broker.orders()] == [second]
    broker.cancel(second)
    broker.on_bar(*FLAT)
    broker.on_bar(*FLAT)
    assert broker.orders() == ()
    assert broker.on_bar(100.0, 100.0, 90.0, 90.0) == []


def test_a_withdrawal_waits_behind_a_new_order():
    broker = broker_of(0, order_bars=jnp.int32(9))
    number = broker.submit(LIMIT_ORDER._replace(label=jnp.int32(5)))
    broker.on_bar(*FLAT)
    broker.cancel(number)
    broker.submit(LIMIT_ORDER._replace(label=jnp.int32(5)))  # the same part: the first goes on resting
    broker.on_bar(*FLAT)
    broker.on_bar(*FLAT)
    assert broker.on_bar(100.0, 100.0, 90.0, 90.0) == []


def test_a_withdrawal_is_sent_once():
    broker = broker_of(2, order_bars=jnp.int32(9))
    first = broker.submit(LIMIT_ORDER._replace(label=jnp.int32(5)))
    for _ in range(3):
        broker.on_bar(*FLAT)
    broker.cancel(first)
    broker.on_bar(*FLAT)
    second = broker.submit(LIMIT_ORDER._replace(label=jnp.int32(5)))
    for _ in range(5):
        broker.on_bar(*FLAT)
    assert [(one.id, one.status) for one in broker.orders()] == [(second, "resting")]


def test_a_policy_that_holds_is_replayed_bit_for_bit():
    _, params, _ = CASES["orders"]
    params = params.replace(latency=jnp.int32(1))
    env = make_single(actions=actions.holding(GRID), max_latency=1)
    generator = np.random.default_rng(4)
    taken = generator.integers(0, env.num_actions, NUM - 1)
    taken = np.where(generator.random(NUM - 1) < 0.6, env.num_actions - 1, taken)
    orders = jax.vmap(env.actions.decode)(jnp.asarray(taken, jnp.int32))
    start = env.begin(Draw(jnp.int32(0), f32(0.0)), params)

    def step(state, order):
        state, out = env.advance(state, order, params)
        return state, (state.account, out)

    accounts, out = jax.device_get(jax.jit(lambda: jax.lax.scan(step, start, orders)[1])())
    broker, prices = PaperBroker(env, params), params.market.prices
    bars = np.stack([prices.open, prices.high, prices.low, prices.close], axis=1).astype(np.float64)
    broker.on_bar(*bars[0])
    for t in range(1, NUM):
        broker.submit(jax.tree.map(lambda leaf, t=t: leaf[t - 1], orders))
        broker.on_bar(*bars[t])
        assert broker.state.account.level == accounts.level[t - 1]
        np.testing.assert_allclose(broker.state.account.log_equity, accounts.log_equity[t - 1], atol=1e-5)
    assert np.count_nonzero(out.fill.traded) > 10
