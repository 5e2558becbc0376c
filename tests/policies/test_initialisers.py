"""First weights have orthogonal columns of the asked lengths; a draw in a row is the draw itself."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from ztb_jax.keys import in_a_row
from ztb_jax.policies.initialisers import orthogonal
from ztb_jax.policies.policy import make_policy

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


def test_drawn_side_by_side_they_are_those_drawn_alone():
    keys = jax.random.split(KEY, 5)
    beside = jax.jit(jax.vmap(lambda key: orthogonal(1.0)(key, (6, 3))))(keys)
    alone = jax.jit(lambda key: orthogonal(1.0)(key, (6, 3)))
    assert all(np.array_equal(each, alone(key)) for each, key in zip(beside, keys, strict=True))


SIDE_BY_SIDE = """
import jax
from ztb_jax.policies.initialisers import orthogonal
from ztb_jax.policies.policy import make_policy

def layers(key):
    return [orthogonal(1.0)(key, shape) for shape in ((64, 64), (64, 64), (9, 64), (64, 4))]

keys = jax.random.split(jax.random.key(0), 8)
draw = jax.jit(jax.vmap(layers))
for _ in range(300):
    jax.block_until_ready(draw(keys))
"""


def test_layers_drawn_side_by_side_do_not_wait_for_each_other():
    """Factorisations of many matrices did, for ever, within ten draws on two threads."""
    subprocess.run([sys.executable, "-c", SIDE_BY_SIDE], check=True, timeout=120)


def factorised(jaxpr) -> list[int]:
    """Dimensions of what is factorised in a program, its inner ones included."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("qr", "geqrf", "geqp3", "householder_product"):
            found.append(equation.invars[0].aval.ndim)
        for inner in jaxprs_in_params(equation.params):
            found += factorised(inner)
    return found


@pytest.mark.parametrize("encoder", ["window", "recurrence", "gru", "attention"])
def test_no_policy_is_drawn_by_factorising_many_at_once(encoder):
    policy = make_policy(
        num_features=3, account_size=2, num_actions=3, lookback=4, width=8, encoder=encoder, memory=4
    )
    keys = jax.random.split(KEY, 3)
    dimensions = factorised(jax.make_jaxpr(jax.vmap(policy.init))(keys).jaxpr)
    assert dimensions
    assert set(dimensions) == {2}


@pytest.mark.parametrize("draw", [jax.random.uniform, jax.random.normal, jax.random.bits])
def test_a_draw_in_a_row_is_the_same_draw(draw):
    assert np.array_equal(in_a_row(draw, KEY, (3, 4, 5)), draw(KEY, (3, 4, 5)))
