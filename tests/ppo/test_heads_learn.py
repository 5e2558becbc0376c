"""Every head through PPO's step: the ratio begins at one, and a trivial market is learnt."""

from functools import cache

import jax
import numpy as np
import pandas as pd
import pytest

from envs import actions
from envs.orders import MARKET
from envs.single import make_single
from tests.ppo.cases import LOOKBACK, jit, network, ready
from ztb_jax.data.market import make_costs, make_market_data
from ztb_jax.optimizers import as_arrays
from ztb_jax.policies.distributions import distribution_for
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.learner import Options, make_ppo

EPISODE, ROLLOUT, BARS = 16, 8, 60
FREE = make_costs(fee_rate=0.0, half_spread=0.0, slippage=0.0)
GRID = actions.grid(sizes=(0.5, 1.0), orders=((MARKET, 0.0, 0.0),), flat=False)


def rising():
    """Every bar closes a percent higher than it opens, give or take: as much as may be held is best."""
    moves = 0.01 + 0.002 * np.random.default_rng(0).normal(size=BARS)
    close = 100.0 * np.cumprod(1.0 + moves)
    return pd.DataFrame({"open": close / (1.0 + moves), "close": close})


def single(space, head):
    env = make_single(actions=space, episode_bars=EPISODE)
    data = make_market_data(rising(), np.ones((BARS, 1)), costs=FREE, lookback=LOOKBACK, start=LOOKBACK - 1)
    return env, data, distribution_for(space, head)


CASES = {
    "squashed_gaussian": lambda: single(actions.continuous(), "squashed_gaussian"),
    "beta": lambda: single(actions.continuous(low=-0.5, high=2.0), "beta"),
    "multi_categorical": lambda: single(GRID, "multi_categorical"),
}


@cache
def prepared(name):
    env, data, family = CASES[name]()
    policy = network(num_actions=None, distribution=family, account_size=env.account_size)
    ppo = make_ppo(
        env,
        ready(policy, outputs=0.1),
        num_accounts=32,
        rollout_bars=ROLLOUT,
        sharing=8,
        options=Options(num_minibatches=2, epochs=4),
    )
    return jit(ppo.step), jit(ppo.init)(jax.random.key(0), data), data


@pytest.mark.parametrize("name", CASES)
def test_the_first_ratio_is_one(name):
    step, state, data = prepared(name)
    still = state.replace(hyper=as_arrays(Hyper(learning_rate=0.0, clip=2e-6)))
    after, metrics = step(still, data)
    assert float(metrics["clip_fraction"]) == 0.0
    assert float(metrics["skipped"]) == 0.0
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    assert all(np.isfinite(float(metric)) for metric in metrics.values())


@pytest.mark.parametrize("name", CASES)
def test_what_rises_is_held(name):
    step, state, data = prepared(name)
    quick = Hyper(learning_rate=0.02, gamma=0.0, entropy_weight=0.0, max_grad_norm=1.0)
    state = state.replace(hyper=as_arrays(quick))
    for _ in range(25):
        state, metrics = step(state, data)
        assert all(np.isfinite(float(metric)) for metric in metrics.values())
    # An account that has just begun holds a level drawn by chance.
    chosen = np.asarray(state.play.env_state.account.level)[~np.asarray(state.play.fresh)]
    assert chosen.mean() > 0.8 * (2.0 if name == "beta" else 1.0)
