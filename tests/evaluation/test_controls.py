"""Controls: shuffled markets against float64 cash and units, and what noise, skill and a leak must give."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from envs import actions
from envs.single import make_single
from envs.types import Lots
from tests.envs.reference import Rules, play
from ztb_jax.data import synthetic, validate
from ztb_jax.data.frame import PRICES, as_frame
from ztb_jax.data.market import make_costs, make_market, make_market_data
from ztb_jax.errors import DataError
from ztb_jax.evaluation import controls, significance, stress
from ztb_jax.evaluation.backtest import make_path_backtest
from ztb_jax.evaluation.edge import judge_edge
from ztb_jax.features import recipe

ENV = make_single(episode_bars=64)
YEAR = {"bars_per_year": 252.0}
FEES = {"fee_rate": 5e-4, "half_spread": 1e-4, "slippage": 1e-4}


def gapped(num=401, seed=0, phi=0.4):
    """AR(1) bars whose opens differ from the closes before."""
    frame = synthetic.ar1(seed, num, phi=phi)
    move = np.random.default_rng(seed).normal(0.0, 0.003, num)
    frame["open"] = frame["open"] * np.exp(move)
    frame["high"], frame["low"] = (
        np.maximum(frame["high"], frame["open"]),
        np.minimum(frame["low"], frame["open"]),
    )
    return frame


def sliced(frame, *, market=None, start=0, costs=None, **rules):
    return make_market_data(
        frame,
        np.zeros((len(frame), 1)),
        costs=make_costs(**(FEES if costs is None else costs)),
        market=market,
        start=start,
        **rules,
    )


def follower(frame, start=0):
    """[N] the sign of the last return, where it is large enough to pay for trading."""
    returns = frame["close"].pct_change().fillna(0.0).to_numpy()
    return np.where(np.abs(returns) > 0.004, np.sign(returns), 0.0)[start:-1]


def orders_of(rng, first, last, block, draws):
    """The bars whose moves are met, as they were and in each draw."""
    moves = list(range(first, last))
    yield moves
    blocks = [moves[i : i + block] for i in range(0, len(moves), block)]
    for _ in range(draws):
        yield [move for place in rng.permutation(len(blocks)) for move in blocks[place]]


def compounded(gap, body, path):
    """[N] returns of `path` on bars of these moves, in cash and units."""
    close = 100.0
    opens, closes = [np.nan], [close]
    for across, inside in zip(gap, body, strict=True):
        opens.append(close * across)
        close = opens[-1] * inside
        closes.append(close)
    rules = Rules(5e-4, 1e-4, 1e-4, 0.1)
    played = play(np.array(opens), np.array(closes), path, start=0, initial_level=0.0, rules=rules)
    assert len(played["reward"]) == len(path), "ruined: the oracle stops there"
    return np.expm1(played["reward"])


def test_each_draw_is_the_path_on_its_own_market_in_cash_and_units():
    frame, start = gapped(), 30
    path = follower(frame, start)
    found = controls.shuffled(path, sliced(frame, start=start), ENV, **YEAR, seed=3, draws=4, block=15)
    opened, closed = (frame[name].to_numpy() for name in ("open", "close"))
    gap, body = opened[1:] / closed[:-1], closed[1:] / opened[1:]
    seen = []
    for order in orders_of(np.random.default_rng(3), start, len(frame) - 1, 15, 4):
        gains = [compounded(gap[order], body[order], levels) for levels in (path, np.ones_like(path))]
        seen.append((significance.alpha_test(*gains).t, judge_edge(*gains, trials=1, **YEAR).label == "edge"))
    (own, _), *others = seen
    np.testing.assert_allclose(found.t, own, rtol=1e-3)
    assert found.edges == sum(edge for _, edge in others)
    assert found.p_value == (1 + sum(t >= own for t, _ in others)) / 5
    assert (found.draws, found.share) == (4, found.edges / 4)


def many_accounts(frame, first, lengths):
    """[2, N] levels in each of the stretches that follow one another from bar `first` on."""
    for length in lengths:
        path = follower(frame)[first : first + length]
        yield np.stack([path, np.where(np.arange(length) % 40 < 20, path, 0.0)])
        first += length


@pytest.mark.parametrize("at_once", [2**24, 2_500])
def test_accounts_share_their_draws_and_bars_leave_their_stretch(monkeypatch, at_once):
    frame, first, draws = gapped(), 30, 6
    levels = list(many_accounts(frame, first, (150, 90, 130)))
    opened, closed = (frame[name].to_numpy() for name in ("open", "close"))
    gap, body = opened[1:] / closed[:-1], closed[1:] / opened[1:]
    histories = []
    for order in orders_of(np.random.default_rng(5), first, 400, 20, draws):
        ours, held, begin = [], [], 0
        for accounts in levels:
            count = accounts.shape[1]
            moves = order[begin : begin + count]
            one, two, three = (
                compounded(gap[moves], body[moves], each) for each in (*accounts, np.ones(count))
            )
            money = (np.cumprod(1.0 + one) + np.cumprod(1.0 + two)) / 2.0
            ours.append(np.diff(money, prepend=1.0) / np.append(1.0, money[:-1]))
            held.append(three)
            begin += count
        histories.append((np.concatenate(ours), np.concatenate(held)))
    own, *others = (significance.alpha_test(*each).t for each in histories)
    monkeypatch.setattr(controls, "MOST_PLAYED", at_once)
    data = sliced(frame, start=first)
    found = controls.shuffled_accounts(levels, data, ENV, **YEAR, seed=5, draws=draws, block=20)
    np.testing.assert_allclose(found.t, own, rtol=1e-3)
    assert found.p_value == (1 + sum(t >= own for t in others)) / (1 + draws)
    assert found.edges == sum(judge_edge(*each, trials=1, **YEAR).label == "edge" for each in histories[1:])


def test_exposure_that_differs_between_stretches_is_lost_in_the_shuffle():
    """Long in the stretches that rise: bars that stayed in theirs would keep that profit in every draw."""
    rng, rises = np.random.default_rng(2), np.array([1, -1, 1, 1, -1, -1, 1, -1])
    returns = rng.normal(0.0, 0.01, 1_000) + 0.002 * np.repeat(rises, 125)
    close = 100.0 * np.cumprod(np.append(1.0, 1.0 + returns))
    opened = np.append(close[0], close[:-1])
    bars = {"open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close)}
    stamps = pd.date_range("2020-01-01", periods=1_001, freq="1h")
    frame = as_frame(stamps, {**bars, "close": close, "volume": np.ones(1_001)})
    data = sliced(frame, costs={name: 0.0 for name in FEES})
    levels = [np.full((1, 125), float(rise > 0)) for rise in rises]
    found = controls.shuffled_accounts(levels, data, ENV, **YEAR, seed=0)
    assert found.p_value == 1 / 101
    assert not found.contradicts


def test_accounts_are_refused_as_a_path_is():
    data = sliced(gapped())
    with pytest.raises(ValueError, match="has 399 levels and the slice 400 steps"):
        controls.shuffled_accounts([np.zeros((2, 30)), np.zeros((2, 369))], data, ENV, **YEAR, seed=0)
    with pytest.raises(ValueError, match="half of the 400 bars"):
        controls.shuffled_accounts([np.zeros((2, 400))], data, ENV, **YEAR, seed=0, block=201)


def test_skill_is_lost_in_the_shuffle_and_chance_is_not_found():
    frame = gapped(801)
    data, path = sliced(frame, costs={name: 0.0 for name in FEES}), follower(frame)
    gains = [
        make_path_backtest()(jnp.asarray(p, jnp.float32), data.env_params).gain for p in (path, path * 0 + 1)
    ]
    assert judge_edge(*map(np.asarray, gains), trials=1, **YEAR).label == "edge"
    found = controls.shuffled(path, data, ENV, **YEAR, seed=0)
    assert found.draws == 100
    assert found.edges <= found.allowed == 11
    assert not found.contradicts
    assert found.p_value == 1 / 101
    random = np.random.default_rng(5).choice([-1.0, 0.0, 1.0], path.size)
    lost = controls.shuffled(random, data, ENV, **YEAR, seed=0)
    assert lost.p_value > 0.05
    assert not lost.contradicts
    again = controls.shuffled(path, data, ENV, **YEAR, seed=0)
    assert found == again
    assert controls.shuffled(path, data, ENV, **YEAR, seed=1) != found


def test_edges_where_there_should_be_none_contradict():
    """Two blocks: half of the draws leave the bars as they were, so a true edge is found again."""
    frame = gapped(801)
    data = sliced(frame, costs={name: 0.0 for name in FEES})
    found = controls.shuffled(follower(frame), data, ENV, **YEAR, seed=0, draws=40, block=400)
    assert found.edges > found.allowed
    assert found.contradicts


def test_a_path_that_never_trades_has_no_alpha_to_rank():
    found = controls.shuffled(np.zeros(400), sliced(gapped()), ENV, **YEAR, seed=0, draws=2)
    assert np.isnan(found.t)
    assert np.isnan(found.p_value)
    assert found.edges == 0


def test_prices_and_rates_follow_the_bars_and_the_calendar_stays():
    frame = gapped(121)
    rates = (np.linspace(1.0, 1.2, 121), np.linspace(1.001, 1.21, 121))
    extra = {"half_spread": np.linspace(0.0, 1e-3, 121), "tradable": np.arange(121) % 7 != 0}
    whole = make_market(frame, inside=True, rates=rates, volatility_window=5, **extra)
    data = sliced(frame, market=whole, start=20)
    before = data.env_params.market
    order = np.random.default_rng(0).permutation(100)
    params = controls._reordered(data.env_params, np.stack([np.arange(100), order]))
    axes = controls._moving(before)
    after = params.market
    places = np.append(0, 1 + order)
    for name in ("gap", "body", "half_spread", "depth", "volatility"):
        table = np.asarray(getattr(before, name))
        np.testing.assert_array_equal(getattr(after, name), np.stack([table, table[places]]))
    for name in ("tradable", "years", "new_day"):
        assert getattr(after, name) is getattr(before, name)
        assert getattr(axes.market, name) is None
    prices = {name: np.asarray(getattr(after.prices, name), np.float64) for name in PRICES}
    for name in PRICES:
        np.testing.assert_allclose(prices[name][0], getattr(before.prices, name), rtol=2e-6)
    np.testing.assert_allclose(prices["close"][1, [0, -1]], frame["close"].to_numpy()[[20, -1]], rtol=2e-6)
    np.testing.assert_allclose(
        prices["open"][1, 1:] / prices["close"][1, :-1] - 1, after.gap[1, 1:], atol=1e-6
    )
    np.testing.assert_allclose(prices["close"][1] / prices["open"][1] - 1, after.body[1], atol=1e-6)
    assert (prices["high"] >= np.maximum(prices["open"], prices["close"])).all()
    assert (prices["low"] <= np.minimum(prices["open"], prices["close"])).all()
    money = after.conversion
    np.testing.assert_allclose(money.rate[0], before.conversion.rate, rtol=1e-5)
    closing = np.asarray(money.rate * (1 + money.body), np.float64)
    np.testing.assert_allclose(money.rate[1, 1:] / closing[1, :-1] - 1, money.gap[1, 1:], atol=1e-6)


def test_rules_that_look_at_prices_are_played_on_the_shuffled_ones():
    frame = gapped()
    data = sliced(
        frame,
        market=make_market(frame, inside=True),
        lots=Lots(jnp.float32(0.01)),
        capital=jnp.float32(1e4),
    )
    found = controls.shuffled(follower(frame), data, ENV, **YEAR, seed=0, draws=2)
    plain = controls.shuffled(follower(frame), sliced(frame), ENV, **YEAR, seed=0, draws=2)
    np.testing.assert_allclose(found.t, plain.t, rtol=0.01)
    assert found.p_value == plain.p_value


def test_wrong_shuffles_are_refused():
    data = sliced(gapped(121))
    for wrong in ({"block": 0}, {"block": 61}, {"draws": 0}):
        with pytest.raises(ValueError, match=r"block .* draws"):
            controls.shuffled(np.zeros(120), data, ENV, **YEAR, seed=0, **wrong)
    with pytest.raises(ValueError, match="119 levels and the slice 120 steps"):
        controls.shuffled(np.zeros(119), data, ENV, **YEAR, seed=0)
    with pytest.raises(ValueError, match="at least 100"):
        controls.shuffled(np.zeros(99), data, ENV, **YEAR, seed=0)
    with pytest.raises(ValueError, match="not finite"):
        controls.shuffled(np.full(120, np.nan), data, ENV, **YEAR, seed=0)


def test_a_leak_is_an_edge_unless_the_slice_is_too_short_or_too_dear():
    found = controls.leak(sliced(gapped()), ENV, trials=100, **YEAR)
    assert found.label == "edge"
    assert found.trades > 100
    assert "can show an edge" in found.reason
    short = controls.leak(sliced(gapped(60)), ENV, trials=1, **YEAR)
    assert short.label == "inconclusive"
    assert "too short" in short.reason
    dear = controls.leak(sliced(gapped(), costs=FEES | {"fee_rate": 0.2}), ENV, trials=1, **YEAR)
    assert (dear.label, dear.trades) == ("no edge", 0)
    assert "costs are too high" in dear.reason


@pytest.mark.parametrize(
    "env", [ENV, make_single(levels=(0.5, 2.0)), make_single(actions=actions.continuous())]
)
def test_the_leaked_path_trades_where_a_bar_pays_for_a_round_trip(env):
    frame, start = gapped(200), 20
    spread = np.linspace(0.0, 5e-3, 200)
    market = make_market(frame, half_spread=spread, volatility_window=5)
    costs = FEES | {"volatility_slippage": 0.1}
    data = sliced(frame, market=market, start=start, costs=costs)
    path = controls.leak_path(data, env)
    returns = np.log(frame["close"]).diff().to_numpy()
    levels = env.levels or (-1.0, 1.0)
    for n, level in enumerate(path):
        bar = start + 1 + n
        cost = 7e-4 + spread[bar] + 0.1 * np.std(returns[bar - 5 : bar], ddof=1)
        body = frame["close"].iloc[bar] / frame["open"].iloc[bar] - 1
        worth = {one: one * body - 2 * abs(one) * cost for one in (0.0, *levels)}
        assert level == max(worth, key=worth.get)
    assert 0 < np.count_nonzero(path) < path.size


def test_a_leak_knows_the_bar_in_which_a_late_order_fills():
    late = make_single(episode_bars=64, max_latency=2)
    data = sliced(gapped())
    slow = data.replace(env_params=stress.delayed(data.env_params, 2))
    ahead = controls.leak_path(slow, late)
    np.testing.assert_array_equal(ahead, np.append(controls.leak_path(data, ENV)[2:], [0.0, 0.0]))
    assert controls.leak(slow, late, trials=1, **YEAR).label == "edge"


def moves(frame):
    opened, closed = frame["open"].to_numpy(), frame["close"].to_numpy()
    table = [np.append(1.0, opened[1:] / closed[:-1]), *(frame[name] / opened for name in PRICES[1:])]
    return np.column_stack([*table, frame["volume"]])


@pytest.mark.parametrize("block", [1, 10])
def test_shuffled_bars_are_the_same_bars_in_another_order(block):
    frame = gapped(305)
    other = controls.shuffle_bars(frame, seed=4, block=block)
    ours, theirs = moves(frame), moves(other)
    np.testing.assert_allclose(theirs[0], ours[0])
    places = 1 + np.array([np.abs(ours[1:] - row).sum(axis=1).argmin() for row in theirs[1:]])
    np.testing.assert_allclose(theirs[1:], ours[places], rtol=1e-9)
    assert sorted(places) == list(range(1, 305))
    neighbours = np.mean(np.diff(places) == 1)
    assert neighbours < 0.05 if block == 1 else neighbours >= 1 - 31 / 303
    assert other.index.equals(frame.index)
    assert other.index.name == frame.index.name
    np.testing.assert_allclose(other.iloc[0], frame.iloc[0])
    np.testing.assert_allclose(other["close"].iloc[-1], frame["close"].iloc[-1], rtol=1e-10)
    assert not validate.broken_bars(other)
    assert other.equals(controls.shuffle_bars(frame, seed=4, block=block))
    assert not other.equals(controls.shuffle_bars(frame, seed=5, block=block))


def test_dependence_is_gone_with_the_order():
    returns = controls.shuffle_bars(gapped(4000), seed=0)["close"].pct_change().to_numpy()[1:]
    before = gapped(4000)["close"].pct_change().to_numpy()[1:]
    assert np.corrcoef(before[1:], before[:-1])[0, 1] > 0.3
    assert abs(np.corrcoef(returns[1:], returns[:-1])[0, 1]) < 4 / np.sqrt(4000)


def test_no_bar_is_broken_by_a_rounding():
    flat = as_frame(synthetic.ar1(0, 500).index, dict.fromkeys((*PRICES, "volume"), np.full(500, 0.1)))
    tops = gapped(500)
    tops["high"], tops["low"] = tops[["open", "close"]].max(axis=1), tops[["open", "close"]].min(axis=1)
    for frame in (flat, tops):
        other = controls.shuffle_bars(frame, seed=0)
        assert (other["high"] >= other[["open", "close"]].max(axis=1)).all()
        assert (other["low"] <= other[["open", "close"]].min(axis=1)).all()


def test_one_bar_has_one_order():
    frame = gapped(1)
    np.testing.assert_allclose(controls.shuffle_bars(frame, seed=0), frame)


def test_a_planted_leak_is_the_next_body():
    frame = gapped(80)
    features = recipe.compute("returns", frame)
    leaky = controls.plant_leak(features, frame)
    assert leaky.names == (*features.names, "next_body")
    np.testing.assert_array_equal(leaky.values[:, :-1], features.values)
    np.testing.assert_array_equal(leaky.valid, features.valid)
    for t in range(79):
        assert leaky.values[t, -1] == frame["close"].iloc[t + 1] / frame["open"].iloc[t + 1] - 1.0
    assert leaky.values[79, -1] == 0.0
    with pytest.raises(ValueError, match="leak"):
        controls.plant_leak(leaky, frame)
    with pytest.raises(ValueError, match="79"):
        controls.plant_leak(features, frame.iloc[1:])


def test_what_cannot_be_shuffled_is_refused():
    frame = gapped(20)
    with pytest.raises(ValueError, match=r"block \(0\).*\['sentiment'\]"):
        controls.shuffle_bars(frame.assign(sentiment=0.0), seed=0, block=0)
    with pytest.raises(DataError, match="not positive"):
        controls.shuffle_bars(frame.assign(open=0.0), seed=0)


@pytest.mark.parametrize(
    ("draws", "chance", "confidence"), [(100, 0.05, 0.99), (1, 0.05, 0.99), (400, 0.3, 0.9)]
)
def test_the_quantile_is_that_of_scipy(draws, chance, confidence):
    expected = stats.binom.ppf(confidence, draws, chance)
    assert significance.binomial_quantile(draws, chance, confidence) == expected
