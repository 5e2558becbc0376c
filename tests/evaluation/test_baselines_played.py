"""Baselines in the simulator: their accounts against float64 ones, and what they may know when they play."""

import statistics
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import actions
from envs.portfolio import make_portfolio
from envs.portfolio_market import make_portfolio_market, make_portfolio_params
from envs.single import make_single
from tests.envs import portfolio_reference
from tests.envs.reference import Rules, play
from tests.evaluation.test_baselines import LEVELS, cross_loop, momentum_loop, reversion_loop, spells
from tests.test_build import FRAME, prepared
from ztb_jax.data.market import make_costs
from ztb_jax.evaluation import baselines, compare
from ztb_jax.evaluation.backtest import make_path_backtest, make_weights_backtest

ENV = make_single(levels=LEVELS, episode_bars=64)


@pytest.fixture(scope="module")
def played():
    data, (start, stop) = prepared().slices["test"], prepared().split.test
    path = np.repeat(np.random.default_rng(3).choice(LEVELS, 30), 8)[: data.num_steps]
    policy = jax.device_get(make_path_backtest(ENV)(jnp.asarray(path, jnp.float32), data.env_params))
    close = FRAME["close"].to_numpy()
    result = compare.play_baselines(data, ENV, seed=0, close=close[:stop], policy=policy)
    return data, (start, stop), policy, result


def test_every_baseline_is_there_and_warmed_up(played):
    data, (start, stop), _, result = played
    assert list(result.traces) == [
        "buy_and_hold", "flat", "random", "moving_average_cross", "momentum", "mean_reversion",
        "inverse_volatility", "matched_random", "hindsight",
    ]  # fmt: skip
    close = FRAME["close"].to_numpy()
    # Decided at bars start … stop - 2; the account fills at the next open, so the last close is no part.
    for name, path in baselines.rule_paths(close, LEVELS).items():
        np.testing.assert_array_equal(result.traces[name].level, path[start : stop - 1])
        assert result.traces[name].level[0] != 0.0 or name == "mean_reversion"
    for name, path in {
        "moving_average_cross": cross_loop(close, 20, 50),
        "momentum": momentum_loop(close, 60, 1.0),
        "mean_reversion": reversion_loop(close, 20, 1.0),
    }.items():
        np.testing.assert_array_equal(result.traces[name].level, path[start : stop - 1])
    assert data.num_steps == stop - 1 - start


def test_every_account_equals_the_float64_reference(played):
    _, (start, _), _, result = played
    opened, closed = FRAME["open"].to_numpy(), FRAME["close"].to_numpy()
    for name, trace in result.traces.items():
        rules = Rules(0.003, 1e-4, 1e-4, 0.2)
        expected = play(opened, closed, trace.level, start=start, initial_level=0.0, rules=rules)
        equity = np.cumprod(1 + np.asarray(trace.gain, np.float64))
        np.testing.assert_allclose(equity, expected["equity"], rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(trace.fill.cost, expected["cost"], rtol=1e-3, atol=1e-6)
        assert np.count_nonzero(trace.fill.traded) == np.count_nonzero(expected["traded"])


def test_matched_random_trades_as_the_policy_did(played):
    _, _, policy, result = played
    matched = result.traces["matched_random"]
    assert Counter(spells(matched.level.tolist())) == Counter(spells(policy.level.tolist()))
    assert np.count_nonzero(matched.fill.traded) == np.count_nonzero(policy.fill.traded)
    assert (matched.level != policy.level).any()
    luck = result.luck
    assert luck.growth == pytest.approx(np.log1p(policy.gain.astype(np.float64)).sum(), abs=1e-6)
    grown = np.log1p(matched.gain.astype(np.float64)).sum()
    assert grown == sorted(luck.accounts)[compare.RANDOM_ACCOUNTS // 2]


def test_where_the_policy_lies_among_its_own_orders(played):
    data, _, policy, result = played
    own = np.asarray(policy.level, np.float64)
    rng = np.random.default_rng(0)
    rng.choice(np.asarray(LEVELS), size=(compare.RANDOM_ACCOUNTS, own.size))  # those of "random" come first
    rows = baselines.shuffled_spells(own, rng, accounts=compare.RANDOM_ACCOUNTS)
    backtest = make_path_backtest(ENV)
    growth = [
        np.log1p(np.asarray(backtest(jnp.asarray(row, jnp.float32), data.env_params).gain, np.float64)).sum()
        for row in rows
    ]
    less = sum(one < result.luck.growth for one in growth)
    assert 0 < less < len(growth)
    assert result.luck.below == pytest.approx(less / 101)
    assert result.luck.p_value == pytest.approx((1 + 101 - less) / 102)


def test_one_who_sees_the_future_beats_every_order_and_one_who_holds_none(played):
    data, _, _, result = played
    for name, below, p_value in (("hindsight", 1.0, 1 / 102), ("buy_and_hold", 0.0, 1.0), ("flat", 0.0, 1.0)):
        luck = compare.play_baselines(data, ENV, seed=0, policy=result.traces[name]).luck
        assert (luck.below, luck.p_value) == (below, pytest.approx(p_value))


def test_without_closes_the_warm_up_falls_into_the_slice(played):
    data, (start, stop), _, result = played
    traces = compare.play_baselines(data, ENV, seed=0).traces
    assert "matched_random" not in traces
    seen = data.lookback - 1  # bars before the first decision that the slice brings
    assert not traces["momentum"].level[: 60 - seen].any()
    assert traces["momentum"].level[60 - seen] != 0.0
    for name in ("moving_average_cross", "momentum"):
        np.testing.assert_array_equal(traces[name].level[60:], result.traces[name].level[60:])
    for name in ("buy_and_hold", "random", "hindsight"):
        np.testing.assert_array_equal(traces[name].gain, result.traces[name].gain)
    assert stop - start > 100


def test_closes_of_other_bars_are_refused(played):
    data, (start, stop), *_ = played
    close = FRAME["close"].to_numpy()
    for wrong in (np.append(close[:stop], close[stop - 1] * 1.001), close[: stop - 1]):
        with pytest.raises(ValueError, match=r"close does not move as the slice does .* and none after"):
            compare.play_baselines(data, ENV, seed=0, close=wrong)
    with pytest.raises(ValueError, match="give every bar up to its last"):
        compare.play_baselines(data, ENV, seed=0, close=close[start + 1 : stop])


def test_rules_of_a_range_take_tenths():
    data, (_, stop) = prepared().slices["test"], prepared().split.test
    env = make_single(actions=actions.continuous(low=-0.45, high=1.0), episode_bars=64)
    wave = jnp.asarray(np.sin(np.arange(data.num_steps) / 9.0), jnp.float32)
    policy = jax.device_get(make_path_backtest(env)(wave, data.env_params))
    result = compare.play_baselines(data, env, seed=0, close=FRAME["close"].to_numpy()[:stop], policy=policy)
    tenths = {round(0.1 * k, 1) for k in range(11)}
    assert {round(float(level), 6) for level in result.traces["inverse_volatility"].level} <= tenths
    assert set(result.traces["momentum"].level.tolist()) <= {float(np.float32(-0.45)), 0.0, 1.0}
    matched = result.traces["matched_random"]
    np.testing.assert_array_equal(np.sort(matched.level), np.sort(policy.level))
    assert (matched.level != policy.level).any()


@pytest.fixture(scope="module")
def instruments():
    rng = np.random.default_rng(11)
    closed = 50 * np.exp(np.cumsum(rng.normal(0, [0.01, 0.02, 0.04], (80, 3)), axis=0))
    opened = np.concatenate([closed[:1], closed[:-1]]) * np.exp(rng.normal(0, 0.003, (80, 3)))
    return opened, closed


def play_weights(opened, closed, path, first):
    market = make_portfolio_market(opened, closed, window=None)
    costs = make_costs(fee_rate=2e-3, half_spread=5e-4, slippage=1e-4)
    params = make_portfolio_params(market, costs, first=first, stop=len(closed))
    env = make_portfolio(num_instruments=closed.shape[1], episode_bars=8)
    return make_weights_backtest(env)(jnp.asarray(path, jnp.float32), params)


@pytest.mark.parametrize("rebalance", [None, 1, 7])
def test_equal_weights_equal_a_float64_loop(instruments, rebalance):
    opened, closed = instruments
    path = baselines.equal_weight(70, 3, rebalance=rebalance)
    np.testing.assert_allclose(path, 1 / 3, rtol=2e-7)
    trace = play_weights(opened, closed, path, 9)
    cash, units, curve = 1.0, np.zeros(3), []
    for n in range(70):
        price = opened[10 + n]
        if n == 0 or (rebalance is not None and n % rebalance == 0):
            wanted = (cash + units @ price) / 3 / price
            paid = np.abs(wanted - units) * price
            worse = price * (1 + 6e-4 * np.sign(wanted - units))
            cash -= (wanted - units) @ worse + 2e-3 * np.abs(wanted - units) @ worse
            units = wanted
            assert paid.any()
        curve.append(cash + units @ closed[10 + n])
    np.testing.assert_allclose(np.cumprod(1 + np.asarray(trace.gain, np.float64)), curve, rtol=1e-5)
    trades = 1 if rebalance is None else -(-70 // rebalance)
    assert np.count_nonzero(np.asarray(trace.fill.traded).any(axis=1)) == trades


def test_inverse_volatility_weights_equal_a_loop_and_the_reference_account(instruments):
    opened, closed = instruments
    returns = np.concatenate([np.zeros((1, 3)), closed[1:] / closed[:-1] - 1])
    path = baselines.inverse_volatility_weights(returns, window=10, rebalance=5)
    kept = np.zeros(3)
    for n in range(80):
        if n >= 9 and (n - 9) % 5 == 0:
            kept = np.array([1 / statistics.stdev(returns[n - 9 : n + 1, a]) for a in range(3)])
            kept /= kept.sum()
        np.testing.assert_allclose(path[n], kept, rtol=1e-12)
    assert path[79, 0] > 1.5 * path[79, 1] > 2.0 * path[79, 2] > 0
    trace = play_weights(opened, closed, path[:79], 0)
    bars = portfolio_reference.Bars(opened, closed, np.ones((80, 3), bool), np.zeros(80))
    rules = portfolio_reference.Rules(fee_rate=2e-3, half_spread=5e-4, slippage=1e-4)
    asked = path[:79].astype(np.float32)
    expected = portfolio_reference.play(bars, asked, start=0, initial=np.zeros(3), rules=rules)
    np.testing.assert_allclose(
        np.cumprod(1 + np.asarray(trace.gain, np.float64)), expected["equity"], rtol=1e-5
    )
    np.testing.assert_allclose(trace.exposure, expected["exposure"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(trace.fill.cost, expected["cost"], rtol=1e-3, atol=1e-7)
    np.testing.assert_array_equal(trace.level, asked)


def test_later_returns_change_no_bit_of_the_weights(instruments):
    returns = np.diff(np.log(instruments[1]), axis=0)
    whole = baselines.inverse_volatility_weights(returns, window=10)
    for n in (8, 9, 40, 77):
        later = returns.copy()
        later[n + 1 :] *= 3.0
        np.testing.assert_array_equal(
            baselines.inverse_volatility_weights(later, window=10)[: n + 1], whole[: n + 1]
        )


def test_an_instrument_that_stands_still_gets_nothing():
    returns = np.zeros((12, 2))
    returns[:, 1] = np.resize([0.01, -0.01], 12)
    path = baselines.inverse_volatility_weights(returns, window=4)
    np.testing.assert_allclose(path[3:], np.tile([0.0, 1.0], (9, 1)))
    assert not baselines.inverse_volatility_weights(returns[:, :1], window=4).any()


def test_a_ruined_portfolio_stays_closed():
    closed = np.array([[10.0, 10.0], [10.0, 10.0], [0.5, 0.5], [5.0, 5.0], [50.0, 50.0]])
    trace = play_weights(closed, closed, np.full((4, 2), 0.5), 0)
    assert np.asarray(trace.ruined).tolist() == [False, True, True, True]
    for series in (trace.gain, trace.exposure, trace.fill.traded, trace.level):
        assert not np.asarray(series)[2:].any()
