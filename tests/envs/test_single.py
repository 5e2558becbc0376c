"""The single-instrument environment against its float64 reference, and its invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from arch.data import sp500
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.bar import State
from envs.ledger import Account, open_account
from envs.observations import account_view
from envs.single import Draw, make_single
from envs.types import EnvParams, Order
from tests.envs.reference import Rules, play
from ztb_jax.data.market import make_costs, make_market

LEVELS = (-1.0, 0.0, 0.5, 1.0, 2.0)
FRAME = sp500.load()[["Open", "Close"]].rename(columns=str.lower)


def make_params(frame: pd.DataFrame, rules: Rules) -> EnvParams:
    costs = make_costs(fee_rate=rules.fee_rate, half_spread=rules.half_spread, slippage=rules.slippage)
    return EnvParams(
        market=make_market(frame),
        costs=costs,
        ruin_equity=jnp.float32(rules.ruin_equity),
        first=jnp.int32(0),
        stop=jnp.int32(len(frame)),
    )


ENV = make_single(levels=LEVELS, episode_bars=10**6)


@jax.jit
def follow(levels, start, initial_level, params):
    state = ENV.begin(Draw(start, initial_level), params)

    def step(state, level):
        state, out = ENV.advance(state, Order(level), params)
        return state, (state.account, out)

    return jax.lax.scan(step, state, levels)[1]


def assert_same(frame, levels, *, start, initial_level, rules):
    expected = play(
        frame["open"].to_numpy(),
        frame["close"].to_numpy(),
        levels,
        start=start,
        initial_level=initial_level,
        rules=rules,
    )
    account, out = jax.device_get(
        follow(
            jnp.asarray(levels, jnp.float32),
            jnp.int32(start),
            jnp.float32(initial_level),
            make_params(frame, rules),
        )
    )
    n = len(expected["equity"])
    np.testing.assert_array_equal(out.terminated[:n], expected["terminated"])
    np.testing.assert_allclose(
        np.exp(account.log_equity.astype(np.float64))[:n], expected["equity"], rtol=1e-5
    )
    np.testing.assert_allclose(out.reward[:n], expected["reward"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(account.exposure[:n], expected["exposure"], rtol=2e-5, atol=2e-6)
    for name in ("traded", "cost", "fee"):
        np.testing.assert_allclose(
            getattr(out.fill, name)[:n], expected[name], rtol=1e-4, atol=2e-6, err_msg=name
        )
    np.testing.assert_array_equal(out.fill.traded[:n] != 0, expected["traded"] != 0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    start=st.integers(0, len(FRAME) - 300),
    initial=st.sampled_from(LEVELS),
    hold=st.floats(0.0, 0.98),
    fee=st.sampled_from([0.0, 5e-4, 0.01]),
    edge=st.sampled_from([0.0, 1e-4, 5e-3]),
)
def test_equals_the_float64_reference_on_random_actions_over_real_prices(
    seed, start, initial, hold, fee, edge
):
    rng = np.random.default_rng(seed)
    drawn = rng.choice(LEVELS, 256)
    for t in range(1, 256):
        if rng.uniform() < hold:
            drawn[t] = drawn[t - 1]
    assert_same(
        FRAME, drawn, start=start, initial_level=initial, rules=Rules(fee, edge, edge, ruin_equity=0.1)
    )


@pytest.mark.parametrize("name", ["EURUSD_H4.csv", "BRENTCMDUSD_D1.csv", "XAUUSD_D1.csv"])
def test_equals_the_reference_on_files_with_gaps(real_data, name):
    frame = pd.read_csv(real_data / name, sep="\t").rename(columns=str.lower)
    rng = np.random.default_rng(1)
    for start in rng.integers(0, len(frame) - 300, 5):
        assert_same(
            frame,
            rng.choice(LEVELS, 256),
            start=int(start),
            initial_level=0.0,
            rules=Rules(5e-4, 1e-4, 1e-4, 0.1),
        )


def crash_frame(moves):
    closed = 100.0 * np.cumprod(1.0 + np.array([0.0, *moves]))
    return pd.DataFrame({"open": np.concatenate([[100.0], closed[:-1]]), "close": closed})


@pytest.mark.parametrize(
    ("moves", "level"),
    [((-0.5, -0.6, -0.7, 0.1), 1.0), ((0.1, 1.2, 0.3), -1.0), ((0.0, -0.6, 0.2), 2.0)],
)
def test_ruin_terminates_and_the_loss_of_a_bar_is_capped(moves, level):
    frame = crash_frame(moves)
    levels = np.full(len(moves), level)
    rules = Rules(0.0, 0.0, 0.0, ruin_equity=0.1)
    assert_same(frame, levels, start=0, initial_level=0.0, rules=rules)
    _, out = follow(jnp.asarray(levels, jnp.float32), jnp.int32(0), jnp.float32(0), make_params(frame, rules))
    assert bool(out.terminated.any())
    assert float(out.reward.min()) >= np.log(0.01) - 1e-5


def test_flat_earns_exactly_zero():
    rules = Rules(0.01, 0.01, 0.01, 0.1)
    account, out = follow(jnp.zeros(500), jnp.int32(0), jnp.float32(0), make_params(FRAME, rules))
    assert not np.asarray(out.reward).any()
    assert not np.asarray(account.log_equity).any()


def test_holding_pays_nothing_and_keeps_the_units():
    rules = Rules(0.01, 0.01, 0.01, 0.1)
    account, out = follow(jnp.full(500, 0.5), jnp.int32(0), jnp.float32(0), make_params(FRAME, rules))
    assert np.count_nonzero(out.fill.traded) == 1
    assert not np.asarray(out.fill.cost)[1:].any()
    closed, units = FRAME["close"].to_numpy()[1:501], 0.5 / FRAME["open"].iloc[1]
    equity = np.exp(np.asarray(account.log_equity, np.float64))
    np.testing.assert_allclose(np.asarray(account.exposure) * equity, units * closed, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), low=st.floats(0, 0.01), more=st.floats(1e-4, 0.01))
def test_growth_never_rises_with_the_fee_for_fixed_actions(seed, low, more):
    levels = jnp.asarray(np.random.default_rng(seed).choice([-1.0, 0.0, 1.0], 200), jnp.float32)

    def growth(fee):
        params = make_params(FRAME, Rules(fee, 0.0, 0.0, 0.0))
        return float(follow(levels, jnp.int32(7), jnp.float32(0), params)[1].reward.sum())

    assert growth(low + more) < growth(low) + 1e-6


def test_scaling_prices_changes_nothing():
    rules = Rules(5e-4, 1e-4, 1e-4, 0.1)
    levels = jnp.asarray(np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 200), jnp.float32)
    one, other = (
        follow(levels, jnp.int32(3), jnp.float32(0), make_params(frame, rules))
        for frame in (FRAME, 1024 * FRAME)
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_comes_after_a_bar_changes_nothing_up_to_it():
    rules, bar, start = Rules(5e-4, 1e-4, 1e-4, 0.1), 120, 10
    future = FRAME.copy()
    future.iloc[bar + 1 :] *= np.random.default_rng(0).uniform(0.5, 2.0, (len(FRAME) - bar - 1, 2))
    levels = jnp.asarray(np.random.default_rng(1).choice([-1.0, 0.0, 1.0], 300), jnp.float32)
    steps = bar - start
    one, other = (
        jax.tree.map(
            lambda x: np.asarray(x)[:steps],
            follow(levels, jnp.int32(start), jnp.float32(0), make_params(f, rules)),
        )
        for f in (FRAME, future)
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_window_truncates_and_nothing_else_does():
    env = make_single(episode_bars=16)
    params = make_params(FRAME, Rules(0, 0, 0, 0.1))
    state, observation = env.reset(jax.random.key(0), params)
    first = int(observation.bar)
    for step in range(16):
        state, out = env.step(jax.random.key(0), state, jnp.int32(2), params)
        assert int(out.observation.bar) == first + step + 1
        assert bool(out.truncated) == (step == 15)
        assert not bool(out.terminated)


def test_starts_cover_the_slice_and_stay_inside_it():
    env = make_single(episode_bars=16)
    params = make_params(FRAME, Rules(0, 0, 0, 0.1)).replace(first=jnp.int32(5), stop=jnp.int32(5 + 16 + 4))
    drawn = env.draw(jax.random.key(0), (4000,), params)
    assert sorted(set(np.asarray(drawn.start).tolist())) == [5, 6, 7, 8]
    assert set(np.asarray(drawn.level).tolist()) == {-1.0, 0.0, 1.0}


def test_the_account_view_is_level_and_exposure():
    account = Account(*(jnp.float32(x) for x in (1, 2, 3, 4)))
    state = State(jnp.int32(0), jnp.int32(9), account)
    np.testing.assert_array_equal(account_view(state), [account.level, account.exposure])
    assert float(account.level) != float(account.exposure)


def test_a_begun_account_holds_the_drawn_level_at_the_drawn_bar():
    env = make_single(episode_bars=8)
    params = make_params(FRAME, Rules(0, 0, 0, 0.1))
    drawn = env.draw(jax.random.key(0), (4096,), params)
    state = env.begin(drawn, params)
    np.testing.assert_array_equal(state.account.level, drawn.level)
    np.testing.assert_array_equal(state.account.exposure, drawn.level)
    np.testing.assert_array_equal(state.bar, drawn.start)
    correlation = np.corrcoef(np.asarray(drawn.start), np.asarray(drawn.level))[0, 1]
    assert abs(correlation) < 0.06, "start and level come from keys of their own"


def test_a_rich_account_that_loses_all_in_a_bar_is_closed_too():
    params = make_params(crash_frame((0.0, -0.999)), Rules(0, 0, 0, 0.0))
    rich = State(jnp.int32(1), jnp.int32(9), open_account(jnp.float32(1)).replace(log_equity=jnp.float32(3)))
    state, out = ENV.advance(rich, Order(jnp.float32(1)), params)
    assert bool(out.terminated)
    np.testing.assert_allclose(state.account.log_equity, 3 + np.log(0.01), rtol=1e-5)
    assert float(state.account.exposure) == 0.0


@pytest.mark.parametrize("levels", [(), (1.0, 1.0)])
def test_refuses_levels_that_are_none_or_repeated(levels):
    with pytest.raises(ValueError, match="distinct"):
        make_single(levels=levels)


def test_refuses_a_window_of_nothing():
    with pytest.raises(ValueError, match="episode_bars"):
        make_single(episode_bars=0)
