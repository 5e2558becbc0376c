"""Continuous distributions against scipy in float64, by their samples, and at the edges of float32."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from ztb_jax.policies import continuous_distributions as continuous

LOW, HIGH = -0.5, 2.0
WIDTH = HIGH - LOW
N = 50_000
OUTPUTS = jax.random.normal(jax.random.key(0), (20, 6)) * jnp.array([[1.0, 2.0, 0.3, 1.0, 0.7, 0.2]])


def compiled(family):
    return family._replace(log_prob=jax.jit(family.log_prob), entropy=jax.jit(family.entropy))


FAMILIES = {
    "gaussian": compiled(continuous.squashed_gaussian(3, low=LOW, high=HIGH)),
    "beta": compiled(continuous.beta(3, low=LOW, high=HIGH)),
    "dirichlet": compiled(continuous.dirichlet(5)),
}
SCALARS = {
    "gaussian": compiled(continuous.squashed_gaussian(low=LOW, high=HIGH)),
    "beta": compiled(continuous.beta(low=LOW, high=HIGH)),
}
EXTREMES = (-1e30, -1e4, -50.0, 0.0, 50.0, 1e4, 1e30)


def softplus(x):
    return np.logaddexp(np.asarray(x, np.float64), 0.0)


def played(family, outputs, key=1):
    """Parameters and a sample of each."""

    @jax.jit
    def play(key, outputs):
        at = family.parameters(outputs)
        noise = jax.tree.map(lambda leaf: leaf[0], family.draw(key, (1, *outputs.shape[:-1])))
        return at, family.sample(noise, at)

    return play(jax.random.key(key), outputs)


def gaussian_of(outputs):
    """Mean and deviation before tanh."""
    mean, log_std = np.split(np.asarray(outputs, np.float64), 2, axis=-1)
    return mean, np.exp(np.clip(log_std + math.log(0.6), -5.0, 1.0))


def squashed_density(action, mean, std):
    """Of an action strictly inside the bounds, by the change of variables."""
    share = (np.asarray(action, np.float64) - LOW) / WIDTH
    return stats.norm.pdf(special.logit(share) / 2, mean, std) / (2 * WIDTH * share * (1 - share))


def test_squashed_gaussian_log_prob_equals_scipy():
    family = FAMILIES["gaussian"]
    at, raw = played(family, OUTPUTS)
    mean, std = gaussian_of(OUTPUTS)
    u = np.asarray(raw, np.float64)
    slope = np.log(WIDTH / 2) - 2 * np.log(np.cosh(u))
    expected = (stats.norm.logpdf(u, mean, std) - slope).sum(-1)
    found = family.log_prob(at, raw)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    inside = np.abs(u).max(-1) < 3.0
    density = squashed_density(family.act(raw), mean, std)[inside]
    np.testing.assert_allclose(found[inside], np.log(density).sum(-1), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("log_std", "bound"), [(-4.0, 2e-5), (0.0, 1e-4), (0.9, 1e-3), (5.0, 8e-3)])
def test_squashed_gaussian_entropy_is_the_integral(log_std, bound):
    family = SCALARS["gaussian"]
    outputs = jnp.stack([jnp.linspace(-6.0, 6.0, 49), jnp.full(49, log_std)], axis=-1)
    mean, std = gaussian_of(outputs)
    z = np.linspace(-10.0, 10.0, 20_001)[None]
    weight = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    u = mean + std * z
    slope = np.log(WIDTH / 2) + 2 * (np.log(2) - np.logaddexp(u, -u))
    expected = stats.norm.entropy(mean[:, 0], std[:, 0]) + (weight * slope).sum(-1)
    found = np.asarray(family.entropy(family.parameters(outputs)))
    np.testing.assert_allclose(found, expected, atol=bound)


def test_a_new_gaussian_is_as_wide_as_told():
    at = SCALARS["gaussian"].parameters(jnp.zeros(2))
    np.testing.assert_allclose(jnp.exp(at.log_std), continuous.INITIAL_STD, rtol=1e-6)


def beta_of(outputs):
    high, low = np.split(1.0 + softplus(outputs), 2, axis=-1)
    return stats.beta(high, low, loc=LOW, scale=WIDTH)


def test_beta_log_prob_entropy_and_mean_equal_scipy():
    family = FAMILIES["beta"]
    at, raw = played(family, OUTPUTS)
    reference, u = beta_of(OUTPUTS), np.asarray(raw, np.float64)
    expected = reference.logpdf(LOW + WIDTH * special.expit(u)).sum(-1)
    np.testing.assert_allclose(family.log_prob(at, raw), expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(family.entropy(at), reference.entropy().sum(-1), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(family.act(family.mode(at)), reference.mean(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("cash", [True, False])
def test_dirichlet_log_prob_and_entropy_equal_scipy(cash):
    family = compiled(continuous.dirichlet(6 - cash, cash=cash))
    at, raw = played(family, OUTPUTS)
    alpha = 0.1 + softplus(np.asarray(OUTPUTS, np.float64) + math.log(math.expm1(0.9)))
    np.testing.assert_allclose(at, alpha, rtol=1e-5)
    log_prob, entropy = family.log_prob(at, raw), family.entropy(at)
    for row in range(len(alpha)):
        shares = np.exp(np.asarray(raw[row], np.float64))
        expected = stats.dirichlet.logpdf(shares / shares.sum(), alpha[row])
        np.testing.assert_allclose(log_prob[row], expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(entropy[row], stats.dirichlet.entropy(alpha[row]), rtol=2e-5, atol=2e-5)
    mean = np.asarray(alpha / alpha.sum(-1, keepdims=True))
    np.testing.assert_allclose(family.act(family.mode(at)), mean[:, : 6 - cash], rtol=1e-5)
    whole = family.act(raw).sum(-1)
    assert (whole <= 1 + 1e-6).all()
    assert cash or np.allclose(whole, 1.0, atol=1e-6)


def test_a_new_dirichlet_is_uniform():
    np.testing.assert_allclose(FAMILIES["dirichlet"].parameters(jnp.zeros(6)), 1.0, rtol=1e-6)


@pytest.mark.parametrize("row", range(2))
def test_samples_follow_the_distribution(row):
    gaussian, beta, dirichlet = FAMILIES["gaussian"], FAMILIES["beta"], FAMILIES["dirichlet"]
    outputs = jnp.broadcast_to(OUTPUTS[row], (20_000, 6))
    mean, std = gaussian_of(OUTPUTS[row])
    raw = np.asarray(played(gaussian, outputs, row)[1], np.float64)
    for i in range(3):
        assert stats.kstest(raw[:, i], stats.norm(mean[i], std[i]).cdf).pvalue > 1e-3
    reference = beta_of(OUTPUTS[row])
    action = np.asarray(beta.act(played(beta, outputs, row)[1]), np.float64)
    for i in range(3):
        only = stats.beta(reference.args[0][i], reference.args[1][i], loc=LOW, scale=WIDTH)
        assert stats.kstest(action[:, i], only.cdf).pvalue > 1e-3
    at, raw = played(dirichlet, outputs, row)
    alpha, shares = np.asarray(at[0], np.float64), np.exp(np.asarray(raw, np.float64))
    for i in range(6):
        assert stats.kstest(shares[:, i], stats.beta(alpha[i], alpha.sum() - alpha[i]).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_entropy_is_minus_the_mean_log_prob(name):
    """Within five standard errors of the mean over the samples, plus what the quadrature may err by."""
    family = FAMILIES[name]
    for row in range(2):
        at, raw = played(family, jnp.broadcast_to(OUTPUTS[row], (N, 6)), row)
        surprise = -np.asarray(family.log_prob(at, raw), np.float64)
        bound = 5 * surprise.std() / math.sqrt(N) + 1e-3
        assert abs(surprise.mean() - float(family.entropy(jax.tree.map(lambda leaf: leaf[0], at)))) < bound


@pytest.mark.parametrize("name", FAMILIES)
def test_the_score_is_zero_on_average(name):
    """So a policy gradient is unbiased: nothing was clipped between the sample and its log-probability."""
    family = FAMILIES[name]

    def score(outputs):
        return family.log_prob(family.parameters(outputs), raw).sum()

    outputs = jnp.broadcast_to(OUTPUTS[4], (N, 6))
    raw = played(family, outputs)[1]
    scores = np.asarray(jax.jit(jax.grad(score))(outputs), np.float64)
    assert (np.abs(scores.mean(0)) < 5 * scores.std(0) / math.sqrt(N) + 1e-5).all()
    assert (scores.std(0) > 1e-2).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_equal_differences(name):
    family = FAMILIES[name]
    raw = played(family, OUTPUTS[:4])[1]

    def value(outputs):
        at = family.parameters(outputs)
        return family.log_prob(at, raw) + family.entropy(at)

    found = np.asarray(jax.jit(jax.grad(lambda outputs: value(outputs).sum()))(OUTPUTS[:4]))
    with jax.enable_x64(True):
        wide, step, wider = np.asarray(OUTPUTS[:4], np.float64), 1e-4, jax.jit(value)
        for i in range(6):
            up, down = (jnp.asarray(wide + sign * step * np.eye(6)[i][None]) for sign in (1, -1))
            difference = (np.asarray(wider(up)) - np.asarray(wider(down))) / (2 * step)
            np.testing.assert_allclose(found[:, i], difference, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_extremes_stay_finite_and_within_bounds(name):
    family = FAMILIES[name]
    pairs = [[first] * 3 + [last] * 3 for first in EXTREMES for last in EXTREMES]
    outputs = jnp.repeat(jnp.array(pairs, jnp.float32), 16, axis=0)
    at, raw = played(family, outputs)
    bounds = (0.0, 1.0) if name == "dirichlet" else (LOW, HIGH)
    for one in (raw, family.mode(at)):
        action = family.act(one)
        assert np.isfinite(action).all()
        assert (action >= np.float32(bounds[0])).all()
        assert (action <= np.float32(bounds[1])).all()
        assert np.isfinite(family.log_prob(at, one)).all()
    assert np.isfinite(family.entropy(at)).all()

    def loss(outputs):
        at = family.parameters(outputs)
        return family.log_prob(at, raw).sum() + family.entropy(at).sum()

    assert np.isfinite(jax.jit(jax.grad(loss))(outputs)).all()


@pytest.mark.parametrize("name", ["gaussian", "beta"])
def test_values_at_the_edge_have_finite_gradients(name):
    family = SCALARS[name]
    raw = jnp.array([-1e4, -60.0, 60.0, 1e4])
    np.testing.assert_array_equal(family.act(raw), np.array([LOW, LOW, HIGH, HIGH], np.float32))

    def loss(outputs):
        at = family.parameters(outputs)
        return family.log_prob(at, raw).sum()

    assert np.isfinite(jax.jit(jax.grad(loss))(jnp.zeros((4, 2)))).all()


def test_bounds_hold_where_they_do_not_round_well():
    for low, high in ((-0.3, 0.7), (0.1, 0.3), (-1e-3, 1e6)):
        for family in (continuous.squashed_gaussian(low=low, high=high), continuous.beta(low=low, high=high)):
            action = family.act(jnp.linspace(-20.0, 20.0, 4_001))
            assert (action >= np.float32(low)).all()
            assert (action <= np.float32(high)).all()


@pytest.mark.parametrize("outputs", [(800.0, 800.0), (900.0, -5.0), (1000.0, 3.0)])
def test_sharp_beta_keeps_its_digits(outputs):
    family = SCALARS["beta"]
    at, raw = played(family, jnp.broadcast_to(jnp.array(outputs), (100, 2)))
    high, low = (1.0 + softplus(x) for x in outputs)
    u = np.asarray(raw, np.float64)
    shares = (high - 1) * -np.logaddexp(0, -u) + (low - 1) * -np.logaddexp(0, u)
    expected = shares - special.betaln(high, low) - np.log(WIDTH)
    np.testing.assert_allclose(family.log_prob(at, raw), expected, atol=2e-3)
    np.testing.assert_allclose(
        family.entropy(at), stats.beta.entropy(high, low, scale=WIDTH), atol=1.2e-3 * math.log10(high)
    )


def test_sharp_dirichlet_keeps_its_digits():
    family = compiled(continuous.dirichlet(8))
    at, raw = played(family, jnp.full((100, 9), 900.0))
    alpha, logs = np.asarray(at, np.float64), np.asarray(raw, np.float64)
    norm = special.gammaln(alpha).sum(-1) - special.gammaln(alpha.sum(-1))
    np.testing.assert_allclose(family.log_prob(at, raw), ((alpha - 1) * logs).sum(-1) - norm, atol=1e-2)


@pytest.mark.parametrize("name", SCALARS)
def test_a_scalar_action_is_a_vector_of_one(name):
    make = {"gaussian": continuous.squashed_gaussian, "beta": continuous.beta}[name]
    scalar, vector = SCALARS[name], compiled(make(1, low=LOW, high=HIGH))
    outputs = OUTPUTS[:, :2]
    (at, raw), (one, row) = played(scalar, outputs), played(vector, outputs)
    assert (scalar.size, scalar.shape, raw.shape) == (2, (), (20,))
    assert (vector.size, vector.shape, row.shape) == (2, (1,), (20, 1))
    np.testing.assert_array_equal(raw, row[:, 0])
    np.testing.assert_allclose(scalar.log_prob(at, raw), vector.log_prob(one, row), rtol=1e-6)
    np.testing.assert_allclose(scalar.entropy(at), vector.entropy(one), rtol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_rollout_scans_over_the_noise_and_the_ratio_is_one(name):
    family = FAMILIES[name]
    noise = family.draw(jax.random.key(0), (7, 4, 5))
    assert {leaf.shape[0] for leaf in jax.tree.leaves(noise)} == {7}
    outputs = jax.random.normal(jax.random.key(1), (7, 4, 5, 6))

    def step(carry, now):
        noise, outputs = now
        at = family.parameters(outputs)
        raw = family.sample(noise, at)
        return carry, (raw, family.log_prob(at, raw))

    raw, stored = jax.jit(lambda: jax.lax.scan(step, (), (noise, outputs))[1])()
    assert raw.shape == (7, 4, 5, *family.shape)
    again = jax.vmap(jax.vmap(lambda outputs, raw: family.log_prob(family.parameters(outputs), raw)))
    np.testing.assert_allclose(again(outputs, raw), stored, rtol=1e-5, atol=1e-5)
    first, last = raw[0], raw[-1]
    assert (np.asarray(first) != np.asarray(last)).all(), "every step has noise of its own"
    assert family.restrict is None


@pytest.mark.parametrize("make", [continuous.squashed_gaussian, continuous.beta])
def test_bad_bounds_and_sizes_are_told_at_once(make):
    with pytest.raises(ValueError, match=r"n \(0\) .* low \(1.0\) must be below high \(1.0\)"):
        make(0, low=1.0, high=1.0)
    with pytest.raises(ValueError, match="finite"):
        make(low=-math.inf)


@pytest.mark.parametrize(("n", "cash"), [(0, True), (1, False)])
def test_a_dirichlet_needs_two_shares(n, cash):
    with pytest.raises(ValueError, match="cash=True"):
        continuous.dirichlet(n, cash=cash)
