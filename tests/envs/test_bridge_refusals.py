"""What the paper broker refuses: bars that are none, and orders that make no sense."""

import math
from datetime import datetime

import jax.numpy as jnp
import numpy as np
import pytest

from envs.bridge import PaperBroker, Rejected
from envs.orders import LIMIT, STOP_LIMIT
from envs.types import Conversion, Order
from tests.envs.test_bridge import CASES, NUM, f32, market_of, opened


@pytest.mark.parametrize(
    ("bar", "message"),
    [
        ((100.0, math.nan, 99.0, 100.0), "high is nan"),
        ((100.0, 101.0, 99.0, math.inf), "close is inf"),
        ((0.0, 101.0, 99.0, 100.0), "open is 0.0"),
        ((100.0, 98.0, 99.0, 100.0), "high 98.0 is below|low 99.0 is above"),
        ((100.0, 101.0, 100.5, 101.0), "low 100.5 is above open 100.0"),
        ((100.0, 100.5, 99.0, 101.0), "high 100.5 is below open 100.0 or close 101.0"),
    ],
)
def test_refuses_what_is_no_bar_and_stays_as_it_was(bar, message):
    env, params, _ = CASES["levels"]
    broker = opened(env, params)
    number = broker.submit(Order(level=f32(1.0)))
    with pytest.raises(Rejected, match=message):
        broker.on_bar(*bar)
    assert (broker.bar, [one.id for one in broker.orders()]) == (0, [number])
    assert len(broker.on_bar(100.0, 101.0, 99.0, 100.0)) == 1


def test_refuses_bars_that_do_not_fit_what_came_before():
    env, params, _ = CASES["levels"]
    broker, bar = PaperBroker(env, params), (100.0, 100.0, 100.0, 100.0)
    broker.on_bar(*bar, time=datetime(2026, 1, 2))
    for given, message in (
        ({"time": datetime(2026, 1, 1)}, "not after"),
        ({"time": datetime(2026, 1, 2)}, "not after"),
        ({}, "with every bar"),
        ({"time": datetime(2026, 1, 3), "volume": -1.0}, "volume is -1"),
        ({"time": datetime(2026, 1, 3), "funding": 0.0}, "funding is not an array"),
    ):
        with pytest.raises(Rejected, match=message):
            broker.on_bar(*bar, **given)
    paid = PaperBroker(env, params.replace(market=market_of(funding=f32(np.zeros(NUM)))))
    with pytest.raises(Rejected, match="funding is missing"):
        paid.on_bar(*bar)
    with pytest.raises(Rejected, match="funding is nan"):
        paid.on_bar(*bar, funding=math.nan)


@pytest.mark.parametrize(
    "rates", [(0.0, 1.0), (1.0, 0.0), (-1.0, -1.0), (1.0, math.inf), (math.nan, 1.0), 1.0]
)
def test_refuses_rates_that_are_none(rates):
    env, params, _ = CASES["levels"]
    ones = f32(np.ones(NUM))
    broker = PaperBroker(env, params.replace(market=market_of(conversion=Conversion(ones, ones, ones))))
    broker.on_bar(100.0, 100.0, 100.0, 100.0, conversion=(1.0, 1.0))
    with pytest.raises(Rejected, match=r"volume is -1.0; conversion is .* above 0"):
        broker.on_bar(100.0, 100.0, 100.0, 100.0, conversion=rates, volume=-1.0)
    assert broker.bar == 0


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (Order(level=f32(math.nan)), "level is nan"),
        (Order(level=f32([1.0, 0.0])), r"level has shape \(2,\)"),
        (Order(level=f32(1), kind=jnp.int32(LIMIT)), "kind 1 needs a limit"),
        (Order(level=f32(1), kind=jnp.int32(STOP_LIMIT), limit=f32(0.1)), "kind 3 needs a stop"),
        (Order(level=f32(1), kind=jnp.int32(9)), "kind is 9"),
        (Order(level=f32(1), asks=jnp.int32(7)), "asks is 7"),
        (Order(level=f32(1), label=jnp.int32(-1)), "label is -1"),
        (Order(level=f32(1), stop_loss=f32(-0.1)), "stop_loss is -0.1"),
        (Order(level=f32(1), trail=f32(0.1)), "no trail"),
    ],
)
def test_refuses_orders_that_make_no_sense(order, message):
    env, params, _ = CASES["orders"]
    broker = opened(env, params)
    with pytest.raises(Rejected, match=message):
        broker.submit(order)
    assert broker.orders() == ()
