"""Updates that must not differ: one minibatch in any order and in parts; orders that are permutations."""

import jax
import numpy as np
import pytest

from tests.ppo.cases import assert_close, made_up, network, spec, updated
from ztb_jax.ppo.minibatches import Minibatching, epoch_orders

POLICY = network()
ROLLOUT = made_up(POLICY)


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 2},
        {"shuffle": "segments", "accumulate": 2},
        {"shuffle": "full", "accumulate": 4, "advantage": "batch"},
        {"shuffle": "affine"},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
def test_one_minibatch_is_the_same_in_any_order_and_in_parts(changes):
    plain, plain_metrics = updated(POLICY, spec(), ROLLOUT, value_clip=0.2)
    other, metrics = updated(POLICY, spec(**changes), ROLLOUT, value_clip=0.2)
    assert_close(other.params, plain.params)
    assert_close(other.optimizer[0].mu, plain.optimizer[0].mu, atol=1e-7)
    assert_close(metrics, plain_metrics)


COUNTS = (
    1,
    2,
    3,
    4,
    6,
    64,
    97,
    1000,
    4096,
    4097,
    65_536,
    65_537,
    2 * 3 * 5 * 7 * 11 * 13,
    131_072,
    1_000_003,
)


@pytest.mark.parametrize("count", COUNTS)
def test_affine_orders_are_permutations(count):
    orders = np.asarray(epoch_orders(jax.random.key(3), epochs=5, cut=Minibatching("affine", count, 1)))
    assert orders.shape == (5, count)
    for order in orders:
        assert (np.bincount(order, minlength=count) == 1).all()
        assert len(set((np.diff(order) % count).tolist())) <= 1, "a constant step round the ring"
    if count > 60:
        assert len({order.tobytes() for order in orders}) == 5
