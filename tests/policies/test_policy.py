"""The split network equals a dense one on the window and the account; contexts are causal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.observations import dense
from ztb_jax.policies import distributions
from ztb_jax.policies.policy import make_policy

T, F, L, K, A = 40, 3, 5, 2, 3


def network(shared, depth=2):
    sizes = {"num_features": F, "account_size": K, "num_actions": A, "lookback": L, "width": 16}
    return make_policy(**sizes, depth=depth, shared_torso=shared)


def as_float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def numpy_forward(params, window, account, shared, depth):
    """The same network as one dense MLP over [window, account], float64."""
    encoder, head = as_float64(params["encoder"]["params"]["window"]), as_float64(params["head"]["params"])
    kernel = np.concatenate([encoder["kernel"], head["account"]["kernel"]])
    first = np.tanh(np.concatenate([window, account]) @ kernel + encoder["bias"])

    def layer(x, name):
        return x @ head[name]["kernel"] + head[name]["bias"]

    def hidden(x, name):
        for named in (name, f"{name}_3", f"{name}_4")[: depth - 1]:
            x = np.tanh(layer(x, named))
        return x

    if shared:
        outputs = layer(hidden(first, "torso"), "outputs")
        logits, value = outputs[:A], outputs[A]
    else:
        logits = layer(hidden(first[:16], "actor"), "logits")
        value = layer(hidden(first[16:], "critic"), "value")[0]
    return logits - np.log(np.exp(logits).sum()), value


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_equals_a_dense_network_on_the_materialised_observation(shared, depth):
    policy = network(shared, depth)
    params = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(9), x.shape), policy.init(jax.random.key(0))
    )
    features = jax.random.normal(jax.random.key(1), (T, F))
    account = jax.random.normal(jax.random.key(2), (K,))
    contexts = policy.encode(params, features)
    for bar in (L - 1, 17, T - 1):
        log_probs, value = policy.apply(params, contexts[bar], account)
        observation = np.asarray(dense(features, jnp.int32(bar), account, lookback=L), np.float64)
        expected, expected_value = numpy_forward(
            params, observation[: L * F], observation[L * F :], shared, depth
        )
        np.testing.assert_allclose(log_probs, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(value, expected_value, rtol=1e-5, atol=1e-5)


def test_a_context_uses_its_window_and_nothing_else():
    policy = network(True)
    params = policy.init(jax.random.key(0))
    features = jax.random.normal(jax.random.key(1), (T, F))
    contexts = policy.encode(params, features)
    later = features.at[21:].set(99.0)
    np.testing.assert_array_equal(policy.encode(params, later)[:21], contexts[:21])
    earlier = features.at[: 20 - L + 1].set(99.0)
    np.testing.assert_array_equal(policy.encode(params, earlier)[20], contexts[20])
    assert (policy.encode(params, features.at[20 - L + 1].set(99.0))[20] != contexts[20]).any()


def test_a_new_policy_is_nearly_uniform():
    policy = network(True)
    params = policy.init(jax.random.key(0))
    contexts = policy.encode(params, jax.random.normal(jax.random.key(1), (T, F)))
    log_probs, _ = policy.apply(params, contexts, jnp.zeros((T, K)))
    np.testing.assert_allclose(jnp.exp(log_probs), 1 / 3, atol=0.02)


def test_sampling_follows_the_probabilities():
    log_probs = jnp.log(jnp.array([0.2, 0.5, 0.3]))
    uniform = jax.random.uniform(jax.random.key(0), (200_000,))
    action = distributions.sample(uniform, jnp.broadcast_to(log_probs, (200_000, 3)))
    assert action.dtype == jnp.int32
    np.testing.assert_allclose(np.bincount(action) / 200_000, [0.2, 0.5, 0.3], atol=0.005)
    edge = distributions.sample(jnp.float32(1 - 2**-24), log_probs)
    assert int(edge) == 2


def test_log_prob_and_entropy_equal_numpy():
    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (7, 3)))
    action = jnp.array([0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(
        distributions.log_prob(log_probs, action), np.asarray(log_probs)[np.arange(7), action]
    )
    p = np.exp(np.asarray(log_probs, np.float64))
    np.testing.assert_allclose(distributions.entropy(log_probs), -(p * np.log(p)).sum(1), rtol=1e-5)
