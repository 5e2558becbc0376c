"""The tracker of correlation: its window, its regimes, its refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import correlations
from envs.correlations import BREAKDOWN, MIN_MATRICES, NORMAL, REGIMES, SPIKE, make_correlation_tracker

WINDOW = 30


def moves(share, num_bars, seed):
    """Returns of 4 instruments, of whose variance a common factor makes up `share`."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((num_bars, 1))
    return np.sqrt(share) * common + np.sqrt(1 - share) * rng.standard_normal((num_bars, 4))


def follow(returns, window=WINDOW):
    tracker = make_correlation_tracker(num_instruments=returns.shape[1], window=window)
    return jax.jit(lambda rows: jax.lax.scan(tracker.step, tracker.init(), rows))(
        jnp.asarray(returns, jnp.float32)
    )


def test_the_matrix_is_numpys_of_the_last_window():
    returns = moves(0.5, 80, 0)
    _, told = follow(returns)
    for t in range(80):
        expected = np.eye(4)
        if t + 1 >= WINDOW:
            expected = np.corrcoef(returns[t + 1 - WINDOW : t + 1], rowvar=False)
        np.testing.assert_allclose(told.matrix[t], expected, atol=2e-5)
        apart = np.abs(expected[np.triu_indices(4, 1)]).mean()
        assert float(told.mean[t]) == pytest.approx(apart, abs=2e-5)


@pytest.mark.parametrize(
    ("before", "after", "regime"), [(0.3, 0.95, SPIKE), (0.9, 0.1, BREAKDOWN), (0.6, 0.6, NORMAL)]
)
def test_regimes_are_30_percent_from_the_mean_of_the_history(before, after, regime):
    _, told = follow(np.concatenate([moves(before, 300, 1), moves(after, 60, 2)]))
    assert int(told.regime[-1]) == regime
    mean, found = np.asarray(told.mean, np.float64), np.asarray(told.regime)
    for t in range(WINDOW - 1 + MIN_MATRICES, 360):
        history = mean[WINDOW - 1 : t].mean()
        expected = SPIKE if mean[t] > 1.3 * history else BREAKDOWN if mean[t] < 0.7 * history else NORMAL
        assert found[t] == expected or abs(mean[t] / history - 1) == pytest.approx(0.3, abs=1e-3)
    assert REGIMES[SPIKE] == "correlation_spike"
    assert REGIMES[BREAKDOWN] == "correlation_breakdown"


def test_a_regime_needs_ten_matrices():
    first = WINDOW - 1 + MIN_MATRICES
    returns = moves(0.2, first + 1, 3)
    for length, known in ((first, False), (first + 1, True)):
        rows = returns[:length].copy()
        rows[-3:] = 50.0 * np.arange(1, 4)[:, None]  # everything moves as one
        _, told = follow(rows)
        assert (int(told.regime[-1]) == SPIKE) == known
        assert not np.asarray(told.regime[: first - 1]).any()


def test_the_default_window_is_a_hundred():
    tracker = make_correlation_tracker(num_instruments=3)
    assert tracker.init().returns.shape == (100, 3)


def test_a_single_instrument_has_no_pairs():
    _, told = follow(moves(0.5, 50, 0)[:, :1])
    assert not np.asarray(told.mean).any()
    assert not np.asarray(told.regime).any()


def test_refuses_a_wrong_number_of_returns_and_a_window_of_one():
    tracker = make_correlation_tracker(num_instruments=3)
    with pytest.raises(ValueError, match="expected 3 returns"):
        tracker.step(tracker.init(), jnp.zeros(4))
    with pytest.raises(ValueError, match="at least 2"):
        make_correlation_tracker(num_instruments=3, window=1)
    assert correlations.CHANGE == 0.3
