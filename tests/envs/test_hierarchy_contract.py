"""The hierarchy's environments keep the contract: layout, batches, restarts, adapters, refusals."""

import operator

import chex
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import rewards
from envs.adapters import GymnasiumEnv, GymnasiumVectorEnv, to_gymnax
from envs.hierarchy import make_joint, make_meta
from envs.hierarchy_market import bar_table, momentum, with_signals
from envs.portfolio_market import make_portfolio_market, make_portfolio_params
from envs.reports import Report, make_report, team_reward
from envs.risk_limits import Exposures, RiskLimits
from envs.specialists import (
    MTQUANT,
    account_layout,
    account_view,
    bar_layout,
    make_partition,
    meta_columns,
    specialist_columns,
)
from envs.transforms import autoreset, no_statistics, normalise, record, vectorise
from envs.types import Costs
from tests.envs.test_portfolio import COSTS, made_up

TEAM = make_partition({"one": ["a", "b"], "two": ["c"]})
BARS = made_up(300, 3)
WINDOW = 40
COST = Costs(*(jnp.float32(cost) for cost in COSTS.values()))
MARKET = make_portfolio_market(
    BARS.opened, BARS.closed, present=BARS.present, years=BARS.years, groups=TEAM.membership, window=WINDOW
)
PARAMS = make_portfolio_params(
    with_signals(MARKET, momentum(BARS.closed)), COST, limits=RiskLimits(window=WINDOW), first=60
)
TABLE = bar_table(MARKET, macro=np.ones((300, 1)), features=np.random.default_rng(0).random((300, 3, 2)))
ENVS = {
    "meta": make_meta(TEAM, episode_bars=6, allocation_update_freq=3),
    "joint": make_joint(TEAM, episode_bars=6, allocation_update_freq=3),
}
# Without limits of risk, which compile for long and are tested elsewhere.
FREE = PARAMS.replace(limits=None)
PLAIN = ENVS | {"joint": make_joint(TEAM, episode_bars=6, allocation_update_freq=3, reward=rewards.pnl())}
G, S = 3, 2
KINDS = pytest.mark.parametrize("kind", ENVS)


def random_actions(env, seed=1):
    low = env.actions.low
    return jax.random.uniform(jax.random.key(seed), (G, S, *env.actions.shape), minval=low)


def test_partitions():
    team = make_partition()
    assert (team.specialists, len(team.instruments)) == (tuple(MTQUANT), 8)
    assert team.owner == (0, 0, 0, 1, 1, 2, 2, 2)
    np.testing.assert_array_equal(team.membership.sum(axis=0), [3, 2, 3])
    some = make_partition(instruments=["US30", "EURUSD"])
    assert some == (("forex", "equity"), ("US30", "EURUSD"), (1, 0))
    for given, wanted, message in (
        ({"a": ["x"], "b": ["x"]}, None, "x is given to a and to b"),
        ({"a": ["x", "y"]}, ["x", "x", "z"], "x is named twice; z has no specialist: give it one of a"),
        ({}, None, "there is no instrument"),
        ({"a": ["x", "x"]}, None, "x is given to a and to a"),
    ):
        with pytest.raises(ValueError, match=message):
            make_partition(given, wanted)


def test_layouts_have_a_place_for_every_number_once():
    bar, account = bar_layout(TEAM, macro=1, features=2), account_layout(TEAM, performance_lookback=4)
    for layout, size in ((bar, 3 + 1 + 6), (account, 4 + 2 + 4 * 2 + 2 + 2 * 3)):
        places = [place for part in layout for place in range(part.start, part.stop)]
        assert places == list(range(size))
    assert TABLE.shape == (300, 10)
    assert ENVS["meta"].account_size == account_layout(TEAM).exposure.stop == 38
    by_bar, of_account = meta_columns(bar=bar, account=account)
    assert (by_bar, of_account) == ([0, 1, 2, 3], list(range(22)))
    by_bar, of_account = specialist_columns(TEAM, 1, bar=bar, account=account)
    assert by_bar == [8, 9, 3]
    names = [
        next(n for n, part in account._asdict().items() if part.start <= i < part.stop) for i in of_account
    ]
    assert names == [
        *("sharpe", "win_rate", "max_drawdown", "allocation", "volatility"),
        *("drawdown", "risk", "wait", "level", "exposure"),
    ]
    both = specialist_columns(TEAM, 0, bar=bar, account=account)
    assert not set(both[0]) & {8, 9}
    assert len(both[1]) == 4 + 4 + 2 * 2
    assert bar_layout(TEAM, correlations=False).correlation == slice(0, 0)


def test_reports_by_hand():
    first, last = [0.02, -0.01, -0.03, 0.05], [-0.1, 0.0, -0.1, 0.3]
    report = make_report(jnp.asarray([first, [0.0] * 4, last, [-0.05, 0.01, 0.01, 0.01]]))
    np.testing.assert_allclose(report.max_drawdown, [0.04, 0.0, 0.2, 0.05], rtol=1e-6)
    np.testing.assert_allclose(report.win_rate, [0.5, 0.0, 0.25, 0.75])
    np.testing.assert_allclose(
        report.sharpe[:3], [0.0075 / np.std(first), 0, 0.025 / np.std(last)], rtol=1e-5
    )


def test_the_teams_reward_by_hand():
    report = Report(*[jnp.asarray([3.0, -0.5])] * 3)
    asked = Exposures(*(jnp.float32(x) for x in (0.04, 0.6, 0.0, 0.0, 0.0)))
    more = {"asked": asked, "limits": RiskLimits(), "membership": TEAM.membership}
    held = jnp.asarray([0.1, -0.2, 0.1])
    reward = team_reward(report, allocation=jnp.asarray([0.5, 0.5]), exposure=held, **more)
    together = 0.3 * 1.0 + 0.2 * (1 - 0.2 / 0.4) + 0.3 * 0.5 + 0.2 * 0.1
    assert float(reward) == pytest.approx(0.5 * (1.0 - 0.5) / 2 + 0.5 * together)
    flat = team_reward(report, allocation=jnp.asarray([1.0, 0.0]), exposure=jnp.zeros(3), **more)
    assert float(flat) == pytest.approx(0.125 + 0.5 * (0.3 * 0.5 + 0.2 * 0.1))


@KINDS
def test_vectorised_accounts_equal_single_ones(kind):
    env, params = (ENVS[kind], PARAMS) if kind == "joint" else (PLAIN[kind], FREE)
    batch = vectorise(env, num_groups=G, sharing=S)
    first, observation = jax.jit(batch.reset)(jax.random.key(0), params)
    assert observation.bar.shape == (G,)
    assert observation.account.shape == (G, S, env.account_size)
    assert batch.mask(first, params).shape == (G, S, 3)
    step, step_one = jax.jit(batch.step), jax.jit(env.step)
    wanted = random_actions(env)
    state, out = step(jax.random.key(2), first, wanted, params)
    state, out = step(jax.random.key(2), state, random_actions(env, 2), params)
    for g in range(G):
        for s in range(S):
            one = single_of(first, g, s)
            one, _ = step_one(jax.random.key(2), one, wanted[g, s], params)
            one, told = step_one(jax.random.key(2), one, random_actions(env, 2)[g, s], params)
            ours, theirs = parts_of(one, told), parts_of(state, out)
            pick = operator.itemgetter((g, s))
            chex.assert_trees_all_close(ours, jax.tree.map(pick, theirs), rtol=1e-3, atol=1e-5)


def parts_of(state, out):
    seen = (out.reward, out.observation.account)
    return state.account, state.message, state.report, state.history, seen


def single_of(state, g, s):
    """One account of a batch."""
    clock = {"bar": state.portfolio.bar[g], "end": state.portfolio.end[g]}
    mine = jax.tree.map(lambda leaf: leaf[g, s] if leaf.ndim > 1 else leaf[g], state)
    return mine.replace(portfolio=mine.portfolio.replace(**clock))


@KINDS
def test_ended_windows_start_anew_and_closed_accounts_begin_again(kind):
    env = vectorise(record(PLAIN[kind]), num_groups=G, sharing=S)
    chain = autoreset(env)
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(chain.step, n=1))
    state, _ = jax.jit(env.reset)(jax.random.key(0), FREE)
    for t in range(2):
        state, out = step(jax.random.key(t), state, random_actions(chain, t), FREE)
        assert not np.asarray(out.truncated).any()
    broke = jnp.zeros((G, S), bool).at[1, 0].set(True)
    account = state.inner.account
    poor = account.replace(log_equity=jnp.where(broke, -10.0, account.log_equity))
    state = state.replace(inner=state.inner.replace(portfolio=state.inner.portfolio.replace(account=poor)))
    state, out = step(jax.random.key(9), state, random_actions(chain, 9), FREE)
    np.testing.assert_array_equal(out.terminated, broke)
    again = single_of(state.inner, 1, 0)
    assert float(again.account.log_equity) == float(again.history.peak) == float(again.message.risk) == 0.0
    for leaf in jax.tree.leaves((again.history, again.report, again.account, again.message.wait)):
        assert not np.asarray(leaf).any()
    np.testing.assert_allclose(again.message.allocation, 0.5)
    assert np.asarray(single_of(state.inner, 0, 0).history.returns).any()
    for t in range(3):
        state, out = step(jax.random.key(t), state, random_actions(chain, t), FREE)
    assert np.asarray(out.truncated).all()
    assert np.asarray(out.episode.length)[0, 0] == 6
    assert not np.asarray(state.inner.history.earnings).any()
    np.testing.assert_array_equal(state.inner.portfolio.end, state.inner.portfolio.bar + 6)


@KINDS
def test_works_behind_all_adapters(kind):
    env = PLAIN[kind]
    parts = {"features": TABLE, "lookback": 2}
    check_env(GymnasiumEnv(env, FREE, **parts), skip_render_check=True)
    size = 2 * 10 + env.account_size
    many = GymnasiumVectorEnv(record(env), FREE, num_envs=3, **parts)
    observations, _ = many.reset(seed=0)
    assert observations.shape == (3, size)
    many.action_space.seed(0)
    for _ in range(7):
        observations, told, _, truncated, infos = many.step(many.action_space.sample())
        assert np.isfinite(told).all()
        assert infos["tradable"].shape == (3, 3)
        assert truncated.all() == ("final_obs" in infos)
    trading = to_gymnax(env, FREE, **parts)
    params = trading.default_params
    observation, state = trading.reset(jax.random.key(0), params)
    action = trading.action_space(params).sample(jax.random.key(1))
    assert trading.num_actions == action.size
    observation, state, reward, *_ = trading.step(jax.random.key(2), state, action, params)
    assert observation.shape == (size,)
    assert np.isfinite(float(reward))
    assert many.single_action_space == gymnasium.spaces.Box(
        env.actions.low, 1.0, env.actions.shape, np.float32
    )


def test_observations_can_be_normalised():
    env = ENVS["meta"]
    seen = no_statistics(env.account_size).replace(count=jnp.float32(3), square=jnp.ones(env.account_size))
    _, observation = jax.jit(normalise(env, seen).reset)(jax.random.key(0), PARAMS)
    plain = account_view(env.reset(jax.random.key(0), PARAMS)[1].account, account_layout(TEAM))
    np.testing.assert_allclose(plain.allocation, 0.5)
    assert observation.account.shape == (env.account_size,)


def test_refuses_environments_that_cannot_be():
    for wrong, message in (
        ({"allocation_update_freq": 0}, r"allocation_update_freq \(0\) must be at least 1"),
        ({"performance_lookback": 1}, r"performance_lookback \(1\) 2"),
        ({"temperature": 0.0}, r"temperature \(0.0\) positive"),
        ({"episode_bars": 0}, "episode_bars"),
    ):
        for make in (make_meta, make_joint):
            with pytest.raises(ValueError, match=message):
                make(TEAM, **wrong)
    for threshold in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"threshold \\({threshold}\\) must be from 0 to below 1"):
            make_joint(TEAM, threshold=threshold)


def test_refuses_parameters_that_do_not_fit():
    def begin(env, params):
        return env.reset(jax.random.key(0), params)

    plain = make_portfolio_params(MARKET, COST, limits=RiskLimits(window=WINDOW))
    with pytest.raises(ValueError, match="with_signals"):
        begin(ENVS["meta"], plain)
    begin(ENVS["joint"], plain)
    without = PARAMS.limits.replace(max_portfolio_var=None)
    for limits in (None, without, PARAMS.limits.replace(max_correlation_exposure=None)):
        with pytest.raises(ValueError, match="max_portfolio_var and max_correlation_exposure"):
            begin(ENVS["joint"], PARAMS.replace(limits=limits))
    other = make_joint(TEAM, reward=rewards.log_return(), episode_bars=6)
    begin(other, PARAMS.replace(limits=None))
    with pytest.raises(ValueError, match="3 instruments, not 8"):
        begin(make_meta(make_partition()), PARAMS)


def test_refuses_tables_that_do_not_fit():
    for signals, message in (
        (np.zeros((300, 2)), r"signals must be \(300, 3\)"),
        (np.full((300, 3), 1.5), r"900 signals are not in \[-1, 1\], first at bar 0, instrument 0 \(1.5\)"),
        (np.full((300, 3), np.nan), "clip them"),
    ):
        with pytest.raises(ValueError, match=message):
            with_signals(MARKET, signals)
    with pytest.raises(ValueError, match=r"macro must be .*; features must be"):
        bar_table(MARKET, macro=np.zeros(300), features=np.zeros((300, 2, 1)))
    bare = MARKET.replace(correlation=None)
    assert bar_table(bare).shape == (300, 0)
