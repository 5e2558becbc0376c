"""Several instruments' bars on one clock, and what the risk limits know at each of them.

Axes: T bars, A instruments, K sectors, P = A (A - 1) / 2 pairs i < j, row by row.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs.checks import value_findings
from envs.risk_limits import RiskLimits
from envs.types import Costs, EnvParams, Financing

_CHUNK = 4096  # windows decomposed at a time: bounds the memory of the copy


class PortfolioMarket(struct.PyTreeNode):
    """The exogenous half of the state: shared and read-only; it has the place of `Market` in `EnvParams`.

    Attributes:
      gap: [T, A] float32, open[t] / close[t-1] - 1; 0 at bar 0 and where the instrument has no bar.
      body: [T, A] float32, close[t] / open[t] - 1; 0 where the instrument has no bar.
      tradable: [T, A] bool, the instrument has a bar, so orders fill in it; published beforehand, as a
        calendar is. None where all always have.
      years: [T] float32, time since the last close, in years; needed by financing.
      factor: [T, A, A] float32 upper triangular U: U'U is the covariance of the last `window` simple returns
        close to close, as known at close[t]; 0 before bar `window`. The deviation of a book w is |U w|.
      correlation: [T, P] float32, absolute correlation of each pair in the same window; 0 where neither
        trades in the next bar, for nobody can change their share then.
      groups: [A, K] float32, 1 for a member of a sector, else 0; None without sectors.
      window: bars that `factor` and `correlation` look back; 0 where there are none.
    """

    gap: jax.Array
    body: jax.Array
    tradable: jax.Array | None = None
    years: jax.Array | None = None
    factor: jax.Array | None = None
    correlation: jax.Array | None = None
    groups: jax.Array | None = None
    window: int = struct.field(pytree_node=False, default=0)

    @property
    def num_instruments(self) -> int:
        """A."""
        return self.gap.shape[-1]


def make_portfolio_market(
    opened: np.ndarray,
    closed: np.ndarray,
    *,
    present: np.ndarray | None = None,
    years: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    window: int | None = 100,
) -> PortfolioMarket:
    """Arrays of prices as a market: computed in float64, kept in float32, each row from no later row.

    An instrument without a bar has return 0 in its row, and the whole move in its next one.

    Args:
      opened: [T, A] opens. Not read where there is no bar.
      closed: [T, A] closes; where there is no bar, the last one before.
      present: [T, A] bool, the instrument has a bar; None where all always have.
      years: [T] time since the last close.
      groups: [A, K] bool, members of sectors.
      window: returns behind covariance and correlation; None for a market without risk limits.

    Raises:
      ValueError: shapes that do not fit, a price that is not positive and finite, or a window that the bars
        cannot fill.
    """
    opened, closed = np.asarray(opened, np.float64), np.asarray(closed, np.float64)
    here = np.ones(closed.shape, bool) if present is None else np.asarray(present, bool)
    if opened.ndim != 2 or not opened.shape == closed.shape == here.shape:
        raise ValueError(f"opened {opened.shape}, closed {closed.shape}, present {here.shape}: give [T, A]")
    opened = np.where(here, opened, closed)
    _check(opened, closed, years=years, groups=groups, window=window)
    before = np.concatenate([opened[:1], closed[:-1]])
    gap = np.where(here, opened / before - 1.0, 0.0)
    body = np.where(here, closed / opened - 1.0, 0.0)
    factor = correlation = None
    if window is not None:
        factor, correlation = rolling_risk((1.0 + gap) * (1.0 + body) - 1.0, window=window)
        first, second = np.triu_indices(closed.shape[1], 1)
        correlation[:-1] *= (here[:, first] | here[:, second])[1:]
    return PortfolioMarket(
        gap=jnp.asarray(gap, jnp.float32),
        body=jnp.asarray(body, jnp.float32),
        tradable=None if present is None else jnp.asarray(here),
        years=None if years is None else jnp.asarray(years, jnp.float32),
        factor=None if factor is None else jnp.asarray(factor, jnp.float32),
        correlation=None if correlation is None else jnp.asarray(correlation, jnp.float32),
        groups=None if groups is None else jnp.asarray(groups, jnp.float32),
        window=window or 0,
    )


def rolling_risk(returns: np.ndarray, *, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Covariance factors [T, A, A] and absolute correlations [T, P] of the last `window` rows of returns.

    A window's deviations from their mean are decomposed as Q U; U / sqrt(window - 1) is a square root of the
    covariance that needs neither full rank nor the covariance itself, whose condition is the square.

    Args:
      returns: [T, A] simple returns; row 0 has no bar before it and is left out.
      window: rows, at least 2. Rows of the result before `window` are 0.
    """
    num_bars, num = returns.shape
    factor = np.zeros((num_bars, num, num))
    seen = np.lib.stride_tricks.sliding_window_view(returns[1:], window, axis=0)  # [T - window, A, window]
    for start in range(0, len(seen), _CHUNK):
        part = np.swapaxes(seen[start : start + _CHUNK], 1, 2)
        upper = np.asarray(np.linalg.qr(part - part.mean(axis=1, keepdims=True), mode="r"))
        stop = window + start + len(part)
        factor[window + start : stop, : upper.shape[1]] = upper / np.sqrt(window - 1)
    matrix = np.swapaxes(factor, 1, 2) @ factor
    deviation = np.sqrt(np.diagonal(matrix, axis1=1, axis2=2))
    first, second = np.triu_indices(num, 1)
    scale = deviation[:, first] * deviation[:, second]
    shared = np.abs(matrix[:, first, second]) / np.where(scale > 0, scale, 1.0)
    return factor, np.minimum(np.where(scale > 0, shared, 0.0), 1.0)


def make_portfolio_params(
    market: PortfolioMarket,
    costs: Costs,
    *,
    limits: RiskLimits | None = None,
    financing: Financing | None = None,
    band: float | None = None,
    ruin_equity: float = 0.1,
    first: int | None = None,
    stop: int | None = None,
) -> EnvParams:
    """The parameters of `envs.portfolio.make_portfolio`.

    Args:
      market: the bars.
      costs: `fee_rate`, `half_spread` and `slippage`, [] or [A] each; no other part of `Costs` is known here.
      limits: what books may be; None for any.
      financing: needs `market.years`.
      band: weights are not changed by less than this.
      ruin_equity: share of the starting equity at which an account is closed.
      first: first bar that may be observed; None is the first at which the market's risk is known.
      stop: one past the last bar that may be reached; None is the end.

    Raises:
      ValueError: `first` is before the first full window, the slice is empty, or a number is out of range.
    """
    num_bars = len(market.gap)
    first = market.window if first is None else first
    stop = num_bars if stop is None else stop
    shared: Any = market  # the records that have the places of Market and Limits in a portfolio
    allowed: Any = limits
    params = EnvParams(
        market=shared,
        costs=costs,
        ruin_equity=jnp.float32(ruin_equity),
        first=jnp.int32(first),
        stop=jnp.int32(stop),
        financing=financing,
        limits=allowed,
        band=None if band is None else jnp.float32(band),
    )
    findings = value_findings(params)
    if limits is not None and first < market.window:
        findings.append(f"first ({first}) must be at least {market.window}, where the first window is full")
    if not 0 <= first < stop <= num_bars:
        findings.append(f"first ({first}) and stop ({stop}) must be a slice of the {num_bars} bars")
    if findings:
        raise ValueError("; ".join(findings))
    return params


def _check(opened, closed, *, years, groups, window) -> None:
    findings = []
    if not (np.isfinite([opened, closed]).all() and (opened > 0).all() and (closed > 0).all()):
        findings.append("prices must be positive and finite: align instruments first, and drop leading gaps")
    if years is not None and np.shape(years) != closed.shape[:1]:
        findings.append(f"years must be [{closed.shape[0]}], got {np.shape(years)}")
    if groups is not None and (np.shape(groups)[:1] != closed.shape[1:] or np.size(groups) == 0):
        findings.append(f"groups must be [{closed.shape[1]}, sectors], got {np.shape(groups)}")
    if window is not None and not 2 <= window < len(closed):
        findings.append(f"a window of {window} bars needs at least 2, and more bars than the {len(closed)}")
    if findings:
        raise ValueError("; ".join(findings))
