"""Windows: the same steps however they are cut, one program, and a reason to stop."""

import jax
import jax.numpy as jnp
import numpy as np

from ztb_jax.learner import Learner
from ztb_jax.runs import loop


def walker() -> Learner:
    def step(state, data):
        total, key = state
        key, draw = jax.random.split(key)
        total = total + data * jax.random.normal(draw)
        return (total, key), {"total": total}

    return Learner(lambda key, data: (jnp.float32(0), key), step, lambda state: state[0], 1)


DATA = jnp.float32(2)


def play(num_updates, count, after=lambda state, window: None):
    learner = walker()
    state = loop.initialise(learner, 0, DATA)
    window = loop.compile_window(learner, state, DATA, num_updates=num_updates)
    return loop.run_windows(window, state, DATA, count=count, after=after)


def test_windows_are_the_same_steps_however_they_are_cut():
    whole, _ = play(12, 1)
    seen = []
    parts, reason = play(3, 4, lambda state, window: seen.append(window.metrics["total"]))
    assert reason is None
    assert float(whole[0]) == float(parts[0])
    assert np.concatenate(seen).shape == (12,)
    assert float(np.concatenate(seen)[-1]) == float(whole[0])


def test_a_reason_ends_the_loop():
    numbers = []

    def after(state, window):
        numbers.append(window.number)
        return "enough" if window.number == 2 else None

    _, reason = play(1, 10, after)
    assert reason == "enough"
    assert numbers == [0, 1, 2]
