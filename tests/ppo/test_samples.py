"""What a rollout becomes, and the rates it is learnt at: bootstrap, scaling, schedules, fresh shuffles."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.transforms import autoreset, vectorise
from tests.ppo.cases import unsettled
from tests.ppo.test_gae import loop
from tests.ppo.test_learner import DATA, ENV, POLICY, ROLLOUT, learner, minibatching, standard
from ztb_jax.optimizers import as_arrays
from ztb_jax.policies.play import begin
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.minibatches import epoch_orders
from ztb_jax.ppo.rollout import Rollout, collect
from ztb_jax.ppo.update import samples_of

T, G, S = 12, 3, 2


def test_samples_equal_the_loop_with_terminations_and_the_bootstrap():
    rng = np.random.default_rng(0)
    value, reward = rng.normal(size=(2, T, G, S))
    terminated, final = rng.uniform(size=(T, G, S)) < 0.2, rng.normal(size=(G, S))
    rollout = Rollout(
        start=jnp.zeros(G, jnp.int32),
        memory=None,
        fresh=jnp.zeros((G, S), bool),
        account=jnp.zeros((T, G, S, 2)),
        action=jnp.zeros((T, G, S), jnp.int32),
        log_prob=jnp.zeros((T, G, S)),
        value=jnp.asarray(value),
        reward=jnp.asarray(reward),
        terminated=jnp.asarray(terminated),
        allowed=None,
        final_value=jnp.asarray(final),
    )
    samples = samples_of(rollout, gamma=0.9, lam=0.8)
    for g, s in np.ndindex(G, S):
        seen, following = value[:, g, s], np.append(value[1:, g, s], final[g, s])
        expected = loop(reward[:, g, s], seen, following, terminated[:, g, s], np.zeros(T, bool), 0.9, 0.8)
        np.testing.assert_allclose(samples.advantage[:, g, s], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(samples.target[:, g, s], expected + seen, rtol=1e-4, atol=1e-5)


def test_the_final_value_is_of_the_state_before_the_reset_and_rewards_are_scaled():
    params = unsettled(POLICY, outputs=0.1)
    plain = vectorise(ENV, num_groups=8, sharing=4)
    state, _ = plain.reset(jax.random.key(1), DATA.env_params)
    state = state.replace(end=state.bar + ROLLOUT)  # every window ends with this rollout
    _, rollout, _ = collect(
        jax.random.key(2),
        POLICY,
        autoreset(plain),
        params=params,
        play=begin(state, (8, 4), POLICY),
        data=DATA,
        rollout_bars=ROLLOUT,
    )
    rewards, seen = [], None
    for t in range(ROLLOUT):
        state, out = plain.step(jax.random.key(0), state, rollout.action[t], DATA.env_params)
        rewards.append(out.reward)
        seen = out.observation.account
    np.testing.assert_allclose(rollout.reward, jnp.stack(rewards) * DATA.reward_scale, rtol=1e-5, atol=1e-6)
    context = POLICY.encode(params, DATA.features)[rollout.start + ROLLOUT]
    _, value = POLICY.apply(params, context[:, None], seen)
    np.testing.assert_allclose(rollout.final_value, value, atol=1e-6)


def test_the_reward_metric_is_a_log_return_whatever_the_scale():
    init, step = standard()
    state = init(jax.random.key(0), DATA)
    scaled = DATA.replace(reward_scale=DATA.reward_scale * 2)
    one, other = (step(state, data)[1]["reward"] for data in (DATA, scaled))
    np.testing.assert_allclose(one, other, rtol=1e-4)
    assert float(one) != 0.0


def test_the_first_update_runs_at_the_full_rates_and_a_later_one_at_less_of_both():
    state = standard()[0](jax.random.key(0), DATA)
    steps = [jax.jit(learner(epochs=1, num_updates=updates).step) for updates in (None, 4)]

    def after(step, updates, **numbers):
        hyper = as_arrays(Hyper(**numbers))
        return step(state.replace(updates=jnp.int32(updates), hyper=hyper), DATA)[0].params

    constant, falling = (after(step, 0) for step in steps)
    jax.tree.map(np.testing.assert_array_equal, constant, falling)
    falling = after(steps[1], 2, learning_rate=2e-2, entropy_weight=2.0)
    constant = after(steps[0], 2, learning_rate=1e-2, entropy_weight=1.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), falling, constant)
    shaped = after(
        steps[1], 2, learning_rate=1e-2, learning_rate_schedule=(0.0, 1.0, 0.0), entropy_weight=2.0
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), shaped, constant)


def test_every_epoch_has_an_order_of_its_own():
    cut = minibatching(sharing=16, num_minibatches=4)
    orders = np.asarray(epoch_orders(jax.random.key(0), epochs=6, cut=cut))
    assert orders.shape == (6, 16)
    assert (np.sort(orders, axis=1) == np.arange(16)).all()
    assert len({order.tobytes() for order in orders}) == 6
