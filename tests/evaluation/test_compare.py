"""Backtests against a hand-made loop over the environment, and baselines that are what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import actions
from envs.single import make_single
from tests.envs.reference import Rules, play
from tests.test_build import FRAME, prepared
from ztb_jax.data.frame import as_frame
from ztb_jax.data.market import make_costs, make_market_data
from ztb_jax.errors import DataError
from ztb_jax.evaluation import compare
from ztb_jax.evaluation.backtest import make_path_backtest, make_policy_backtest, start_of
from ztb_jax.policies.policy import make_policy

LEVELS = (-1.0, 0.0, 1.0)
ENV = make_single(levels=LEVELS, episode_bars=64)


def test_a_policy_backtest_equals_a_loop_over_the_environment():
    data = prepared().slices["test"]
    policy = make_policy(num_features=1, account_size=2, num_actions=3, lookback=4, width=8)
    params = jax.tree.map(lambda x: 4 * x, policy.init(jax.random.key(2)))
    trace = make_policy_backtest(policy, ENV)(params, data)
    contexts = policy.encode(params, data.features)
    state = start_of(ENV, data.env_params)
    step = jax.jit(ENV.step)
    levels = []
    for n in range(60):
        observation = ENV.observe(state)
        assert int(observation.bar) == int(data.env_params.first) + n
        log_probs, _ = policy.apply(params, contexts[observation.bar], observation.account)
        action = jnp.argmax(log_probs)
        state, out = step(jax.random.key(0), state, action, data.env_params)
        levels.append(LEVELS[int(action)])
        np.testing.assert_allclose(trace.gain[n], state.account.gain, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(trace.fill.traded[n], out.fill.traded, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(trace.level[:60], levels)
    assert len(set(levels)) > 1


def test_baselines_are_what_they_say():
    data, (start, stop) = prepared().slices["test"], prepared().split.test
    opened, closed = FRAME["open"].to_numpy(), FRAME["close"].to_numpy()
    gap, body = compare.bars_of(data)
    np.testing.assert_allclose(gap, opened[start + 1 : stop] / closed[start : stop - 1] - 1, atol=1e-6)
    np.testing.assert_allclose(body, closed[start + 1 : stop] / opened[start + 1 : stop] - 1, atol=1e-6)
    traces = compare.play_baselines(data, ENV, seed=0).traces
    hold = compare.account_of(traces["buy_and_hold"], gap)
    paid = 0.003 * (1 + 2e-4) + 2e-4
    np.testing.assert_allclose(hold.equity[-1], closed[stop - 1] / opened[start + 1] - paid, rtol=1e-4)
    assert not np.any(compare.account_of(traces["flat"], gap).equity - 1.0)
    drawn = np.random.default_rng(0).choice(np.asarray(LEVELS), size=(101, data.num_steps))
    backtest = make_path_backtest()
    growths = sorted(
        compare.log_growth(backtest(jnp.asarray(path, jnp.float32), data.env_params)) for path in drawn
    )
    assert compare.log_growth(traces["random"]) == growths[50]
    best = compare.log_growth(traces["hindsight"])
    assert best > max(compare.log_growth(traces[name]) for name in ("buy_and_hold", "flat", "random"))


def test_baselines_of_a_range_are_those_of_its_ends_and_flat():
    data = prepared().slices["test"]
    ranged = make_single(actions=actions.continuous(low=-1.0, high=1.0), episode_bars=64)
    ours, theirs = (compare.play_baselines(data, env, seed=0).traces for env in (ranged, ENV))
    assert set(ours) == set(theirs)
    for name, trace in ours.items():
        if name == "inverse_volatility":
            continue  # an amount: it has finer levels to choose from
        np.testing.assert_allclose(trace.gain, theirs[name].gain, atol=1e-7)


def test_accounts_equal_the_float64_reference_in_every_series():
    data, (start, stop) = prepared().slices["test"], prepared().split.test
    gap, _ = compare.bars_of(data)
    path = np.random.default_rng(0).choice(LEVELS, data.num_steps)
    account = compare.account_of(make_path_backtest()(jnp.asarray(path, jnp.float32), data.env_params), gap)
    opened, closed = FRAME["open"].to_numpy(), FRAME["close"].to_numpy()
    rules = Rules(0.003, 1e-4, 1e-4, 0.2)
    expected = play(opened, closed, path, start=start, initial_level=0.0, rules=rules)
    n = len(expected["equity"])
    before = np.concatenate([[1.0], expected["equity"][:-1]])
    np.testing.assert_allclose(account.equity[1 : n + 1], expected["equity"], rtol=1e-4)
    np.testing.assert_allclose(account.traded[:n, 0], expected["traded"] * before, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(account.costs[:n, 0], expected["cost"] * before, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(
        account.value[1 : n + 1], expected["exposure"] * expected["equity"], rtol=1e-3, atol=1e-5
    )
    held = np.concatenate([[0.0], (expected["exposure"] * expected["equity"])[:-1]]) * (1 + gap[:n])
    np.testing.assert_allclose(account.held[:n, 0], held, rtol=1e-3, atol=1e-5)
    assert stop - 1 - start == data.num_steps


def small(closed, opened=None):
    closed = np.asarray(closed, float)
    opened = np.concatenate([[closed[0]], closed[:-1]]) if opened is None else np.asarray(opened, float)
    columns = {"open": opened, "high": np.maximum(opened, closed), "low": np.minimum(opened, closed)}
    frame = as_frame(
        np.datetime64("2020-01-01") + np.arange(len(closed)),
        columns | {"close": closed, "volume": np.ones(len(closed))},
    )
    costs = make_costs(fee_rate=1e-3, half_spread=0.0, slippage=0.0)
    return make_market_data(frame, np.zeros((len(closed), 1)), costs=costs)


def test_a_ruined_account_stays_closed_through_a_rally():
    data = small([100, 100, 8, 16, 32, 64, 128])
    trace = make_path_backtest()(jnp.ones(6), data.env_params)
    assert np.asarray(trace.ruined).tolist() == [False, True, True, True, True, True]
    for series in (trace.gain, trace.exposure, trace.fill.traded, trace.fill.cost, trace.level):
        assert not np.asarray(series)[2:].any()
    account = compare.account_of(trace, compare.bars_of(data)[0])
    assert account.ruined
    np.testing.assert_array_equal(account.equity[2:], account.equity[2])


def test_an_account_that_a_gap_ruined_cannot_trade_itself_back():
    """Level 5 through a gap of -25 %: equity is negative at the open, whatever the bar does after."""
    data = small([100, 100, 82.5, 90], opened=[100, 100, 75, 82.5])
    for second in (5.0, 4.0, -1.0):
        trace = make_path_backtest()(jnp.array([5.0, second, second]), data.env_params)
        np.testing.assert_allclose(trace.gain[1], -0.99)
        assert bool(trace.ruined[1])
        assert float(trace.exposure[1]) == 0.0
        assert float(trace.fill.traded[1]) == 0.0


def test_growth_beyond_any_number_is_told():
    data = small(100 * 1.5 ** np.arange(260))
    rebalanced = jnp.where(jnp.arange(259) % 2 == 0, 50.0, 49.0)
    trace = make_path_backtest()(rebalanced, data.env_params)
    with pytest.raises(DataError, match=r"judge fewer bars \(data\.end\)"):
        compare.account_of(trace, compare.bars_of(data)[0])
