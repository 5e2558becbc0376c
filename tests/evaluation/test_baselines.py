"""Baselines against slow loops over single bars; their causality; random orders against all there are."""

import itertools
import statistics
from collections import Counter

import numpy as np
import pytest

from ztb_jax.evaluation import baselines

LEVELS = (-1.0, 0.0, 1.0)
CLOSE = 100 * np.exp(np.cumsum(np.random.default_rng(5).normal(0, 0.02, 240)))
CLOSE[100:125] = CLOSE[100]  # prices that stand still, and start again
RULES = {
    "moving_average_cross": lambda close: baselines.moving_average_cross(close, fast=4, slow=11),
    "momentum": lambda close: baselines.momentum(close, window=9, long=2.0),
    "mean_reversion": lambda close: baselines.mean_reversion(close, window=8, entry=1.2),
    "inverse_volatility": lambda close: baselines.inverse_volatility(close, window=6, cap=1.5),
}


def cross_loop(close, fast, slow):
    rows = []
    for n in range(len(close)):
        if n + 1 < slow:
            rows.append(0.0)
            continue
        lead = statistics.fmean(close[n + 1 - fast : n + 1]) - statistics.fmean(close[n + 1 - slow : n + 1])
        rows.append(0.0 if abs(lead) < 1e-9 else 1.0 if lead > 0 else -1.0)
    return rows


def momentum_loop(close, window, long):
    return [
        0.0 if n < window or close[n] == close[n - window] else long if close[n] > close[n - window] else -1.0
        for n in range(len(close))
    ]


def reversion_loop(close, window, entry):
    rows, held = [], 0.0
    for n in range(window - 1, len(close)):
        seen = close[n + 1 - window : n + 1]
        deviation = statistics.pstdev(seen)
        z = 0.0 if deviation < 1e-9 else (close[n] - statistics.fmean(seen)) / deviation
        if (held > 0 and z >= 0) or (held < 0 and z <= 0):
            held = 0.0
        if abs(z) >= entry:
            held = -1.0 if z > 0 else 1.0
        rows.append(held)
    return [0.0] * (window - 1) + rows


def volatility_loop(close, window, cap, target=None):
    rows, known = [], []
    for n in range(len(close)):
        returns = [close[k] / close[k - 1] - 1 for k in range(n - window + 1, n + 1) if k > 0]
        deviation = statistics.stdev(returns) if len(returns) == window else 0.0
        if deviation < 1e-9:
            rows.append(0.0)
            continue
        known.append(deviation)
        rows.append(min(cap, (statistics.median(known) if target is None else target) / deviation))
    return rows


def test_every_rule_equals_a_loop_over_bars():
    assert RULES["moving_average_cross"](CLOSE).tolist() == cross_loop(CLOSE, 4, 11)
    assert RULES["momentum"](CLOSE).tolist() == momentum_loop(CLOSE, 9, 2.0)
    assert RULES["mean_reversion"](CLOSE).tolist() == reversion_loop(CLOSE, 8, 1.2)
    expected = volatility_loop(CLOSE, 6, 1.5)
    np.testing.assert_allclose(RULES["inverse_volatility"](CLOSE), expected, rtol=1e-12)
    assert 0 < np.count_nonzero(np.array(expected) == 1.5) < 100
    aimed = baselines.inverse_volatility(CLOSE, window=6, target=0.01, cap=0.6)
    np.testing.assert_allclose(aimed, volatility_loop(CLOSE, 6, 0.6, target=0.01), rtol=1e-12)
    for rule in ("moving_average_cross", "momentum", "mean_reversion"):
        assert set(np.sign(RULES[rule](CLOSE))) == {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("rule", RULES)
def test_later_closes_change_no_bit_of_a_rule(rule):
    whole = RULES[rule](CLOSE)
    for n in (0, 3, 7, 11, 12, 57, 103, 124, 131, 200, 238):
        later = CLOSE.copy()
        later[n + 1 :] *= np.random.default_rng(n).uniform(0.5, 2.0, CLOSE.size - n - 1)
        np.testing.assert_array_equal(RULES[rule](later)[: n + 1], whole[: n + 1])
        np.testing.assert_array_equal(RULES[rule](CLOSE[: n + 1]), whole[: n + 1])


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_flat_where_little_is_known(rule):
    for close in (np.array([3.0]), CLOSE[:6]):
        assert RULES[rule](close).tolist() == [0.0] * close.size


def test_rounding_is_no_move():
    """A mean of twenty equal prices is not that price to the last bit, nor is their deviation 0."""
    for price in np.linspace(0.1, 3.0, 30):
        for path in baselines.rule_paths(np.full(80, price), LEVELS).values():
            assert not path.any()


def test_a_short_goes_over_into_a_long_within_a_bar():
    close = np.array([10.0, 10.1, 9.9, 12.0, 6.0, 6.1, 9.5])
    path = baselines.mean_reversion(close, window=3, entry=1.0)
    assert path.tolist() == reversion_loop(close, 3, 1.0) == [0.0, 0.0, 1.0, -1.0, 1.0, 1.0, -1.0]


@pytest.mark.parametrize(
    ("levels", "stances"),
    [
        ((-1.0, 0.0, 1.0), (1.0, 0.0, -1.0)),
        ((0.0, 1.0), (1.0, 0.0, 0.0)),
        ((1.0, -1.0), (1.0, 1.0, -1.0)),
        ((2.0, 0.25, 1.0), (2.0, 0.25, 0.25)),
        ((-0.5, -0.1), (-0.1, -0.1, -0.5)),
        ((-0.1, 1.0), (1.0, -0.1, -0.1)),
    ],
)
def test_rules_take_only_levels_that_are_allowed(levels, stances):
    assert baselines.stances_of(levels) == stances
    wild = CLOSE.copy()
    wild[200::2] *= 1.5
    warm_up = {"moving_average_cross": 49, "momentum": 60, "mean_reversion": 19, "inverse_volatility": 20}
    for name, path in baselines.rule_paths(wild, levels).items():
        assert not path[: warm_up[name]].any()
        if name == "inverse_volatility":
            assert set(path) <= {0.0, *(level for level in levels if level >= 0.0)}
        else:
            assert set(path[warm_up[name] :]) <= set(levels)


def test_inverse_volatility_takes_the_nearest_level():
    levels = (-1.0, 0.0, 0.25, 0.5, 1.0)
    amount = baselines.inverse_volatility(CLOSE, cap=1.0)
    path = baselines.rule_paths(CLOSE, levels)["inverse_volatility"]
    for have, want in zip(path, amount, strict=True):
        assert abs(have - want) == min(abs(level - want) for level in levels if level >= 0)
    assert len(set(path)) > 2
    assert baselines.nearest(np.array([0.5, -0.5, 0.51]), (1.0, -1.0, 0.0)).tolist() == [0.0, 0.0, 1.0]


def spells(path):
    return [(level, len(list(run))) for level, run in itertools.groupby(path)]


def moves(path):
    return Counter(itertools.pairwise([0.0, *(level for level, _ in spells(path))]))


@pytest.mark.parametrize("levels", [(0.0, 1.0), (-1.0, 0.0, 1.0), (-1.0, -0.3, 0.0, 0.7, 1.0)])
def test_shuffled_spells_keep_every_spell_and_every_move(levels):
    rng = np.random.default_rng(len(levels))
    path = np.repeat(rng.choice(levels, 60), rng.integers(1, 9, 60))
    drawn = baselines.shuffled_spells(path, rng, accounts=40)
    for row in drawn:
        assert Counter(spells(row)) == Counter(spells(path))
        assert moves(row) == moves(path)  # so trades and the sum of changes, from flat, are the same
    assert len({row.tobytes() for row in drawn}) > 30


def test_every_order_of_the_spells_is_as_likely():
    path = np.repeat([0.0, 1.0, 0.0, -1.0, 1.0, 0.0, -1.0, 0.0], [1, 2, 1, 1, 1, 3, 1, 1]).tolist()
    possible = set()
    for order in set(itertools.permutations(spells(path))):
        levels = [level for level, _ in order]
        if levels[0] == path[0] and Counter(itertools.pairwise([0.0, *levels])) == moves(path):
            possible.add(tuple(level for level, length in order for _ in range(length)))
    drawn = baselines.shuffled_spells(np.array(path), np.random.default_rng(0), accounts=8000)
    counts = Counter(map(tuple, drawn.tolist()))
    assert set(counts) == possible
    share = 8000 / len(possible)
    assert len(possible) > 20
    assert max(abs(count - share) for count in counts.values()) < 4.5 * share**0.5


def test_one_spell_has_one_order_and_ends_are_met():
    hold = np.ones(7)
    assert (baselines.shuffled_spells(hold, np.random.default_rng(0), accounts=3) == hold).all()
    lost = np.repeat([1.0, -1.0, 1.0, -1.0, 0.0], [2, 3, 4, 1, 5])
    for row in baselines.shuffled_spells(lost, np.random.default_rng(0), accounts=20):
        assert row[0] == 1.0
        assert not row[-5:].any()


def test_spells_of_a_range_keep_what_is_in_them():
    rng = np.random.default_rng(2)
    path = np.clip(np.cumsum(rng.normal(0, 0.03, 500)), -1, 1)
    drawn = baselines.shuffled_spells(path, rng, accounts=20, step=0.1)
    between = sum(level != after for level, after in itertools.pairwise(np.round(path / 0.1)))
    for row in drawn:
        np.testing.assert_array_equal(np.sort(row), np.sort(path))
        assert np.count_nonzero(np.diff(row)) == np.count_nonzero(np.diff(path))
        assert Counter(itertools.pairwise(np.round(row / 0.1))) == Counter(
            itertools.pairwise(np.round(path / 0.1))
        )
        assert abs(np.abs(np.diff(row)).sum() - np.abs(np.diff(path)).sum()) < 0.1 * between
    assert len({row.tobytes() for row in drawn}) == 20


def test_the_same_seed_draws_the_same_orders():
    path = np.repeat([0.0, 1.0, 0.0, 1.0, 0.0], [3, 1, 4, 1, 5])
    one, other = (baselines.shuffled_spells(path, np.random.default_rng(7), accounts=5) for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: baselines.momentum(np.array([1.0, -1.0])), "close of bar 1 is -1.0"),
        (lambda: baselines.momentum(np.array([])), "close has 0 bars"),
        (lambda: baselines.momentum(CLOSE, window=0), "window is 0: give at least 1"),
        (lambda: baselines.moving_average_cross(CLOSE, fast=9, slow=9), r"fast \(9\)"),
        (lambda: baselines.moving_average_cross(np.array([1.0, np.nan])), "first at bar 1"),
        (lambda: baselines.mean_reversion(CLOSE, entry=0.0), "entry is 0.0"),
        (lambda: baselines.mean_reversion(CLOSE, window=1), "give at least 2"),
        (lambda: baselines.inverse_volatility(CLOSE, target=0.0), r"target \(0.0\)"),
        (lambda: baselines.inverse_volatility(CLOSE, cap=-1.0), r"cap \(-1.0\)"),
        (lambda: baselines.stances_of(()), "no levels"),
        (lambda: shuffled(np.array([])), "path has 0 bars"),
        (lambda: shuffled(np.ones(3), step=-1.0), "step is -1.0"),
        (lambda: baselines.equal_weight(0, 2), "0 bars and 2 instruments"),
        (lambda: baselines.equal_weight(3, 2, rebalance=0), "rebalance is 0"),
        (lambda: baselines.inverse_volatility_weights(np.ones(3), window=2), "bars by instruments"),
        (lambda: baselines.inverse_volatility_weights(np.full((3, 2), np.inf), window=2), "first at bar 0"),
    ],
)
def test_bad_input_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def shuffled(path, **more):
    return baselines.shuffled_spells(path, np.random.default_rng(0), accounts=1, **more)
