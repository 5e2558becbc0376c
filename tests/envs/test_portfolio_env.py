"""The portfolio environment's contract: resets, batches, limits met by what is held, counts, refusals."""

import operator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import rewards
from envs.portfolio import known_at, make_portfolio
from envs.portfolio_market import make_portfolio_market, make_portfolio_params
from envs.risk_limits import OK, RiskLimits, check, measure
from envs.transforms import autoreset, vectorise
from envs.types import Costs, Financing
from tests.envs.portfolio_reference import Limits, Rules
from tests.envs.test_portfolio import GROUPS, STEPS, follow, made_up, make_params, random_weights
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market

RULES = Rules(5e-4, 1e-4, 1e-4, limits=Limits(), groups=GROUPS)
BARS = made_up()
PARAMS = make_params(BARS, RULES)
ENV = make_portfolio(num_instruments=8, episode_bars=8)
G, S = 4, 3


BATCH = vectorise(ENV, num_groups=G, sharing=S)
CHAIN = autoreset(BATCH)
RESET, STEP = jax.jit(ENV.reset), jax.jit(ENV.step)
RESET_BATCH = jax.jit(BATCH.reset)


def actions(key=1):
    return jax.random.uniform(jax.random.key(key), (G, S, 8), minval=-0.5, maxval=0.5)


def test_vectorised_accounts_equal_single_ones():
    state, observation = RESET_BATCH(jax.random.key(0), PARAMS)
    assert observation.bar.shape == (G,)
    assert observation.account.shape == (G, S, ENV.account_size)
    assert BATCH.mask(state, PARAMS).shape == (G, S, 8)
    wanted = actions()
    after, out = jax.jit(BATCH.step)(jax.random.key(2), state, wanted, PARAMS)
    for g in range(G):
        for s in range(S):
            pick = operator.itemgetter((g, s))
            one = state.replace(
                bar=state.bar[g],
                end=state.end[g],
                account=jax.tree.map(pick, state.account),
                asked=jax.tree.map(pick, state.asked),
                compliance=jax.tree.map(pick, state.compliance),
            )
            moved, told = STEP(jax.random.key(2), one, wanted[g, s], PARAMS)
            chex.assert_trees_all_close(
                (moved.account, moved.asked, told.reward, told.fill),
                jax.tree.map(pick, (after.account, after.asked, out.reward, out.fill)),
                rtol=1e-4,
                atol=1e-6,
            )
    np.testing.assert_array_equal(after.bar, state.bar + 1)


def test_ended_windows_start_anew_and_closed_accounts_reopen_flat():
    state, _ = RESET_BATCH(jax.random.key(0), PARAMS)
    state = state.replace(end=state.bar + jnp.array([1, 8, 8, 8]))
    broke = jnp.zeros((G, S), bool).at[2, 1].set(True)
    poor = jnp.where(broke, -10.0, state.account.log_equity)
    first = state.replace(account=state.account.replace(log_equity=poor))
    state, out = jax.jit(CHAIN.step)(jax.random.key(3), first, actions(), PARAMS)
    np.testing.assert_array_equal(out.truncated, [True, False, False, False])
    np.testing.assert_array_equal(out.terminated, broke)
    np.testing.assert_array_equal(out.observation.bar, first.bar + 1)
    assert int(state.end[0]) == int(state.bar[0]) + 8
    assert not np.asarray(state.compliance.steps[0]).any()
    assert not np.asarray(state.account.exposure[2, 1]).any()
    assert float(state.account.log_equity[2, 1]) == 0.0
    assert int(state.compliance.steps[2, 1]) == 1, "the counts are the episode's, not the account's"
    assert np.asarray(state.account.exposure[3]).any()


def test_all_steps_of_one_shape_are_traced_once():
    step = jax.jit(chex.assert_max_traces(CHAIN.step, n=1))
    state, _ = RESET_BATCH(jax.random.key(0), PARAMS)
    for t in range(20):
        state, _ = step(jax.random.key(t), state, actions(t), PARAMS)
    other = PARAMS.replace(limits=PARAMS.limits.replace(max_portfolio_var=np.float32(0.01)))
    step(jax.random.key(0), state, actions(), other)


def test_starts_cover_the_slice_and_stay_inside_it_and_begin_within_the_limits():
    tight = RiskLimits(max_portfolio_var=np.float32(0.004), max_sector_allocation=np.float32(0.1))
    params = PARAMS.replace(first=jnp.int32(105), stop=jnp.int32(105 + 8 + 4), limits=tight)
    drawn = ENV.draw(jax.random.key(0), (400, 2), params)
    assert sorted(set(np.asarray(drawn.start).tolist())) == [105, 106, 107, 108]
    assert drawn.weights.shape == (400, 2, 8)
    assert float(jnp.abs(drawn.weights).max()) <= 1 / 8
    env = vectorise(ENV, num_groups=400, sharing=2)
    state = jax.jit(env.begin)(drawn, params)
    np.testing.assert_array_equal(state.bar, drawn.start)
    np.testing.assert_array_equal(state.account.level, drawn.weights)

    def code(bar, weights):
        return check(measure(weights, known_at(bar, params.market), params.limits), params.limits)[1]

    codes = jax.jit(jax.vmap(jax.vmap(code, (None, 0))))(state.bar, state.account.exposure)
    assert set(np.unique(codes)) == {OK}
    assert float(state.asked.sector.max()) > 0.1
    assert float(state.asked.var.max()) > 0.004


def test_the_window_truncates_and_nothing_else_does():
    state, observation = RESET(jax.random.key(0), PARAMS)
    first = int(observation.bar)
    for played in range(8):
        state, out = STEP(jax.random.key(0), state, jnp.full(8, 0.05), PARAMS)
        assert int(out.observation.bar) == first + played + 1
        assert bool(out.truncated) == (played == 7)
        assert not bool(out.terminated)
        np.testing.assert_array_equal(out.observation.account[:8], state.account.level)
        np.testing.assert_array_equal(out.observation.account[8:], state.account.exposure)


def test_actions_are_clipped_to_their_range():
    env = make_portfolio(num_instruments=8, low=0.0, high=0.25)
    np.testing.assert_array_equal(env.actions.decode(jnp.array([-1.0, 0.125, 9.0])), [0.0, 0.125, 0.25])
    assert (env.actions.shape, env.actions.low, env.actions.high) == ((8,), 0.0, 0.25)


def still(num_bars=400):
    """Every bar opens where the last one closed, and closes there in the second half: nothing drifts."""
    closed = BARS.closed[:num_bars].copy()
    closed[200:] = closed[199]
    return BARS._replace(
        opened=np.concatenate([closed[:1], closed[:-1]]),
        closed=closed,
        present=np.ones(closed.shape, bool),
        years=BARS.years[:num_bars],
    )


def test_what_is_held_after_the_trade_keeps_every_limit_whatever_is_asked_for():
    params = make_params(still(), Rules(limits=Limits(weight=0.3, gross=0.9), groups=GROUPS))
    weights = jnp.asarray(random_weights(11, 60))
    state, _ = follow(weights, jnp.int32(200), jnp.zeros(8), params)
    # What is known moves on with the bars, so each book is judged by what was known when it was decided.
    for t, held in enumerate(np.asarray(state.account.exposure)):
        known = known_at(jnp.int32(200 + t), params.market)
        ok, code = check(measure(jnp.asarray(held), known, params.limits), params.limits)
        assert bool(ok), (t, int(code))
    assert np.asarray(state.compliance.any)[-1] > 10, "the requests were not all allowed"


def test_a_holding_that_drifts_over_a_limit_is_cut_though_the_same_is_asked_for():
    closed = np.full((300, 2), 100.0)
    closed[:200] *= np.exp(np.cumsum(0.001 * np.random.default_rng(0).standard_normal((200, 2)), axis=0))
    closed[200:] = closed[199]
    closed[205:, 0] *= 1.5
    opened = np.concatenate([closed[:1], closed[:-1]])
    market = make_portfolio_market(opened, closed, groups=np.eye(2), window=100)
    limits = RiskLimits(max_portfolio_var=None, max_correlation_exposure=None)
    params = make_portfolio_params(
        market, make_costs(fee_rate=0.0, half_spread=0.0, slippage=0.0), limits=limits
    )
    weights = jnp.tile(jnp.array([0.38, 0.1]), (10, 1))
    state, out = follow(weights, jnp.int32(200), jnp.zeros(2), params)
    assert np.flatnonzero(np.asarray(out.fill.traded[:, 0])).tolist() == [0, 5]
    assert np.flatnonzero(np.asarray(out.fill.traded[:, 1])).tolist() == [0]
    assert float(state.account.exposure[4, 0]) == pytest.approx(0.57 / 1.19, rel=1e-5)
    assert float(state.account.exposure[5, 0]) == pytest.approx(0.4, rel=1e-5)


def test_counts_are_of_what_was_asked_for():
    state, _ = follow(jnp.asarray(random_weights(4)), jnp.int32(300), jnp.zeros(8), PARAMS)
    counts, asked = jax.device_get((state.compliance, state.asked))
    limits = RiskLimits()
    for name, value, most in (
        ("var", asked.var, limits.max_portfolio_var),
        ("correlation", asked.correlation, limits.max_correlation_exposure),
        ("sector", asked.sector, limits.max_sector_allocation),
    ):
        np.testing.assert_array_equal(getattr(counts, name), np.cumsum(value > most * (1 + 2e-6)), name)
        assert 0 < getattr(counts, name)[-1] < STEPS
    np.testing.assert_array_equal(counts.steps, np.arange(1, STEPS + 1))
    broken = (asked.var > 0.02) | (asked.correlation > 0.7) | (asked.sector > 0.4)
    np.testing.assert_array_equal(counts.any, np.cumsum(broken))


def test_without_limits_nothing_is_measured():
    params = make_params(BARS, Rules())
    state, _ = ENV.reset(jax.random.key(0), params)
    state, _ = jax.jit(ENV.step)(jax.random.key(0), state, jnp.full(8, 0.9), params)
    assert state.asked is None
    assert state.compliance is None
    traded = np.asarray(BARS.present[int(state.bar)])
    assert np.asarray(state.account.exposure)[traded] == pytest.approx(0.9, rel=0.1)


def test_a_market_without_closed_bars_equals_one_whose_bars_are_all_open():
    bars = still()
    open_always = make_params(bars, RULES)
    assert open_always.market.tradable is not None
    not_told = open_always.replace(market=open_always.market.replace(tradable=None))
    state, _ = RESET(jax.random.key(0), open_always)
    np.testing.assert_array_equal(ENV.mask(state, not_told), np.ones(8, bool))
    weights = jnp.asarray(random_weights(6, 150))
    one, other = (
        follow(weights, jnp.int32(110), jnp.zeros(8), params)[1].reward for params in (open_always, not_told)
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_reward_record_replaces_the_log_return():
    reward = rewards.weighted(
        {
            "growth": (2.0, rewards.log_return()),
            "cost": (1.0, rewards.cost()),
            "turnover": (0.1, rewards.turnover()),
            "spread": (0.5, rewards.diversification()),
            "risk": (3.0, rewards.value_at_risk(limit=0.001)),
            "depth": (1.0, rewards.drawdown()),
        }
    )
    other = make_portfolio(num_instruments=8, episode_bars=8, reward=reward)
    state, _ = RESET(jax.random.key(0), PARAMS)
    rich = state.replace(memory=reward.init())
    wanted = jnp.linspace(-0.05, 0.06, 8)
    state, out = STEP(jax.random.key(0), state, wanted, PARAMS)
    rich, told = jax.jit(other.step)(jax.random.key(0), rich, wanted, PARAMS)
    held = state.account.exposure
    risk = measure(held, known_at(state.bar, PARAMS.market), PARAMS.limits).var
    share = jnp.abs(held) / jnp.abs(held).sum()
    expected = (
        2.0 * out.reward
        - out.fill.cost.sum()
        - 0.1 * jnp.abs(out.fill.traded).sum()
        + 0.5 * (1.0 - (share**2).sum())
        - 3.0 * (risk - 0.001)
        + jnp.minimum(jnp.expm1(state.account.log_equity), 0.0)
    )
    assert float(risk) > 0.001
    assert float(told.reward) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    "wrong", [{"num_instruments": 0}, {"episode_bars": 0}, {"low": 1.0, "high": 1.0}], ids=str
)
def test_refuses_an_environment_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="must be at least 1"):
        make_portfolio(**{"num_instruments": 2} | wrong)


def test_refuses_the_market_of_a_single_instrument():
    with pytest.raises(ValueError, match="needs a PortfolioMarket and RiskLimits"):
        ENV.reset(jax.random.key(0), PARAMS.replace(market=make_market(synthetic.gbm(0, 300))))


def test_refuses_parameters_that_do_not_fit_all_at_once():
    rates = Financing(jnp.float32(0), jnp.float32(0), jnp.float32(0))
    odd = PARAMS.replace(
        market=PARAMS.market.replace(years=None, window=50),
        costs=Costs(*[jnp.float32(0)] * 3, impact=jnp.float32(1)),
        financing=rates,
        latency=jnp.int32(1),
    )
    with pytest.raises(ValueError, match="not 3") as error:
        make_portfolio(num_instruments=3).reset(jax.random.key(0), odd)
    for part in ("look back 100", "market.years", "costs.impact", "latency"):
        assert part in str(error.value)
