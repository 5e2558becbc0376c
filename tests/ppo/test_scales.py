"""Running moments, normalised observations, values and rewards, precision, memory saved, decay and Muon."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.single import make_single
from envs.transforms import autoreset, vectorise
from tests.ppo.cases import (
    assert_close,
    jit,
    made_up,
    market,
    network,
    ready,
    spec,
    unsettled,
    updated,
)
from ztb_jax.keys import split_named
from ztb_jax.optimizers import as_arrays, optimizer_of
from ztb_jax.policies.moments import LARGEST_COUNT, Moments, merged, no_moments
from ztb_jax.policies.transforms import (
    in_precision,
    normalised,
    popart_values,
    rematerialised,
    symexp,
    symlog,
    symlog_values,
)
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.learner import Options, make_ppo
from ztb_jax.ppo.rollout import collect
from ztb_jax.ppo.update import make_gradient, samples_of

DATA = market()
POLICY, MEMORY = network(), network(memory=3)


def of(numbers):
    """`Moments` of an array [N, ...], by NumPy."""
    numbers = np.asarray(numbers, np.float64)
    return Moments(
        jnp.float32(len(numbers)), numbers.mean(0).astype(np.float32), numbers.var(0).astype(np.float32)
    )


def test_merged_moments_are_those_of_all_samples():
    rng = np.random.default_rng(0)
    batches = [rng.normal(3.0, 2.0, (size, 2)) for size in (1, 7, 64, 3)]
    moments = no_moments((2,))
    for batch in batches:
        moments = merged(moments, jnp.asarray(batch, jnp.float32))
    assert_close(moments, of(np.concatenate(batches)))
    first = merged(no_moments(), jnp.array([5.0]))
    assert (float(first.count), float(first.mean), float(first.variance)) == (1.0, 5.0, 0.0)
    assert float(first.deviation) == 1.0, "nothing has varied, so nothing is scaled"


def test_a_thousand_merges_lose_nothing():
    rng = np.random.default_rng(1)
    numbers = (rng.normal(size=(1000, 32)) * np.linspace(0.1, 5.0, 1000)[:, None] + 20.0).astype(np.float32)
    merge_all = jax.jit(
        lambda rows: jax.lax.scan(lambda m, row: (merged(m, row), None), no_moments(), rows)[0]
    )
    found, whole = merge_all(numbers), of(numbers.ravel())
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-5)
    np.testing.assert_allclose(found.variance, whole.variance, rtol=1e-5)


def test_the_count_stops_where_float32_would():
    old = Moments(jnp.float32(LARGEST_COUNT), jnp.float32(0.0), jnp.float32(1.0))
    after = merged(old, jnp.full(1000, 10.0))
    assert float(after.count) == LARGEST_COUNT
    np.testing.assert_allclose(after.mean, 10.0 * 1e3 / (1e8 + 1e3), rtol=1e-4)


@pytest.mark.parametrize("inner", [POLICY, MEMORY], ids=["plain", "memory"])
def test_a_normalised_policy_is_the_policy_of_standardised_inputs(inner):
    policy = normalised(inner, num_features=1, account_size=2)
    rng = np.random.default_rng(2)
    features, account = rng.normal(5.0, 3.0, (40, 1)), rng.normal(-2.0, 4.0, (30, 2))
    features[7] = 500.0  # is clipped
    params = unsettled(inner) | {"seen": {"features": no_moments((1,)), "account": no_moments((2,))}}
    played = np.delete(features, 7, axis=0)
    params = policy.adapt(params, jnp.asarray(played), jnp.asarray(account).reshape(5, 6, 2), None)
    assert_close(params["seen"], {"features": of(played), "account": of(account)})

    def standard(values, sample):
        return jnp.asarray(np.clip((values - sample.mean(0)) / sample.std(0), -10.0, 10.0), jnp.float32)

    contexts = policy.encode(params, jnp.asarray(features, jnp.float32))
    assert_close(contexts, inner.encode(params, standard(features, played)), atol=1e-4)
    view, plain = jnp.asarray(account, jnp.float32), standard(account, account)
    if inner.memory is not None:
        before = jnp.asarray(rng.normal(size=(30, 3)), jnp.float32)
        after = policy.memory.step(params, before, contexts[:30], view)
        assert_close(after, inner.memory.step(params, before, contexts[:30], plain), atol=1e-4)
        view, plain = (jnp.concatenate([part, after], axis=-1) for part in (view, plain))
    assert_close(
        policy.apply(params, contexts[:30], view), inner.apply(params, contexts[:30], plain), atol=1e-4
    )


@pytest.mark.parametrize("shared", [True, False])
def test_popart_moves_the_statistics_and_no_estimate(shared):
    inner = network(shared_torso=shared)
    policy = popart_values(inner)
    params = unsettled(inner) | {"returns": no_moments()}
    rng = np.random.default_rng(3)
    contexts = jnp.asarray(rng.normal(size=(50, 8 if shared else 16)), jnp.float32)
    account = jnp.asarray(rng.normal(size=(50, 2)), jnp.float32)
    for scale in (1.0, 7.0, 0.3):
        target = rng.normal(-3.0, 5.0 * scale, (4, 5, 6))
        before = policy.apply(params, contexts, account)
        params = policy.adapt(params, None, None, jnp.asarray(target, jnp.float32))
        assert_close(policy.apply(params, contexts, account), before, atol=2e-5)
    params = policy.adapt(params | {"returns": no_moments()}, None, None, jnp.asarray(target, jnp.float32))
    seen = np.asarray(policy.value_space(params, jnp.asarray(target, jnp.float32)), np.float64)
    assert seen.mean() == pytest.approx(0.0, abs=1e-5)
    assert seen.std() == pytest.approx(1.0, abs=1e-5)
    _, value = policy.apply(params, contexts, account)
    assert_close(policy.value_space(params, value), inner.apply(params, contexts, account)[1], atol=1e-5)


def test_symlog_is_undone_by_symexp():
    numbers = np.array([-1e6, -3.0, -1e-3, 0.0, 1e-3, 0.5, 20.0, 1e6], np.float32)
    np.testing.assert_allclose(symlog(numbers), np.sign(numbers) * np.log1p(np.abs(numbers)), rtol=1e-6)
    np.testing.assert_allclose(symexp(symlog(numbers)), numbers, rtol=1e-5)
    policy, params = symlog_values(POLICY), unsettled(POLICY)
    context, account = jnp.ones((3, 8)), jnp.arange(6.0).reshape(3, 2)
    _, value = policy.apply(params, context, account)
    np.testing.assert_allclose(value, symexp(POLICY.apply(params, context, account)[1]), rtol=1e-6)
    np.testing.assert_allclose(policy.value_space(params, value), symlog(value), rtol=1e-6)


def test_rewards_are_divided_by_the_running_deviation_of_discounted_returns():
    env = make_single(episode_bars=16)
    fragile = DATA.replace(env_params=DATA.env_params.replace(ruin_equity=jnp.float32(0.97)))
    ppo = make_ppo(
        env,
        ready(POLICY),
        num_accounts=16,
        rollout_bars=8,
        sharing=4,
        hyper=Hyper(gamma=0.9, lam=0.8),
        options=Options(epochs=1, num_minibatches=1, normalise_rewards=True),
    )
    step, batch = jit(ppo.step), autoreset(vectorise(env, num_groups=4, sharing=4))

    @jit
    def replay(state):
        key = split_named(state.key, "next", "rollout", "update")["rollout"]
        return collect(
            key, POLICY, batch, params=state.params, play=state.play, data=fragile, rollout_bars=8
        )[1]

    state = jit(ppo.init)(jax.random.key(0), fragile)
    running, seen, ruins = np.zeros((4, 4)), [], 0
    for _ in range(4):
        rollout = replay(state)
        state, metrics = step(state, fragile)
        for t in range(8):
            running = 0.9 * running + np.asarray(rollout.reward[t], np.float64)
            seen.append(running)
            running = np.where(rollout.terminated[t], 0.0, running)
        ruins += int(rollout.terminated.sum())
        assert_close(state.reward_scale.running, running)
        assert_close(state.reward_scale.moments, of(np.stack(seen).ravel()), rtol=1e-4)
        scaled = rollout.replace(reward=rollout.reward / np.float32(np.std(seen)))
        target = np.asarray(samples_of(scaled, gamma=0.9, lam=0.8).target)
        explained = 1.0 - (target - rollout.value).var() / target.var()
        np.testing.assert_allclose(metrics["explained_variance"], explained, rtol=1e-3)
        np.testing.assert_allclose(metrics["reward"], rollout.reward.mean() / fragile.reward_scale, rtol=1e-4)
    assert ruins > 0


@cache
def gradient_of(transform):
    policy, rollout = transform(MEMORY), made_up(MEMORY)
    samples = samples_of(rollout, gamma=0.9, lam=0.8)
    params = unsettled(MEMORY)
    return jit(make_gradient(policy, spec()))(params, (rollout.start, None, samples), DATA, Hyper())


def as_it_is(policy):
    return policy


def in_bfloat16(policy):
    return in_precision(policy, jnp.bfloat16)


def test_rematerialising_changes_no_gradient():
    assert_close(gradient_of(rematerialised), gradient_of(as_it_is), rtol=1e-6, atol=1e-7)
    policy = rematerialised(POLICY)
    params = unsettled(POLICY)
    np.testing.assert_array_equal(policy.encode(params, DATA.features), POLICY.encode(params, DATA.features))


def test_bfloat16_computes_nearly_the_same_and_keeps_nothing():
    grads, parts = gradient_of(in_bfloat16)
    exact, exact_parts = gradient_of(as_it_is)
    assert {leaf.dtype for leaf in jax.tree.leaves((grads, parts))} == {jnp.dtype("float32")}
    assert_close(parts, exact_parts, rtol=2e-2, atol=2e-2)
    assert_close(grads, exact, rtol=0.1, atol=2e-2)
    policy, params = in_bfloat16(MEMORY), unsettled(MEMORY)
    context = policy.encode(params, DATA.features)
    assert context.dtype == jnp.bfloat16
    view = jnp.ones((len(context), 5), jnp.float32)
    outputs = policy.apply(params, context, view)
    expected = MEMORY.apply(params, MEMORY.encode(params, DATA.features), view)
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype("float32")}
    assert_close(outputs, expected, rtol=2e-2, atol=5e-2)
    remembered = policy.memory.step(params, jnp.zeros((3,)), context[5], view[5, :2])
    assert remembered.dtype == jnp.float32


@pytest.mark.parametrize("accumulate", [1, 2])
def test_thousands_of_steps_on_a_bar_add_up_in_bfloat16(accumulate):
    policy, rollout = in_bfloat16(POLICY), made_up(POLICY)
    samples = samples_of(rollout, gamma=0.9, lam=0.8)
    params = unsettled(POLICY)

    def encoder_gradient(copies):
        """Of every account `copies` times: the mean over them is the same."""
        many = jax.tree.map(lambda leaf: jnp.tile(leaf, (1, 1, copies, *(1,) * (leaf.ndim - 3))), samples)
        of = make_gradient(policy, spec(accumulate=accumulate))
        return jit(of)(params, (rollout.start, None, many), DATA, Hyper())[0]["encoder"]

    assert_close(encoder_gradient(512), encoder_gradient(1), rtol=0.02, atol=2e-3)


def test_weights_and_moments_of_a_bfloat16_update_are_float32():
    trained, metrics = updated(in_bfloat16(POLICY), spec(), made_up(POLICY))
    leaves = [leaf for leaf in jax.tree.leaves((trained, metrics)) if leaf.dtype != jnp.int32]
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert float(metrics["skipped"]) == 0.0


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_matrices_decay_and_nothing_else_does(name):
    params = {"kernel": jnp.full((3, 2), 2.0), "bias": jnp.full(2, 2.0), "count": jnp.float32(2.0)}
    optimizer = optimizer_of(name, as_arrays(Hyper(learning_rate=0.1, weight_decay=0.5)))
    nothing = jax.tree.map(jnp.zeros_like, params)
    changes, _ = optimizer.update(nothing, optimizer.init(params), params)
    np.testing.assert_allclose(changes["kernel"], -0.1 * 0.5 * 2.0, rtol=1e-6)
    np.testing.assert_array_equal(changes["bias"], 0.0)
    np.testing.assert_array_equal(changes["count"], 0.0)


def test_a_step_of_muon_changes_every_leaf():
    before = unsettled(POLICY)
    trained, metrics = updated(POLICY, spec(optimizer="muon"), made_up(POLICY), learning_rate=1e-2)
    assert float(metrics["skipped"]) == 0.0
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.tree.map(jnp.subtract, trained.params, before)):
        assert np.isfinite(leaf).all()
        assert np.asarray(leaf).any(), jax.tree_util.keystr(path)
