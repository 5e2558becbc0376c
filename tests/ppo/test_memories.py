"""PPO with encoders that have a memory: the same laws as with a plain window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.single import make_single
from envs.transforms import aligned, autoreset, vectorise
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market_data
from ztb_jax.policies.encoding import encode_bars
from ztb_jax.policies.play import begin
from ztb_jax.policies.policy import ENCODERS, make_policy
from ztb_jax.ppo.learner import Options, make_ppo
from ztb_jax.ppo.rollout import collect

L, EPISODE, ROLLOUT = 6, 32, 8
ENV = make_single(episode_bars=EPISODE)
MEMORIES = [name for name in ENCODERS if name != "window"]


def market(num_bars):
    frame = synthetic.ar1(0, num_bars)
    returns = frame["close"].pct_change().fillna(0.0).to_numpy()
    return make_market_data(
        frame,
        (returns / returns.std())[:, None],
        costs=make_costs(fee_rate=5e-4, half_spread=0.0, slippage=0.0),
        lookback=L,
        start=L - 1,
    )


def policy(encoder):
    return make_policy(
        num_features=1, account_size=2, num_actions=3, lookback=L, width=8, encoder=encoder, grid=ROLLOUT
    )


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("num_bars", [60, 400])  # fewer bars than the groups play, and more
def test_the_first_minibatch_sees_the_very_policy_that_played(encoder, num_bars):
    data, network = market(num_bars), policy(encoder)
    env = autoreset(vectorise(aligned(ENV, bars=ROLLOUT), num_groups=8, sharing=4))
    params = network.init(jax.random.key(0))
    state, _ = env.reset(jax.random.key(1), data.env_params)

    @jax.jit
    def go_on(play):
        return collect(
            jax.random.key(2), network, env, params=params, play=play, data=data, rollout_bars=ROLLOUT
        )

    play = begin(state, (8, 4), network)
    for _ in range(3):
        play, rollout, _ = go_on(play)
    rows, at = encode_bars(network, params, data.features, rollout.start, bars=ROLLOUT)
    log_probs, value = network.apply(params, rows[at][:, :, None], rollout.account)
    ratio = np.exp(
        np.asarray(network.distribution.log_prob(log_probs, rollout.action) - rollout.log_prob, np.float64)
    )
    np.testing.assert_allclose(ratio, 1.0, atol=5e-7)
    np.testing.assert_allclose(value, rollout.value, atol=5e-6)


@pytest.mark.parametrize("encoder", MEMORIES)
def test_every_weight_of_a_memory_learns(encoder):
    data = market(400)
    ppo = make_ppo(
        ENV,
        policy(encoder),
        num_accounts=32,
        rollout_bars=ROLLOUT,
        sharing=4,
        options=Options(num_minibatches=2, epochs=2),
    )
    before = jax.jit(ppo.init)(jax.random.key(0), data)
    after, metrics = jax.jit(ppo.step)(before, data)
    assert np.isfinite(float(metrics["loss"]))
    for path, leaf in jax.tree_util.tree_leaves_with_path(before.params):
        now = dict(jax.tree_util.tree_leaves_with_path(after.params))[path]
        assert (leaf != now).any(), jax.tree_util.keystr(path)


def test_windows_of_a_grid_begin_on_it():
    data = market(400)
    env = aligned(ENV, bars=ROLLOUT)
    starts = jax.vmap(lambda key: env.reset(key, data.env_params)[0].bar)(
        jax.random.split(jax.random.key(0), 200)
    )
    late = np.asarray(starts) - (L - 1)
    assert not (late % ROLLOUT).any()
    assert len(set(late.tolist())) > 20
    assert late.min() >= 0
    assert int(starts.max()) + EPISODE < int(data.env_params.stop)


def test_refuses_an_unknown_encoder_and_a_rollout_off_the_grid():
    with pytest.raises(ValueError, match="take one of window, recurrence, gru, attention"):
        policy("lstm")
    with pytest.raises(ValueError, match=r"rollout_bars \(12\) must be a multiple of grid \(8\)"):
        make_ppo(make_single(episode_bars=24), policy("gru"), num_accounts=8, sharing=4, rollout_bars=12)
    assert jnp.isfinite(policy("gru").encode(policy("gru").init(jax.random.key(0)), jnp.ones((30, 1)))).all()
