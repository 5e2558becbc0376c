"""A whole update against float64 NumPy, what it skips and where it stops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from tests.ppo import numpy_ppo
from tests.ppo.cases import (
    LOOKBACK,
    G,
    S,
    T,
    assert_close,
    made_up,
    market,
    network,
    orders_of,
    spec,
    unsettled,
    updated,
)
from ztb_jax.gates import finite
from ztb_jax.ppo.hyper import Hyper

POLICY, DATA = network(), market()
PARAMS, ROLLOUT = unsettled(POLICY), made_up(POLICY)
ACCOUNTS = spec(num_minibatches=2, epochs=2)
STOPPING = ACCOUNTS._replace(stop=True, advantage="none")
ONCE = STOPPING._replace(epochs=1)
NUMBERS = {"learning_rate": 3e-3, "max_grad_norm": 0.5, "gamma": 0.9, "lam": 0.8}


def reference(how, rollout=ROLLOUT, taken=lambda step: True, **numbers):
    return numpy_ppo.update(
        PARAMS,
        rollout,
        DATA.features,
        orders=orders_of(how),
        how=how,
        hyper=Hyper(**{**NUMBERS, **numbers}),
        lookback=LOOKBACK,
        taken=taken,
    )


def ours(how, rollout=ROLLOUT, data=DATA, **numbers):
    return updated(POLICY, how, rollout, params=PARAMS, data=data, **{**NUMBERS, **numbers})


def assert_equals_numpy(trained, expected):
    params, (mean, square), _ = expected
    assert_close(trained.params, params)
    moments = trained.optimizer[0]
    assert_close(moments.mu, ravel_pytree(mean)[0], atol=1e-6)
    assert_close(moments.nu, ravel_pytree(square)[0], atol=1e-7)


@pytest.mark.parametrize(
    ("how", "numbers"),
    [
        (ACCOUNTS, {}),
        (
            spec(shuffle="segments", num_minibatches=2, advantage="batch"),
            {"value_clip": 0.2, "weight_decay": 0.5, "max_grad_norm": 100.0, "entropy_weight": 0.1},
        ),
    ],
)
def test_an_update_equals_numpy(how, numbers):
    trained, metrics = ours(how, **numbers)
    expected = reference(how, **numbers)
    assert_equals_numpy(trained, expected)
    np.testing.assert_allclose(metrics["loss"], np.mean(expected[2]), rtol=1e-5)
    assert float(metrics["skipped"]) == float(metrics["stopped"]) == 0.0
    # The clip of gradients bites in one case and not in the other.
    assert (float(metrics["grad_norm"]) > numbers.get("max_grad_norm", 0.5)) == (how is ACCOUNTS)


def spoiled(accounts):
    """The rollout with a reward that is not a number in the given accounts of the first group."""
    return ROLLOUT.replace(reward=ROLLOUT.reward.at[3, 0, np.asarray(accounts)].set(jnp.nan))


def test_a_minibatch_that_is_not_finite_is_skipped_and_the_rest_is_learnt():
    orders = orders_of(ACCOUNTS)
    account = orders[0, 0]
    in_second = [int(np.flatnonzero(order == account)[0] >= 2) for order in orders]
    bad = {2 * epoch + place for epoch, place in enumerate(in_second)}
    trained, metrics = ours(ACCOUNTS, spoiled([account]))
    with np.errstate(invalid="ignore"):
        expected = reference(ACCOUNTS, spoiled([account]), taken=lambda step: step not in bad)
    assert_equals_numpy(trained, expected)
    assert float(metrics["skipped"]) == 2.0
    good = [loss for step, loss in enumerate(expected[2]) if step not in bad]
    np.testing.assert_allclose(metrics["loss"], np.mean(good), rtol=1e-5)
    assert all(np.isfinite(float(metric)) for metric in metrics.values())


@pytest.mark.parametrize("what", ["reward", "feature"])
def test_where_nothing_is_finite_nothing_changes_and_the_gate_trips(what):
    rollout, data = ROLLOUT, DATA
    if what == "reward":
        rollout = spoiled(range(4))
    else:
        data = DATA.replace(features=DATA.features.at[int(ROLLOUT.start[0]) + 2].set(jnp.nan))
    trained, metrics = ours(ACCOUNTS, rollout, data)
    jax.tree.map(np.testing.assert_array_equal, trained.params, PARAMS)
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(trained.optimizer))
    assert float(metrics["skipped"]) == 4.0
    _, verdict = finite("loss", "grad_norm").update((), metrics)
    assert int(verdict) != 0


@functools.cache
def as_played():
    """The rollout with the very log-probabilities of the weights that go into the update."""
    bars = np.asarray(ROLLOUT.start)[None] + np.arange(T)[:, None]
    weights = numpy_ppo.as_float64(PARAMS)
    window = numpy_ppo.windows(np.asarray(DATA.features, np.float64), bars, LOOKBACK)
    context = np.repeat(numpy_ppo.context(weights, window)[:, :, None], S, axis=2).reshape(T * G * S, -1)
    view = np.asarray(ROLLOUT.account, np.float64).reshape(T * G * S, -1)
    logits = numpy_ppo.head(weights, context, view)[2]
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    taken = np.take_along_axis(log_probs, np.asarray(ROLLOUT.action).reshape(-1, 1), 1)
    return ROLLOUT.replace(log_prob=jnp.asarray(taken.reshape(T, G, S), jnp.float32))


FAST = {"learning_rate": 0.03, "max_grad_norm": 10.0}


def test_no_step_is_taken_from_the_first_minibatch_beyond_the_target_on():
    rollout = as_played()
    trained, metrics = ours(STOPPING, rollout, target_kl=1e-3, **FAST)
    assert_equals_numpy(trained, reference(STOPPING, rollout, taken=lambda step: step == 0, **FAST))
    assert float(metrics["stopped"]) == 3.0
    assert float(metrics["skipped"]) == 0.0
    assert float(metrics["kl"]) < 1e-6, "metrics are of the steps that were taken"


def test_a_divergence_stops_at_one_and_a_half_times_the_target():
    rollout = as_played()
    trained, metrics = ours(STOPPING, rollout, target_kl=1e3, **FAST)
    assert_equals_numpy(trained, reference(STOPPING, rollout, **FAST))
    assert float(metrics["stopped"]) == 0.0
    # Of two steps the first diverges by nothing, so that the second one's is twice the mean of both.
    second = 2.0 * float(ours(ONCE, rollout, target_kl=1e3, **FAST)[1]["kl"])
    for factor, stopped in ((1.49, 0.0), (1.51, 1.0)):
        assert float(ours(ONCE, rollout, target_kl=second / factor, **FAST)[1]["stopped"]) == stopped
