"""Every variant against a plain backtest under its own conditions, and against float64 cash and units."""

import functools
import math
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import actions
from envs.single import make_single
from tests.envs.reference import Rules, play
from tests.ppo.cases import unsettled
from tests.test_build import FLAGS, FRAME
from ztb_jax import build
from ztb_jax.config import resolve
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market, make_market_data
from ztb_jax.evaluation import compare, metrics, stress
from ztb_jax.evaluation.backtest import make_policy_backtest
from ztb_jax.features import recipe
from ztb_jax.policies import transforms
from ztb_jax.policies.distributions import distribution_for
from ztb_jax.policies.moments import Moments
from ztb_jax.policies.policy import make_policy

KEY = jax.random.key(7)
SETTINGS = {
    "plain": {},
    "rules and memories": {
        "env.stop_loss": 0.02,
        "env.fee_rate": 3e-4,
        "env.drawdown": 0.9,
        "env.daily_loss": 0.08,
        "env.latency": 1,
        "env.volatility_slippage": 0.01,
        "policy.memory": 4,
        "policy.normalise_observations": True,
        "policy.value_scale": "popart",
    },
    "any exposure": {"policy.head": "squashed_gaussian", "env.volatility_target": 0.5, "env.band": 0.05},
}


@functools.cache
def tried(name):
    """(config, prepared, policy, weights, stress, its trace on the validation slice)."""
    config = resolve(environ={}, flags=FLAGS | SETTINGS[name])
    prepared = build.prepare(config, FRAME, recipe.compute("returns", FRAME))
    policy = build.make_network(config, num_features=1)
    env = build.make_environment(config, extra_latency=2)
    assert env.account_size == build.make_environment(config).account_size
    tested = stress.make_stress(policy, env, draws=2)
    weights = unsettled(policy)
    trace = jax.device_get(tested.run(weights, prepared.slices["validation"], KEY))
    return config, prepared, policy, weights, tested, trace


def part(name, variant):
    *_, tested, trace = tried(name)
    return stress.variant_of(trace, tested.names.index(variant))


def plain(name, *, late=0, key=None, **costs):
    """A backtest of its own: an environment with exactly this latency, these costs, these weights."""
    config, prepared, policy, weights, *_ = tried(name)
    env = build.make_environment(config, extra_latency=late)
    data = prepared.slices["validation"]
    params = data.env_params
    if late:
        own = 0 if params.latency is None else int(params.latency)
        params = params.replace(latency=jnp.int32(own + late))
    params = params.replace(costs=params.costs.replace(**{k: jnp.float32(v) for k, v in costs.items()}))
    weights = weights if key is None else stress.jittered(key, weights, size=0.02)
    return jax.device_get(make_policy_backtest(policy, env)(weights, data.replace(env_params=params)))


def assert_same(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), ours, theirs)
    assert np.count_nonzero(ours.fill.traded) > 10, "nothing was decided"


def test_the_variants_have_names_and_their_place():
    *_, tested, trace = tried("plain")
    costs = ("costs_x0", "costs_x1", "costs_x2", "costs_x5")
    others = ("latency_plus_1", "latency_plus_2", "slippage_plus_5bp", "slippage_plus_10bp")
    assert tested.names == (*costs, *others, "jitter_1", "jitter_2")
    assert {leaf.shape[0] for leaf in jax.tree.leaves(trace)} == {10}


@pytest.mark.parametrize("name", SETTINGS)
def test_costs_times_one_are_the_plain_backtest(name):
    assert_same(part(name, "costs_x1"), plain(name))


def test_latency_is_added_to_that_of_the_settings():
    assert_same(part("rules and memories", "latency_plus_2"), plain("rules and memories", late=2))


def test_costs_and_slippage_are_those_of_a_backtest_with_them():
    name = "rules and memories"
    double = {"fee_rate": 6e-4, "half_spread": 2e-4, "slippage": 2e-4, "volatility_slippage": 0.02}
    assert_same(part(name, "costs_x2"), plain(name, **double))
    assert_same(part(name, "slippage_plus_5bp"), plain(name, slippage=6e-4))


def test_each_jitter_is_a_backtest_of_its_own_weights():
    keys = jax.random.split(KEY, 2)
    for draw in (1, 2):
        assert_same(
            part("rules and memories", f"jitter_{draw}"), plain("rules and memories", key=keys[draw - 1])
        )
    first, second = (part("rules and memories", f"jitter_{draw}") for draw in (1, 2))
    assert not np.array_equal(first.gain, second.gain)


@pytest.mark.parametrize(
    ("variant", "late", "rules"),
    [
        ("costs_x0", 0, Rules(0.0, 0.0, 0.0, 0.2)),
        ("costs_x5", 0, Rules(0.015, 5e-4, 5e-4, 0.2)),
        ("slippage_plus_10bp", 0, Rules(0.003, 1e-4, 1.1e-3, 0.2)),
        ("latency_plus_1", 1, Rules(0.003, 1e-4, 1e-4, 0.2)),
        ("latency_plus_2", 2, Rules(0.003, 1e-4, 1e-4, 0.2)),
    ],
)
def test_the_account_is_that_of_cash_and_units(variant, late, rules):
    _, prepared, *_ = tried("plain")
    trace = part("plain", variant)
    path = np.concatenate([np.zeros(late), trace.level[: trace.level.size - late]])
    opened, closed = FRAME["open"].to_numpy(), FRAME["close"].to_numpy()
    start, _ = prepared.split.validation
    expected = play(opened, closed, path, start=start, initial_level=0.0, rules=rules)
    n = len(expected["equity"])
    assert n > 100
    np.testing.assert_allclose(np.cumprod(1.0 + trace.gain.astype(float))[:n], expected["equity"], rtol=1e-4)
    np.testing.assert_allclose(trace.fill.cost[:n], expected["cost"], rtol=1e-3, atol=1e-6)


def small(env=None, policy=None, **choices):
    """A stress test that compiles fast."""
    policy = (
        make_policy(num_features=1, account_size=2, num_actions=3, width=4, lookback=1)
        if policy is None
        else policy
    )
    env = make_single(episode_bars=8, max_latency=1) if env is None else env
    chosen = {"costs": (1.0,), "latency": (), "slippage": (), "draws": 0}
    return policy, stress.make_stress(policy, env, **chosen | choices)


def bars(num=40, *, market=None, **costs):
    frame = synthetic.ar1(3, num)
    features = 100.0 * frame["close"].pct_change().fillna(0.0).to_numpy()[:, None]
    costs = {"fee_rate": 1e-3, "half_spread": 0.0, "slippage": 0.0} | costs
    return make_market_data(frame, features, costs=make_costs(**costs), market=market)


def test_no_jitter_is_the_base_and_one_key_is_one_result():
    policy, tested = small(draws=2, jitter=0.0)
    weights = unsettled(policy)
    trace = tested.run(weights, bars(), KEY)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, leaf[:1].repeat(3, 0)), trace)
    policy, tested = small(draws=2, jitter=0.5)
    first, again, other = (tested.run(weights, bars(), key) for key in (KEY, KEY, jax.random.key(8)))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    np.testing.assert_array_equal(first.gain[0], other.gain[0])
    assert not np.array_equal(first.gain[1:], other.gain[1:])


def test_shaken_weights_read_the_bars_their_own_way():
    env = make_single(actions=actions.continuous(), episode_bars=8)
    family = distribution_for(env.actions, "squashed_gaussian")
    policy = make_policy(num_features=1, account_size=2, distribution=family, width=4, lookback=1)
    _, tested = small(env, policy, draws=3, jitter=0.5)
    weights, backtest = unsettled(policy), make_policy_backtest(policy, env)
    trace = tested.run(weights, bars(), KEY)
    for draw, key in enumerate(jax.random.split(KEY, 3), start=1):
        shaken = stress.jittered(key, weights, size=0.5)
        for name in ("encoder", "head"):
            half = backtest(weights | {name: shaken[name]}, bars())
            assert not np.allclose(half.level, trace.level[draw], atol=0.01), "too alike to tell apart"
        assert_same(stress.variant_of(trace, draw), backtest(shaken, bars()))


def test_jitter_moves_every_weight_by_its_share_and_no_statistic():
    policy = make_policy(num_features=1, account_size=2, num_actions=3, width=64, lookback=8)
    policy = transforms.popart_values(transforms.normalised(policy, num_features=1, account_size=2))
    weights = unsettled(policy) | {"steps": jnp.arange(3)}
    moved = stress.jittered(KEY, weights, size=0.1)
    jax.tree.map(np.testing.assert_array_equal, moved["seen"], weights["seen"])
    jax.tree.map(np.testing.assert_array_equal, moved["returns"], weights["returns"])
    assert isinstance(moved["returns"], Moments)
    np.testing.assert_array_equal(moved["steps"], weights["steps"])
    trained = ("encoder", "head")
    ratios = [
        np.asarray(after / before - 1.0).ravel()
        for name in trained
        for after, before in zip(*(jax.tree.leaves(tree[name]) for tree in (moved, weights)), strict=True)
    ]
    everything = np.concatenate(ratios)
    assert len(everything) > 4000
    np.testing.assert_allclose([everything.mean(), everything.std()], [0.0, 0.1], atol=0.005)
    assert np.unique(np.round(everything, 7)).size > 0.99 * everything.size, "noise is shared"


def test_bars_and_contexts_are_kept_once():
    policy, tested = small(costs=(0.0, 1.0, 2.0), latency=(1,), draws=1)
    data = bars(41)
    text = str(jax.make_jaxpr(tested.run)(unsettled(policy), data, KEY))
    assert "f32[41]" in text
    assert "f32[2,40," in text, "contexts are one for each set of weights"
    for shape in ("f32[5,41", "f32[5,40,4]", "f32[5,40,8]"):
        assert shape not in text


def test_every_price_of_a_trade_is_scaled_and_stays_below_one():
    costs = make_costs(
        fee_rate=0.3,
        half_spread=0.01,
        slippage=0.02,
        maker_rate=0.25,
        fee_per_lot=2.0,
        fee_minimum=3.0,
        volatility_slippage=0.5,
        impact=0.7,
        volume_cap=0.1,
    )
    scaled = stress.scaled_costs(costs, jnp.array([0.0, 1.0, 5.0]))
    for name, cost in vars(costs).items():
        expected = float(cost) * (np.ones(3) if name == "volume_cap" else np.array([0.0, 1.0, 5.0]))
        if name in {"fee_rate", "maker_rate"}:
            expected[2] = 1.0
        np.testing.assert_allclose(getattr(scaled, name), expected, rtol=1e-6)
    assert float(scaled.fee_rate[2]) < 1.0
    assert stress.scaled_costs(make_costs(fee_rate=0, half_spread=0, slippage=0), jnp.ones(2)).impact is None


def test_a_quoted_spread_is_a_cost_too():
    frame = synthetic.ar1(3, 40)
    quoted = np.linspace(0.0, 0.002, 40)
    policy, tested = small(costs=(1.0, 2.0))
    weights = unsettled(policy)
    trace = tested.run(weights, bars(market=make_market(frame, half_spread=quoted)), KEY)
    backtest = make_policy_backtest(policy, make_single(episode_bars=8))
    doubled = bars(market=make_market(frame, half_spread=2 * quoted), fee_rate=2e-3)
    assert_same(stress.variant_of(trace, 1), backtest(weights, doubled))


def test_without_room_for_latency_there_is_none():
    policy, tested = small(env=make_single(episode_bars=8), costs=(1.0, 2.0))
    weights = unsettled(policy)
    trace = tested.run(weights, bars(), KEY)
    assert_same(
        stress.variant_of(trace, 0),
        make_policy_backtest(policy, make_single(episode_bars=8))(weights, bars()),
    )


def test_wrong_numbers_are_refused_all_at_once():
    with pytest.raises(ValueError, match=r"costs .* latency .* slippage .* draws .* jitter") as told:
        small(costs=(-1.0,), latency=(0,), slippage=(0.0,), draws=-1, jitter=math.nan)
    assert str(told.value).count(";") >= 4
    with pytest.raises(
        ValueError, match=r"latency \(\(1, 2\)\) must be 1 to the environment's max_latency \(1\)"
    ):
        small(latency=(1, 2))
    with pytest.raises(ValueError, match="none twice"):
        small(costs=(1.0, 1.0))
    with pytest.raises(ValueError, match="must be a variant"):
        small(costs=())
    with pytest.raises(ValueError, match="2 actions and the environment 3"):
        small(policy=make_policy(num_features=1, account_size=2, num_actions=2, lookback=1))


def test_a_slice_that_is_late_itself_needs_more_room():
    policy, tested = small(latency=(1,))
    data = bars()
    data = data.replace(env_params=stress.delayed(data.env_params, 1))
    with pytest.raises(ValueError, match="max_latency of at least 2, not 1"):
        tested.run(unsettled(policy), data, KEY)


def test_the_summary_is_that_of_each_account():
    _, prepared, _, _, tested, trace = tried("plain")
    data = prepared.slices["validation"]
    told = stress.summary(tested, trace, data, bars_per_year=365.0)
    assert tuple(told) == tested.names
    for name, numbers in told.items():
        gain = part("plain", name).gain.astype(np.float64)
        equity = np.concatenate([[1.0], np.cumprod(1.0 + gain)])
        np.testing.assert_allclose(numbers["total_return"], equity[-1] - 1.0)
        np.testing.assert_allclose(numbers["sharpe"], metrics.sharpe(gain, 365.0))
        np.testing.assert_allclose(
            numbers["max_drawdown"], max(1 - equity[i] / equity[: i + 1].max() for i in range(equity.size))
        )
        assert numbers["num_trades"] == np.count_nonzero(part("plain", name).fill.traded)


def test_growth_beyond_any_number_is_none_and_ends_nothing():
    _, tested = small(costs=(0.0, 1.0))
    data = bars(700)
    zeros = np.zeros((2, 699), np.float32)
    *_, trace = tried("plain")
    trace = jax.tree.map(lambda leaf: zeros.astype(leaf.dtype), trace)
    trace = trace._replace(gain=np.stack([zeros[0] + 2.0, zeros[1] + 0.01]))
    told = stress.summary(tested, trace, data, bars_per_year=252.0)
    assert told["costs_x0"] == dict.fromkeys((*stress.SUMMARY, "p_loss"))
    np.testing.assert_allclose(told["costs_x1"]["total_return"], 1.01**699 - 1, rtol=1e-4)
    assert 699 * math.log(3.0) > compare.LARGEST_LOG_GROWTH


def test_the_multiple_of_costs_at_which_the_profit_is_gone():
    def linear(gross, cost, multiples=(0.0, 1.0, 2.0, 5.0)):
        return stress.breakeven_cost({m: math.expm1(gross - cost * m) for m in multiples})

    assert linear(0.3, 0.1) == pytest.approx(3.0)
    assert linear(0.3, 0.2, (5.0, 0.0, 1.0)) == pytest.approx(1.5)
    assert linear(0.2, 0.1) == pytest.approx(2.0)  # on a multiple itself
    assert linear(0.6, 0.1) is None
    assert linear(-0.1, 0.1) is None
    assert linear(0.0, 0.0) is None
    assert stress.breakeven_cost({0.0: 0.5, 5.0: -1.0}) == 0.0
    up_again = {0.0: 0.1, 1.0: -0.1, 2.0: 0.1, 5.0: -0.1}
    assert 0.0 < stress.breakeven_cost(up_again) < 1.0
    for wrong in ({0.0: 0.1}, {0.0: 0.1, 1.0: math.nan}, {-1.0: 0.1, 1.0: 0.0}, {0.0: 0.1, 1.0: -1.1}):
        with pytest.raises(ValueError, match="at least two multiples"):
            stress.breakeven_cost(wrong)


def test_p_loss_is_the_test_of_the_mean_turned_round():
    _, prepared, *_, tested, trace = tried("plain")
    told = stress.summary(tested, trace, prepared.slices["validation"], bars_per_year=252.0)
    for name, gain in zip(tested.names, np.asarray(trace.gain, np.float64), strict=True):
        lag = int(4 * (gain.size / 100) ** (2 / 9))
        moves = gain - gain.mean()
        variance = moves @ moves / gain.size
        for k in range(1, lag + 1):
            variance += 2 * (1 - k / (lag + 1)) * (moves[k:] @ moves[:-k]) / gain.size
        t = gain.mean() / math.sqrt(variance / gain.size)
        np.testing.assert_allclose(told[name]["p_loss"], NormalDist().cdf(t), rtol=1e-6)
