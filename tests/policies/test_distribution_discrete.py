"""Categorical distributions as records: one choice and several, masks, and which one fits an action space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from envs import actions, portfolio
from ztb_jax.policies import distributions

A, N = 5, 100_000
SIZES = (3, 2, 4)
ONE = distributions.categorical(A)
SEVERAL = distributions.multi_categorical(SIZES)
LOGITS = 2.0 * jax.random.normal(jax.random.key(0), (50, A))
ALLOWED = jax.random.bernoulli(jax.random.key(1), 0.5, (50, A)).at[:, 2].set(True)
LAST_UNIFORM = float(np.float32(1) - np.float32(2**-24))


def softmax(logits):
    weights = np.exp(np.asarray(logits, np.float64))
    return weights / weights.sum(-1, keepdims=True)


def test_the_record_is_the_plain_functions_to_the_bit():
    at = ONE.parameters(LOGITS)
    noise = ONE.draw(jax.random.key(2), (7, 50))
    np.testing.assert_array_equal(noise, jax.random.uniform(jax.random.key(2), (7, 50)))
    np.testing.assert_array_equal(at, jax.nn.log_softmax(LOGITS))
    raw = ONE.sample(noise[0], at)
    np.testing.assert_array_equal(raw, distributions.sample(noise[0], at))
    np.testing.assert_array_equal(ONE.log_prob(at, raw), distributions.log_prob(at, raw))
    np.testing.assert_array_equal(ONE.entropy(at), distributions.entropy(at))
    np.testing.assert_array_equal(ONE.mode(at), jnp.argmax(at, axis=-1))
    assert raw.dtype == ONE.mode(at).dtype == jnp.int32
    np.testing.assert_array_equal(ONE.act(raw), raw)


def test_with_a_mask_it_is_the_plain_functions_with_a_mask_to_the_bit():
    at = ONE.parameters(LOGITS)
    kept, masked = ONE.restrict(at, ALLOWED), distributions.masked(at, ALLOWED)
    noise = ONE.draw(jax.random.key(2), (1, 50))[0]
    raw = ONE.sample(noise, kept)
    np.testing.assert_array_equal(raw, distributions.sample(noise, masked, ALLOWED))
    np.testing.assert_array_equal(ONE.log_prob(kept, raw), distributions.log_prob(masked, raw))
    np.testing.assert_array_equal(ONE.entropy(kept), distributions.entropy(masked))


def test_a_program_without_masks_has_no_guard():
    at, noise = ONE.parameters(LOGITS), jnp.zeros(50)
    plain = jax.make_jaxpr(distributions.sample)(noise, at)
    assert str(jax.make_jaxpr(ONE.sample)(noise, at)) == str(plain)
    guarded = jax.make_jaxpr(ONE.sample)(noise, ONE.restrict(at, ALLOWED))
    assert len(guarded.eqns) > len(plain.eqns)


def chi_square(counts, probabilities):
    """p-value; impossible outcomes must not have occurred."""
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    if possible.sum() == 1:
        return 1.0
    expected = probabilities[possible] / probabilities[possible].sum() * counts.sum()
    return stats.chisquare(counts[possible], expected).pvalue


@pytest.mark.parametrize("row", range(2))
def test_frequencies_follow_the_probabilities(row):
    noise = ONE.draw(jax.random.key(row), (1, N))[0]
    at = jnp.broadcast_to(ONE.parameters(LOGITS[row]), (N, A))
    p = softmax(LOGITS[row])
    assert chi_square(np.bincount(ONE.sample(noise, at), minlength=A), p) > 1e-3
    kept = ONE.restrict(at, jnp.broadcast_to(ALLOWED[row], (N, A)))
    counts = np.bincount(ONE.sample(noise, kept), minlength=A)
    assert chi_square(counts, np.where(ALLOWED[row], p, 0.0)) > 1e-3


def test_restricted_is_the_smaller_distribution():
    kept = ONE.restrict(ONE.parameters(LOGITS), ALLOWED)
    for row in range(5):
        members = np.flatnonzero(ALLOWED[row])
        small = distributions.categorical(len(members))
        at = small.parameters(LOGITS[row, members])
        mine = jax.tree.map(lambda leaf, row=row: leaf[row], kept)
        np.testing.assert_allclose(small.entropy(at), ONE.entropy(mine), atol=2e-6)
        assert members[int(small.mode(at))] == int(ONE.mode(mine))
        for position, action in enumerate(members):
            one = ONE.log_prob(mine, jnp.int32(action))
            np.testing.assert_allclose(small.log_prob(at, jnp.int32(position)), one, atol=2e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 1e6])
def test_a_ruled_out_action_is_never_sampled(scale):
    kept = ONE.restrict(ONE.parameters(scale * LOGITS), ALLOWED)
    sampled = [ONE.sample(jnp.full(50, u, jnp.float32), kept) for u in (0.0, 0.5, LAST_UNIFORM)]
    for raw in (*sampled, ONE.mode(kept)):
        assert np.asarray(ALLOWED)[np.arange(50), np.asarray(raw)].all()


def test_a_sum_a_trace_below_one_does_not_let_a_ruled_out_last_action_through():
    short = jnp.log(jnp.array([0.5, 0.49999, 0.0])).at[2].set(distributions.RULED_OUT)
    assert int(ONE.sample(jnp.float32(0.99999), short)) == 2, "the case that the guard is for"
    assert int(ONE.sample(jnp.float32(0.99999), distributions.Restricted(short))) == 0


def gradients(distribution, outputs, raw, allowed=None):
    def loss(outputs):
        at = distribution.parameters(outputs)
        at = at if allowed is None else distribution.restrict(at, allowed)
        return distribution.log_prob(at, raw).sum() + distribution.entropy(at).sum()

    return np.asarray(jax.jit(jax.grad(loss))(outputs))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4, 1e30])
def test_gradients_are_finite_and_none_reaches_a_ruled_out_logit(scale):
    assert np.isfinite(gradients(ONE, scale * LOGITS, jnp.full(50, 2))).all()
    if scale <= 1e4:
        found = gradients(ONE, scale * LOGITS, jnp.full(50, 2), ALLOWED)
        assert np.isfinite(found).all()
        assert np.abs(found[~np.asarray(ALLOWED)]).max() < 1e-5


def test_several_choices_are_a_product_of_single_ones():
    outputs = 2.0 * jax.random.normal(jax.random.key(3), (40, 9))
    at = SEVERAL.parameters(outputs)
    noise = SEVERAL.draw(jax.random.key(4), (6, 40))
    assert noise.shape == (6, 40, 3)
    raw = SEVERAL.sample(noise[0], at)
    assert (SEVERAL.size, SEVERAL.shape, raw.shape, raw.dtype) == (9, (3,), (40, 3), jnp.int32)
    log_prob, entropy = 0.0, 0.0
    for i, (start, size) in enumerate(zip((0, 3, 5), SIZES, strict=True)):
        p = softmax(outputs[:, start : start + size])
        log_prob = log_prob + np.log(p[np.arange(40), raw[:, i]])
        entropy = entropy - (p * np.log(p)).sum(-1)
        np.testing.assert_array_equal(SEVERAL.mode(at)[:, i], p.argmax(-1))
    np.testing.assert_allclose(SEVERAL.log_prob(at, raw), log_prob, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(SEVERAL.entropy(at), entropy, rtol=1e-5)
    np.testing.assert_array_equal(SEVERAL.act(raw), raw)


def test_several_choices_are_drawn_independently_and_by_their_probabilities():
    outputs = jax.random.normal(jax.random.key(5), (9,))
    at = SEVERAL.parameters(jnp.broadcast_to(outputs, (N, 9)))
    raw = np.asarray(SEVERAL.sample(SEVERAL.draw(jax.random.key(6), (1, N))[0], at))
    first, second, third = (softmax(outputs[a:b]) for a, b in ((0, 3), (3, 5), (5, 9)))
    joint = np.einsum("i,j,k->ijk", first, second, third).ravel()
    counts = np.bincount(np.ravel_multi_index(tuple(raw.T), SIZES), minlength=24)
    assert chi_square(counts, joint) > 1e-3


def test_choices_of_a_component_can_be_ruled_out():
    outputs = jax.random.normal(jax.random.key(7), (40, 9))
    allowed = jnp.ones((40, 9), bool).at[:, jnp.array([2, 3, 8])].set(False)
    kept = SEVERAL.restrict(SEVERAL.parameters(outputs), allowed)
    raw = SEVERAL.sample(SEVERAL.draw(jax.random.key(8), (1, 40))[0].at[:20].set(LAST_UNIFORM), kept)
    assert (np.asarray(raw).max(0) == [1, 1, 2]).all()
    assert (np.asarray(raw).min(0) == [0, 1, 0]).all()
    small = distributions.multi_categorical((2, 1, 3))
    at = small.parameters(outputs[:, jnp.array([0, 1, 4, 5, 6, 7])])
    np.testing.assert_allclose(SEVERAL.entropy(kept), small.entropy(at), atol=2e-6)
    there = raw.at[:, 1].set(0)
    np.testing.assert_allclose(SEVERAL.log_prob(kept, raw), small.log_prob(at, there), atol=2e-6)
    assert np.isfinite(gradients(SEVERAL, outputs, raw, allowed)).all()


@pytest.mark.parametrize(
    ("space", "name", "size", "shape"),
    [
        (actions.levels((-1.0, 0.0, 1.0)), "auto", 3, ()),
        (actions.holding(actions.levels()), "categorical", 4, ()),
        (actions.grid(sizes=(0.5, 1.0), flat=False), "auto", 5, (2,)),
        (actions.grid(flat=False), "multi_categorical", 3, (1,)),
        (actions.continuous(), "auto", 2, ()),
        (actions.continuous(low=0.0), "beta", 2, ()),
        (portfolio.make_portfolio(num_instruments=8).actions, "auto", 16, (8,)),
        (portfolio.make_portfolio(num_instruments=8).actions, "beta", 16, (8,)),
        (portfolio.make_portfolio(num_instruments=8, low=0.0).actions, "dirichlet", 9, (9,)),
    ],
)
def test_the_distribution_fits_the_actions(space, name, size, shape):
    found = distributions.distribution_for(space, name)
    assert (found.size, found.shape) == (size, shape)
    assert (found.restrict is None) == (not space.sizes)
    noise = jax.tree.map(lambda leaf: leaf[0], found.draw(jax.random.key(0), (2, 6)))
    action = found.act(found.sample(noise, found.parameters(jnp.zeros((6, size)))))
    assert action.shape == (6, *space.shape)
    if not space.sizes:
        assert (action >= space.low).all()
        assert (action <= space.high).all()


@pytest.mark.parametrize(
    ("space", "name", "told"),
    [
        (actions.levels(), "beta", "take one of categorical"),
        (actions.grid(sizes=(0.5, 1.0), flat=False), "categorical", "take one of multi_categorical"),
        (actions.continuous(), "gauss", "take one of squashed_gaussian, beta"),
        (actions.continuous(low=0.0), "dirichlet", r"shape \(\) .* needs an action of shape \(n,\)"),
        (portfolio.make_portfolio(num_instruments=2).actions, "dirichlet", "low of 0"),
        (portfolio.make_portfolio(num_instruments=2, low=0.0, high=0.5).actions, "dirichlet", "at least 1"),
        (actions.grid(directions=(1.0,), flat=False), "auto", "nothing to choose"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(space, name, told):
    with pytest.raises(ValueError, match=told):
        distributions.distribution_for(space, name)


def test_empty_lists_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        distributions.categorical(0)
    with pytest.raises(ValueError, match="at least one component"):
        distributions.multi_categorical(())
    with pytest.raises(ValueError, match="at least 1"):
        distributions.multi_categorical((3, 0))
