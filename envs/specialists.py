"""Who trades what, and where each number of an observation stands: sizes and indices, no arithmetic.

Axes: A instruments, S specialists, L bars of lookback, P = A (A - 1) / 2 pairs, M macro columns, F features
of an instrument, T bars, K numbers of the account view.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

MTQUANT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "forex": ("EURUSD", "GBPUSD", "USDJPY"),
        "commodities": ("XAUUSD", "WTIUSD"),
        "equity": ("SPX500", "NAS100", "US30"),
    }
)


class Partition(NamedTuple):
    """Every instrument in the hands of exactly one specialist.

    Attributes:
      specialists: S names.
      instruments: A names, in the order of every [A] array.
      owner: A indices of specialists.
    """

    specialists: tuple[str, ...]
    instruments: tuple[str, ...]
    owner: tuple[int, ...]

    @property
    def membership(self) -> np.ndarray:
        """[A, S] float32, 1 where the instrument is the specialist's."""
        return np.equal.outer(np.array(self.owner), np.arange(len(self.specialists))).astype(np.float32)


def make_partition(
    specialists: Mapping[str, Sequence[str]] = MTQUANT, instruments: Sequence[str] | None = None
) -> Partition:
    """The partition of `instruments` among `specialists`; who has none of them is left out.

    Args:
      specialists: instruments by specialist.
      instruments: in the order of the market's columns; None is all, specialist by specialist.

    Raises:
      ValueError: no instrument, one that is named twice, that two specialists have, or that none has.
    """
    owners: dict[str, str] = {}
    findings = []
    for name, members in specialists.items():
        for member in members:
            if member in owners:
                findings.append(f"{member} is given to {owners[member]} and to {name}: choose one")
            owners[member] = name
    wanted = tuple(owners) if instruments is None else tuple(instruments)
    if not wanted:
        findings.append("there is no instrument: give at least one")
    findings += [f"{name} is named twice" for name in sorted({n for n in wanted if wanted.count(n) > 1})]
    findings += [
        f"{name} has no specialist: give it one of {', '.join(specialists) or 'none'}"
        for name in wanted
        if name not in owners
    ]
    if findings:
        raise ValueError("; ".join(findings))
    kept = tuple(name for name in specialists if any(owners[member] == name for member in wanted))
    return Partition(kept, wanted, tuple(kept.index(owners[member]) for member in wanted))


class Bar(NamedTuple):
    """What is seen of the bar alone, the same for every account: the columns of the feature table [T, …].

    Attributes:
      correlation: [P] absolute correlation of each pair, as the limits of risk know it.
      macro: [M] the user's own columns.
      features: [A F] features of each instrument, one instrument after another.
    """

    correlation: Any
    macro: Any
    features: Any


class View(NamedTuple):
    """What is seen of one account: the account view [K], in the meta and the joint environment alike.

    Attributes:
      returns: [L] simple returns of the last bars, oldest first; bars before the account count as 0.
      volatility: [1] their deviation.
      drawdown: [1] depth under the highest equity since the account began, as a fraction.
      sharpe: [S] report of each specialist, see `envs.reports.Report`.
      win_rate: [S] report.
      max_drawdown: [S] report.
      allocation: [S] the allocation in force: shares of the risk capital that add up to 1.
      risk: [1] the risk appetite in force.
      wait: [1] share of the allocation's life that is left; 0 when the next action allocates anew.
      level: [A] weights last asked for.
      exposure: [A] weights held.
    """

    returns: Any
    volatility: Any
    drawdown: Any
    sharpe: Any
    win_rate: Any
    max_drawdown: Any
    allocation: Any
    risk: Any
    wait: Any
    level: Any
    exposure: Any


def bar_layout(partition: Partition, *, correlations: bool = True, macro: int = 0, features: int = 0) -> Bar:
    """The slices of a row of the feature table.

    Args:
      partition: of the instruments.
      correlations: the market knows them.
      macro: M.
      features: F.
    """
    num = len(partition.instruments)
    return Bar(*_slices((num * (num - 1) // 2 * correlations, macro, num * features)))


def account_layout(partition: Partition, *, performance_lookback: int = 20) -> View:
    """The slices of the account view."""
    num, team = len(partition.instruments), len(partition.specialists)
    return View(*_slices((performance_lookback, 1, 1, team, team, team, team, 1, 1, num, num)))


def account_view(account: Any, layout: View) -> View:
    """The parts of account views [..., K]."""
    return View(*(account[..., part] for part in layout))


def specialist_columns(
    partition: Partition, index: int, *, bar: Bar, account: View
) -> tuple[list[int], list[int]]:
    """What specialist `index` sees: columns of the feature table, and of the account view.

    Of the bar its own instruments' features and macro; of the account its own report, the allocation sent to
    it, the risk appetite, what is left of both, the portfolio's volatility and drawdown, and its own weights.
    """
    owned = [number for number, owner in enumerate(partition.owner) if owner == index]
    columns = {
        name: list(range(part.start, part.stop)) for name, part in (bar._asdict() | account._asdict()).items()
    }
    per_instrument = len(columns["features"]) // len(partition.owner)
    by_bar = [
        columns["features"][number * per_instrument + feature]
        for number in owned
        for feature in range(per_instrument)
    ]
    mine = [columns[name][index] for name in ("sharpe", "win_rate", "max_drawdown", "allocation")]
    shared = [columns[name][0] for name in ("volatility", "drawdown", "risk", "wait")]
    held = [columns[name][number] for name in ("level", "exposure") for number in owned]
    return by_bar + columns["macro"], mine + shared + held


def meta_columns(*, bar: Bar, account: View) -> tuple[list[int], list[int]]:
    """What the meta-controller sees: correlations and macro of the bar, and all of the account view."""
    by_bar = [*range(bar.correlation.start, bar.correlation.stop), *range(bar.macro.start, bar.macro.stop)]
    return by_bar, list(range(account.exposure.stop))


def _slices(sizes: Sequence[int]) -> list[slice]:
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
