"""The recurrent peer is PPO: its advantages, its memory, and what it recomputes of a rollout."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.peers import task as tasks
from benchmarks.peers.ppo_rnn import ActorCritic, Learner, Steps, advantages_of
from benchmarks.peers.task import Settings
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market_data

BARS, ACCOUNTS, EPISODE, ROLLOUT = 300, 8, 20, 16


@pytest.fixture
def learner(tmp_path):
    frame = synthetic.ar1(3, BARS, phi=0.3, sigma=0.01)
    features = np.random.default_rng(0).normal(size=(BARS, 3))
    data = make_market_data(frame, features, costs=make_costs(fee_rate=1e-3, half_spread=0.0, slippage=0.0))
    tasks.save(tmp_path / "task.npz", data, episode_bars=EPISODE, levels=(-1.0, 0.0, 1.0))
    settings = Settings(accounts=ACCOUNTS, rollout_bars=ROLLOUT, num_minibatches=2, epochs=2, width=8)
    return Learner(tasks.load(str(tmp_path / "task.npz")), settings)


def test_advantages_are_those_of_a_loop():
    generator = np.random.default_rng(0)
    reward, value = generator.normal(size=(2, 30, 4))
    done, last = generator.random((30, 4)) < 0.2, generator.normal(size=4)
    expected, advantage, following = np.zeros((30, 4)), np.zeros(4), last
    for step in reversed(range(30)):
        goes_on = 1.0 - done[step]
        advantage = reward[step] + 0.9 * following * goes_on - value[step] + 0.9 * 0.8 * goes_on * advantage
        expected[step], following = advantage, value[step]
    none = jnp.zeros((30, 4))
    steps = Steps(none, none, none, none, *map(jnp.float32, (value, reward)), jnp.asarray(done))
    found = advantages_of(steps, jnp.float32(last), gamma=0.9, lam=0.8)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_an_episode_forgets_the_one_before():
    net, generator = ActorCritic(3, 8), np.random.default_rng(0)
    seen = jnp.float32(generator.normal(size=(12, 1, 5)))
    fresh = jnp.zeros((12, 1), bool).at[7].set(True)
    memory = jnp.float32(generator.normal(size=(1, 8)))
    weights = net.init(jax.random.key(0), memory, seen, fresh)
    _, log_probs, value = net.apply(weights, memory, seen, fresh)
    empty = jnp.zeros((1, 8))
    _, apart, value_apart = net.apply(weights, empty, seen[7:], jnp.zeros((5, 1), bool))
    np.testing.assert_allclose(log_probs[7:], apart, rtol=1e-6)
    np.testing.assert_allclose(value[7:], value_apart, rtol=1e-6)
    _, other, _ = net.apply(weights, empty, seen, fresh)
    assert not np.allclose(log_probs[:7], other[:7])


def test_sequences_recompute_what_the_rollout_did(learner):
    params = learner.env.default_params
    roll = jax.jit(
        lambda carry: jax.lax.scan(lambda carry, _: learner._step(carry, params), carry, length=ROLLOUT)
    )
    middle, _ = roll(learner.carry)
    _, steps = roll(middle)
    assert np.asarray(steps.done).any()
    np.testing.assert_array_equal(steps.fresh[1:], steps.done[:-1])
    _, log_probs, value = learner.net.apply(middle.params, middle.memory, steps.observation, steps.fresh)
    chosen = jnp.take_along_axis(log_probs, steps.action[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(chosen, steps.log_prob, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value, steps.value, rtol=1e-4, atol=1e-5)


def test_the_loss_of_an_unchanged_policy_is_the_sum_of_its_parts(learner):
    params = learner.env.default_params
    _, steps = jax.lax.scan(lambda carry, _: learner._step(carry, params), learner.carry, length=ROLLOUT)
    advantage = advantages_of(steps, jnp.zeros(ACCOUNTS), gamma=0.95, lam=0.9)
    loss = partial(learner._loss, began=learner.carry.memory, steps=steps, advantage=advantage)
    weights = learner.carry.params
    scaled = np.asarray((advantage - advantage.mean()) / advantage.std())
    # At ratio 1 the policy's part is the mean of normalised advantages, the value's that of their squares.
    expected = 0.5 * 0.5 * np.square(advantage).mean() - scaled.mean() - 0.01 * np.log(3.0)
    np.testing.assert_allclose(loss(weights), expected, rtol=1e-3, atol=1e-4)


def test_training_goes_on_where_it_stopped(learner):
    first = learner.train(steps=1)
    weights = jax.tree.map(np.asarray, learner.carry.params)
    second = learner.train(steps=first["steps"] + 1)
    assert second["steps"] == 2 * first["steps"] == 8 * ACCOUNTS * ROLLOUT
    changed = jax.tree.map(lambda old, new: not np.array_equal(old, new), weights, learner.carry.params)
    assert all(jax.tree.leaves(changed))
    assert np.isfinite([first["reward"], second["reward"]]).all()
