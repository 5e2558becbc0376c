"""Encoders with memory equal a float64 loop over each window, and see nothing outside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ztb_jax.policies.policy import make_policy
from ztb_jax.policies.sequences import GRU, Attention, LinearRecurrence
from ztb_jax.policies.transforms import per_account

T, F, L, H, D, R = 43, 3, 8, 12, 6, 5
MODULES = {
    "recurrence": LinearRecurrence(D, H, L),
    "gru": GRU(D, H, L, R),
    "attention": Attention(D, H, L, heads=3),
}
FEATURES = jax.random.normal(jax.random.key(0), (T, F))


def parameters(module):
    """Every weight away from its first value, so that none is an accidental zero."""
    drawn = module.init(jax.random.key(1), FEATURES)
    return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(jax.random.key(x.size), x.shape), drawn)


def dense(x, weights):
    return x @ weights["kernel"] + weights.get("bias", 0.0)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def recurrence(p, window):
    memory = np.zeros(H)
    for x in window:
        gate, candidate = np.split(dense(x, p["input"]), 2)
        memory = (1.0 - sigmoid(gate)) * memory + sigmoid(gate) * candidate
    return dense(memory, p["output"])


def gru(p, rows):
    memory = np.zeros(H)
    for x in rows:
        reset_in, update_in, new_in = np.split(dense(x, p["input"]), 3)
        reset_h, update_h, new_h = np.split(memory @ p["recurrent"], 3)
        update = sigmoid(update_in + update_h)
        new = np.tanh(new_in + sigmoid(reset_in + reset_h) * (new_h + p["bias"]))
        memory = update * memory + (1.0 - update) * new
    return dense(memory, p["output"])


def norm(x, weights):
    centred = x - x.mean(axis=-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) * weights["scale"]
        + weights["bias"]
    )


def gelu(x):
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def attention(p, window):
    stream = dense(window, p["input"])
    queries, keys, values = np.split(dense(norm(stream, p["first_norm"]), p["projections"]), 3, axis=-1)
    looked = []
    for head in range(3):
        part = slice(head * H // 3, (head + 1) * H // 3)
        scores = (
            keys[:, part] @ queries[-1, part] / (H // 3) ** 0.5 + p["distance"][head, : len(window)][::-1]
        )
        weights = np.exp(scores - scores.max())
        looked.append(weights / weights.sum() @ values[:, part])
    last = stream[-1] + dense(np.concatenate(looked), p["mixing"])
    last = last + dense(gelu(dense(norm(last, p["second_norm"]), p["widening"])), p["narrowing"])
    return dense(last, p["output"])


@pytest.mark.parametrize("name", MODULES)
def test_every_context_equals_a_float64_loop_over_its_window(name):
    module, oracle = MODULES[name], {"recurrence": recurrence, "gru": gru, "attention": attention}[name]
    params = parameters(module)
    contexts = module.apply(params, FEATURES)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    rows = np.asarray(FEATURES, np.float64)
    assert contexts.shape == (T, D)
    for bar in range(L - 1, T):
        first = (bar - (L - 1)) // R * R if name == "gru" else bar - (L - 1)
        np.testing.assert_allclose(contexts[bar], oracle(exact, rows[first : bar + 1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_a_stretch_is_a_part_of_the_whole_in_contexts_and_gradients(name):
    module = MODULES[name]
    params = parameters(module)
    weights = jax.random.normal(jax.random.key(5), (2 * R, D))
    start = 3 * R + L - 1

    def of_the_whole(params):
        return (module.apply(params, FEATURES)[start : start + 2 * R] * weights).sum()

    def of_the_stretch(params):
        return (module.apply(params, FEATURES[start - (L - 1) : start + 2 * R])[L - 1 :] * weights).sum()

    value, gradient = jax.value_and_grad(of_the_whole)(params)
    other, other_gradient = jax.value_and_grad(of_the_stretch)(params)
    np.testing.assert_allclose(value, other, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, other_gradient
    )
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", MODULES)
def test_nothing_after_a_bar_changes_its_context(name):
    module = MODULES[name]
    params = parameters(module)
    contexts = module.apply(params, FEATURES)
    bar = 20
    changed = module.apply(params, FEATURES.at[bar + 1 :].set(9.0))
    np.testing.assert_array_equal(contexts[: bar + 1], changed[: bar + 1])
    assert (contexts[bar + 1 :] != changed[bar + 1 :]).any()


def test_a_stretch_shorter_than_a_window_is_no_error():
    for module in MODULES.values():
        assert module.apply(parameters(module), FEATURES[:3]).shape == (3, D)


@pytest.mark.parametrize("name", ["window", "recurrence", "attention"])
def test_encoding_once_for_all_equals_encoding_each_accounts_window(name):
    policy = make_policy(num_features=F, account_size=2, num_actions=3, lookback=L, width=8, encoder=name)
    alone = per_account(policy, num_features=F)
    params = policy.init(jax.random.key(0))
    account = jax.random.normal(jax.random.key(2), (T - L + 1, 4, 2))
    told = [
        network.apply(params, network.encode(params, FEATURES)[L - 1 :, None], account)
        for network in (policy, alone)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *told)
