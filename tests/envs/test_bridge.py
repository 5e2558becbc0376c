"""The paper broker: the simulator bar by bar."""

import math
from datetime import datetime, timedelta

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arch.data import sp500

from envs import actions, bridge
from envs.bridge import PaperBroker, Rejected
from envs.limits import OPEN
from envs.orders import LIMIT, MARKET, STOP, STOP_LIMIT
from envs.portfolio import make_portfolio
from envs.single import Draw, make_single
from envs.transforms import record
from envs.types import Conversion, Costs, EnvParams, Financing, Limits, Lots, Margin, Market, Order, Prices

BARS = sp500.load()[["Open", "High", "Low", "Close"]].to_numpy(np.float64)[:220]
NUM = len(BARS)
GRID = actions.grid(
    sizes=(0.5, 1.0),
    orders=((MARKET, 0.0, 0.0), (LIMIT, 0.005, 0.0), (STOP, 0.0, 0.004), (STOP_LIMIT, -0.01, 0.004)),
    brackets=(actions.NO_BRACKET, (0.02, 0.03, math.inf)),
)
NOTHING: list[dict] = [{}] * NUM


def f32(value):
    return jnp.asarray(value, jnp.float32)


def market_of(bars=BARS, **others):
    """`bars` [T, 4] as a whole market, as `ztb_jax.data.market` works it out."""
    opened, _, _, closed = bars.T
    gap = np.concatenate([[0.0], opened[1:] / closed[:-1] - 1.0])
    return Market(f32(gap), f32(closed / opened - 1.0), Prices(*map(f32, bars.T)), **others)


def params_of(market, costs=None, **others):
    return EnvParams(
        market=market,
        costs=Costs(f32(5e-4), f32(1e-4), f32(1e-4), **(costs or {})),
        ruin_equity=f32(0.1),
        first=jnp.int32(0),
        stop=jnp.int32(NUM),
        capital=f32(10_000.0),
        **others,
    )


RNG = np.random.default_rng(0)
OPEN_BARS = RNG.random(NUM) < 0.9
NEW_DAYS = RNG.random(NUM) < 0.4
DEPTH = 1e5 * np.exp(RNG.normal(size=NUM))
SCALE, SPREAD = RNG.uniform(0.4, 1.2, NUM), RNG.uniform(0, 2e-4, NUM)
RATES = np.exp(np.cumsum(RNG.normal(0, 0.002, 2 * NUM))).reshape(NUM, 2)
EXTRAS = [
    {"tradable": bool(OPEN_BARS[t]), "new_day": bool(NEW_DAYS[t]), "years": 1 / 252, "depth": DEPTH[t]}
    | {"scale": SCALE[t], "half_spread": SPREAD[t], "volatility": 0.01, "conversion": tuple(RATES[t])}
    for t in range(NUM)
]
EVERYTHING = params_of(
    market_of(
        tradable=jnp.asarray(OPEN_BARS),
        new_day=jnp.asarray(NEW_DAYS),
        years=f32(np.full(NUM, 1 / 252)),
        depth=f32(DEPTH),
        scale=f32(SCALE),
        half_spread=f32(SPREAD),
        volatility=f32(np.full(NUM, 0.01)),
        conversion=Conversion(
            gap=f32(RATES[:, 0] / np.concatenate([RATES[:1, 0], RATES[:-1, 1]]) - 1.0),
            body=f32(RATES[:, 1] / RATES[:, 0] - 1.0),
            rate=f32(RATES[:, 0]),
        ),
    ),
    costs={"maker_rate": f32(1e-4), "fee_minimum": f32(0.5), "impact": f32(0.05), "volume_cap": f32(0.2)},
    lots=Lots(f32(0.01), f32(0.01)),
    margin=Margin(f32(2.0), f32(0.2), f32(0.01)),
    financing=Financing(f32(0.02), f32(0.05), f32(0.01)),
    limits=Limits(f32(0.03), f32(0.3)),
    order_bars=jnp.int32(3),
    band=f32(0.01),
    latency=jnp.int32(1),
)
CASES = {
    "levels": (make_single(), params_of(market_of()), NOTHING),
    "no prices": (make_single(), params_of(market_of().replace(prices=None)), NOTHING),
    "continuous": (make_single(actions=actions.continuous()), params_of(market_of()), NOTHING),
    "orders": (make_single(actions=GRID), params_of(market_of(), order_bars=jnp.int32(4)), NOTHING),
    "everything": (make_single(actions=GRID, guarded=True, max_latency=2), EVERYTHING, EXTRAS),
}


def taken_of(env, seed, num=NUM - 1):
    generator = np.random.default_rng(seed)
    if not env.actions.sizes:
        return jnp.asarray(generator.uniform(-1, 1, num), jnp.float32)
    return jnp.asarray(generator.integers(0, env.num_actions, num), jnp.int32)


def backtest(env, params, taken):
    """Every account of a backtest over all bars, as one program."""
    drawn = Draw(start=jnp.int32(0), level=jnp.float32(0))

    def run(params, taken):
        def step(state, action):
            order = env.actions.decode(action)
            if state.guard is not None:  # a locked account is flattened, whatever it asks for
                order = order._replace(level=jnp.where(state.guard.lock == OPEN, order.level, 0.0))
            state, out = env.advance(state, order, params)
            return state, (state.account, out)

        return jax.lax.scan(step, env.begin(drawn, params), taken)[1]

    return jax.device_get(jax.jit(run)(params, taken))


def see(broker, t, extra):
    return broker.on_bar(*BARS[t], **extra)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_replayed_policy_has_the_account_of_the_backtest_bit_for_bit(name, seed):
    env, params, extras = CASES[name]
    taken = taken_of(env, seed)
    accounts, out = backtest(env, params, taken)
    counts = [function._cache_size() for function in (bridge._advance, bridge._report)]
    broker = PaperBroker(env, params)
    assert see(broker, 0, extras[0]) == []
    decode = jax.jit(env.actions.decode)
    seen, trades = [], 0
    for t in range(1, NUM):
        order = decode(taken[t - 1])
        if broker._locked:  # the broker refuses to open anything
            order = order._replace(level=jnp.float32(0))
        broker.submit(order)
        trades += len(see(broker, t, extras[t]))
        seen.append(broker.state.account)
    for part in ("log_equity", "gain", "exposure", "level"):
        mine, theirs = np.stack([getattr(a, part) for a in seen]), getattr(accounts, part)
        assert mine.dtype == theirs.dtype == np.float32
        np.testing.assert_array_equal(mine, theirs, err_msg=part)
    exits = 0 if out.exit is None else np.count_nonzero(out.exit.traded)
    assert trades == np.count_nonzero(out.fill.traded) + exits > 10
    now = [function._cache_size() for function in (bridge._advance, bridge._report)]
    assert all(after - before <= 1 for after, before in zip(now, counts, strict=True)), "compiled once"


def test_the_money_adds_up_and_units_times_price_is_the_position():
    env, params, _ = CASES["orders"]
    broker, taken = PaperBroker(env, params), taken_of(env, 3)
    see(broker, 0, {})
    cash, units, fills = broker.equity(), 0.0, []
    for t in range(1, NUM):
        broker.submit(env.actions.decode(taken[t - 1]))
        for fill in see(broker, t, {}):
            cash -= fill.units * fill.price + fill.fee
            units += fill.units
            fills.append(fill)
            assert fill.bar == t
            assert BARS[t, 2] * 0.9997 < fill.price < BARS[t, 1] * 1.0003
            assert 0 < fill.fee <= fill.cost * (1 + 1e-6)
        held = broker.positions()
        assert bool(held) == (abs(units) > 1e-4)
        if held:
            assert held[0].price == BARS[t, 3]
            np.testing.assert_allclose(held[0].units, units, rtol=1e-4)
            np.testing.assert_allclose(held[0].value, held[0].units * held[0].price, rtol=1e-9)
        np.testing.assert_allclose(broker.equity(), cash + units * BARS[t, 3], rtol=1e-5)
    assert {"order", "stop", "target"} <= {fill.reason for fill in fills}
    assert all((fill.order is None) == (fill.reason != "order") for fill in fills)


def opened(env, params, **options):
    broker = PaperBroker(env, params, **options)
    broker.on_bar(100.0, 100.0, 100.0, 100.0)
    return broker


def test_an_order_rests_until_it_fills_expires_or_is_cancelled():
    env, params, _ = CASES["orders"]
    order = Order(level=f32(1.0), kind=jnp.int32(LIMIT), limit=f32(0.01))
    broker = opened(env, params)
    number = broker.submit(order)
    assert [(one.id, one.status) for one in broker.orders()] == [(number, "new")]
    assert broker.on_bar(100.0, 100.5, 99.5, 100.0) == []
    assert [(one.id, one.status) for one in broker.orders()] == [(number, "resting")]
    (fill,) = broker.on_bar(100.0, 100.5, 98.5, 100.0)
    assert (fill.order, fill.reason, fill.bar) == (number, "order", 2)
    assert fill.price == pytest.approx(99.0)
    assert fill.units == pytest.approx(10_000 / 99.0, rel=1e-3)
    assert broker.orders() == ()
    assert broker.on_bar(100.0, 100.5, 98.5, 100.0) == [], "holding is not asking again"

    expired = opened(env, params)
    expired.submit(order)
    for bar in range(1, 6):
        assert expired.on_bar(100.0, 100.5, 99.5, 100.0) == []
        assert len(expired.orders()) == (bar < 4), "good for four bars"

    withdrawn = opened(env, params)
    number = withdrawn.submit(order)
    withdrawn.on_bar(100.0, 100.5, 99.5, 100.0)
    withdrawn.cancel(number)
    assert withdrawn.orders() == ()
    assert withdrawn.on_bar(100.0, 100.5, 98.0, 100.0) == []
    assert withdrawn.orders() == ()
    number = withdrawn.submit(order)
    withdrawn.cancel(number)
    assert withdrawn.on_bar(100.0, 100.5, 98.0, 100.0) == []
    with pytest.raises(Rejected, match=f"order {number} is not open"):
        withdrawn.cancel(number)


def test_a_new_order_replaces_the_one_before_it():
    env, params, _ = CASES["orders"]
    broker = opened(env, params)
    broker.submit(Order(level=f32(1.0)))
    second = broker.submit(Order(level=f32(-1.0)))
    assert [one.id for one in broker.orders()] == [second]
    (fill,) = broker.on_bar(100.0, 101.0, 99.0, 100.0)
    assert fill.order == second
    assert fill.units < 0
    limit = Order(level=f32(1.0), kind=jnp.int32(LIMIT), limit=f32(0.03))
    broker.submit(limit)
    broker.on_bar(100.0, 101.0, 99.0, 100.0)
    nearer = broker.submit(limit._replace(limit=f32(0.02)))
    (fill,) = broker.on_bar(100.0, 101.0, 97.9, 100.0)
    assert (fill.order, fill.price) == (nearer, pytest.approx(98.0))


def test_a_stop_is_not_undone_by_the_next_bar():
    env, params, _ = CASES["orders"]
    broker = opened(env, params)
    broker.submit(Order(level=f32(1.0), stop_loss=f32(0.05)))
    broker.on_bar(100.0, 100.0, 99.0, 99.0)
    (fill,) = broker.on_bar(99.0, 99.0, 94.0, 94.0)
    assert (fill.order, fill.reason) == (None, "stop")
    assert fill.price == pytest.approx(95.0, rel=3e-4)
    assert broker.positions() == ()
    assert broker.on_bar(94.0, 99.0, 94.0, 99.0) == []


def test_a_locked_account_is_flattened_and_takes_no_orders():
    env = make_single(guarded=True)
    market = market_of(new_day=jnp.asarray(NEW_DAYS))
    broker = PaperBroker(env, params_of(market, limits=Limits(f32(0.05), f32(1.0))))
    times = [datetime(2026, 1, 5, hour) for hour in (0, 4, 8, 12, 16)] + [datetime(2026, 1, 6, 4)]
    bars = [(price,) * 4 for price in (100.0, 100.0, 94.0, 94.0, 94.0, 94.0)]
    broker.on_bar(*bars[0], time=times[0])
    broker.submit(Order(level=f32(1.0)))
    broker.on_bar(*bars[1], time=times[1])
    assert broker.on_bar(*bars[2], time=times[2]) == []
    with pytest.raises(Rejected, match="locked"):
        broker.submit(Order(level=f32(1.0)))
    assert broker.mask().tolist() == [False, True, False]
    (fill,) = broker.on_bar(*bars[3], time=times[3])
    assert (fill.order, fill.reason) == (None, "lock")
    broker.submit(Order(level=f32(0.0)))
    broker.on_bar(*bars[4], time=times[4])
    broker.on_bar(*bars[5], time=times[5])
    assert broker.mask().all()
    broker.submit(Order(level=f32(1.0)))


def test_a_ruined_account_is_closed():
    env, params, _ = CASES["levels"]
    broker = opened(env, params.replace(ruin_equity=f32(0.5)), level=1.0)
    broker.on_bar(100.0, 100.0, 40.0, 40.0)
    assert broker.closed
    with pytest.raises(Rejected, match="closed"):
        broker.submit(Order(level=f32(0.0)))
    before = broker.equity()
    assert broker.on_bar(40.0, 80.0, 40.0, 80.0) == []
    assert broker.equity() == before == pytest.approx(4000.0)


def test_what_a_ruined_account_holds_stays_as_it_was_when_it_was_closed():
    env, params, _ = CASES["levels"]
    broker = opened(env, params.replace(ruin_equity=f32(0.5)), level=1.0)
    (held,) = broker.positions()
    broker.on_bar(100.0, 100.0, 40.0, 40.0)
    (closed,) = broker.positions()
    assert closed.units == pytest.approx(held.units)
    broker.on_bar(40.0, 80.0, 40.0, 80.0)
    assert broker.positions() == (closed,)
    assert (closed.price, closed.value) == (40.0, pytest.approx(4000.0))


def test_what_a_bar_does_not_bring_is_worked_out_from_time_and_volume():
    env = make_single(guarded=True)
    market = market_of(new_day=jnp.asarray(NEW_DAYS), years=f32(np.zeros(NUM)), depth=f32(DEPTH))
    params = params_of(market, limits=Limits(f32(0.5), f32(1.0)), financing=Financing(*map(f32, (0, 0, 0.1))))
    broker = PaperBroker(env, params.replace(market=market))
    start = datetime(2026, 3, 2, 20)
    for number in range(3):
        broker.on_bar(100.0, 100.0, 100.0, 100.0, time=start + number * timedelta(hours=4), volume=7.0)
        row = broker._bar.row
        assert float(row.depth) == 700.0
        assert float(row.years) == pytest.approx(number and 4 / (24 * 365.25))
        assert bool(row.new_day) == (number == 1)
    assert broker.equity() == pytest.approx(10_000 * (1 + 0.1 * 8 / (24 * 365.25)), rel=1e-6)
    with pytest.raises(Rejected, match="depth is missing; new_day is missing; years is missing"):
        PaperBroker(env, params.replace(market=market)).on_bar(1.0, 1.0, 1.0, 1.0)


def test_refuses_what_no_account_can_be_opened_with():
    env, params, _ = CASES["orders"]
    with pytest.raises(ValueError, match="capital"):
        PaperBroker(env, params.replace(capital=None))
    for other in (make_portfolio(num_instruments=2), record(env)):
        with pytest.raises(ValueError, match="one instrument"):
            PaperBroker(other, params)
    with pytest.raises(ValueError, match="guarded=True"):
        PaperBroker(env, params.replace(limits=Limits(f32(0.1), f32(0.1))))
    broker = PaperBroker(env, params)
    assert broker.equity() == 10_000.0
    assert broker.positions() == broker.orders() == ()
    for asks in (lambda: broker.submit(Order(level=f32(1))), broker.account_view):
        with pytest.raises(Rejected, match="no bar has been seen"):
            asks()


def test_a_policy_sees_the_account_of_the_environment():
    env, params, _ = CASES["orders"]
    broker = opened(env, params, level=0.5)
    state = env.begin(Draw(jnp.int32(0), f32(0.5)), params)
    np.testing.assert_array_equal(broker.account_view(), env.observe(state).account)
    assert broker.mask() is None
