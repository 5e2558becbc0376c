import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ztb_jax.data.split import split
from ztb_jax.errors import ConfigError


def test_a_split_by_hand():
    parts = split(1_000, first=100, train=0.6, validation=0.2, test=0.2, embargo=10)
    assert parts == ((100, 628), (638, 814), (824, 1_000))
    assert parts.validation == (638, 814)


@settings(derandomize=True)
@given(
    st.integers(1, 100_000),
    st.integers(0, 1_000),
    st.integers(0, 500),
    st.integers(1, 98),
    st.integers(1, 98),
)
def test_slices_are_in_order_disjoint_and_lose_only_the_embargo(num_bars, first, embargo, train, validation):
    assume(train + validation < 100)
    fractions = {
        "train": train / 100,
        "validation": validation / 100,
        "test": (100 - train - validation) / 100,
    }
    usable = num_bars - first - 2 * embargo
    try:
        parts = split(num_bars, first=first, embargo=embargo, **fractions)
    except ConfigError:
        assert usable * min(fractions.values()) < 1.5
        return
    assert parts.train[0] == first
    assert parts.test[1] == num_bars
    assert all(start < stop for start, stop in parts)
    assert parts.validation[0] - parts.train[1] == parts.test[0] - parts.validation[1] == embargo
    for (start, stop), fraction in zip(parts, fractions.values(), strict=True):
        assert abs((stop - start) - usable * fraction) <= 1


def test_all_findings_come_at_once():
    with pytest.raises(ConfigError) as error:
        split(100, first=200, train=0.9, validation=0.0, test=0.2, embargo=-1)
    assert len(error.value.findings) == 4
    assert "validation is 0.0. Choose a fraction above 0." in error.value.findings[0]
    assert "= 1.1. Make the fractions sum to 1." in error.value.findings[1]
    assert "embargo is -1" in error.value.findings[2]
    assert "first is bar 200 of 100" in error.value.findings[3]


@pytest.mark.parametrize("fractions", [(0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)])
def test_fractions_must_be_fractions(fractions):
    with pytest.raises(ConfigError):
        split(1_000, train=fractions[0], validation=fractions[1], test=fractions[2], embargo=0)


def test_thirds_and_tenths_sum_to_one():
    split(1_000, train=1 / 3, validation=1 / 3, test=1 / 3, embargo=0)
    split(1_000, train=0.7, validation=0.1, test=0.2, embargo=0)


@pytest.mark.parametrize(("num_bars", "embargo"), [(0, 0), (2, 0), (20, 10), (25, 11)])
def test_too_few_bars_are_refused(num_bars, embargo):
    with pytest.raises(ConfigError, match=r"too few to divide .*Give more bars, a smaller embargo"):
        split(num_bars, train=0.6, validation=0.2, test=0.2, embargo=embargo)
