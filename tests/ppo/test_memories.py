"""PPO with encoders that have a memory: the same laws as with a plain window."""

import jax
import numpy as np
import pytest

from envs.single import make_single
from envs.transforms import aligned, autoreset, vectorise
from tests.ppo.cases import market, network, unsettled
from ztb_jax.policies.encoding import encode_bars
from ztb_jax.policies.play import begin
from ztb_jax.policies.policy import ENCODERS
from ztb_jax.ppo.learner import make_ppo
from ztb_jax.ppo.rollout import collect

L, EPISODE, ROLLOUT = 6, 32, 8
ENV = make_single(episode_bars=EPISODE)


def policy_of(encoder):
    return network(lookback=L, encoder=encoder, grid=ROLLOUT)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("num_bars", [60, 400])  # fewer bars than the groups play, and more
def test_the_first_minibatch_sees_the_very_policy_that_played(encoder, num_bars):
    data, policy = market(num_bars, lookback=L), policy_of(encoder)
    env = autoreset(vectorise(aligned(ENV, bars=ROLLOUT), num_groups=8, sharing=4))
    params = unsettled(policy, outputs=0.02)
    state, _ = env.reset(jax.random.key(1), data.env_params)

    @jax.jit
    def go_on(play):
        return collect(
            jax.random.key(2), policy, env, params=params, play=play, data=data, rollout_bars=ROLLOUT
        )

    play = begin(state, (8, 4), policy)
    for _ in range(3):
        play, rollout, _ = go_on(play)

    @jax.jit
    def again(rollout):
        rows, at = encode_bars(policy, params, data.features, rollout.start, bars=ROLLOUT)
        log_probs, value = policy.apply(params, rows[at][:, :, None], rollout.account)
        return policy.distribution.log_prob(log_probs, rollout.action), value

    log_prob, value = again(rollout)
    ratio = np.exp(np.asarray(log_prob - rollout.log_prob, np.float64))
    np.testing.assert_allclose(ratio, 1.0, atol=5e-7)
    np.testing.assert_allclose(value, rollout.value, atol=5e-6)


def test_windows_of_a_grid_begin_on_it():
    data = market(400, lookback=L)
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
        policy_of("lstm")
    with pytest.raises(ValueError, match=r"rollout_bars \(12\) must be a multiple of grid \(8\)"):
        make_ppo(make_single(episode_bars=24), policy_of("gru"), num_accounts=8, sharing=4, rollout_bars=12)
