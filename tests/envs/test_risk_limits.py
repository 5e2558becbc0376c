"""Limits: measured as defined, checked in order, kept by every projected book, and able to bind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import risk, risk_limits
from envs.risk_limits import (
    CORRELATION,
    GROSS,
    MARGIN,
    OK,
    SECTOR,
    SENTENCES,
    VAR,
    WEIGHT,
    Known,
    RiskLimits,
    check,
    measure,
    project,
)
from tests.envs import portfolio_reference as reference

NONE = {name: None for name in ("max_portfolio_var", "max_correlation_exposure", "max_sector_allocation")}
NOTHING = RiskLimits(**NONE, margin_rate=None)


def only(**limits) -> RiskLimits:
    return NOTHING.replace(**{name: np.float32(value) for name, value in limits.items()})


def books(num, *, count=1500, seed=0):
    """Weights [n, A] (dense, sparse, concentrated, wild), what is known of each, and what of it is free."""
    rng = np.random.default_rng(seed)
    shape = (count, num)
    weights = rng.standard_normal(shape) * rng.choice([0.05, 0.3, 2.0], (count, 1))
    weights *= np.abs(rng.standard_normal(shape)) ** rng.choice([0.0, 2.0], (count, 1))
    weights *= rng.uniform(size=shape) < rng.choice([0.4, 1.0], (count, 1))
    loading = rng.standard_normal((count, num, 2)) * rng.choice([0.3, 2.0], (count, 1, 1))
    covariance = 1e-4 * (loading @ loading.swapaxes(1, 2) + 0.2 * np.eye(num))
    factor = np.linalg.cholesky(covariance).swapaxes(1, 2).astype(np.float32)
    free = rng.uniform(size=shape) < 0.7
    first, second = np.triu_indices(num, 1)
    deviation = np.sqrt(np.einsum("nii->ni", covariance))
    scale = deviation[:, first] * deviation[:, second]
    correlation = np.abs(covariance[:, first, second] / scale).astype(np.float32)
    groups = (np.arange(num)[:, None] % 3 == np.arange(3)).astype(np.float32)
    return weights.astype(np.float32), Known(factor, correlation, groups), free


def matrix_of(pairs, num):
    matrix = np.zeros((num, num))
    matrix[np.triu_indices(num, 1)] = pairs
    return matrix + matrix.T


KNOWN_AXES = Known(0, 0, None)
LIMITS = RiskLimits(max_weight=np.float32(0.3), max_gross=np.float32(0.8))


@jax.jit
def project_all(weights, known, limits):
    return jax.vmap(lambda w, k: project(w, k, limits), in_axes=(0, KNOWN_AXES))(weights, known)


@jax.jit
def project_free(weights, known, limits, free):
    def one(w, k, f):
        return project(w, k, limits, free=f)

    return jax.vmap(one, in_axes=(0, KNOWN_AXES, 0))(weights, known, free)


def figures(weights, known, n, num):
    """The exposures of book `n` in float64, by their definitions."""
    weights = np.asarray(weights[n], np.float64)
    matrix = matrix_of(known.correlation[n], num)
    return {
        "var": 1.6448536 * np.linalg.norm(known.factor[n].astype(np.float64) @ weights),
        "correlation": float(reference_exposure(weights, matrix)),
        "sector": (np.abs(weights) @ known.groups).max(),
        "gross": np.abs(weights).sum(),
        "weight": np.abs(weights).max(),
    }


def reference_exposure(weights, matrix):
    everything = np.ones(len(weights), bool)
    return max(reference.shares(np.abs(weights), matrix, everything).values(), default=0.0)


MOST = {"var": 0.02, "correlation": 0.7, "sector": 0.4, "gross": 0.8, "weight": 0.3}


@pytest.mark.parametrize("num", [1, 2, 3, 8])
def test_every_projected_book_keeps_every_limit(num):
    weights, known, _ = books(num)
    found = np.asarray(project_all(weights, known, LIMITS))
    bound = dict.fromkeys(MOST, 0)
    for n in range(len(weights)):
        asked, kept = figures(weights, known, n, num), figures(found, known, n, num)
        for name, most in MOST.items():
            bound[name] += asked[name] > most
            assert kept[name] <= most * (1 + 1e-5), (n, name)
    assert all(count > 20 for name, count in bound.items() if num > 1 or name != "correlation"), bound
    assert (np.sign(found) * np.sign(weights) >= 0).all(), "no weight changes its side"
    assert (np.abs(found) <= np.abs(weights)).all(), "no weight grows"
    flat = ~found.any(axis=1) & weights.any(axis=1)
    assert flat.mean() < (0.5 if num < 3 else 0.05), "to be flat is the exception"


@pytest.mark.parametrize("num", [1, 2, 3, 8])
def test_books_within_the_limits_pass_bit_for_bit(num):
    weights, known, _ = books(num, seed=1)
    kept = project_all(weights, known, LIMITS)
    np.testing.assert_array_equal(project_all(kept, known, LIMITS), kept)
    small = 0.02 * weights
    inside = np.array(
        [all(figures(small, known, n, num)[k] <= m for k, m in MOST.items()) for n in range(len(small))]
    )
    assert inside.sum() > 300
    found = np.asarray(project_all(small, known, LIMITS))
    np.testing.assert_array_equal(found[inside].view(np.int32), small[inside].view(np.int32))


def test_the_projection_is_the_reference():
    for num in (2, 8):
        weights, known, free = books(num, count=400, seed=2)
        rules = reference.Rules(limits=reference.Limits(weight=0.3, gross=0.8), groups=known.groups)
        first, second = np.triu_indices(num, 1)
        masked = known._replace(correlation=known.correlation * (free[:, first] | free[:, second]))
        found = np.asarray(project_free(weights, masked, LIMITS, free))
        whole = np.asarray(project_all(weights, known, LIMITS))
        for n in range(len(weights)):
            factor = known.factor[n].astype(np.float64)
            told = (factor.T @ factor, matrix_of(known.correlation[n], num))
            expected = reference.fit(weights[n].astype(np.float64), *told, free[n], rules)
            np.testing.assert_allclose(found[n], expected, rtol=1e-3, atol=1e-5, err_msg=str(n))
            expected = reference.fit(weights[n].astype(np.float64), *told, np.ones(num, bool), rules)
            np.testing.assert_allclose(whole[n], expected, rtol=1e-3, atol=1e-5, err_msg=str(n))


def test_what_is_not_free_stays_and_the_rest_makes_room():
    weights, known, free = books(8, seed=3)
    first, second = np.triu_indices(8, 1)
    known = known._replace(correlation=known.correlation * (free[:, first] | free[:, second]))
    found = np.asarray(project_free(weights, known, LIMITS, free))
    np.testing.assert_array_equal(found[~free], weights[~free])
    fixed = np.where(free, 0.0, weights)
    room = {name: 0 for name in MOST}
    for n in range(len(weights)):
        kept, alone = figures(found, known, n, 8), figures(fixed, known, n, 8)
        if alone["sector"] <= 0.4 and alone["gross"] <= 0.8:  # then there is a choice that keeps these two
            assert kept["sector"] <= 0.4 * (1 + 1e-5)
            assert kept["gross"] <= 0.8 * (1 + 1e-5)
            room["sector"] += 1
        if alone["var"] <= 0.02 and alone["correlation"] == 0:
            assert kept["var"] <= 0.02 * (1 + 1e-5)
            room["var"] += 1
        assert kept["correlation"] <= 0.7 * (1 + 1e-5) or not found[n][free[n]].any()
    assert min(room["sector"], room["var"]) > 300


def test_permuting_instruments_permutes_the_projection():
    weights, known, _ = books(8, seed=4)
    order = np.array([5, 2, 7, 0, 1, 6, 3, 4])
    first, second = np.triu_indices(8, 1)
    pairs = np.stack([matrix_of(c, 8)[np.ix_(order, order)][first, second] for c in known.correlation])
    moved = Known(known.factor[:, :, order], pairs.astype(np.float32), known.groups[order])
    one, other = project_all(weights, known, LIMITS), project_all(weights[:, order], moved, LIMITS)
    np.testing.assert_allclose(other, np.asarray(one)[:, order], rtol=2e-4, atol=2e-6)


def test_measure_is_what_the_definitions_say():
    weights, known, _ = books(8, count=50, seed=5)
    for n in range(50):
        mine = Known(known.factor[n], known.correlation[n], known.groups)
        found = measure(jnp.asarray(weights[n]), mine, LIMITS)
        matrix = jnp.asarray(matrix_of(known.correlation[n], 8))
        expected = float(risk.correlation_exposure(jnp.asarray(weights[n]), matrix))
        assert float(found.correlation) == pytest.approx(expected, rel=1e-5)
        assert float(found.sector) == pytest.approx(
            float(risk.sector_shares(weights[n], mine.groups).max()), rel=1e-5
        )
        assert float(found.var) == pytest.approx(figures(weights, known, n, 8)["var"], rel=1e-4)
        assert float(found.gross) == pytest.approx(np.abs(weights[n]).sum(), rel=1e-5)
        assert float(found.excess) == pytest.approx(np.abs(weights[n]).max() / 0.3, rel=1e-5)


def pair(rho, deviation=0.02):
    """Two instruments in a sector each."""
    factor = deviation * np.linalg.cholesky([[1.0, rho], [rho, 1.0]]).T
    return Known(jnp.asarray(factor, jnp.float32), jnp.array([abs(rho)], jnp.float32), jnp.eye(2))


def fit(weights, known, limits):
    return np.asarray(project(jnp.asarray(weights, jnp.float32), known, limits))


def test_value_at_risk_binds_by_size_and_sign():
    limits, known = only(max_portfolio_var=0.02), pair(0.9)
    np.testing.assert_array_equal(fit([0.3, 0.2], known, limits), np.float32([0.3, 0.2]))
    long, hedged = fit([1.0, 1.0], known, limits), fit([1.0, -1.0], known, limits)
    assert long[0] == pytest.approx(0.02 / 1.6448536 / 0.02 / np.sqrt(3.8), rel=1e-5)
    np.testing.assert_array_equal(hedged, [1.0, -1.0])
    np.testing.assert_allclose(fit([3.0, 3.0], known, limits), long, rtol=1e-5)
    np.testing.assert_allclose(fit([-1.0, -1.0], known, limits), -long)
    assert fit([4.0, -4.0], known, limits)[1] == pytest.approx(
        -0.02 / 1.6448536 / 0.02 / np.sqrt(0.2), rel=1e-4
    )


def test_correlation_binds_by_the_share_of_the_pair_long_or_short():
    limits = only(max_correlation_exposure=0.7)
    three = Known(jnp.zeros((3, 3)), jnp.array([0.95, 0.1, 0.1]), jnp.eye(3))
    for side in (1.0, -1.0):
        bound = fit([0.5, side * 0.4, 0.1], three, limits)
        assert bound[2] == np.float32(0.1)
        both = 0.1 * 0.693 / (0.95 - 0.693)  # the rest of the book allows the pair this much
        np.testing.assert_allclose(bound, [both / 2, side * both / 2, 0.1], rtol=1e-5)
    np.testing.assert_array_equal(fit([0.3, 0.3, 0.4], three, limits), np.float32([0.3, 0.3, 0.4]))
    unequal = fit([0.6, 0.05, 0.1], three, limits)
    np.testing.assert_allclose(unequal, [both - 0.05, 0.05, 0.1], rtol=1e-5)
    np.testing.assert_array_equal(fit([0.6, 0.4], pair(0.95), limits), [0.0, 0.0])
    np.testing.assert_array_equal(fit([0.6, 0.4], pair(0.69), limits), np.float32([0.6, 0.4]))
    np.testing.assert_array_equal(fit([0.9, 0.0], pair(0.95), limits), np.float32([0.9, 0.0]))


def test_sectors_bind_by_size_and_neither_side_nets():
    groups = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    known, limits = Known(jnp.zeros((3, 3)), jnp.zeros(3), groups), only(max_sector_allocation=0.4)
    np.testing.assert_allclose(fit([0.6, -0.2, 0.3], known, limits), [0.3, -0.1, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(fit([0.2, -0.2, 0.4], known, limits), np.float32([0.2, -0.2, 0.4]))
    single = fit([0.3, 0.0, 0.0], known, limits)
    np.testing.assert_array_equal(single, np.float32([0.3, 0.0, 0.0]))


def test_a_member_of_two_sectors_obeys_both():
    groups = jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    known, limits = Known(jnp.zeros((3, 3)), jnp.zeros(3), groups), only(max_sector_allocation=0.4)
    kept = np.abs(fit([0.4, 0.2, 0.8], known, limits))
    assert (kept @ np.asarray(groups) <= 0.4 + 1e-6).all()
    assert kept[0] == pytest.approx(0.4 / 3)


def test_margin_and_gross_and_weight_bind():
    known = pair(0.0)
    margin = NOTHING.replace(margin_rate=np.float32(0.02))
    assert fit([40.0, -40.0], known, margin)[0] == pytest.approx(1 / 0.022 / 2, rel=1e-5)
    np.testing.assert_array_equal(fit([20.0, -20.0], known, margin), [20.0, -20.0])
    np.testing.assert_allclose(fit([2.0, -1.0], known, only(max_gross=1.5)), [1.0, -0.5])
    caps = NOTHING.replace(max_weight=jnp.array([0.1, 0.5]))
    np.testing.assert_allclose(fit([0.3, -0.3], known, caps), [0.1, -0.3])


def test_a_free_part_that_hedges_what_is_fixed_is_kept():
    limits, known = only(max_portfolio_var=0.001), pair(0.9)
    kept = project(jnp.array([1.0, -0.8]), known, limits, free=jnp.array([False, True]))
    np.testing.assert_array_equal(kept, np.float32([1.0, -0.8]))
    least = project(jnp.array([1.0, -1.5]), known, limits, free=jnp.array([False, True]))
    assert float(least[1]) == pytest.approx(-0.9, rel=1e-4)
    flat = project(jnp.array([1.0, 0.5]), known, limits, free=jnp.array([False, True]))
    np.testing.assert_array_equal(flat, [1.0, 0.0])


def test_the_check_has_an_order_and_a_sentence_for_each_code():
    known = Known(0.02 * jnp.eye(3), jnp.array([0.95, 0.0, 0.0]), jnp.array([[1.0], [1.0], [0.0]]))
    limits = RiskLimits(max_weight=np.float32(50), max_gross=np.float32(60))

    def told(weights, limits=limits):
        ok, code = check(measure(jnp.array(weights), known, limits), limits)
        assert ok.dtype == bool
        assert bool(ok) == (int(code) == OK)
        return int(code)

    assert told([0.1, 0.1, 0.4]) == OK
    assert told([5.0, 5.0, 50.0]) == VAR
    calm = limits.replace(max_portfolio_var=None)
    assert told([30.0, 30.0, 1.0], calm) == CORRELATION
    mixed = calm.replace(max_correlation_exposure=None)
    assert told([30.0, 30.0, 1.0], mixed) == SECTOR
    wide = mixed.replace(max_sector_allocation=None)
    assert told([30.0, 30.0, 1.0], wide) == MARGIN
    loose = wide.replace(margin_rate=None)
    assert told([0.0, 0.0, 61.0], loose) == WEIGHT
    assert told([30.0, 30.0, 1.0], loose) == GROSS
    assert told([30.0, 30.0, 1.0], loose.replace(max_weight=None, max_gross=None)) == OK
    assert len(SENTENCES) == len({OK, VAR, CORRELATION, SECTOR, MARGIN, WEIGHT, GROSS})
    for code, word in (
        (VAR, "value at risk"),
        (CORRELATION, "correlat"),
        (SECTOR, "sector"),
        (MARGIN, "margin"),
    ):
        assert word in SENTENCES[code]


def test_the_defaults_are_the_contracts():
    limits = RiskLimits()
    assert float(limits.max_portfolio_var) == pytest.approx(0.02)
    assert float(limits.max_correlation_exposure) == pytest.approx(0.7)
    assert float(limits.max_sector_allocation) == pytest.approx(0.4)
    assert float(limits.margin_rate) == pytest.approx(0.02)
    assert float(limits.margin_buffer) == pytest.approx(0.1)
    assert (limits.window, limits.confidence) == (100, 0.95)
    assert (limits.max_weight, limits.max_gross) == (None, None)


def test_no_limits_change_nothing():
    weights, known, _ = books(8, count=100, seed=6)
    np.testing.assert_array_equal(project_all(weights, known, NOTHING), weights)
    one = Known(known.factor[0], known.correlation[0], None)
    assert float(measure(jnp.asarray(weights[0]), one, NOTHING).sector) == 0.0


def test_tight_correlation_limits_end_within_them_or_flat(monkeypatch):
    weights, known, _ = books(8, count=500, seed=7)
    for most in (0.5, 0.3, 0.1):
        found = np.asarray(project_all(weights, known, only(max_correlation_exposure=most)))
        for n in range(len(found)):
            assert figures(found, known, n, 8)["correlation"] <= most * (1 + 1e-5)
    monkeypatch.setattr(risk_limits, "ROUNDS", 1)
    found = jax.vmap(lambda w, k: project(w, k, only(max_correlation_exposure=0.3)), in_axes=(0, KNOWN_AXES))(
        weights, known
    )
    exposed = [figures(np.asarray(found), known, n, 8)["correlation"] for n in range(len(weights))]
    assert max(exposed) <= 0.3 * (1 + 1e-5)
