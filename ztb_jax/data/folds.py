"""Folds: the same bars divided into training and judging again and again, as time went on or in every way.

A fold that is judged on bars [a, b) trains on nothing that knows of them. Two things could: labels, which
reach `purge` bars forward, and features, which reach `embargo` bars back.

Source: Lopez de Prado 2018, Advances in Financial Machine Learning, chapters 7 (purging, embargo) and 12
(combinatorial purged cross-validation).
"""

import math
from itertools import combinations, groupby
from typing import NamedTuple

import numpy as np

from ztb_jax.errors import ConfigError

Range = tuple[int, int]

MOST_FOLDS = 1_000  # each is a training of its own


class Fold(NamedTuple):
    """Half-open bar ranges (start, stop), disjoint; those of one kind are in order of time.

    Attributes:
      train: one range when walking forward, several in a combinatorial fold.
      validation: what chooses among the policies of this training; None where nothing is left out for it.
      test: one range when walking forward, one for each held-out group in a combinatorial fold.
    """

    train: tuple[Range, ...]
    validation: Range | None
    test: tuple[Range, ...]


def walk_forward(
    num_bars: int,
    *,
    first: int,
    folds: int,
    train_bars: int | None = None,
    test_bars: int | None = None,
    anchored: bool,
    validation: float,
    embargo: int,
    purge: int,
) -> tuple[Fold, ...]:
    """Folds that train on the past and are tested on what came next, in test ranges without gaps to the end.

    The training part of a fold ends embargo + purge bars before its test range. Its newest bars choose, where
    `validation` asks for it: round(validation x (bars - embargo - purge)) of them, with embargo + purge bars
    left out before them.

    Args:
      num_bars: T.
      first: bars before it are left out, e.g. the warm-up of the features.
      folds: how many.
      train_bars: of a training part, validation and the bars before it included; with `anchored` the fewest
        of the first one. None is what the test ranges leave to the first fold.
      test_bars: of a test range. None divides what follows the first training part, which then is about half
        of the bars where `train_bars` is None, too.
      anchored: every training part begins at `first`, and grows; else it is the last `train_bars` bars.
      validation: share of the training part that chooses; 0 is none.
      embargo: bars that a feature reaches back.
      purge: bars that a label reaches forward.

    Raises:
      ConfigError: with every finding: counts that are too small, a share outside [0, 1), or bars too few.
    """
    findings = _number_findings(num_bars, first=first, validation=validation, embargo=embargo, purge=purge)
    counts = {"folds": folds, "train_bars": train_bars, "test_bars": test_bars}
    findings += [
        f"{name} is {count}. Choose 1 or more."
        for name, count in counts.items()
        if count is not None and count < 1
    ]
    if findings:
        raise ConfigError(findings)
    gap = embargo + purge
    room = num_bars - first - gap
    if test_bars is None:
        test_bars = (room // 2 if train_bars is None else room - train_bars) // folds
    if train_bars is None:
        train_bars = room - folds * test_bars
    if test_bars < 1 or train_bars < 1 or train_bars + folds * test_bars > room:
        raise ConfigError(
            f"{num_bars} bars from bar {first} on, less an embargo of {embargo} and a purge of {purge}, "
            f"leave {max(room, 0)}: too few for {folds} folds of {max(test_bars, 1)} bars after a training "
            f"of {max(train_bars, 1)}. Give more bars, fewer folds, or lower train_bars, test_bars, "
            "embargo or purge."
        )
    found = []
    for start in range(num_bars - folds * test_bars, num_bars, test_bars):
        stop = start - gap
        begin = first if anchored else stop - train_bars
        train, chooses = _chosen(((begin, stop),), share=validation, gap=gap)
        found.append(Fold(train, chooses, ((start, start + test_bars),)))
    return tuple(found)


def combinatorial_purged(
    num_bars: int,
    *,
    first: int,
    groups: int = 6,
    held_out: int = 2,
    purge: int,
    embargo: int,
    validation: float,
) -> tuple[Fold, ...]:
    """A fold for every choice of `held_out` among `groups` consecutive groups of bars.

    A fold tests on the groups that it holds out, each a range of its own, and trains on the others, less
    `purge` bars before each test range and purge + embargo bars after it: a label of the last test bar
    reaches as far as one of training, and the features of what follows look back. Groups differ by a bar at
    most. Folds are in the order of `itertools.combinations(range(groups), held_out)`.

    The newest training range that holds round(validation x (train bars - embargo - purge)) bars ends with
    those that choose; embargo + purge bars before them are left out, too.

    Args:
      num_bars: T.
      first: bars before it are left out, e.g. the warm-up of the features.
      groups: how many.
      held_out: groups of a test.
      purge: bars that a label reaches forward.
      embargo: bars that a feature reaches back.
      validation: share of the train bars that chooses; 0 is none.

    Raises:
      ConfigError: with every finding: numbers out of range, or groups too short.
    """
    findings = _number_findings(num_bars, first=first, validation=validation, embargo=embargo, purge=purge)
    findings += _group_findings(groups, held_out)
    if findings:
        raise ConfigError(findings)
    usable = num_bars - first
    if usable // groups <= 2 * purge + embargo:
        raise ConfigError(
            f"{usable} bars from bar {first} on are groups of {usable // groups}, and purge ({purge}) on "
            f"both sides and embargo ({embargo}) leave nothing of one: give more bars, fewer groups, or "
            "lower purge or embargo."
        )
    bounds = [first + usable * group // groups for group in range(groups + 1)]
    found = []
    for tested in combinations(range(groups), held_out):
        train, chooses = _chosen(
            _between(tested, bounds, purge=purge, embargo=embargo), share=validation, gap=embargo + purge
        )
        found.append(Fold(train, chooses, tuple((bounds[group], bounds[group + 1]) for group in tested)))
    return tuple(found)


def paths(groups: int, held_out: int) -> np.ndarray:
    """[num_paths, groups] int: the fold of `combinatorial_purged` that tests each group in each path.

    A path strings together one tested range of every group: a whole history out of sample. There are
    comb(groups - 1, held_out - 1), and every range that any fold tests is in one of them.

    Raises:
      ConfigError: as `combinatorial_purged` for the same numbers.
    """
    findings = _group_findings(groups, held_out)
    if findings:
        raise ConfigError(findings)
    folds = list(combinations(range(groups), held_out))
    return np.array(
        [[fold for fold, tested in enumerate(folds) if group in tested] for group in range(groups)]
    ).T


def _number_findings(num_bars: int, *, first: int, validation: float, embargo: int, purge: int) -> list[str]:
    findings = [
        f"{name} is {bars} bars. Choose 0 or more."
        for name, bars in {"embargo": embargo, "purge": purge}.items()
        if bars < 0
    ]
    if not 0.0 <= validation < 1.0:
        findings.append(f"validation is {validation}. Choose a share from 0 to below 1.")
    if not 0 <= first <= num_bars:
        findings.append(f"first is bar {first} of {num_bars}. Choose one between 0 and {num_bars}.")
    return findings


def _group_findings(groups: int, held_out: int) -> list[str]:
    if not 1 <= held_out < groups:
        return [f"held_out is {held_out} of {groups} groups. Hold out 1 or more, and leave one to train on."]
    count = math.comb(groups, held_out)
    if count > MOST_FOLDS:
        return [
            f"{held_out} of {groups} groups can be held out in {count:,} ways, each a training, and the most "
            f"is {MOST_FOLDS:,}. Choose fewer groups."
        ]
    return []


def _between(tested: tuple[int, ...], bounds: list[int], *, purge: int, embargo: int) -> tuple[Range, ...]:
    """The bars that stretches of untested groups leave to training."""
    last = len(bounds) - 1
    ranges = []
    for is_tested, run in groupby(range(last), key=lambda group: group in tested):
        if is_tested:
            continue
        groups = list(run)
        start, stop = groups[0], groups[-1] + 1
        after, before = (purge + embargo) * (start > 0), purge * (stop < last)
        ranges.append((bounds[start] + after, bounds[stop] - before))
    return tuple(ranges)


def _chosen(ranges: tuple[Range, ...], *, share: float, gap: int) -> tuple[tuple[Range, ...], Range | None]:
    """What is left of the training `ranges`, and the newest bars among them that choose."""
    if share == 0.0:
        return ranges, None
    total = sum(stop - start for start, stop in ranges)
    wanted = round((total - gap) * share)
    holders = [at for at, (start, stop) in enumerate(ranges) if stop - start >= wanted]
    if wanted >= 1 and holders:
        at = holders[-1]
        start, stop = ranges[at]
        rest = (start, stop - wanted - gap)
        train = ranges[:at] + ((rest,) if rest[0] < rest[1] else ()) + ranges[at + 1 :]
        if train:
            return train, (stop - wanted, stop)
    longest = max(stop - start for start, stop in ranges)
    raise ConfigError(
        f"{total} bars of training, {longest} of them in one stretch, cannot give a share of {share} to "
        f"validation with {gap} bars left out before it: give more bars, or another validation, fewer folds "
        "or groups, or a smaller embargo or purge."
    )
