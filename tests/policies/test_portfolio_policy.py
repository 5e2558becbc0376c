"""One network for all instruments: permuting them permutes what it says; and a book is learnt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.portfolio import make_portfolio
from envs.portfolio_market import make_portfolio_market, make_portfolio_params
from ztb_jax.data.market import MarketData, make_costs
from ztb_jax.policies.distributions import dirichlet, distribution_for, squashed_gaussian
from ztb_jax.policies.policy import ENCODERS, make_policy
from ztb_jax.policies.portfolio import make_portfolio_policy
from ztb_jax.policies.transforms import popart_values
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.learner import Options, make_ppo

A, F, L, T = 3, 2, 4, 20
ORDER = np.array([2, 0, 1])


def network(encoder="window", family=None):
    family = squashed_gaussian(A) if family is None else family
    return make_portfolio_policy(
        num_instruments=A, num_features=F, distribution=family, lookback=L, width=8, encoder=encoder, grid=4
    )


def awake(policy):
    """Weights of which no two instruments are alike."""
    return jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(9), leaf.shape),
        policy.init(jax.random.key(0)),
    )


def seen(order):
    """Features [T, A F] and account views [T, 2 A] with the instruments in `order`."""
    features = np.random.default_rng(0).normal(size=(T, A, F)).astype(np.float32)
    account = np.random.default_rng(1).normal(size=(T, 2, A)).astype(np.float32)
    return jnp.asarray(features[:, order].reshape(T, -1)), jnp.asarray(account[:, :, order].reshape(T, -1))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_permuted_instruments_are_told_permuted_things(encoder):
    policy = network(encoder)
    params = awake(policy)

    def said(order):
        features, account = seen(order)
        return policy.apply(params, policy.encode(params, features), account)

    (plain, value), (moved, same) = said(np.arange(A)), said(ORDER)
    np.testing.assert_allclose(moved.mean, plain.mean[:, ORDER], atol=1e-5)
    np.testing.assert_allclose(moved.log_std, plain.log_std[:, ORDER], atol=1e-5)
    np.testing.assert_allclose(same, value, atol=1e-5)
    assert np.abs(np.diff(plain.mean, axis=1)).min(axis=1).max() > 1e-3, "instruments differ"


def test_each_instrument_is_encoded_as_if_it_were_alone():
    policy = network()
    params = awake(policy)
    features, _ = seen(np.arange(A))
    contexts = policy.encode(params, features).reshape(T, A, 8)
    alone = make_policy(num_features=F, account_size=2, num_actions=2, lookback=L, width=8)
    for a in range(A):
        own = alone.encode({"encoder": params["encoder"]}, features[:, a * F : (a + 1) * F])
        np.testing.assert_allclose(contexts[:, a], own, atol=1e-5)
    np.testing.assert_array_equal(policy.encode(params, features, 7), policy.encode(params, features)[7:])


def test_the_book_has_numbers_of_its_own():
    policy = network(family=dirichlet(A))
    features, account = seen(np.arange(A))
    params = awake(policy)
    parameters, value = policy.apply(params, policy.encode(params, features), account)
    weights = policy.distribution.act(policy.distribution.mode(parameters))
    assert weights.shape == (T, A)
    assert value.shape == (T,)
    assert (np.asarray(weights).sum(axis=1) < 1.0).all()


def test_what_rises_is_bought_and_what_falls_is_sold():
    bars = 80
    drift = np.where(np.arange(bars)[:, None] % 20 < 10, [0.01, -0.01, 0.0], [-0.01, 0.01, 0.0])
    close = 100.0 * np.cumprod(1.0 + drift, axis=0)
    market = make_portfolio_market(close / (1.0 + drift), close, window=None)
    costs = make_costs(fee_rate=0.0, half_spread=0.0, slippage=0.0)
    # The feature of each instrument is its next move, so that one network for all can learn what to do.
    features = jnp.asarray(np.roll(drift, -1, axis=0) * 100.0)
    params = make_portfolio_params(market, costs, first=L - 1)
    data = MarketData(features, params, jnp.float32(100.0), L)
    env = make_portfolio(num_instruments=A, episode_bars=16)
    policy = popart_values(
        make_portfolio_policy(
            num_instruments=A,
            num_features=1,
            distribution=distribution_for(env.actions),
            lookback=L,
            width=8,
        )
    )
    ppo = make_ppo(
        env,
        policy,
        num_accounts=64,
        rollout_bars=8,
        sharing=8,
        hyper=Hyper(learning_rate=0.02, gamma=0.0, entropy_weight=0.0),
        options=Options(num_minibatches=2),
    )
    state, step = jax.jit(ppo.init)(jax.random.key(0), data), jax.jit(ppo.step)
    rewards = []
    for _ in range(30):
        state, metrics = step(state, data)
        rewards.append(float(metrics["reward"]))
    assert rewards[-1] > 0.014, "of at most 0.02: two of three move by a hundredth"
    assert rewards[0] < 0.005


def test_refuses_what_cannot_be_all_at_once():
    with pytest.raises(
        ValueError, match=r"width must be at least 1.*reads 2 numbers for 3 instruments"
    ) as told:
        make_portfolio_policy(num_instruments=3, num_features=0, width=0, distribution=squashed_gaussian(1))
    assert "num_features" in str(told.value)
