"""The environment that NumPy peers train on is ours: the same bars, the same rewards, the same ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.peers import task as tasks
from benchmarks.peers.accounts import Accounts
from envs.bar import State
from envs.ledger import open_account
from envs.observations import dense
from envs.single import make_single
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market_data

BARS, ACCOUNTS, EPISODE, LOOKBACK = 400, 64, 16, 5
LEVELS = (-3.0, 0.0, 1.0)


@pytest.fixture
def data():
    frame = synthetic.ar1(
        3, BARS, phi=0.3, sigma=0.15
    )  # wild enough that accounts of three times equity close
    features = np.random.default_rng(0).normal(size=(BARS, 3))
    costs = make_costs(fee_rate=2e-3, half_spread=1e-3, slippage=5e-4)
    return make_market_data(
        frame, features, costs=costs, ruin_equity=0.5, lookback=LOOKBACK, start=LOOKBACK - 1
    )


@pytest.fixture
def task(data, tmp_path):
    tasks.save(tmp_path / "task.npz", data, episode_bars=EPISODE, levels=LEVELS)
    return tasks.load(str(tmp_path / "task.npz"))


def mirrored(accounts: Accounts) -> State:
    """The accounts as states of our environment."""
    level, exposure = jnp.asarray(accounts.level), jnp.asarray(accounts.exposure)
    account = open_account(level, exposure).replace(log_equity=jnp.asarray(accounts.log_equity))
    return State(
        bar=jnp.asarray(accounts.bar, jnp.int32), end=jnp.asarray(accounts.end, jnp.int32), account=account
    )


def test_accounts_step_as_our_environment_does(data, task):
    env = make_single(levels=LEVELS, episode_bars=EPISODE)
    step = jax.jit(jax.vmap(env.step, (None, 0, 0, None)))
    look = jax.jit(jax.vmap(lambda bar, account: dense(data.features, bar, account, lookback=LOOKBACK)))
    accounts, generator = Accounts(task, ACCOUNTS, seed=1), np.random.default_rng(2)
    ends = np.zeros(2, int)
    for _ in range(5 * EPISODE):
        actions = generator.integers(0, len(LEVELS), ACCOUNTS)
        state, ours = step(None, mirrored(accounts), jnp.asarray(actions, jnp.int32), data.env_params)
        theirs = accounts.step(actions)
        np.testing.assert_allclose(theirs.reward, ours.reward, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(accounts.exposure, state.account.exposure, rtol=2e-4, atol=1e-5)
        np.testing.assert_array_equal(theirs.terminated, ours.terminated)
        np.testing.assert_array_equal(theirs.truncated, ours.truncated)
        seen = look(ours.observation.bar, ours.observation.account)
        np.testing.assert_allclose(accounts.observe(), seen, rtol=2e-4, atol=1e-5)
        ends += [theirs.terminated.sum(), theirs.truncated.sum()]
        accounts.restart(np.flatnonzero(theirs.terminated | theirs.truncated))
    assert (ends > 10).all()


def test_restarts_stay_within_the_slice_and_hold_a_level(task):
    accounts = Accounts(task, 5000)
    assert accounts.bar.min() == task.first
    assert accounts.end.max() == task.stop - 1
    assert (accounts.end - accounts.bar == EPISODE).all()
    assert set(accounts.level) == set(LEVELS)
    np.testing.assert_array_equal(accounts.exposure, accounts.level)


def test_settings_are_those_that_differ():
    given = tasks.settings_of('{"accounts": 8, "rollout_bars": 256}')
    assert given.batch == 2048
    assert given.num_minibatches == 4
    with pytest.raises(TypeError, match="unknown"):
        tasks.settings_of('{"unknown": 1}')
