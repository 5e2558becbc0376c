"""What every statistic asks of its input: one finite series of float64, positive starts, matching lengths."""

import math

import numpy as np

# Returns of a constantly growing curve differ by rounding only; a ratio to that spread would mean nothing.
FLAT_SPREAD = 1e-12


def checked(values: np.ndarray, name: str, *, axes: int = 1, at_least: int = 0) -> np.ndarray:
    """`values` as float64.

    Args:
      values: to be checked.
      name: of the argument, for messages.
      axes: how many it must have, the last one of bars.
      at_least: so many bars.

    Raises:
      ValueError: other axes, too few bars, or a value that is not finite.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != axes:
        wanted = "one account, a series of one axis" if axes == 1 else f"an array of {axes} axes"
        raise ValueError(f"{name} has shape {values.shape}: give {wanted}.")
    if values.shape[-1] < at_least:
        raise ValueError(f"{name} has {values.shape[-1]} bars: give at least {at_least}.")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(axes - 1))))
    if bad.size:
        raise ValueError(f"{name} has {bad.size} values that are not finite, first at bar {bad[0]}.")
    return values


def checked_equity(equity: np.ndarray) -> np.ndarray:
    """`equity` [T+1] as float64.

    Raises:
      ValueError: it is not finite, or does not start with a positive value.
    """
    equity = checked(equity, "equity")
    if equity.size == 0 or not equity[0] > 0.0:
        raise ValueError(
            "equity must start with a positive value: there is nothing to measure a return against."
        )
    return equity


def checked_year(bars_per_year: float) -> float:
    """`bars_per_year`, positive and finite.

    Raises:
      ValueError: it is not.
    """
    if not (math.isfinite(bars_per_year) and bars_per_year > 0.0):
        raise ValueError(
            f"bars_per_year is {bars_per_year}: give the bars in a year of the instrument's calendar."
        )
    return float(bars_per_year)


def checked_share(share: float, name: str) -> float:
    """`share`, a probability strictly between 0 and 1.

    Raises:
      ValueError: it is not.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"{name} is {share}: give a fraction above 0 and below 1, such as 0.95 for 95 %.")
    return float(share)


def check_bars(per_bar: np.ndarray, equity: np.ndarray, name: str) -> None:
    """Refuse a series [T] that does not fit marks [T+1].

    Raises:
      ValueError: the lengths disagree.
    """
    if per_bar.size != equity.size - 1:
        raise ValueError(
            f"{name} has {per_bar.size} bars and equity {equity.size} marks: give one bar a step."
        )


def paired(returns: np.ndarray, benchmark: np.ndarray, *, at_least: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns [T] and a benchmark's on the same bars, both as float64.

    Raises:
      ValueError: one is not finite or too short, or their lengths disagree.
    """
    returns = checked(returns, "returns", at_least=at_least)
    benchmark = checked(benchmark, "benchmark", at_least=at_least)
    if returns.size != benchmark.size:
        raise ValueError(
            f"returns has {returns.size} bars and benchmark {benchmark.size}: give both on the same bars."
        )
    return returns, benchmark
