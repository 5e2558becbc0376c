"""The numbers of PPO: schedules, that each of them matters, members of a population, a rate that adapts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.single import make_single
from tests.ppo.cases import assert_close, jit, market, network, ready
from ztb_jax.optimizers import as_arrays
from ztb_jax.ppo.hyper import Hyper, scheduled_at
from ztb_jax.ppo.learner import Options, make_ppo

NUMBERS = Hyper(
    learning_rate=1e-2,
    value_clip=0.05,
    weight_decay=0.1,
    target_kl=1e-3,
    clip=0.05,
    learning_rate_schedule=(1.0, 0.9, 0.0),
    entropy_schedule=(1.0, 0.8, 0.0),
    clip_schedule=(1.0, 0.7, 0.5),
)
CHANGES = {
    "learning_rate": 2e-2,
    "gamma": 0.5,
    "lam": 0.2,
    "clip": 0.1,
    "value_clip": 0.01,
    "value_weight": 1.5,
    "entropy_weight": 0.5,
    "max_grad_norm": 0.05,
    "weight_decay": 0.9,
    "target_kl": 1e3,
    "beta1": 0.5,
    "beta2": 0.9,
    "epsilon": 1e-2,
    "learning_rate_schedule": (1.0, 0.4, 0.0),
    "entropy_schedule": (1.0, 20.0, 0.0),
    "clip_schedule": (1.0, 0.1, 0.5),
}
DATA = market()


@functools.cache
def learner():
    """(init, step) of a learner in which every number has a part, at the middle of its schedules."""
    ppo = make_ppo(
        make_single(episode_bars=16),
        ready(network()),
        num_accounts=16,
        rollout_bars=8,
        sharing=4,
        num_updates=4,
        hyper=NUMBERS,
        options=Options(epochs=2, num_minibatches=2, kl_rule="adapt"),
    )
    state = jit(ppo.init)(jax.random.key(0), DATA)
    return ppo, state.replace(updates=jnp.int32(2)), jit(ppo.step)


def after(rate=1.0, **changes):
    _, state, step = learner()
    hyper = as_arrays(dataclasses.replace(NUMBERS, **changes))
    return step(state.replace(hyper=hyper, rate=jnp.float32(rate)), DATA)


@functools.cache
def population():
    """A state for each change, stepped together; the last has the numbers as they are."""
    ppo, state, _ = learner()
    members = [as_arrays(NUMBERS.replace(**{name: value})) for name, value in CHANGES.items()]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members, as_arrays(NUMBERS))

    def one(hyper):
        return ppo.step(state.replace(hyper=hyper), DATA)

    return jit(jax.vmap(one))(stack)


@pytest.mark.parametrize("knots", [(0.3,), (1.0, 0.0), (0.0, 1.0, 1.0, 0.2), (2.0, -1.0, 5.0)])
def test_schedules_equal_numpys_interpolation(knots):
    hyper = as_arrays(
        Hyper(
            value_clip=0.4,
            learning_rate_schedule=knots,
            entropy_schedule=knots[::-1],
            clip_schedule=tuple(2.0 * knot for knot in knots),
        )
    )
    places = np.linspace(-0.1, 1.2, 27)
    found = jax.vmap(lambda place: scheduled_at(hyper, place))(jnp.asarray(places, jnp.float32))
    at = np.linspace(0.0, 1.0, len(knots))
    for name, base, values in [
        ("learning_rate", 3e-4, knots),
        ("entropy_weight", 0.01, knots[::-1]),
        ("clip", 0.4, knots),
        ("value_clip", 0.8, knots),
    ]:
        expected = base * np.interp(places, at, values)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-5, atol=1e-6 * base)
    np.testing.assert_array_equal(found.gamma, np.float32(0.95))


def test_changes_name_every_number():
    assert set(CHANGES) == set(Hyper.__dataclass_fields__)


@pytest.mark.parametrize("name", CHANGES)
def test_every_number_matters(name):
    states, _ = population()
    member = list(CHANGES).index(name)
    if name == "target_kl":
        assert float(states.rate[member]) != float(states.rate[-1])
    else:
        moved = [np.abs(leaf[member] - leaf[-1]).max() for leaf in jax.tree.leaves(states.params)]
        assert max(moved) > 1e-5


@pytest.mark.parametrize("name", ["learning_rate", "gamma", "beta1", "clip_schedule"])
def test_a_member_of_a_population_is_a_run_of_its_own(name):
    states, metrics = population()
    member = list(CHANGES).index(name)
    alone, told = after(**{name: CHANGES[name]})
    assert_close(jax.tree.map(lambda leaf: leaf[member], states.params), alone.params)
    assert_close(jax.tree.map(lambda leaf: leaf[member], metrics), told, rtol=1e-4)


def test_the_rate_follows_the_divergence_and_stays_within_its_bounds():
    kl = float(after()[1]["kl"])
    assert kl > 0.0
    for factor, moved in ((0.49, 1 / 1.5), (0.51, 1.0), (1.9, 1.0), (2.1, 1.5)):
        assert float(after(target_kl=kl * factor)[0].rate) == pytest.approx(moved), factor
    for rate, target, expected in (
        (100.0, 1e9, 100.0),
        (90.0, 1e9, 100.0),
        (0.01, 0.0, 0.01),
        (0.012, 0.0, 0.01),
    ):
        assert float(after(rate, target_kl=target)[0].rate) == pytest.approx(expected)


def test_the_rate_is_a_factor_of_the_learning_rate():
    quick, metrics = after(2.0)
    plain, expected = after(learning_rate=2 * NUMBERS.learning_rate)
    assert_close(quick.params, plain.params, atol=1e-7)
    assert float(metrics["learning_rate"]) == pytest.approx(2 * 0.9 * 1e-2)
    assert float(expected["learning_rate"]) == pytest.approx(2 * 0.9 * 1e-2)
