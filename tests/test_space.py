"""Axes of a study: what is read, what is refused, and what grids and draws are made of."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztb_jax import space
from ztb_jax.errors import ConfigError

NUMBERS = st.floats(1e-6, 1e6, allow_nan=False)


def axis(text: str) -> space.Axis:
    (found,) = space.parse_axes([text])
    return found


@given(st.lists(NUMBERS, min_size=1, max_size=5, unique=True))
def test_values_are_read_as_they_were_written(values):
    text = ",".join(map(repr, values))
    assert axis(f"ppo.gamma={text}").values == tuple(values)
    assert axis(f"ppo.gamma={text.replace('.0,', ',')}").values == tuple(values)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("ppo.learning_rate=1e-3,3e-4", (1e-3, 3e-4)),
        ("env.levels=[0,1],[-1,0,1]", ((0, 1), (-1, 0, 1))),
        ("ppo.target_kl=null,0.02", (None, 0.02)),
        ("policy.encoder=window,gru", ("window", "gru")),
        ("ppo.normalise_rewards=true,false", (True, False)),
        (" ppo.epochs = 1, 2 ", (1, 2)),
    ],
)
def test_each_kind_of_setting_has_its_values(text, values):
    found = axis(text).values
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@given(st.tuples(NUMBERS, NUMBERS).filter(lambda ends: ends[0] < ends[1]), st.booleans())
def test_a_range_has_its_ends(ends, log):
    low, high = ends
    found = axis(f"ppo.learning_rate={low!r}..{high!r}{':log' if log else ''}")
    assert found == space.Axis("ppo.learning_rate", low=low, high=high, log=log)
    assert axis("ppo.epochs=1..8").whole


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ppo.gamma", "write a setting and its values"),
        ("ppo.gamma=", "write a setting and its values"),
        ("ppo.nope=1", "there is no setting 'ppo.nope'"),
        ("seed=1,2", "all trials share seed"),
        ("data.symbol=a,b", "all trials share data.symbol"),
        ("run.window_updates=1,2", "all trials share run.window_updates"),
        ("ppo.gamma=[1", "no values separated by commas"),
        ("ppo.gamma=0.9,0.9", "a value stands twice"),
        ("ppo.gamma=0.9,.inf", "a value is not finite"),
        ("ppo.gamma=a..b", "a range has two numbers"),
        ("ppo.gamma=0.9..", "a range has two numbers"),
        ("ppo.gamma=0.9..0.8", "a range rises"),
        ("ppo.gamma=0.9..inf", "a range rises"),
        ("ppo.gamma=0..1:log", "begins above 0"),
        ("ppo.gamma=0.1..1:lin", "after a range comes nothing or :log"),
        ("ppo.epochs=1..2.5", "takes whole numbers"),
        ("policy.encoder=a..b", "a range is of numbers"),
        ("ppo.normalise_rewards=0..1", "a range is of numbers"),
        ("env.levels=0..1", "a range is of numbers"),
    ],
)
def test_what_cannot_be_read_is_told(text, told):
    with pytest.raises(ConfigError, match=told):
        axis(text)


def test_all_findings_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        space.parse_axes(["ppo.gamma=0.9", "ppo.nope=1", "ppo.gamma=0.8", "ppo.lam=2..1"])
    assert len(caught.value.findings) == 3
    assert "stands a second time" in caught.value.findings[1]


@given(st.lists(st.integers(1, 4), max_size=4))
def test_a_grid_is_the_product_with_the_last_axis_fastest(sizes):
    axes = [space.Axis(f"k{at}", tuple(range(size))) for at, size in enumerate(sizes)]
    points = space.grid(axes)
    assert [tuple(point.values()) for point in points] == list(itertools.product(*map(range, sizes)))
    assert all(list(point) == [each.key for each in axes] for point in points)


def test_grids_without_end_are_refused():
    with pytest.raises(ConfigError, match=r"ppo.gamma: a grid needs values"):
        space.grid(space.parse_axes(["ppo.gamma=0.1..0.9"]))
    with pytest.raises(ConfigError, match="10,201 points"):
        space.grid([space.Axis("a", tuple(range(101))), space.Axis("b", tuple(range(101)))])


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_draws_are_within_and_follow_the_seed(seed, count):
    axes = space.parse_axes(
        ["ppo.gamma=0.5..0.9", "ppo.learning_rate=1e-5..1e-1:log", "ppo.epochs=2..5", "ppo.lam=0.1,0.2"]
    )
    points = space.random(axes, count, seed=seed)
    assert points == space.random(axes, count, seed=seed)
    assert points[:1] == space.random(axes, 1, seed=seed)
    for point in points:
        assert 0.5 <= point["ppo.gamma"] <= 0.9
        assert 1e-5 <= point["ppo.learning_rate"] <= 1e-1
        assert point["ppo.epochs"] in {2, 3, 4, 5}
        assert isinstance(point["ppo.epochs"], int)
        assert point["ppo.lam"] in {0.1, 0.2}


def test_draws_are_even_in_what_was_asked_for():
    axes = space.parse_axes(["ppo.gamma=0.5..0.9", "ppo.learning_rate=1e-4..1e-2:log", "ppo.epochs=1..4"])
    points = space.random(axes, 4000, seed=0)
    gamma, rate, epochs = (np.array([point[each.key] for point in points]) for each in axes)
    for values, low, high in ((gamma, 0.5, 0.9), (np.log10(rate), -4.0, -2.0)):
        assert values.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low) / math.sqrt(12 * 4000))
    assert np.bincount(epochs, minlength=5)[1:] == pytest.approx(1000, abs=130)


def test_whole_numbers_of_a_logarithmic_range_stay_in_it():
    (found,) = space.parse_axes(["ppo.epochs=1..64:log"])
    drawn = {point["ppo.epochs"] for point in space.random([found], 500, seed=1)}
    assert drawn <= set(range(1, 65))
    assert {1, 64} & drawn


def test_ends_are_each_value_and_both_ends():
    axes = space.parse_axes(["ppo.gamma=0.9,0.8", "ppo.epochs=1..4", "ppo.lam=0.1..0.2"])
    assert space.ends(axes) == [
        {"ppo.gamma": 0.9}, {"ppo.gamma": 0.8}, {"ppo.epochs": 1}, {"ppo.epochs": 4}, {"ppo.lam": 0.1},
        {"ppo.lam": 0.2},
    ]  # fmt: skip


def test_a_point_in_a_line():
    assert space.described({"ppo.gamma": 0.95, "ppo.epochs": 4}) == "ppo.gamma 0.95, ppo.epochs 4"
    assert space.described({}) == "as configured"
