"""Where windows may start: at every bar of a slice as ever, or at the bars that are given and no other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.adapters import make_task
from envs.checks import check_unbroken
from envs.single import make_single
from envs.transforms import aligned, autoreset, vectorise
from tests.envs import test_portfolio_env as portfolio
from tests.envs.test_adapters_gymnasium import single
from tests.envs.test_single import FRAME, Rules, make_params
from ztb_jax.evaluation.backtest import make_path_backtest

PARAMS = make_params(FRAME, Rules(5e-4, 1e-4, 1e-4, 0.1)).replace(first=jnp.int32(5), stop=jnp.int32(900))
ENV = make_single(episode_bars=16)
STARTS = np.array([7, 40, 41, 300, 883], np.int32)


def given(starts, count=None, params=PARAMS):
    return params.replace(starts=jnp.asarray(starts), num_starts=None if count is None else jnp.int32(count))


def starts_of(env, params, num=4_000, seed=0):
    return np.asarray(env.draw(jax.random.key(seed), (num, 1), params).start)


def test_without_starts_the_bits_of_a_draw_are_what_they_were():
    bits = np.asarray(jax.random.bits(jax.random.key(0), (2 * 4_000,)))[:4_000]
    np.testing.assert_array_equal(starts_of(ENV, PARAMS), 5 + bits % (900 - 16 - 5))
    env, params = portfolio.ENV, portfolio.PARAMS
    key, _ = jax.random.split(jax.random.key(0))
    expected = jax.random.randint(key, (4_000,), params.first, params.stop - env.episode_bars)
    np.testing.assert_array_equal(starts_of(env, params), expected)


@pytest.mark.parametrize(("env", "params"), [(ENV, PARAMS), (portfolio.ENV, portfolio.PARAMS)])
def test_every_bar_given_is_no_bar_given(env, params):
    every = np.arange(int(params.first), int(params.stop) - env.episode_bars, dtype=np.int32)
    padded = np.concatenate([every, np.full(77, 3, np.int32)])
    plain = starts_of(env, params)
    np.testing.assert_array_equal(starts_of(env, given(every, params=params)), plain)
    np.testing.assert_array_equal(starts_of(env, given(padded, len(every), params)), plain)


@pytest.mark.parametrize(("env", "params"), [(ENV, PARAMS), (portfolio.ENV, portfolio.PARAMS)])
def test_windows_start_at_the_given_bars_alone_and_alike(env, params):
    every = np.arange(int(params.first), int(params.stop) - env.episode_bars, dtype=np.int32)
    starts = np.random.default_rng(0).choice(every, 5, replace=False)
    for most in (5, 2):
        found, counts = np.unique(starts_of(env, given(starts, most, params)), return_counts=True)
        np.testing.assert_array_equal(found, np.sort(starts[:most]))
        assert abs(counts - 4_000 / most).max() < 5 * (4_000 / most) ** 0.5


def test_slices_of_other_counts_of_starts_are_drawn_in_one_program_as_each_alone():
    several = [given(STARTS, 5), given(STARTS[::-1].copy(), 3), given(STARTS, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    key = jax.random.key(3)
    together = jax.jit(jax.vmap(lambda params: ENV.draw(key, (64, 2), params)))(stacked)
    for at, params in enumerate(several):
        alone = ENV.draw(key, (64, 2), params)
        np.testing.assert_array_equal(together.start[at], alone.start)
        np.testing.assert_array_equal(together.level[at], alone.level)


def test_windows_that_follow_start_there_too():
    env = autoreset(vectorise(ENV, num_groups=32, sharing=2))
    params = given(STARTS)

    def step(carry, key):
        state, _ = env.step(key, carry, jnp.zeros((32, 2), jnp.int32), params)
        return state, (state.bar, state.end)

    state, _ = env.reset(jax.random.key(0), params)
    assert np.isin(state.bar, STARTS).all()
    bar, end = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 80))[1]
    begun = np.asarray(end) - 16
    assert set(begun.ravel().tolist()) == set(STARTS.tolist())
    assert ((begun <= bar) & (bar < end)).all()


def test_windows_on_a_grid_begin_up_to_a_cell_earlier():
    env = aligned(vectorise(ENV, num_groups=500, sharing=1), bars=8)
    begun = starts_of(env, given(STARTS), num=500)
    np.testing.assert_array_equal(np.unique(begun), [5, 37, 293, 877])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (given([4, 7]), r"starts \(4 … 7\) must be among bars 5 … 883"),
        (given([7, 884]), r"starts \(7 … 884\) must be among bars 5 … 883"),
        (given([7, 9, 884], 3), "must be among bars"),
        (given(STARTS, 6), "6 of 5 starts count"),
        (given(STARTS, 0), "0 of 5 starts count"),
        (given(np.zeros(0, np.int32)), "0 of 0 starts count"),
        (given(STARTS.astype(np.float32)), r"must be \[S\] int32, got float32"),
        (given(STARTS[None]), r"must be \[S\] int32, got int32 of shape \(1, 5\)"),
        (PARAMS.replace(num_starts=jnp.int32(3)), "num_starts is given without starts"),
    ],
)
def test_refuses_starts_that_leave_no_window(params, message):
    with pytest.raises(ValueError, match=message):
        ENV.reset(jax.random.key(0), params)
    with pytest.raises(ValueError, match=message):
        make_task(ENV, params, features=np.zeros((len(FRAME), 1)), lookback=1)


def test_what_fills_up_may_be_anything():
    ENV.reset(jax.random.key(0), given([7, 9, -1, 10**6], 2))


def test_a_start_that_is_asked_for_is_one_of_those_given():
    one = single(make_task(ENV, given(STARTS, 4), features=np.zeros((len(FRAME), 1)), lookback=1))
    one.reset(options={"start": 300})
    for start in (8, 883):
        with pytest.raises(ValueError, match=r"start must be among params\.starts"):
            one.reset(options={"start": start})


def test_stretches_in_a_row_are_not_played_through():
    with pytest.raises(ValueError, match="no account can be played through"):
        make_path_backtest()(jnp.zeros(16), given(STARTS))
    check_unbroken(PARAMS)
