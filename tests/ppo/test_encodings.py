"""Contexts of the slice, of stretches and of single windows are one function; the cheapest is taken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.ppo.cases import assert_close, jit, network, unsettled
from ztb_jax.policies.encoding import (
    choose_encoding,
    encode_bars,
    encode_chunk,
    encode_slice,
    encode_window,
)
from ztb_jax.policies.policy import ENCODERS
from ztb_jax.ppo.learner import Options, minibatching_of

LOOKBACK, GRID, BARS, ROWS = 6, 8, 8, 62
FEATURES = jnp.asarray(np.random.default_rng(0).normal(size=(ROWS, 1)), jnp.float32)
STARTS = jnp.array([LOOKBACK - 1, LOOKBACK - 1 + 2 * GRID, LOOKBACK - 1 + 6 * GRID])
ASKED = jnp.array([23, 0, 5, 7, 11])  # places t * G + g
KINDS = ("slice", "stretches", "windows")


def policy_of(encoder):
    return network(lookback=LOOKBACK, encoder=encoder, grid=GRID)


def of_kind(policy, kind):
    """The policy with a cost of windows that makes `kind` the cheapest, and first bars that do."""
    cost = {"windows": 1e-6}.get(kind, 1e6)
    return policy._replace(window_cost=cost), jnp.tile(STARTS, 4) if kind == "slice" else STARTS


@functools.cache
def outcomes(encoder):
    """Contexts in every way, with their gradients, out of one program."""
    policy = policy_of(encoder)
    bars = STARTS[:, None] + jnp.arange(BARS)[None]

    def whole(params):
        return encode_slice(policy, params, FEATURES)

    def chunks(params):
        return jax.vmap(lambda first: encode_chunk(policy, params, FEATURES, first, bars=BARS))(STARTS)

    def windows(params):
        every = jnp.arange(LOOKBACK - 1, ROWS)
        return jax.vmap(lambda bar: encode_window(policy, params, FEATURES, bar))(every)

    def through(encode, pick):
        def loss(params):
            context = pick(encode(params))
            return jnp.sin(3.0 * context).sum(), context

        return jax.grad(loss, has_aux=True)

    def gathered(params, kind, samples):
        one, starts = of_kind(policy, kind)
        rows, at = encode_bars(one, params, FEATURES, starts, bars=BARS, samples=samples)
        return rows[at]

    @jit
    def run(params):
        played, tradable = (
            through(whole, lambda context: context[bars]),
            lambda context: context[LOOKBACK - 1 :],
        )
        return {
            "slice": played(params),
            "chunks": through(chunks, lambda context: context)(params),
            "windows": through(windows, lambda context: context[bars - (LOOKBACK - 1)])(params),
            "every bar": (tradable(whole(params)), windows(params)),
            "all": [gathered(params, kind, None)[:, :3] for kind in KINDS],
            "some": [
                gathered(params, kind, (ASKED // 3) * 12 + ASKED % 3 if kind == "slice" else ASKED)
                for kind in KINDS
            ],
        }

    return run(unsettled(policy))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_slice_stretches_and_windows_agree_in_contexts_and_gradients(encoder):
    found = outcomes(encoder)
    assert_close(*found["every bar"])
    for other in ("chunks", "windows"):
        np.testing.assert_allclose(found[other][1], found["slice"][1], atol=1e-5)
        # Sums of some hundred terms of order one.
        assert_close(found[other][0], found["slice"][0], atol=2e-4)
    for path, leaf in jax.tree_util.tree_leaves_with_path(found["slice"][0]["encoder"]):
        assert np.asarray(leaf).any(), f"{jax.tree_util.keystr(path)} learns nothing"


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_batch_finds_its_contexts_whichever_way_they_are_made(encoder):
    found = outcomes(encoder)
    expected = np.moveaxis(np.asarray(found["slice"][1]), 0, 1)
    for kind, every, some in zip(KINDS, found["all"], found["some"], strict=True):
        one, starts = of_kind(policy_of(encoder), kind)
        sizes = {"num_bars": ROWS, "num_groups": len(starts), "bars": BARS}
        assert choose_encoding(one, **sizes).kind == kind
        assert choose_encoding(one, **sizes, samples=len(ASKED)).kind == kind
        np.testing.assert_allclose(every, expected, atol=1e-5)
        np.testing.assert_allclose(some, expected[ASKED // 3, ASKED % 3], atol=1e-5)


@pytest.mark.parametrize(
    ("cost", "num_bars", "num_groups", "bars", "samples", "expected"),
    [
        # A plain window needs no warm-up; where nothing is cheaper, the first of the three is taken.
        (1.0, 100, 4, 25, None, ("slice", 100)),
        (1.0, 101, 4, 25, None, ("stretches", 100)),
        (1.0, 101, 4, 25, 99, ("windows", 99)),
        (1.0, 98, 4, 25, 99, ("slice", 98)),
        (1.0, 101, 4, 25, 500, ("stretches", 100)),
        # A memory warms up for five bars before each stretch, or pays for every window.
        (9.0, 120, 4, 25, None, ("slice", 120)),
        (9.0, 121, 4, 25, None, ("stretches", 120)),
        (9.0, 1000, 4, 25, 13, ("windows", 117)),
        (9.0, 1000, 4, 25, 14, ("stretches", 120)),
        (0.5, 1000, 4, 25, None, ("windows", 50)),
    ],
)
def test_the_way_with_the_fewest_rows_is_taken(cost, num_bars, num_groups, bars, samples, expected):
    policy = policy_of("window")._replace(window_cost=cost)
    chosen = choose_encoding(policy, num_bars=num_bars, num_groups=num_groups, bars=bars, samples=samples)
    assert tuple(chosen) == expected
    assert f"{expected[1]:,} rows" in str(chosen)


def test_a_grid_warms_up_in_each_of_its_cells():
    policy = policy_of("gru")
    assert (policy.grid, policy.lookback) == (BARS, LOOKBACK)
    for num_bars, cells in ((LOOKBACK - 1 + 10 * BARS, 10), (LOOKBACK + 10 * BARS, 11), (3, 1)):
        chosen = choose_encoding(policy, num_bars=num_bars, num_groups=100, bars=BARS)
        assert tuple(chosen) == ("slice", cells * (BARS + LOOKBACK - 1))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        # The main job: 2,973 rows for 16,384 steps cost little, whole groups' 2,048 would save little.
        ({}, "accounts"),
        # 2,048 rows for 4,096 steps are half of the work, 512 an eighth.
        ({"num_groups": 32}, "segments"),
        ({"num_groups": 64, "num_bars": 2048}, "accounts"),
        ({"num_groups": 64, "num_bars": 2049}, "segments"),
        # A short slice is encoded whole in either case.
        ({"num_groups": 32, "num_bars": 1025}, "segments"),
        ({"num_groups": 32, "num_bars": 1023}, "accounts"),
        # Where only one of the two divides, that one is taken.
        ({"num_groups": 33}, "accounts"),
        ({"sharing": 1}, "segments"),
        # Every account's own memory keeps to the sizes alone.
        ({"num_groups": 32, "memory": 3}, "accounts"),
    ],
)
def test_whole_groups_make_a_minibatch_where_the_market_would_cost_much(sizes, expected):
    sizes = {"num_bars": 2973, "num_groups": 128, "sharing": 8, "memory": 0, **sizes}
    cut = minibatching_of(
        network(memory=sizes["memory"]),
        Options(num_minibatches=4),
        shape=(sizes["num_groups"], sizes["sharing"]),
        rollout_bars=64,
        num_bars=sizes["num_bars"],
    )
    assert cut.shuffle == expected
    assert cut.total == 4
