"""The portfolio environment against its float64 reference, and its invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from envs.ledger import Account, open_account
from envs.portfolio import Compliance, State, make_portfolio
from envs.portfolio_market import make_portfolio_market, make_portfolio_params
from envs.risk_limits import Exposures, RiskLimits
from envs.single import make_single
from envs.types import EnvParams, Financing, Order
from tests.envs.portfolio_reference import Bars, Limits, Rules, play
from ztb_jax.data import synthetic
from ztb_jax.data.align import align
from ztb_jax.data.market import make_costs, make_market

NAMES = (
    "EURUSD",
    "GBPUSD",
    "USDJPY",
    "XAUUSD",
    "BRENTCMDUSD",
    "USA500IDXUSD",
    "USATECHIDXUSD",
    "USA30IDXUSD",
)
GROUPS = np.array([0, 0, 0, 1, 1, 2, 2, 2])[:, None] == np.arange(3)
COSTS = {"fee_rate": 5e-4, "half_spread": 2e-4, "slippage": 1e-4}
STEPS = 256


def made_up(num_bars=1200, num=8) -> Bars:
    """Correlated instruments, each of which lacks a tenth of the bars."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal((num_bars, 3))[:, [0, 0, 0, 1, 1, 2, 2, 2][:num]]
    frames = {}
    for i in range(num):
        moves = 0.012 * (0.9 * common[:, i] + 0.4 * rng.standard_normal(num_bars))
        frame = synthetic.gbm(i, num_bars, timeframe="1d")
        closed = 50.0 * np.exp(np.cumsum(moves))
        gaps = np.exp(0.002 * rng.standard_normal(num_bars))
        frame["close"], frame["open"] = closed, np.concatenate([[50.0], closed[:-1]]) * gaps
        frames[str(i)] = frame[(rng.uniform(size=num_bars) < 0.9) | (np.arange(num_bars) == 0)]
    return as_bars(frames)


def as_bars(frames) -> Bars:
    aligned = align(frames)
    return Bars(aligned.opened, aligned.closed, aligned.present, aligned.years)


@pytest.fixture(scope="module", params=["made up", "real"])
def bars(request) -> Bars:
    if request.param == "made up":
        return made_up()
    folder = request.getfixturevalue("real_data")
    frames = {}
    for name in NAMES:
        frame = pd.read_csv(folder / f"{name}_D1.csv", sep="\t", index_col="Time", parse_dates=True)
        frames[name] = frame.rename(columns=str.lower)
    return as_bars(frames)


def make_params(bars: Bars, rules: Rules) -> EnvParams:
    limits = None
    if rules.limits is not None:
        weight, gross = np.float32(rules.limits.weight), np.float32(rules.limits.gross)
        limits = RiskLimits(max_weight=weight, max_gross=gross)
    market = make_portfolio_market(
        bars.opened,
        bars.closed,
        present=bars.present,
        years=bars.years,
        groups=rules.groups,
        window=None if limits is None else 100,
    )
    rates = Financing(*(jnp.float32(rate) for rate in (rules.borrow_rate, rules.loan_rate, rules.cash_rate)))
    return make_portfolio_params(
        market,
        make_costs(fee_rate=rules.fee_rate, half_spread=rules.half_spread, slippage=rules.slippage),
        limits=limits,
        financing=rates,
        band=rules.band,
        ruin_equity=rules.ruin_equity,
    )


def open_state(start, initial, params) -> State:
    zero = jnp.float32(0)
    account = Account(log_equity=zero, gain=zero, exposure=initial, level=initial)
    asked = compliance = None
    if params.limits is not None:
        asked, compliance = Exposures(*[zero] * 5), Compliance(*[jnp.int32(0)] * 5)
    return State(start, start + 10**6, account, asked, compliance)


ENVS = {num: make_portfolio(num_instruments=num) for num in (1, 2, 8)}


@jax.jit
def follow(weights, start, initial, params):
    env = ENVS[weights.shape[1]]

    def step(state, wanted):
        state, out = env.advance(state, wanted, params)
        return state, (state, out)

    return jax.lax.scan(step, open_state(start, initial, params), weights)[1]


def random_weights(seed, num_steps=STEPS, num=8):
    """Dense, sparse, repeated and wild books."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(-0.6, 0.6, (num_steps, num)) * (rng.uniform(size=(num_steps, num)) < 0.8)
    for t in range(1, num_steps):
        same = rng.uniform(size=num) < 0.3
        weights[t, same] = weights[t - 1, same]
    weights[rng.uniform(size=num_steps) < 0.1] = 0.0
    weights[rng.uniform(size=num_steps) < 0.2, :-2] *= 0.1  # two correlated instruments are most of the book
    weights[rng.uniform(size=num_steps) < 0.05, :-2] = 0.0
    weights[rng.uniform(size=num_steps) < 0.1] *= 3.0
    return weights.astype(np.float32)


def assert_same(bars, rules, *, seed, start, num_steps=STEPS):
    weights = random_weights(seed, num_steps, bars.closed.shape[1])
    initial = 0.3 * weights[-1]
    expected = play(bars, weights, start=start, initial=initial, rules=rules)
    state, out = jax.device_get(
        follow(jnp.asarray(weights), jnp.int32(start), jnp.asarray(initial), make_params(bars, rules))
    )
    n = len(expected["equity"])
    np.testing.assert_array_equal(out.terminated[:n], expected["terminated"])
    equity = np.exp(state.account.log_equity.astype(np.float64))[:n]
    np.testing.assert_allclose(equity, expected["equity"], rtol=1e-5)
    np.testing.assert_allclose(out.reward[:n], expected["reward"], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(state.account.exposure[:n], expected["exposure"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(state.account.level[:n], expected["level"])
    for name in ("traded", "cost", "fee", "price"):
        actual = getattr(out.fill, name)[:n]
        np.testing.assert_allclose(actual, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(out.fill.traded[:n] != 0, expected["traded"] != 0)
    if rules.limits is not None:
        for name in ("var", "correlation", "sector", "gross"):
            actual = getattr(state.asked, name)[:n]
            np.testing.assert_allclose(actual, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    return expected


RULES = {
    "costs": Rules(**COSTS),
    "band": Rules(**COSTS, band=0.05),
    "financing": Rules(**COSTS, borrow_rate=0.05, loan_rate=0.08, cash_rate=0.03),
    "limits": Rules(**COSTS, limits=Limits(weight=0.35, gross=1.1), groups=GROUPS),
    "all": Rules(**COSTS, band=0.05, borrow_rate=0.05, limits=Limits(), groups=GROUPS),
}


@pytest.mark.parametrize("name", RULES)
def test_equals_the_float64_reference(bars, name):
    for seed in range(3):
        start = int(np.random.default_rng(seed).integers(100, len(bars.closed) - STEPS - 1))
        assert_same(bars, RULES[name], seed=seed, start=start)


def test_the_reference_sees_what_it_is_for():
    bars = made_up()
    met = assert_same(bars, RULES["limits"], seed=5, start=300)
    assert (met["var"] > 0.02).any()
    assert (met["sector"] > 0.4).any()
    assert (met["correlation"] > 0.7).any()
    assert not bars.present.all()


def ruinous(moves) -> Bars:
    closed = 100.0 * np.cumprod(1.0 + np.array([[0.0, 0.0], *moves]), axis=0)
    opened = np.concatenate([closed[:1], closed[:-1]])
    return Bars(opened, closed, np.ones(closed.shape, bool), np.full(len(closed), 1 / 252))


def test_ruin_terminates_and_the_loss_of_a_bar_is_capped():
    rules = Rules(ruin_equity=0.1)
    for moves, weights in (
        ([(-0.5, 0.0), (-0.99, 0.1)], [1.0, 0.5]),
        ([(0.3, 0.5), (0.2, 0.3)], [-2.0, -2.0]),
    ):
        bars = ruinous(moves)
        wanted = np.tile(np.float32(weights), (2, 1))
        expected = play(bars, wanted, start=0, initial=np.zeros(2), rules=rules)
        state, out = follow(jnp.asarray(wanted), jnp.int32(0), jnp.zeros(2), make_params(bars, rules))
        n = len(expected["equity"])
        np.testing.assert_array_equal(out.terminated[:n], expected["terminated"])
        np.testing.assert_allclose(np.exp(state.account.log_equity)[:n], expected["equity"], rtol=1e-5)
        assert bool(out.terminated.any())
        assert float(out.reward.min()) >= np.log(0.01) - 1e-5


def test_one_instrument_equals_the_single_environment():
    frame = synthetic.gbm(3, 400, timeframe="1d")
    costs = make_costs(**COSTS)
    levels = np.random.default_rng(0).choice([-1.0, 0.0, 0.5, 1.0], 300).astype(np.float32)
    rates = Financing(jnp.float32(0.05), jnp.float32(0.08), jnp.float32(0.03))
    years = np.full(len(frame), 1 / 252)
    single = make_single(levels=(0.0, 1.0))
    alone = EnvParams(
        make_market(frame).replace(years=jnp.asarray(years, jnp.float32)),
        costs,
        jnp.float32(0.1),
        jnp.int32(0),
        jnp.int32(len(frame)),
        financing=rates,
    )
    begun, _ = single.reset(jax.random.key(0), alone)
    begun = begun.replace(bar=jnp.int32(0), end=jnp.int32(999), account=open_account(jnp.float32(0)))
    advance = jax.jit(lambda state, level: single.advance(state, Order(level=level), alone))
    market = make_portfolio_market(
        frame[["open"]].to_numpy(), frame[["close"]].to_numpy(), years=years, window=None
    )
    params = make_portfolio_params(market, costs, financing=rates)
    state, out = follow(jnp.asarray(levels)[:, None], jnp.int32(0), jnp.zeros(1), params)
    for t, level in enumerate(levels):
        begun, expected = advance(begun, jnp.float32(level))
        assert float(out.reward[t]) == pytest.approx(float(expected.reward), rel=1e-6, abs=1e-8)
        for name in ("traded", "cost", "fee", "price"):
            actual = float(getattr(out.fill, name)[t, 0])
            assert actual == pytest.approx(float(getattr(expected.fill, name)), rel=1e-5, abs=1e-8), name
    np.testing.assert_allclose(state.account.log_equity[-1], begun.account.log_equity, rtol=1e-5)


def test_a_closed_market_cannot_trade_and_its_units_are_kept():
    bars = made_up()
    params = make_params(bars, Rules(**COSTS))
    weights = jnp.asarray(random_weights(1))
    state, out = follow(weights, jnp.int32(150), jnp.zeros(8), params)
    closed = ~bars.present[151 : 151 + STEPS]
    assert closed.sum() > 100
    assert not np.asarray(out.fill.traded)[closed].any()
    assert np.asarray(out.fill.traded)[~closed].any()
    for t in (0, 7, 100):
        seen = jax.tree.map(lambda leaf, t=t: leaf[t], state)
        np.testing.assert_array_equal(ENVS[8].mask(seen, params), bars.present[151 + t + 1])


def test_a_gap_that_takes_everything_ends_the_bar_at_the_open():
    opened = np.array([[100.0, 50.0], [0.2, 50.0], [5.0, 50.0]])
    closed = np.array([[100.0, 50.0], [5.0, 51.0], [5.0, 51.0]])  # the price comes back, the holding does not
    bars = Bars(opened, closed, np.ones((3, 2), bool), np.zeros(3))
    wanted = np.array([[0.5, 0.5], [0.5, 0.5]], np.float32)
    rules = Rules(0.01, 0.01, ruin_equity=0.0)
    expected = play(bars, wanted, start=0, initial=np.array([1.0, 0.0]), rules=rules)
    params = make_params(bars, rules)
    state, out = follow(jnp.asarray(wanted), jnp.int32(0), jnp.array([1.0, 0.0]), params)
    assert bool(out.terminated[0])
    np.testing.assert_allclose(np.exp(state.account.log_equity[0]), expected["equity"][0], rtol=1e-5)
    np.testing.assert_allclose(np.exp(state.account.log_equity[0]), 0.01, rtol=1e-5)
    np.testing.assert_array_equal(state.account.level[0], [1.0, 0.0])
    assert not np.asarray(out.fill.traded[0]).any()
    assert not np.asarray(state.account.exposure[0]).any()


def test_flat_earns_exactly_zero():
    params = make_params(made_up(), Rules(0.01, 0.01, 0.01, limits=Limits(), groups=GROUPS))
    state, out = follow(jnp.zeros((300, 8)), jnp.int32(150), jnp.zeros(8), params)
    assert not np.asarray(out.reward).any()
    assert not np.asarray(state.account.log_equity).any()
    assert not np.asarray(state.compliance.any).any()


def test_asking_for_the_same_keeps_the_units():
    bars = made_up()
    bars = bars._replace(present=np.ones_like(bars.present))
    params = make_params(bars, Rules(0.01))
    weights = jnp.tile(jnp.linspace(-0.1, 0.2, 8), (200, 1))
    _, out = follow(weights, jnp.int32(150), jnp.zeros(8), params)
    assert np.count_nonzero(out.fill.traded) == 8
    assert not np.asarray(out.fill.cost)[1:].any()


def test_permuting_instruments_permutes_the_results():
    bars, rules = made_up(), RULES["all"]
    order = np.array([3, 1, 7, 5, 2, 4, 0, 6])
    moved = Bars(*(leaf[:, order] if leaf.ndim > 1 else leaf for leaf in bars))
    weights = random_weights(2)
    one, seen = follow(jnp.asarray(weights), jnp.int32(200), jnp.zeros(8), make_params(bars, rules))
    rules = Rules(**{**vars(rules), "groups": GROUPS[order]})
    other, permuted = follow(
        jnp.asarray(weights[:, order]), jnp.int32(200), jnp.zeros(8), make_params(moved, rules)
    )
    np.testing.assert_allclose(permuted.reward, seen.reward, rtol=1e-4, atol=2e-6)
    exposure = np.asarray(one.account.exposure)[:, order]
    np.testing.assert_allclose(other.account.exposure, exposure, rtol=1e-4, atol=2e-6)
    np.testing.assert_array_equal(other.compliance.any, one.compliance.any)


def test_what_comes_after_a_bar_changes_nothing_up_to_it():
    bars, rules, start = made_up(), RULES["all"], 200
    weights = jnp.asarray(random_weights(3, 200))
    one = follow(weights, jnp.int32(start), jnp.zeros(8), make_params(bars, rules))
    for bar in (230, 301, 390):
        factor = np.random.default_rng(bar).uniform(0.5, 2.0, bars.closed.shape)
        factor[: bar + 1] = 1.0
        future = bars._replace(opened=bars.opened * factor, closed=bars.closed * factor)
        other = follow(weights, jnp.int32(start), jnp.zeros(8), make_params(future, rules))
        seen, changed = (
            jax.tree.map(lambda x, n=bar - start: np.asarray(x)[:n], run) for run in (one, other)
        )
        jax.tree.map(np.testing.assert_array_equal, seen, changed)
        assert (np.asarray(other[1].reward) != np.asarray(one[1].reward)).any()
