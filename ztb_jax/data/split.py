"""Chronological slices for training, choosing and judging, with an embargo between them."""

from typing import NamedTuple

from ztb_jax.errors import ConfigError


class Split(NamedTuple):
    """Half-open bar ranges (start, stop), in order of time and disjoint."""

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]


def split(
    num_bars: int, *, first: int = 0, train: float, validation: float, test: float, embargo: int
) -> Split:
    """Slices of the bars first … num_bars - 1, with embargo bars left out before validation and before test.

    What remains after both embargoes is divided by the fractions; each boundary is rounded to a bar and the
    three slices and two embargoes cover every bar from first on exactly.

    Args:
      num_bars: T.
      first: bars before it are left out, e.g. the warm-up of the features.
      train: fraction of the usable bars.
      validation: fraction of the usable bars.
      test: fraction of the usable bars; the three sum to 1.
      embargo: bars between slices; no label or feature window may reach across more than this.

    Raises:
      ConfigError: with every finding: fractions not positive or not summing to 1, negative counts, or bars
        too few to give each slice one.
    """
    fractions = {"train": train, "validation": validation, "test": test}
    findings = [
        f"{name} is {part}. Choose a fraction above 0." for name, part in fractions.items() if not part > 0
    ]
    if not abs(train + validation + test - 1.0) <= 1e-9:
        findings.append(
            f"train {train} + validation {validation} + test {test} = {train + validation + test:.6g}. "
            "Make the fractions sum to 1."
        )
    if embargo < 0:
        findings.append(f"embargo is {embargo} bars. Choose 0 or more.")
    if not 0 <= first <= num_bars:
        findings.append(f"first is bar {first} of {num_bars}. Choose one between 0 and {num_bars}.")
    if findings:
        raise ConfigError(findings)
    usable = num_bars - first - 2 * embargo
    num_train = round(usable * train)
    num_seen = round(usable * (train + validation))
    if not 0 < num_train < num_seen < usable:
        raise ConfigError(
            f"{num_bars} bars from bar {first} on, less two embargoes of {embargo}, leave {max(usable, 0)}: "
            "too few to "
            f"divide into {train} / {validation} / {test}. Give more bars, a smaller embargo or larger "
            "fractions."
        )
    start, middle = first + num_train + embargo, first + num_seen + 2 * embargo
    return Split((first, first + num_train), (start, middle - embargo), (middle, num_bars))
