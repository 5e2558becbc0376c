"""Both environments of the hierarchy against their float64 reference, and what must not change them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import rewards
from envs.hierarchy import make_joint, make_meta
from envs.hierarchy_market import bar_table, momentum, with_signals
from envs.portfolio import Draw
from envs.specialists import (
    MTQUANT,
    account_layout,
    account_view,
    bar_layout,
    make_partition,
    specialist_columns,
)
from tests.envs.hierarchy_reference import LOOKBACK, follow
from tests.envs.portfolio_reference import Limits, Rules
from tests.envs.test_portfolio import COSTS, GROUPS, made_up, make_params

STEPS, START = 32, 150
TEAM = make_partition()
BARS = made_up(400)
RULES = {
    "free": Rules(**COSTS),
    "limits": Rules(**COSTS, limits=Limits(weight=0.3), groups=GROUPS),
    "tight": Rules(**COSTS, limits=Limits(var=0.004, correlation=0.5, weight=0.1), groups=GROUPS),
}
SIGNALS = np.random.default_rng(3).choice([-1.0, -0.5, 0.0, 0.25, 1.0], (400, 8))
SIGNALS[1:] = np.where(np.random.default_rng(4).random((399, 8)) < 0.5, SIGNALS[:-1], SIGNALS[1:])
INITIAL = np.linspace(-0.05, 0.08, 8).astype(np.float32)
LAYOUT = account_layout(TEAM)
LOG = rewards.log_return()
META, JOINT = make_meta(TEAM), make_joint(TEAM)
PLAIN_META, PLAIN_JOINT = make_meta(TEAM, reward=LOG), make_joint(TEAM, reward=LOG)


def joint_params(rules, bars=BARS):
    params = make_params(bars, rules)
    if rules.limits is None:
        return params
    most = {"var": "portfolio_var", "correlation": "correlation_exposure", "sector": "sector_allocation"}
    limits = {f"max_{field}": np.float32(getattr(rules.limits, name)) for name, field in most.items()}
    return params.replace(limits=params.limits.replace(**limits))


def meta_params(rules, bars=BARS, signals=SIGNALS):
    params = joint_params(rules, bars)
    return params.replace(market=with_signals(params.market, signals))


@partial(jax.jit, static_argnames="env")
def _played(env, params, drawn, actions):
    def step(state, action):
        state, out = env.step(jax.random.key(0), state, action, params)
        return state, (state, out)

    return jax.lax.scan(step, env.begin(drawn, params), actions)[1]


def run(env, actions, params, *, start=START, initial=INITIAL):
    """Every state and time step of `actions` from `start` on."""
    return jax.device_get(_played(env, params, Draw(jnp.int32(start), jnp.asarray(initial)), actions))


def meta_actions(seed, steps=STEPS):
    return np.random.default_rng(seed).uniform(-0.2, 1.2, (steps, 4)).astype(np.float32)


def joint_actions(seed, steps=STEPS):
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1.2, 1.2, (steps, 12)).astype(np.float32)
    actions[:, 4:] *= rng.random((steps, 8)) < 0.6  # a good part asks for nothing
    return actions


def assert_equal(env, actions, params, *, rules, signals=None, told="reward"):
    initial = np.zeros(8, np.float32)
    expected = follow(
        BARS, actions, start=START, initial=initial, rules=rules, owner=TEAM.owner, signals=signals
    )
    state, out = run(env, actions, params, initial=initial)
    view, seen = account_view(expected["view"], LAYOUT), account_view(out.observation.account, LAYOUT)
    for name in view._fields:
        loose = {"sharpe": 2e-3}.get(name, 1e-5)  # a ratio of two numbers of 1e-5
        if name == "win_rate":
            open_wins = near_ties(expected["earned"])
            assert (np.abs(seen.win_rate - view.win_rate) <= open_wins + loose).all()
            continue
        np.testing.assert_allclose(
            getattr(seen, name), getattr(view, name), rtol=1e-3, atol=loose, err_msg=name
        )
    np.testing.assert_allclose(state.history.earnings[:, :, -1], expected["earned"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(state.account.exposure, expected["exposure"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.reward, expected[told], rtol=1e-3, atol=1e-3 if told == "reward" else 1e-5)
    np.testing.assert_array_equal(out.observation.bar, START + 1 + np.arange(len(actions)))
    return expected, state, out


def near_ties(earned):
    """[T, S] the share of the last bars whose earnings are 0 or not by less than float32 can tell.

    They may count as won in one precision and not in the other; there are few of them.
    """
    ties = (np.abs(earned) < 1e-7) & (earned != 0.0)
    assert ties.mean() < 0.05, ties.mean()
    return np.array([ties[max(0, t + 1 - LOOKBACK) : t + 1].sum(axis=0) for t in range(len(ties))]) / LOOKBACK


@pytest.mark.parametrize("name", RULES)
def test_the_meta_environment_equals_its_reference(name):
    expected, *_ = assert_equal(
        PLAIN_META,
        meta_actions(1),
        meta_params(RULES[name]),
        rules=RULES[name],
        signals=SIGNALS,
        told="log_return",
    )
    np.testing.assert_allclose(expected["earned"].sum(axis=1), expected["gain"], atol=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_the_joint_environment_equals_its_reference(name):
    limited = RULES[name].limits is not None
    expected, _, out = assert_equal(
        JOINT if limited else PLAIN_JOINT,
        joint_actions(2),
        joint_params(RULES[name]),
        rules=RULES[name],
        told="reward" if limited else "log_return",
    )
    asked = np.abs(joint_actions(2)[:, 4:])
    assert ((asked <= 0.1) & (asked > 0)).any()
    if name == "tight":
        assert (np.abs(expected["weights"]) > 0.1).any(), "the limits had something to cut"
        assert np.ptp(out.reward) > 0.02


def test_one_specialist_of_one_instrument_is_a_portfolio_of_one():
    team = make_partition({"only": ["a"]})
    bars = made_up(300, 1)
    rules = Rules(**COSTS, limits=Limits())
    params = joint_params(rules, bars)
    env = make_joint(team)
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 3)).astype(np.float32)
    expected = follow(bars, actions, start=120, initial=np.zeros(1), rules=rules, owner=team.owner)
    _, out = run(env, actions, params, start=120, initial=np.zeros(1, np.float32))
    np.testing.assert_allclose(out.reward, expected["reward"], atol=1e-3)


def perturbed(market, after, rng):
    """The market with other numbers in every bar after `after`."""

    def other(leaf):
        if leaf.ndim < 2 or len(leaf) != 400 or leaf.dtype != jnp.float32:
            return leaf
        noise = 1.0 + 0.5 * rng.standard_normal(leaf.shape).astype(np.float32)
        return jnp.where(np.arange(400).reshape(-1, *[1] * (leaf.ndim - 1)) > after, leaf * noise, leaf)

    return jax.tree.map(other, market)


@pytest.mark.parametrize("kind", ["meta", "joint"])
def test_the_future_changes_nothing_up_to_a_bar(kind):
    env = META if kind == "meta" else JOINT
    params = meta_params(RULES["limits"])
    actions = meta_actions(5) if kind == "meta" else joint_actions(5)
    bar = START + 30  # the last that is told: the 30th step's
    other = params.replace(market=perturbed(params.market, bar, np.random.default_rng(0)))
    one, two = (run(env, actions, these) for these in (params, other))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a[:30], b[:30])
    assert not np.array_equal(one[1].observation.account[30], two[1].observation.account[30])
    assert not np.array_equal(one[1].reward[30], two[1].reward[30])


def test_tables_know_no_later_bar():
    changed = BARS.closed.copy()
    changed[300:] *= 1.5
    rules = RULES["limits"]
    params = [make_params(BARS._replace(closed=closed), rules) for closed in (BARS.closed, changed)]
    one, two = (bar_table(each.market, macro=np.ones((400, 2))) for each in params)
    assert one.shape == (400, 28 + 2)
    np.testing.assert_array_equal(one[:300], two[:300])
    assert not np.array_equal(one[300:], two[300:])
    np.testing.assert_array_equal(momentum(BARS.closed)[:300], momentum(changed)[:300])
    assert momentum(changed)[19].tolist() == [0.0] * 8
    assert momentum(changed)[20].tolist() == np.sign(changed[20] - changed[0]).tolist()


def reordered(order, actions):
    """The team with its specialists in another order, and the actions that mean the same to it."""
    names = [TEAM.specialists[index] for index in order]
    told = actions.copy()
    told[:, :3] = actions[:, list(order)]
    return make_partition({name: MTQUANT[name] for name in names}, TEAM.instruments), told


@pytest.mark.parametrize("kind", ["meta", "joint"])
def test_another_order_of_specialists_permutes_what_is_told_of_them(kind):
    make, params = make_joint, joint_params(RULES["free"])
    if kind == "meta":
        make, params = make_meta, meta_params(RULES["free"])
    actions = meta_actions(8) if kind == "meta" else joint_actions(8)
    order = [2, 0, 1]
    other, told = reordered(order, actions)
    assert other.specialists == ("equity", "forex", "commodities")
    state, out = run(META if kind == "meta" else PLAIN_JOINT, actions, params)
    moved, again = run(make(other, **({} if kind == "meta" else {"reward": LOG})), told, params)
    for name in ("allocation", "sharpe", "win_rate", "max_drawdown"):
        here, there = (getattr(account_view(o.observation.account, LAYOUT), name) for o in (out, again))
        np.testing.assert_allclose(np.asarray(here)[:, order], there, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(state.account.exposure, moved.account.exposure, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(out.reward, again.reward, atol=1e-4)


def test_specialists_hear_the_allocation_and_the_meta_controller_their_report_of_the_same_bar():
    env, params = JOINT, joint_params(RULES["limits"])
    actions = joint_actions(9)
    actions[:, 3] = np.linspace(-1.0, 1.0, STEPS)
    state, out = run(env, actions, params)
    view = account_view(np.asarray(out.observation.account), LAYOUT)
    for step in range(STEPS):
        sent = actions[step - step % 10]  # every tenth action allocates, from the first on
        shares = np.exp((np.clip(sent[:3], -1, 1) + 1) / 2 / 0.2)
        np.testing.assert_allclose(view.allocation[step], shares / shares.sum(), rtol=1e-4)
        assert view.risk[step, 0] == pytest.approx((sent[3] + 1) / 2, abs=1e-6)
        assert view.wait[step, 0] == pytest.approx((9 - step % 10) / 10)
    for index in range(3):
        _, columns = specialist_columns(TEAM, index, bar=bar_layout(TEAM), account=LAYOUT)
        heard = np.asarray(out.observation.account)[:, columns]
        np.testing.assert_array_equal(heard[:, 3], view.allocation[:, index])
        np.testing.assert_array_equal(heard[:, 0], view.sharpe[:, index])
        np.testing.assert_array_equal(heard[:, 6], view.risk[:, 0])
    np.testing.assert_array_equal(view.win_rate, state.report.win_rate)
    wins = (np.asarray(state.history.earnings) > 0).mean(axis=2)
    np.testing.assert_allclose(view.win_rate, wins, atol=1e-6)
    np.testing.assert_array_equal(state.history.returns[:, -1], state.account.gain)
    earned = np.asarray(state.history.earnings)[:, :, -1]
    np.testing.assert_allclose(earned.sum(axis=1), state.account.gain, atol=1e-6)


def test_an_allocation_lasts_and_actions_within_change_nothing():
    env, params = make_meta(TEAM, allocation_update_freq=4), meta_params(RULES["free"])
    actions = meta_actions(3, 12)
    other = actions.copy()
    other[np.arange(12) % 4 != 0] = 0.5
    one, two = (run(env, these, params) for these in (actions, other))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)
    other[8] = 0.5
    assert not np.array_equal(run(env, other, params)[1].reward[8:], one[1].reward[8:])


def test_risk_and_allocation_move_money():
    env, params = PLAIN_META, meta_params(RULES["free"], signals=np.ones((400, 8)))
    for action, gross in (([0.5, 0.5, 0.5, 0.0], 0.0), ([0.5, 0.5, 0.5, 1.0], 1.0), ([1, 0, 0, 0.6], 0.6)):
        state, _ = run(env, np.tile(np.float32(action), (12, 1)), params)
        assert float(np.abs(np.asarray(state.account.level[-1])).sum()) == pytest.approx(gross, abs=1e-5)
    level = np.asarray(state.account.level[-1])
    assert level[:3].sum() == pytest.approx(0.6 * np.exp(5) / (np.exp(5) + 2), rel=1e-4)
    np.testing.assert_allclose(level[:3], level[0])


def test_compliance_and_the_joint_reward_move_when_limits_bind():
    env = JOINT
    bold = np.ones((STEPS, 12), np.float32)
    bold[:, 4:] = np.random.default_rng(0).uniform(0.8, 1.0, (STEPS, 8))
    loose, tight = (
        joint_params(Rules(limits=Limits(var=var, correlation=5.0, sector=5.0), groups=GROUPS))
        for var in (0.5, 0.002)
    )
    free, bound = run(env, bold, loose), run(env, bold, tight)
    assert int(free[0].portfolio.compliance.var[-1]) == 0
    assert int(bound[0].portfolio.compliance.var[-1]) >= 10
    assert np.abs(bound[0].account.exposure[-1]).sum() < np.abs(free[0].account.exposure[-1]).sum() / 2
    asked = np.asarray(bound[0].portfolio.asked.var)
    correlated = 5.0 - np.asarray(bound[0].portfolio.asked.correlation)
    # What is left of both rewards beside compliance and the rest, worked out by hand.
    sharpe = np.clip(np.asarray(bound[0].report.sharpe), -1, 1).mean(axis=1)
    size = np.abs(np.asarray(bound[0].account.exposure)) @ TEAM.membership
    balance = 1 - np.ptp(size, axis=1) / size.sum(axis=1)
    rest = 0.5 * sharpe + 0.5 * (0.3 + 0.2 * balance + 0.2 * correlated)
    np.testing.assert_allclose(bound[1].reward - rest, 0.15 * np.minimum(1, 0.002 / asked), atol=1e-5)


def test_the_meta_reward_is_the_risk_adjusted_one_of_the_portfolio():
    params, actions = meta_params(RULES["free"]), meta_actions(6)
    named = rewards.risk_adjusted(bars_per_year=252.0)
    one, two = (run(env, actions, params)[1] for env in (META, make_meta(TEAM, reward=named)))
    np.testing.assert_array_equal(one.reward, two.reward)
    plain = run(PLAIN_META, actions, params)[1]
    assert not np.allclose(one.reward, plain.reward, atol=1e-6)
    other = run(make_meta(TEAM, bars_per_year=6000.0), actions, params)[1]
    assert not np.allclose(one.reward, other.reward, atol=1e-6)


def test_an_instrument_within_the_threshold_keeps_its_units():
    env, params = PLAIN_JOINT, joint_params(RULES["free"])
    actions = np.ones((3, 12), np.float32)
    actions[1:, 4:] = [0.1, -0.1, 0.0, 0.05, 0.11, -0.11, 1.0, -1.0]
    state, out = run(env, actions, params)
    traded = np.asarray(out.fill.traded[1])
    free = np.asarray(BARS.present[START + 2])
    assert free[4:6].any()
    np.testing.assert_array_equal(traded[:4], 0.0)
    assert (traded[4:6][free[4:6]] != 0).all()
    sleeve = 1 / 3 / 2
    if free[4]:
        assert float(state.account.level[1, 4]) == pytest.approx(0.01 / 0.9 * sleeve, rel=1e-3)
    whole = make_joint(TEAM, reward=LOG, threshold=0.0)
    assert (np.asarray(run(whole, actions, params)[1].fill.traded[1])[:2][free[:2]] != 0).all()
