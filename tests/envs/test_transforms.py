"""Many accounts at once equal the same accounts one by one; episodes follow one another."""

import operator

import jax
import jax.numpy as jnp
import numpy as np

from envs.single import make_single
from envs.transforms import autoreset, vectorise
from tests.envs.test_single import FRAME, Rules, make_params

PARAMS = make_params(FRAME, Rules(5e-4, 1e-4, 1e-4, 0.1))
G, S = 6, 4


def test_vectorised_accounts_equal_single_ones():
    env = make_single(episode_bars=8)
    batch = vectorise(env, num_groups=G, sharing=S)
    state, observation = batch.reset(jax.random.key(0), PARAMS)
    assert observation.bar.shape == (G,)
    assert observation.account.shape == (G, S, 2)
    actions = jax.random.randint(jax.random.key(1), (G, S), 0, 3)
    after, out = batch.step(jax.random.key(2), state, actions, PARAMS)
    for g in range(G):
        for s in range(S):
            one = state.replace(
                bar=state.bar[g],
                end=state.end[g],
                account=jax.tree.map(operator.itemgetter((g, s)), state.account),
            )
            moved, single_out = env.step(jax.random.key(2), one, actions[g, s], PARAMS)
            jax.tree.map(
                np.testing.assert_array_equal,
                moved.account,
                jax.tree.map(operator.itemgetter((g, s)), after.account),
            )
            assert float(single_out.reward) == float(out.reward[g, s])
    np.testing.assert_array_equal(after.bar, state.bar + 1)


def test_an_ended_window_starts_anew_and_its_last_observation_is_kept():
    env = autoreset(vectorise(make_single(episode_bars=8), num_groups=G, sharing=S))
    state, _ = env.reset(jax.random.key(0), PARAMS)
    state = state.replace(end=state.bar + jnp.array([1, 2, 8, 8, 8, 8]))
    actions = jnp.full((G, S), 2)
    first = state
    state, out = env.step(jax.random.key(3), state, actions, PARAMS)
    assert np.asarray(out.truncated).tolist() == [True] + [False] * 5
    np.testing.assert_array_equal(out.observation.bar, first.bar + 1)
    assert int(state.bar[0]) != int(first.bar[0]) + 1
    assert int(state.end[0]) == int(state.bar[0]) + 8
    np.testing.assert_array_equal(state.account.log_equity[0], 0.0)
    np.testing.assert_array_equal(state.bar[1:], first.bar[1:] + 1)
    assert np.asarray(state.account.log_equity[1:]).any()


def test_a_closed_account_reopens_flat_and_its_neighbours_play_on():
    env = autoreset(vectorise(make_single(episode_bars=64), num_groups=G, sharing=S))
    state, _ = env.reset(jax.random.key(0), PARAMS)
    broke = jnp.zeros((G, S), bool).at[2, 1].set(True)
    poor = state.account.replace(log_equity=jnp.where(broke, -10.0, state.account.log_equity))
    after, out = env.step(jax.random.key(3), state.replace(account=poor), jnp.full((G, S), 2), PARAMS)
    np.testing.assert_array_equal(out.terminated, broke)
    assert float(after.account.log_equity[2, 1]) == 0.0
    assert float(after.account.level[2, 1]) == 0.0
    np.testing.assert_array_equal(after.bar, state.bar + 1)
    others = np.asarray(~broke)
    assert np.asarray(after.account.level)[others].tolist() == [1.0] * int(others.sum())


def test_permuting_accounts_permutes_the_results():
    env = vectorise(make_single(episode_bars=64), num_groups=G, sharing=S)
    state, _ = env.reset(jax.random.key(0), PARAMS)
    actions = jax.random.randint(jax.random.key(1), (G, S), 0, 3)
    order = np.array([3, 1, 0, 5, 2, 4])
    _, out = env.step(jax.random.key(2), state, actions, PARAMS)
    _, shuffled = env.step(jax.random.key(2), jax.tree.map(lambda x: x[order], state), actions[order], PARAMS)
    np.testing.assert_array_equal(shuffled.reward, out.reward[order])


def test_the_step_is_traced_once():
    traces = []
    env = autoreset(vectorise(make_single(episode_bars=8), num_groups=G, sharing=S))

    def step(key, state, actions, params):
        traces.append(1)
        return env.step(key, state, actions, params)

    jitted = jax.jit(step)
    state, _ = env.reset(jax.random.key(0), PARAMS)
    for number in range(20):
        state, _ = jitted(jax.random.key(number), state, jnp.full((G, S), number % 3), PARAMS)
    assert len(traces) == 1
