"""An order without a label is like no other: neither what rests nor a lock is taken for it."""

import jax.numpy as jnp
import pytest

from envs import actions
from envs.orders import LIMIT, MARKET
from envs.single import make_single
from envs.types import Limits, Order
from tests.envs.test_bridge import f32
from tests.envs.test_nothing_new import FLAT, played

SPACE = actions.grid(orders=((MARKET, 0.0, 0.0), (LIMIT, 0.05, 0.0)))
RESTS = {"order_bars": jnp.int32(6)}


@pytest.mark.parametrize("label", [None, 3])
def test_a_lock_flattens_whatever_rests(label):
    env = make_single(actions=SPACE, guarded=True)
    limit = Order(level=f32(2.0), kind=jnp.int32(LIMIT), limit=f32(0.3))
    limit = limit if label is None else limit._replace(label=jnp.int32(label))
    falling = [FLAT, (100.0, 100.0, 80.0, 80.0), (80.0,) * 4, (80.0, 80.0, 60.0, 60.0), (60.0,) * 4]
    limits = Limits(f32(1.0), f32(0.1))
    told = played(env, [limit] * 5, falling, level=1.0, limits=limits, **RESTS)
    assert told.exposure == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_a_market_order_without_a_label_is_not_the_limit_that_rests_without_one():
    env = make_single(actions=SPACE)
    limit = Order(level=f32(2.0), kind=jnp.int32(LIMIT), limit=f32(0.3))
    told = played(env, [limit, Order(level=f32(0.0))], [FLAT, FLAT], level=1.0, **RESTS)
    assert (told.exposure, told.traded) == ([1.0, 0.0], [0.0, -1.0])
