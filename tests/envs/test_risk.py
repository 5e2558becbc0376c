"""Value at risk and exposures against numpy and scipy, and against the mistakes of others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from envs import risk

RNG = np.random.default_rng(0)
COMMON = RNG.standard_normal((500, 1))
RETURNS = 0.01 * (2.0 * COMMON + RNG.standard_t(4, (500, 5))) + 0.001
WEIGHTS = np.array([0.5, -0.3, 0.2, 0.0, 0.4])


def var_of(weights, method, **rest) -> float:
    found = risk.value_at_risk(jnp.asarray(weights), jnp.asarray(RETURNS), method=method, **rest)
    return float(found.var)


@pytest.mark.parametrize(
    ("confidence", "rounded"), [(0.9, 1.282), (0.95, 1.645), (0.99, 2.326), (0.999, 3.090)]
)
def test_the_score_is_the_normal_quantile(confidence, rounded):
    assert risk.z_score(confidence) == pytest.approx(norm.ppf(confidence), rel=1e-9)
    assert risk.z_score(confidence) == pytest.approx(rounded, abs=5e-4)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99, 0.999])
def test_variance_and_covariance_is_the_formula(confidence):
    deviation = np.sqrt(WEIGHTS @ np.cov(RETURNS, rowvar=False) @ WEIGHTS)
    expected = norm.ppf(confidence) * deviation
    assert var_of(WEIGHTS, "variance_covariance", confidence=confidence) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99, 0.999])
def test_historical_is_an_order_statistic_of_what_the_book_would_have_earned(confidence):
    expected = -np.sort(RETURNS @ WEIGHTS)[int((1 - confidence) * len(RETURNS))]
    assert var_of(WEIGHTS, "historical", confidence=confidence) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_monte_carlo_is_within_its_sampling_error(confidence):
    expected = var_of(WEIGHTS, "variance_covariance", confidence=confidence)
    z, num_draws = norm.ppf(confidence), 10_000
    error = np.sqrt(confidence * (1 - confidence) / num_draws) / norm.pdf(z) * expected / z
    drawn = [
        var_of(WEIGHTS, "monte_carlo", confidence=confidence, key=jax.random.key(seed)) for seed in range(8)
    ]
    assert np.abs(np.array(drawn) - expected).max() < 4 * error
    assert np.std(drawn) > 0
    assert abs(np.mean(drawn) - expected) < 4 * error / np.sqrt(8)


def test_monte_carlo_is_what_its_key_makes_it():
    one, same, other = (var_of(WEIGHTS, "monte_carlo", key=jax.random.key(seed)) for seed in (3, 3, 4))
    assert one == same != other


def test_the_record_has_its_neighbours_and_its_method():
    for method in risk.METHODS:
        found = risk.value_at_risk(
            jnp.asarray(WEIGHTS), jnp.asarray(RETURNS), method=method, key=jax.random.key(0)
        )
        assert found.method == method
        np.testing.assert_allclose([found.var_lower, found.var_upper], found.var * np.array([0.9, 1.1]), 1e-6)


@pytest.mark.parametrize("method", risk.METHODS)
def test_size_matters(method):
    rest = {"key": jax.random.key(0)}
    single, double = var_of(WEIGHTS, method, **rest), var_of(2 * WEIGHTS, method, **rest)
    assert double == pytest.approx(2 * single, rel=1e-5)
    assert single > 0


@pytest.mark.parametrize("method", risk.METHODS)
def test_sign_matters_a_hedge_is_less_risky_than_a_doubled_bet(method):
    rest = {"key": jax.random.key(0)}
    bet, hedge = (var_of([0.5, sign * 0.5, 0, 0, 0], method, **rest) for sign in (1, -1))
    assert hedge < 0.9 * bet


def test_long_and_short_have_different_historical_tails():
    skewed = -jnp.asarray(np.random.default_rng(1).gamma(1.0, 0.01, (500, 1)) - 0.01)
    long, short = (
        float(risk.value_at_risk(jnp.array([side]), skewed, method="historical").var) for side in (1.0, -1.0)
    )
    assert long > 1.5 * short > 0


def test_a_certain_gain_is_no_risk():
    gains = jnp.full((50, 1), 0.01)
    assert float(risk.value_at_risk(jnp.array([1.0]), gains, method="historical").var) == 0.0


@pytest.mark.parametrize("method", risk.METHODS)
@pytest.mark.parametrize("shape", [(0, 0), (100, 0), (0, 3)])
def test_nothing_has_no_risk(method, shape):
    found = risk.value_at_risk(jnp.zeros(shape[1]), jnp.zeros(shape), method=method, key=jax.random.key(0))
    assert (float(found.var), float(found.var_lower), float(found.var_upper)) == (0.0, 0.0, 0.0)


def test_refuses_what_it_does_not_know():
    weights, returns = jnp.ones(1), jnp.ones((9, 1))
    with pytest.raises(ValueError, match="variance_covariance, historical, monte_carlo"):
        risk.value_at_risk(weights, returns, method="garch")
    with pytest.raises(ValueError, match="give it a key"):
        risk.value_at_risk(weights, returns, method="monte_carlo")
    with pytest.raises(ValueError, match=r"confidence 1\.0"):
        risk.value_at_risk(weights, returns, confidence=1.0)


def test_covariance_and_correlation_are_numpys():
    matrix = risk.covariance(jnp.asarray(RETURNS))
    np.testing.assert_allclose(matrix, np.cov(RETURNS, rowvar=False), rtol=1e-4)
    np.testing.assert_allclose(risk.correlation(matrix), np.corrcoef(RETURNS, rowvar=False), atol=1e-5)


def test_what_never_moved_is_correlated_with_itself_only():
    returns = jnp.asarray(np.c_[RETURNS[:, :2], np.zeros(500)])
    np.testing.assert_allclose(risk.correlation(risk.covariance(returns))[2], [0, 0, 1])


def test_two_equal_perfectly_correlated_holdings_have_exposure_one():
    same = jnp.ones((2, 2))
    for weights in ([0.5, 0.5], [0.1, 0.1], [0.4, -0.4]):
        assert float(risk.correlation_exposure(jnp.array(weights), same)) == pytest.approx(1.0)


def test_correlation_exposure_is_the_double_loop():
    matrix = np.corrcoef(RETURNS * [1, -1, 1, -1, 1], rowvar=False)
    rng = np.random.default_rng(2)
    for _ in range(50):
        weights = rng.standard_normal(5) * (rng.uniform(size=5) < 0.7)
        pairs = [
            abs(matrix[i, j]) * (abs(weights[i]) + abs(weights[j])) / max(np.abs(weights).sum(), 1e-30)
            for i in range(5)
            for j in range(5)
            if i != j and weights[i] != 0 and weights[j] != 0
        ]
        actual = float(risk.correlation_exposure(jnp.asarray(weights), jnp.asarray(matrix)))
        assert actual == pytest.approx(max(pairs, default=0.0), rel=1e-5)
        scaled = float(risk.correlation_exposure(jnp.asarray(0.1 * weights), jnp.asarray(matrix)))
        assert scaled == pytest.approx(actual, rel=1e-5)


def test_fewer_than_two_holdings_share_nothing():
    same = jnp.ones((3, 3))
    assert float(risk.correlation_exposure(jnp.array([0.9, 0.0, 0.0]), same)) == 0.0
    assert float(risk.correlation_exposure(jnp.zeros(3), same)) == 0.0


def test_sectors_are_shares_of_equity():
    groups = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]])
    np.testing.assert_allclose(
        risk.sector_shares(jnp.asarray(WEIGHTS), jnp.asarray(groups)), [0.8, 0.2], rtol=1e-6
    )
    small = jnp.zeros(5).at[0].set(0.3)
    assert float(risk.sector_shares(small, jnp.asarray(groups)).max()) == pytest.approx(0.3)


def test_margin_is_asked_for_each_holding():
    assert float(risk.margin_share(jnp.array([2.0, -3.0]), rate=0.02, buffer=0.1)) == pytest.approx(0.11)
