"""Folds against skfolio's, and by what they promise: nothing that is judged is known to what is trained."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from skfolio.model_selection import CombinatorialPurgedCV, WalkForward

from ztb_jax.data.folds import combinatorial_purged, paths, walk_forward
from ztb_jax.errors import ConfigError

BARS = st.integers(0, 30)
SHARE = st.sampled_from([0.0, 0.1, 0.25, 0.5])


def bars_of(ranges):
    """[N] the bars of half-open ranges, in their order."""
    return np.concatenate([np.arange(*one) for one in ranges])


def walked(**arguments):
    try:
        return walk_forward(**arguments)
    except ConfigError:
        assume(False)


def combined(**arguments):
    try:
        return combinatorial_purged(**arguments)
    except ConfigError:
        assume(False)


def check_apart(fold, *, first, num_bars, before, after, later_chooses):
    """No bar of training is in the `before` bars before, or the `after` bars after, one that is judged."""
    held = [*fold.test, *([fold.validation] if fold.validation else [])]
    everything = bars_of([*fold.train, *held])
    assert len(np.unique(everything)) == len(everything)
    assert first <= everything.min()
    assert everything.max() < num_bars
    train = bars_of(fold.train)
    for start, stop in held:
        assert start < stop
        assert not ((train >= start - before) & (train < stop + after)).any()
    if fold.validation:
        start, stop = fold.validation
        assert not ((train >= start - later_chooses) & (train < stop)).any()
    assert all(one[1] <= other[0] for one, other in pairwise(fold.train))
    assert all(start < stop for start, stop in fold.train)


def test_a_walk_by_hand():
    folds = walk_forward(
        1_000,
        first=100,
        folds=4,
        train_bars=300,
        test_bars=100,
        anchored=False,
        validation=0.2,
        embargo=8,
        purge=2,
    )
    assert folds[0] == (((290, 522),), (532, 590), ((600, 700),))
    assert [fold.test for fold in folds] == [((start, start + 100),) for start in (600, 700, 800, 900)]
    assert [fold.train[0][0] for fold in folds] == [290, 390, 490, 590]
    grown = walk_forward(1_000, first=100, folds=4, anchored=True, validation=0.0, embargo=8, purge=2)
    assert [fold.train for fold in grown] == [((100, 546),), ((100, 657),), ((100, 768),), ((100, 879),)]
    assert [fold.test for fold in grown] == [((556, 667),), ((667, 778),), ((778, 889),), ((889, 1000),)]
    assert {fold.validation for fold in grown} == {None}


@settings(derandomize=True, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 8), st.integers(0, 20), BARS, BARS, st.booleans()
)
def test_a_walk_is_that_of_skfolio(train_bars, test_bars, count, first, embargo, purge, anchored):
    """There a walk begins with the first bar and leaves the rest over; ours ends with the last one.

    So bars are counted for a walk that comes out even. There is no embargo there: what is left out between
    training and test is `purged_size`. Validation is ours alone.
    """
    gap = embargo + purge
    num_bars = first + train_bars + gap + count * test_bars
    ours = walk_forward(
        num_bars,
        first=first,
        folds=count,
        train_bars=train_bars,
        test_bars=test_bars,
        anchored=anchored,
        validation=0.0,
        embargo=embargo,
        purge=purge,
    )
    other = WalkForward(
        train_size=train_bars, test_size=test_bars, purged_size=gap, expand_train=anchored
    ).split(np.zeros((num_bars - first, 1)))
    for fold, (train, test) in zip(ours, other, strict=True):
        np.testing.assert_array_equal(bars_of(fold.train) - first, train)
        np.testing.assert_array_equal(bars_of(fold.test) - first, test)


@settings(derandomize=True, deadline=None)
@given(
    st.integers(50, 3_000),
    st.integers(0, 60),
    st.integers(1, 8),
    st.one_of(st.none(), st.integers(1, 1_500)),
    st.one_of(st.none(), st.integers(1, 300)),
    st.booleans(),
    SHARE,
    BARS,
    BARS,
)
def test_a_walk_keeps_its_promises(
    num_bars, first, count, train_bars, test_bars, anchored, validation, embargo, purge
):
    folds = walked(
        num_bars=num_bars,
        first=first,
        folds=count,
        train_bars=train_bars,
        test_bars=test_bars,
        anchored=anchored,
        validation=validation,
        embargo=embargo,
        purge=purge,
    )
    gap = embargo + purge
    assert len(folds) == count
    tests = bars_of([one for fold in folds for one in fold.test])
    np.testing.assert_array_equal(tests, np.arange(folds[0].test[0][0], num_bars))
    for fold in folds:
        check_apart(fold, first=first, num_bars=num_bars, before=gap, after=num_bars, later_chooses=gap)
        (start, stop), (judged, _) = fold.train[0], fold.test[0]
        part = judged - gap - start
        if anchored:
            assert start == first
        elif train_bars is not None:
            assert part == train_bars
        if validation:
            assert fold.validation[1] == judged - gap
            assert fold.validation[0] - stop == gap
            assert abs(np.ptp(fold.validation) - (part - gap) * validation) <= 0.5
        else:
            assert part == stop - start
    if train_bars is None and test_bars is None:
        begun = folds[0].test[0][0] - gap - first
        assert folds[0].train[0][0] == first
        assert abs(begun - (num_bars - first - gap) / 2) <= count


@settings(derandomize=True, deadline=None)
@given(st.integers(3, 8), st.integers(2, 7), st.integers(2, 60), st.integers(0, 20), BARS, BARS)
def test_combinations_are_those_of_skfolio(groups, held_out, size, first, embargo, purge):
    """There the last group takes what does not divide; ours differ by a bar at most: so all divide here."""
    assume(held_out < groups and 2 * purge + embargo < size and purge + embargo < size - 1)
    num_bars = first + groups * size
    ours = combinatorial_purged(
        num_bars,
        first=first,
        groups=groups,
        held_out=held_out,
        purge=purge,
        embargo=embargo,
        validation=0.0,
    )
    other = CombinatorialPurgedCV(
        n_folds=groups, n_test_folds=held_out, purged_size=purge, embargo_size=embargo
    )
    for fold, (train, tests) in zip(ours, other.split(np.zeros((num_bars - first, 1))), strict=True):
        np.testing.assert_array_equal(bars_of(fold.train) - first, train)
        for one, test in zip(fold.test, tests, strict=True):
            np.testing.assert_array_equal(np.arange(*one) - first, test)
    np.testing.assert_array_equal(paths(groups, held_out), other.recombined_paths.T)


@settings(derandomize=True, deadline=None)
@given(st.integers(20, 3_000), st.integers(0, 60), st.integers(2, 7), st.integers(1, 6), SHARE, BARS, BARS)
def test_combinations_keep_their_promises(num_bars, first, groups, held_out, validation, embargo, purge):
    assume(held_out < groups)
    sizes = {"num_bars": num_bars, "first": first, "groups": groups, "held_out": held_out}
    folds = combined(**sizes, validation=validation, embargo=embargo, purge=purge)
    whole = combined(**sizes, validation=0.0, embargo=embargo, purge=purge)
    gap = purge + embargo
    for fold, unchosen in zip(folds, whole, strict=True):
        check_apart(fold, first=first, num_bars=num_bars, before=purge, after=gap, later_chooses=gap)
        assert len(fold.test) == held_out
        if validation:
            kept, had = bars_of([*fold.train, fold.validation]), bars_of(unchosen.train)
            assert np.isin(kept, had).all()
            assert len(had) - len(kept) <= gap
            assert abs(np.ptp(fold.validation) - (len(had) - gap) * validation) <= 0.5
    every = paths(groups, held_out)
    assert every.shape == (math.comb(groups - 1, held_out - 1), groups)
    tested = list(combinations(range(groups), held_out))
    for path in every:
        ranges = [folds[fold].test[tested[fold].index(group)] for group, fold in enumerate(path)]
        np.testing.assert_array_equal(bars_of(ranges), np.arange(first, num_bars))
    used = [(fold, group) for path in every for group, fold in enumerate(path)]
    assert sorted(used) == [(fold, group) for fold, held in enumerate(tested) for group in held]


def test_the_newest_training_range_that_is_long_enough_chooses():
    shared = {"first": 0, "groups": 4, "purge": 2, "embargo": 3}
    folds = combinatorial_purged(400, **shared, held_out=1, validation=0.2)
    # Groups 0, 1 and 3 train: 198 + 95 bars less 5 are 288, of which a fifth is 58.
    assert folds[2] == (((0, 198), (305, 337)), (342, 400), ((200, 300),))
    # Half are 144, more than the 95 of group 3: the newest of those before group 2 choose.
    folds = combinatorial_purged(400, **shared, held_out=1, validation=0.5)
    assert folds[2] == (((0, 49), (305, 400)), (54, 198), ((200, 300),))
    with pytest.raises(ConfigError, match=r"cannot give a share of 0\.9 to validation"):
        combinatorial_purged(400, **shared, held_out=2, validation=0.9)


def test_all_findings_come_at_once():
    with pytest.raises(ConfigError) as error:
        walk_forward(
            100,
            first=200,
            folds=0,
            train_bars=0,
            test_bars=-1,
            anchored=True,
            validation=1.0,
            embargo=-1,
            purge=-2,
        )
    assert len(error.value.findings) == 7
    assert "folds is 0. Choose 1 or more." in error.value.findings
    with pytest.raises(ConfigError) as error:
        combinatorial_purged(100, first=-1, groups=3, held_out=3, purge=-1, embargo=-1, validation=math.nan)
    assert len(error.value.findings) == 5


@pytest.mark.parametrize(
    "size", [{"test_bars": 30}, {"train_bars": 900}, {"train_bars": 800, "test_bars": 50}]
)
def test_a_walk_without_room_is_refused(size):
    sizes = {"train_bars": None, "test_bars": None} | size
    shared = {"first": 0, "anchored": False, "embargo": 5, "purge": 5, "validation": 0.0}
    folds = 1_000 // 30 + 1 if size == {"test_bars": 30} else 95
    with pytest.raises(ConfigError, match=r"too few for .* folds .* Give more bars, fewer folds"):
        walk_forward(1_000, folds=folds, **sizes, **shared)


def test_a_walk_whose_training_cannot_choose_is_refused():
    with pytest.raises(ConfigError, match="cannot give a share"):
        walk_forward(
            100, first=0, folds=1, train_bars=20, anchored=False, validation=0.5, embargo=19, purge=0
        )


def test_groups_without_room_or_without_end_are_refused():
    with pytest.raises(ConfigError, match="leave nothing of one"):
        combinatorial_purged(60, first=0, purge=3, embargo=4, validation=0.0)
    with pytest.raises(ConfigError, match="155,117,520 ways"):
        paths(30, 15)
