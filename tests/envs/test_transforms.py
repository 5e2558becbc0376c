"""Many accounts at once equal the same accounts one by one; episodes follow one another."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.single import make_single
from envs.transforms import (
    autoreset,
    cheapen,
    gather,
    no_statistics,
    normalise,
    randomise,
    record,
    vectorise,
)
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


def test_recorded_episodes_tell_their_return_and_length():
    env = autoreset(vectorise(record(make_single(episode_bars=8)), num_groups=G, sharing=S))
    state, _ = env.reset(jax.random.key(0), PARAMS)
    step, total, lengths = jax.jit(env.step), np.zeros((G, S)), []
    for number in range(20):
        actions = jax.random.randint(jax.random.key(number), (G, S), 0, 3)
        state, out = step(jax.random.key(number), state, actions, PARAMS)
        total += np.asarray(out.reward)
        np.testing.assert_allclose(out.episode.total, total, atol=1e-6)
        lengths.append(int(out.episode.length[0, 0]))
        total[np.asarray(out.truncated)] = 0.0
    assert lengths == [*range(1, 9), *range(1, 9), *range(1, 5)]


def test_statistics_do_not_depend_on_how_the_stream_is_cut():
    rows = np.random.default_rng(0).normal(3.0, 2.0, (600, 4)).astype(np.float32)
    one = gather(no_statistics(4), jnp.asarray(rows))
    many = no_statistics(4)
    for batch in np.split(rows, [7, 100, 450]):
        many = gather(many, jnp.asarray(batch).reshape(1, -1, 4))
    for statistics in (one, many):
        np.testing.assert_allclose(statistics.mean, rows.mean(0), rtol=1e-5)
        np.testing.assert_allclose(statistics.square / (statistics.count - 1), rows.var(0, ddof=1), rtol=1e-4)


def test_normalised_views_and_rewards_use_frozen_statistics():
    plain = make_single(episode_bars=64)
    statistics = gather(no_statistics(2), jnp.array([[0.0, 1.0], [2.0, 3.0], [1.0, 8.0]]))
    env = normalise(plain, statistics, reward_scale=5.0)
    state, seen = env.reset(jax.random.key(0), PARAMS)
    _, raw = plain.reset(jax.random.key(0), PARAMS)
    np.testing.assert_allclose(
        seen.account, (raw.account - jnp.array([1.0, 4.0])) / jnp.array([1.0, 13**0.5])
    )
    _, out = env.step(jax.random.key(1), state, jnp.int32(2), PARAMS)
    _, other = plain.step(jax.random.key(1), state, jnp.int32(2), PARAMS)
    assert out.reward == 5.0 * other.reward
    np.testing.assert_array_equal(env.observe(state).account, seen.account)
    with pytest.raises(ValueError, match="do not fit"):
        normalise(plain, no_statistics(2))


def test_every_account_plays_by_the_costs_and_latency_drawn_for_it():
    env = make_single(episode_bars=64, max_latency=2)
    batch = vectorise(env, num_groups=G, sharing=S, varied=("costs", "latency"))
    params = randomise(jax.random.key(5), PARAMS, (G, S), latency=(0, 2), fee_rate=(0.0, 0.01))
    assert len(np.unique(params.costs.fee_rate)) == G * S
    assert float(params.costs.fee_rate.max()) <= 0.01
    assert set(np.asarray(params.latency).ravel().tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(params.costs.slippage, PARAMS.costs.slippage)
    state, _ = batch.reset(jax.random.key(0), params)
    actions = jax.random.randint(jax.random.key(1), (G, S), 0, 3)
    for _ in range(3):
        state, out = batch.step(jax.random.key(2), state, actions, params)
    drawn = env.draw(jax.random.key(0), (G, S), params)
    for g, s in np.ndindex(G, S):
        one = jax.tree.map(lambda x, at=(g, s): x[at], (params.costs, params.latency))
        mine = params.replace(costs=one[0], latency=one[1])
        account = env.begin(drawn._replace(start=drawn.start[g], level=drawn.level[g, s]), mine)
        for _ in range(3):
            account, told = env.step(jax.random.key(2), account, actions[g, s], mine)
        np.testing.assert_allclose(out.reward[g, s], told.reward, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("ranges", "match"),
    [
        ({"impact": (0.0, 1.0)}, "impact is no cost"),
        ({"slippage": (1.0, 0.0)}, "above"),
        ({"latency": (-1, 2)}, r"latency: \(-1, 2\) is no range"),
        ({"latency": (2, 1), "impact": (0.0, 1.0)}, r"impact is no cost.*; latency: \(2, 1\) is no range"),
    ],
)
def test_refuses_to_randomise_what_is_not_there(ranges, match):
    with pytest.raises(ValueError, match=match):
        randomise(jax.random.key(0), PARAMS, (G, S), **ranges)


def test_a_curriculum_starts_free_of_charge():
    cheap = cheapen(PARAMS, jnp.float32(0.25)).costs
    np.testing.assert_allclose(cheap.fee_rate, 0.25 * PARAMS.costs.fee_rate)
    assert float(cheapen(PARAMS, jnp.float32(0)).costs.slippage) == 0.0
