"""What allocating was worth, in cases worked out by hand and by what must not matter."""

import math

import numpy as np
import pytest

from ztb_jax.evaluation.teams import allocation_efficiency, utilisation

YEAR = 252.0


def drawn(seed=0, bars=40, team=3):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(team), bars) * rng.uniform(0.2, 1.0, (bars, 1))
    return shares, rng.normal(0.0, 0.01, (bars, team))


def test_utilisation_by_hand():
    given = np.array([[0.6, 0.2, 0.0], [0.2, 0.2, 0.0]])
    held = np.array([[0.3, 0.2, 0.0], [0.1, 0.0, 0.0]])
    found = utilisation(given, held)
    np.testing.assert_allclose(found.given, [0.4, 0.2, 0.0])
    np.testing.assert_allclose(found.used, [0.5, 0.5, np.nan])
    shares = [2 / 3, 1 / 3]
    assert found.evenness == pytest.approx(-sum(p * math.log(p) for p in shares) / math.log(3))


def test_evenness_from_one_for_all_to_one_alone():
    alone, all_same = np.tile([0.0, 0.7], (5, 1)), np.full((5, 2), 0.3)
    assert utilisation(alone, alone).evenness == 0.0
    assert utilisation(all_same, all_same).evenness == pytest.approx(1.0)
    # A favourite that changes every bar uses both alike.
    changing = np.tile(np.eye(2), (10, 1))
    assert utilisation(changing, changing).evenness == pytest.approx(1.0)
    assert utilisation(np.ones((3, 1)), np.ones((3, 1))).evenness == 1.0
    assert math.isnan(utilisation(np.zeros((3, 2)), np.zeros((3, 2))).evenness)
    assert math.isnan(utilisation(np.zeros((0, 2)), np.zeros((0, 2))).evenness)


def test_efficiency_by_hand():
    given = np.array([[0.6, 0.2], [0.2, 0.2]])
    sleeves = np.array([[0.02, -0.01], [0.01, 0.03]])
    found = allocation_efficiency(given, sleeves, 1.0)
    assert found.earned == pytest.approx((0.012 - 0.002 + 0.002 + 0.006) / 1.2)
    assert found.equal == pytest.approx((0.4 * 0.01 + 0.2 * 0.04) / 1.2)
    assert found.lead == pytest.approx(found.earned - found.equal)
    assert allocation_efficiency(given, sleeves, YEAR).lead == pytest.approx(YEAR * found.lead)


@pytest.mark.parametrize("seed", range(5))
def test_what_must_not_matter(seed):
    given, sleeves = drawn(seed)
    found = allocation_efficiency(given, sleeves, YEAR)
    assert allocation_efficiency(0.1 * given, sleeves, YEAR) == pytest.approx(found)
    # A return that all specialists share is nobody's merit.
    common = np.random.default_rng(seed + 50).normal(0, 0.02, (len(given), 1))
    assert allocation_efficiency(given, sleeves + common, YEAR).lead == pytest.approx(found.lead, abs=1e-12)
    equal = np.repeat(given.mean(axis=1, keepdims=True), 3, axis=1)
    assert allocation_efficiency(equal, sleeves, YEAR).lead == pytest.approx(0.0, abs=1e-12)
    best = given.sum(axis=1, keepdims=True) * (sleeves == sleeves.max(axis=1, keepdims=True))
    assert allocation_efficiency(best, sleeves, YEAR).lead > found.lead


def test_nothing_allocated_is_undefined():
    assert all(map(math.isnan, allocation_efficiency(np.zeros((4, 2)), np.ones((4, 2)), YEAR)))


def test_refusals():
    given, sleeves = drawn()
    with pytest.raises(ValueError, match="given has negative"):
        allocation_efficiency(-given, sleeves, YEAR)
    with pytest.raises(ValueError, match=r"sleeves .*: align"):
        allocation_efficiency(given, sleeves[:-1], YEAR)
    with pytest.raises(ValueError, match=r"held .*: align"):
        utilisation(given, given[:, :2])
    with pytest.raises(ValueError, match="bars by specialists"):
        utilisation(given[0], given[0])
    sleeves[7, 1] = np.nan
    with pytest.raises(ValueError, match="sleeves has 1 values that are not finite, first at bar 7"):
        allocation_efficiency(given, sleeves, YEAR)
