"""First weights have orthogonal columns of the asked lengths; a draw in a row is the draw itself."""

import jax
import numpy as np
import pytest

from ztb_jax.keys import in_a_row
from ztb_jax.policies.initialisers import orthogonal

KEY = jax.random.key(3)


@pytest.mark.parametrize("shape", [(48, 48), (48, 5), (48, 1), (2, 48)])
def test_columns_are_orthogonal_and_of_the_scale_asked_for(shape):
    matrix = np.asarray(orthogonal(1.5)(KEY, shape), np.float64)
    short = matrix if shape[0] >= shape[1] else matrix.T
    assert np.allclose(short.T @ short, 1.5**2 * np.eye(min(shape)), atol=1e-5)


def test_every_column_has_a_scale_of_its_own():
    matrix = np.asarray(orthogonal((0.01, 0.01, 1.0))(KEY, (32, 3)), np.float64)
    lengths = np.sqrt((matrix**2).sum(axis=0))
    assert np.allclose(lengths, (0.01, 0.01, 1.0), rtol=1e-5)
    assert np.allclose((matrix / lengths).T @ (matrix / lengths), np.eye(3), atol=1e-5)


def test_directions_are_uniform():
    """Entries have mean 0 and variance 1 / rows; without the signs of R a diagonal would lean."""
    keys = jax.random.split(KEY, 2000)
    matrices = np.asarray(jax.vmap(lambda key: orthogonal(1.0)(key, (6, 3)))(keys), np.float64)
    assert np.abs(matrices.mean(axis=0)).max() < 5 / np.sqrt(6 * 2000)
    assert np.allclose((matrices**2).mean(axis=0), 1 / 6, atol=0.02)


@pytest.mark.parametrize("draw", [jax.random.uniform, jax.random.normal, jax.random.bits])
def test_a_draw_in_a_row_is_the_same_draw(draw):
    assert np.array_equal(in_a_row(draw, KEY, (3, 4, 5)), draw(KEY, (3, 4, 5)))
