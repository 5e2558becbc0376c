"""Every rule that the settings know reaches the simulator, the learner and the report."""

import math

import jax
import numpy as np
import pandas as pd
import pytest

from envs.single import Draw
from envs.types import Order
from ztb_jax import build
from ztb_jax.config import as_dict, layered, resolve
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market, make_market_data
from ztb_jax.errors import ConfigError, DataError
from ztb_jax.evaluation import compare
from ztb_jax.evaluation.backtest import make_path_backtest, make_policy_backtest
from ztb_jax.features import recipe
from ztb_jax.runs import directory
from ztb_jax.training.evaluate import saved_config

SMALL = {
    "features.recipe": "returns",
    "features.lookback": 4,
    "data.embargo_bars": 8,
    "env.episode_bars": 64,
    "policy.width": 8,
    "ppo.num_accounts": 32,
    "ppo.rollout_bars": 32,
    "ppo.num_minibatches": 2,
    "run.window_updates": 1,
    "run.total_env_steps": 2048,
}
RULES = {
    "env.levels": (-2.0, 0.0, 2.0),
    "env.stop_loss": 0.01,
    "env.take_profit": 0.03,
    "env.trail": 0.02,
    "env.max_position": 1.5,
    "env.volatility_target": 0.5,
    "env.max_leverage": 3.0,
    "env.borrow_rate": 0.01,
    "env.loan_rate": 0.02,
    "env.cash_rate": 0.005,
    "env.daily_loss": 0.05,
    "env.drawdown": 0.4,
    "env.latency": 1,
    "env.volatility_slippage": 0.1,
    "env.reward": "differential_sortino",
}
FREE = {"env.fee_rate": 0.0, "env.half_spread": 0.0, "env.slippage": 0.0}
FRAME = synthetic.gbm(1, 1500)


def prepared(config):
    return build.prepare(config, FRAME, recipe.compute("returns", FRAME))


def test_every_rule_reaches_the_parameters_and_nothing_else_does():
    market = prepared(resolve(environ={}, flags=SMALL)).slices["train"].env_params
    absent = ("margin", "financing", "limits", "latency", "lots", "capital")
    assert all(getattr(market, name) is None for name in absent)
    assert all(getattr(market.market, name) is None for name in ("prices", "scale", "cap", "volatility"))
    params = prepared(resolve(environ={}, flags=SMALL | RULES)).slices["train"].env_params
    assert float(params.margin.max_leverage) == 3.0
    assert float(params.margin.maintenance) == 0.25
    np.testing.assert_allclose(jax.tree.leaves(params.financing), [0.01, 0.02, 0.005])
    np.testing.assert_allclose(jax.tree.leaves(params.limits), [0.05, 0.4])
    assert int(params.latency) == 1
    assert float(params.costs.volatility_slippage) == np.float32(0.1)
    np.testing.assert_allclose(params.market.cap, 1.5)


def test_the_volatility_target_is_annual():
    config = resolve(environ={}, flags=SMALL | {"env.volatility_target": 0.2, "env.volatility_window": 50})
    data = prepared(config)
    _, stop = data.split.train
    scale = np.asarray(data.slices["train"].env_params.market.scale)
    returns = FRAME["close"].pct_change().to_numpy()
    bar = stop - 1
    annual = returns[bar - 49 : bar + 1].std(ddof=1) * math.sqrt(data.measured.bars_per_year)
    assert scale[-1] == pytest.approx(0.2 / annual, rel=1e-4)


def test_a_run_with_every_rule_trains_and_tells_every_fill():
    config = resolve(environ={}, flags=SMALL | RULES)
    data = prepared(config)
    env = build.make_environment(config, measured=data.measured)
    learner = build.make_learner(config, num_features=1, measured=data.measured)
    state = jax.jit(learner.init)(jax.random.key(0), data.slices["train"])
    state, metrics = jax.jit(learner.step)(state, data.slices["train"])
    assert all(np.isfinite(np.asarray(value)).all() for value in metrics.values())
    network = build.make_network(config, num_features=1)
    params = jax.tree.map(lambda leaf: 4 * leaf, network.init(jax.random.key(3)))
    test = data.slices["test"]
    trace = jax.device_get(make_policy_backtest(network, env)(params, test))
    gap, _ = compare.bars_of(test)
    account = compare.account_of(trace, gap)
    assert np.count_nonzero(account.traded[:, 1]) > 3, "no stop was ever hit: this shows nothing"
    numbers = compare.summarise(account, data.bars_per_year)
    assert numbers["num_trades"] == np.count_nonzero(account.traded)
    # What closes a holding inside a bar trades exactly what it holds there.
    closed = account.traded[:, 1] != 0
    np.testing.assert_array_equal(account.held[closed, 1], -account.traded[closed, 1])
    traces = compare.play_baselines(test, env, seed=0).traces
    assert np.abs(traces["buy_and_hold"].exposure).max() <= 1.5 * 1.2


def test_the_risk_adjusted_reward_has_the_weights_of_the_settings_and_the_market_s_year():
    flags = SMALL | {
        "env.reward": "risk_adjusted",
        "env.risk_adjusted.risk_penalty_weight": 0.5,
        "env.risk_adjusted.transaction_cost_weight": 3.0,
        "env.risk_adjusted.sharpe_target": 4.0,
        "env.risk_adjusted.max_drawdown_target": 0.01,
        "env.risk_adjusted.risk_free_rate": 0.1,
        "env.risk_adjusted.downside_volatility_weight": 7.0,
    }
    config = resolve(environ={}, flags=flags)
    data = prepared(config)
    year = data.measured.bars_per_year
    growth, adjusted = (
        rewards_of(build.make_environment(resolve(environ={}, flags=one), measured=data.measured), data)
        for one in (SMALL, flags)
    )
    gains, costs = np.expm1(growth["reward"]), growth["cost"]
    mean = square = peak = total = 0.0
    for step, (gain, cost) in enumerate(zip(gains, costs, strict=True)):
        mean, square = mean + 0.01 * (gain - mean), square + 0.01 * (gain**2 - square)
        missing = max(0.0, 4.0 * math.sqrt(max(square - mean**2, 0.0) / year) + 0.1 / year - mean)
        total += np.log1p(gain)
        peak = max(peak, total)
        depth = max(0.0, 1.0 - math.exp(total - peak) - 0.01)
        expected = np.log1p(gain) - 2.0 * cost - 0.5 * missing - 0.5 * depth / year
        expected -= 7.0 * 0.5 * min(gain - 0.1 / year, 0.0) ** 2
        assert adjusted["reward"][step] == pytest.approx(expected, rel=1e-3, abs=2e-6)
    assert np.abs(adjusted["reward"] - growth["reward"]).max() > 1e-4


@pytest.mark.parametrize(
    ("reward", "volatility", "more"),
    [
        ("differential_sharpe", 2e-5, {}),
        ("differential_sharpe", 0.01, {"env.levels": (-0.1, 0.0, 0.1)}),
        ("differential_sortino", 2e-4, {}),
        ("differential_sortino", 0.01, {"env.volatility_target": 0.1}),
    ],
)
def test_a_ratio_is_of_order_one_on_bars_of_every_length(reward, volatility, more):
    config = resolve(environ={}, flags=SMALL | FREE | {"env.reward": reward} | more)
    frame = synthetic.gbm(1, 1500, volatility=volatility)
    data = build.prepare(config, frame, recipe.compute("returns", frame))
    env = build.make_environment(config, measured=data.measured)
    rewards = rewards_of(env, data, np.random.default_rng(0).choice(config.env.levels, 500))["reward"]
    learnt = rewards * float(data.slices["train"].reward_scale)
    assert 0.3 < np.sqrt(np.square(learnt).mean()) < 5.0
    assert np.count_nonzero(learnt) > 450


def test_a_volatility_target_is_played_only_where_the_deviation_is_known():
    flags = SMALL | {"env.volatility_target": 0.2, "env.volatility_window": 400}
    data = prepared(resolve(environ={}, flags=flags))
    assert data.split.train[0] == 400
    for one in data.slices.values():
        assert (np.asarray(one.env_params.market.scale)[one.lookback - 1 :] > 0).all()
    env = build.make_environment(resolve(environ={}, flags=flags))
    traces = compare.play_baselines(data.slices["train"], env, seed=0).traces
    assert np.abs(traces["buy_and_hold"].exposure[1:]).min() > 0
    with pytest.raises(DataError, match=r"env.volatility_window \(1400\) leaves 100 of 1500 bars"):
        prepared(resolve(environ={}, flags=flags | {"env.volatility_window": 1400}))


def test_later_stamps_change_nothing_before():
    """A calendar that thins out later is not known to what is played before."""
    config = resolve(environ={}, flags=SMALL | {"env.volatility_target": 0.2, "env.borrow_rate": 0.01})
    one = build.prepare(config, FRAME, recipe.compute("returns", FRAME))
    for name in ("train", "validation"):
        stop = getattr(one.split, name)[1]
        moved = FRAME.copy()
        later = pd.to_timedelta(np.maximum(np.arange(len(FRAME)) - stop + 1, 0), unit="D")
        moved.index = (FRAME.index + later).rename("time")
        other = build.prepare(config, moved, recipe.compute("returns", moved))
        jax.tree.map(np.testing.assert_array_equal, one.slices[name], other.slices[name])
        assert one.measured == other.measured
        assert one.bars_per_year != other.bars_per_year


def rewards_of(env, data, levels=None):
    """Rewards and costs of the first bars with levels that change."""
    params = data.slices["train"].env_params
    state = env.begin(Draw(params.first, np.float32(0)), params)
    levels = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 64) if levels is None else levels
    levels = levels.astype(np.float32)

    def step(state, level):
        state, out = env.advance(state, Order(level=level), params)
        return state, {"reward": out.reward, "cost": out.fill.cost}

    return jax.tree.map(np.float64, jax.device_get(jax.jit(lambda: jax.lax.scan(step, state, levels)[1])()))


def test_annual_targets_need_to_know_the_year():
    config = resolve(environ={}, flags=SMALL | {"env.reward": "risk_adjusted"})
    with pytest.raises(ValueError, match="bars_per_year"):
        build.make_environment(config)
    data = prepared(config)
    learner = build.make_learner(config, num_features=1, measured=data.measured)
    state = jax.jit(learner.init)(jax.random.key(0), data.slices["train"])
    _, metrics = jax.jit(learner.step)(state, data.slices["train"])
    assert np.isfinite(float(metrics["reward"]))


def test_more_leverage_than_the_margin_allows_is_a_contradiction():
    with pytest.raises(ConfigError, match=r"env.max_leverage \(5.0\) meets env.maintenance"):
        resolve(environ={}, flags={"env.max_leverage": 5.0, "env.maintenance": 0.2})


@pytest.mark.parametrize(
    ("flags", "remedy"),
    [
        ({"env.latency": 64, "env.episode_bars": 64}, r"env.latency \(64\) lets no order arrive"),
        ({"env.latency": 100, "env.episode_bars": 64}, r"env.latency \(100\) lets no order arrive"),
        ({"env.levels": (-2.0, 0.0, 1.0), "env.max_leverage": 1.5}, "raise it to 2 or keep levels within it"),
    ],
)
def test_rules_that_undo_each_other_are_refused_with_the_remedy(flags, remedy):
    with pytest.raises(ConfigError, match=remedy):
        resolve(environ={}, flags=flags)


def test_what_a_rule_leaves_to_do_is_no_contradiction():
    resolve(environ={}, flags={"env.latency": 63, "env.episode_bars": 64})
    resolve(environ={}, flags={"env.levels": (-2.0, 0.0, 2.0), "env.max_leverage": 2.0})
    targets = {"env.levels": (0.0, 5.0), "env.max_leverage": 2.0, "env.volatility_target": 0.1}
    resolve(environ={}, flags=targets)


def test_a_run_of_a_combination_refused_since_is_still_judged(tmp_path):
    old = layered(environ={}, flags={"env.loan_rate": 0.05, "env.volatility_window": 30})
    run = directory.create(str(tmp_path), "old", as_dict(old))
    assert saved_config(run) == old


@pytest.mark.parametrize(
    ("flag", "value", "needed"),
    [
        ("env.loan_rate", 0.05, {"env.levels": (0.0, 2.0)}),
        ("env.loan_rate", 0.05, {"env.volatility_target": 0.2}),
        ("env.maintenance", 0.3, {"env.max_leverage": 2.0}),
        ("env.volatility_window", 30, {"env.volatility_slippage": 0.1}),
        ("env.risk_adjusted.sharpe_target", 1.0, {"env.reward": "risk_adjusted"}),
    ],
)
def test_a_setting_that_nothing_reads_is_a_contradiction(flag, value, needed):
    with pytest.raises(ConfigError, match="is read only with"):
        resolve(environ={}, flags={flag: value})
    resolve(environ={}, flags={flag: value} | needed)


def test_a_market_takes_what_it_is_asked_for_and_refuses_the_rest():
    market = make_market(FRAME, inside=True, tick=0.5, volatility_window=10, cap=np.ones(len(FRAME)))
    assert np.isin(np.asarray(market.prices.high) * 2 % 1, 0).all()
    moves = np.log(FRAME["close"]).diff().to_numpy()
    assert float(market.volatility[200]) == pytest.approx(moves[190:200].std(ddof=1), rel=1e-4)
    stamps = FRAME.index
    np.testing.assert_array_equal(
        market.new_day, np.append(True, stamps.normalize()[1:] != stamps.normalize()[:-1])
    )
    elapsed = (stamps[7] - stamps[6]).total_seconds() / (365.25 * 86400)
    assert float(market.years[7]) == pytest.approx(elapsed, rel=1e-5)
    np.testing.assert_allclose(market.depth, FRAME["volume"] * FRAME["close"], rtol=1e-6)
    with pytest.raises(ValueError, match="colour is not one of"):
        make_market(FRAME, colour=np.ones(len(FRAME)))
    with pytest.raises(ValueError, match=r"cap has shape \(3,\)"):
        make_market(FRAME, cap=np.ones(3))
    with pytest.raises(ValueError, match="impact is -1"):
        make_costs(fee_rate=0.0, half_spread=0.0, slippage=0.0, impact=-1.0)


def test_profits_are_converted_when_they_arise():
    """A dollar account long of USDJPY: the holding stays worth a dollar, its profit arises in yen."""
    bars = FRAME.iloc[:200]
    rates = tuple(1.0 / bars[name].to_numpy() for name in ("open", "close"))
    market = make_market(bars, rates=rates)
    data = make_market_data(
        bars,
        np.zeros((200, 1)),
        costs=make_costs(fee_rate=0.0, half_spread=0.0, slippage=0.0),
        market=market,
    )
    config = resolve(environ={}, flags=SMALL)
    env = build.make_environment(config)
    trace = make_path_backtest(env)(np.ones(199, np.float32), data.env_params)
    opened, closed = bars["open"].to_numpy(), bars["close"].to_numpy()
    dollars, equity = 1.0, 1.0 + (closed[1] - opened[1]) / closed[1]
    for n in range(2, 200):
        equity += dollars * ((opened[n] - closed[n - 1]) / opened[n] + (closed[n] - opened[n]) / closed[n])
    grown = np.exp(np.log1p(np.asarray(trace.gain, np.float64)).sum())
    assert grown == pytest.approx(equity, rel=1e-5)
