"""Random trading: uniform over what there is, the same record, and nothing learnt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from envs import actions
from envs.single import make_single
from ztb_jax.baseline import make_random
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market_data
from ztb_jax.policies.distributions import distribution_for
from ztb_jax.policies.policy import make_policy

L, SIZES = 4, {"num_accounts": 4096, "rollout_bars": 8, "sharing": 16}


def data_of(**rules):
    frame = synthetic.ar1(0, 200)
    costs = make_costs(fee_rate=1e-3, half_spread=0.0, slippage=0.0)
    return make_market_data(frame, np.zeros((200, 1)), costs=costs, lookback=L, start=L - 1, **rules)


def learner(space, **sizes):
    env = make_single(actions=space, episode_bars=64)
    policy = make_policy(
        num_features=1, account_size=2, distribution=distribution_for(space), lookback=L, width=8
    )
    return make_random(env, policy, **(SIZES | sizes))


def played(space):
    """The states and metrics of two rollouts of 8 bars in windows of 64."""
    random, data = learner(space), data_of()
    step = jax.jit(random.step)
    before = jax.jit(random.init)(jax.random.key(0), data)
    middle, _ = step(before, data)
    after, metrics = step(middle, data)
    going = np.asarray(after.play.env_state.bar) == np.asarray(middle.play.env_state.bar) + 8
    return before, after, metrics, np.asarray(after.play.env_state.account.level)[going].ravel()


def test_choices_are_uniform():
    _, _, metrics, levels = played(actions.levels((-1.0, 0.0, 0.5, 1.0)))
    values, counts = np.unique(levels, return_counts=True)
    assert values.tolist() == [-1.0, 0.0, 0.5, 1.0]
    assert stats.chisquare(counts).pvalue > 1e-3
    # Two levels out of sixteen pairs differ by 2, and so on: the mean distance between two random ones.
    grid = np.array([-1.0, 0.0, 0.5, 1.0])
    np.testing.assert_allclose(metrics["turnover"], np.abs(grid[:, None] - grid[None]).mean(), rtol=0.05)
    np.testing.assert_allclose(metrics["cost"], 1e-3 * metrics["turnover"], rtol=1e-3)


def test_exposures_are_uniform_within_their_bounds():
    *_, levels = played(actions.continuous(low=-0.5, high=1.0))
    assert stats.kstest(levels, stats.uniform(-0.5, 1.5).cdf).pvalue > 1e-3


def test_nothing_is_learnt_and_the_game_goes_on():
    before, after, metrics, _ = played(actions.levels())
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
    assert after.updates == 2
    assert (jax.random.key_data(after.key) != jax.random.key_data(before.key)).any()
    assert (after.play.env_state.bar != before.play.env_state.bar).any()
    assert {"loss", "reward", "grad_norm", "param_norm", "skipped"} <= set(metrics)
    assert all(value.shape == () and value.dtype == jnp.float32 for value in metrics.values())


def test_choices_that_are_ruled_out_are_not_taken():
    """On bars that are closed only what one has can be asked for."""
    frame = synthetic.ar1(0, 200)
    random = learner(actions.levels(), num_accounts=64)
    data = data_of()
    market = data.env_params.market.replace(tradable=jnp.zeros(len(frame), bool))
    data = data.replace(env_params=data.env_params.replace(market=market))
    _, metrics = jax.jit(random.step)(jax.jit(random.init)(jax.random.key(0), data), data)
    assert metrics["trades"] == 0.0


def test_wrong_sizes_are_refused_together():
    with pytest.raises(ValueError, match=r"num_accounts \(100\).*sharing \(16\); episode_bars \(64\)"):
        learner(actions.levels(), num_accounts=100, rollout_bars=7)
