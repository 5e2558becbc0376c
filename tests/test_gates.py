"""A gate changes nothing while healthy, and freezes the state before the update that trips it."""

import jax
import jax.numpy as jnp
import numpy as np

from ztb_jax import gates
from ztb_jax.learner import Learner


def walker(bad_at: int) -> Learner:
    """Adds a draw to its state every step; its metric is NaN at step `bad_at`."""

    def step(state, data):
        total, count, key = state
        key, draw = jax.random.split(key)
        total = total + jax.random.normal(draw) * data
        loss = jnp.where(count == bad_at, jnp.nan, total)
        return (total, count + 1, key), {"loss": loss}

    return Learner(
        init=lambda key, data: (jnp.float32(0), jnp.int32(0), key),
        step=step,
        params=lambda state: state[0],
        env_steps=1,
    )


def play(learner, steps):
    state = learner.init(jax.random.key(0), jnp.float32(1))
    return jax.lax.scan(lambda state, _: learner.step(state, jnp.float32(1)), state, length=steps)


def test_a_healthy_gate_changes_no_bit():
    plain, _ = play(walker(99), 7)
    guarded, metrics = play(gates.gated(walker(99), gates.finite("loss")), 7)
    assert float(plain[0]) == float(guarded.learner[0])
    np.testing.assert_array_equal(jax.random.key_data(plain[2]), jax.random.key_data(guarded.learner[2]))
    assert not np.asarray(metrics["verdict"]).any()


def test_a_verdict_stays_though_later_metrics_are_fine():
    def step(state, data):
        return state + 1, {"loss": jnp.where(data == 2, jnp.inf, 0.0)}

    learner = gates.gated(
        Learner(lambda key, data: jnp.int32(0), step, lambda state: state, 1), gates.finite("loss")
    )
    state = learner.init(jax.random.key(0), 0)
    for data in range(5):
        state, metrics = learner.step(state, jnp.int32(data))
    assert int(metrics["verdict"]) == gates.NOT_FINITE
    assert int(state.learner) == 2


def test_a_tripped_gate_freezes_the_last_good_state_for_good():
    before, _ = play(walker(99), 4)
    guarded, metrics = play(gates.gated(walker(4), gates.finite("loss")), 9)
    assert float(guarded.learner[0]) == float(before[0])
    assert int(guarded.learner[1]) == 4
    assert np.asarray(metrics["verdict"]).tolist() == [0] * 4 + [gates.NOT_FINITE] * 5
    assert gates.REASONS[gates.NOT_FINITE]
