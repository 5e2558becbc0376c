"""Members against single runs, selection against a replay in NumPy, memory against larger programs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.ppo.cases import jit
from tests.ppo.test_learner import DATA, learner
from ztb_jax import gates, population
from ztb_jax.learner import Learner
from ztb_jax.population import choice, evolve, log_uniform, member, populate, uniform
from ztb_jax.runs.loop import compile_window, planned_bytes

RATES = np.array([1e-3, 3e-3, 1e-2], np.float32)
KEY = jax.random.key(7)


@functools.cache
def single():
    ppo = learner()
    return jit(ppo.init), jit(ppo.step)


def trained(many, updates, key=KEY):
    state = jit(many.init)(key, DATA)

    def window(state):
        return jax.lax.scan(lambda state, _: many.step(state, DATA), state, length=updates)

    return jit(window)(state)


def plain(leaf):
    """Any leaf as NumPy, keys as their words."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def test_every_member_is_the_single_run_of_its_key_and_numbers():
    schedules = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], np.float32)
    vary = {"learning_rate": RATES, "entropy_schedule": schedules}
    many = populate(learner(), 3, vary)
    init, step = single()
    first, (after, metrics) = jit(many.init)(KEY, DATA), trained(many, 2)
    assert metrics["reward"].shape == (2, 3)
    assert many.env_steps == 3 * learner().env_steps
    for i in range(3):
        alone = init(jax.random.fold_in(KEY, i), DATA)
        numbers = alone.hyper.replace(
            learning_rate=jnp.asarray(RATES[i]), entropy_schedule=jnp.asarray(schedules[i])
        )
        alone = alone.replace(hyper=numbers)
        assert jax.tree.all(
            jax.tree.map(lambda one, other: np.array_equal(plain(one), plain(other)), alone, member(first, i))
        )
        alone, _ = step(alone, DATA)
        alone, told = step(alone, DATA)
        np.testing.assert_allclose(metrics["reward"][-1, i], told["reward"], rtol=0, atol=1e-7)
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=2e-5),
            alone.params,
            member(many.params(after), i),
        )


def test_draws_are_within_their_ranges_and_differ():
    size = 400
    drawn = np.asarray(log_uniform(1e-4, 1e-2)(KEY, size))
    assert drawn.min() >= 1e-4 * (1 - 1e-6)
    assert drawn.max() <= 1e-2 * (1 + 1e-6)
    # Its logarithm is uniform: the median is the geometric mean of the ends.
    assert abs(np.median(np.log10(drawn)) + 3.0) < 0.15
    flat = np.asarray(uniform(2.0, 4.0)(KEY, size))
    assert abs(flat.mean() - 3.0) < 0.1
    assert (flat.min() >= 2.0) & (flat.max() <= 4.0)
    chosen = np.asarray(choice([[1.0, 0.0], [1.0, 1.0]])(KEY, size))
    assert {tuple(row) for row in chosen.tolist()} == {(1.0, 0.0), (1.0, 1.0)}
    vary = {"learning_rate": log_uniform(1e-4, 1e-2), "clip": uniform(0.1, 0.3)}
    one = jit(populate(learner(), 4, vary).init)(KEY, DATA).hyper
    other = jit(populate(learner(), 4, {"clip": vary["clip"]}).init)(KEY, DATA).hyper
    assert len(set(np.asarray(one.learning_rate).tolist())) == 4
    np.testing.assert_array_equal(one.clip, other.clip)  # one draw does not depend on the others


@pytest.mark.parametrize(
    ("vary", "told"),
    [
        ({"speed": RATES}, "speed is no number"),
        ({"target_kl": RATES}, "target_kl is no number"),
        ({"learning_rate": RATES[:2], "clip_schedule": RATES}, r"learning_rate must be .* clip_schedule"),
    ],
)
def test_what_members_cannot_differ_in_is_refused(vary, told):
    with pytest.raises(ValueError, match=told):
        jax.eval_shape(populate(learner(), 3, vary).init, KEY, DATA)


def test_sizes_and_selections_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="at least one member"):
        populate(learner(), 0)
    with pytest.raises(ValueError, match="0 < low <= high"):
        log_uniform(0.0, 1.0)
    many = populate(learner(), 4)
    for every, share, perturb in ((0, 0.25, (0.8, 1.25)), (1, 0.6, (0.8, 1.25)), (1, 0.25, (0.0, 1.0))):
        with pytest.raises(ValueError, match="must be at least 1"):
            evolve(many, every=every, share=share, perturb=perturb)
    with pytest.raises(ValueError, match=r"no numbers: .'speed'"):
        jax.eval_shape(evolve(many, every=1, explored=("speed",)).init, KEY, DATA)
    evolved = evolve(many, every=1, fitness="luck")
    with pytest.raises(ValueError, match="no metric 'luck'"):
        jax.eval_shape(evolved.step, jax.eval_shape(evolved.init, KEY, DATA), DATA)


def test_selection_is_as_replayed_in_numpy():
    """Whom each member copies, what is copied, and that numbers move by one of the two factors."""
    size, every, share, factors = 8, 2, 0.25, (0.8, 1.25)
    many = populate(learner(), size, {"learning_rate": log_uniform(1e-4, 3e-2), "gamma": uniform(0.5, 0.99)})
    evolved = evolve(many, every=every, share=share, perturb=factors)
    step, plain_step = jit(evolved.step), jit(many.step)
    state = jit(evolved.init)(KEY, DATA)
    rewards, used = [], set()
    for update in range(1, 7):
        expected, _ = plain_step(state.population, DATA)
        state, metrics = step(state, DATA)
        rewards.append(np.asarray(metrics["reward"], np.float64))
        np.testing.assert_allclose(metrics["fitness"], np.mean(rewards, axis=0), atol=1e-7)
        source = np.arange(size)
        if update % every == 0:
            order = sorted(range(size), key=lambda i: -float(metrics["fitness"][i]))
            for worst, best in zip(order[-2:], order[:2], strict=True):
                source[worst] = best
            rewards = []
        np.testing.assert_array_equal(metrics["source"], source)
        now = state.population
        for part in ("params", "optimizer"):
            ours, theirs = getattr(now.trained, part), getattr(expected.trained, part)
            for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
                np.testing.assert_allclose(a, np.asarray(b)[source], atol=2e-5)
        np.testing.assert_array_equal(plain(now.key), plain(expected.key))
        np.testing.assert_array_equal(now.play.env_state.bar, expected.play.env_state.bar)
        moved = source != np.arange(size)
        for name in population.EXPLORED:
            before, after = (np.asarray(getattr(of.hyper, name), np.float64) for of in (expected, now))
            if name == "gamma":
                before, after = 1.0 - before, 1.0 - after
            ratio = after / before[source]
            np.testing.assert_allclose(ratio[~moved], 1.0, rtol=1e-5)
            nearest = np.abs(ratio[moved][:, None] - np.array(factors)[None]).argmin(axis=1)
            np.testing.assert_allclose(ratio[moved], np.array(factors)[nearest], rtol=1e-3)
            used |= set(nearest.tolist())
    assert used == {0, 1}, "both factors are drawn"


def test_a_population_with_a_crazy_learning_rate_recovers():
    """One member's weights are thrown away by steps of 1e3 and taken over from a member that learns."""
    rates = np.array([1e-2, 1e-2, 1e-2, 1e3], np.float32)
    gated = gates.gated(learner(), gates.finite("loss", "reward"))
    updates, every = 40, 10
    many = populate(gated, 4, {"learning_rate": rates})
    (_, alone), (state, metrics) = trained(many, updates), trained(evolve(many, every=every), updates)
    assert metrics["source"][every - 1, 3] != 3
    assert float(state.population.learner.hyper.learning_rate[3]) < 1.0
    last = slice(-every, None)
    others = float(metrics["reward"][last, :3].mean())
    left, saved = (float(told["reward"][last, 3].mean()) for told in (alone, metrics))
    assert saved > left + 0.5 * (others - left)
    assert others > left


def test_a_member_that_is_broken_is_never_the_best():
    def told(fitness, verdict):
        metrics = {"verdict": jnp.asarray(verdict)}
        ranked = population._ranked(jnp.asarray(fitness, jnp.float32), metrics)
        return population.selected(ranked, share=0.25).tolist()

    assert told([1.0, 2.0, 3.0, 4.0], [0, 0, 0, 0]) == [3, 1, 2, 3]
    assert told([1.0, 2.0, np.nan, 4.0], [0, 0, 0, 1]) in ([0, 1, 2, 1], [0, 1, 1, 3])
    assert told([np.inf, 2.0, 3.0, 4.0], [0, 0, 0, 0]) == [3, 1, 2, 3]


def test_chunks_bring_what_one_chunk_brings():
    vary = {"learning_rate": log_uniform(1e-3, 1e-2)}
    runs = [
        population.train_in_chunks(
            learner(), DATA, key=KEY, size=5, members=members, num_updates=2, vary=vary
        )
        for members in (5, 2)
    ]
    assert runs[0].metrics["reward"].shape == (2, 5)
    np.testing.assert_array_equal(runs[0].hyper.learning_rate, runs[1].hyper.learning_rate)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), runs[0].params, runs[1].params)
    np.testing.assert_allclose(runs[0].metrics["reward"], runs[1].metrics["reward"], atol=1e-7)


def test_a_plan_foretells_larger_programs():
    told = population.plan(learner(), DATA, 100, 10**9)
    many = populate(learner(), 8)
    program = compile_window(many, jax.eval_shape(many.init, KEY, DATA), DATA, num_updates=1)
    held = planned_bytes(program)
    assert held is not None
    assert abs(told.fixed_bytes + 8 * told.member_bytes - held) < 0.1 * held
    assert told.members == 100
    room = told.fixed_bytes + 3 * told.member_bytes
    assert population.plan(learner(), DATA, 100, room).members == 3
    with pytest.raises(ValueError, match="one member needs"):
        population.plan(learner(), DATA, 100, told.fixed_bytes)


def test_a_learner_without_numbers_is_refused():
    bare = Learner(lambda key, data: jnp.zeros(()), lambda state, data: (state, {}), lambda state: state, 1)
    with pytest.raises(ValueError, match="no `hyper`"):
        populate(bare, 2, {"clip": RATES[:2]}).init(KEY, None)
    assert populate(bare, 2).init(KEY, None).shape == (2,)
