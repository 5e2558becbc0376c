"""Performance numbers of one simulated account, one pure function each, NumPy float64 on the host.

Axes: T bars traded; equity and value are marked at T + 1 closes, the first one before the first decision.
Money is in units of the starting equity or any other currency, as long as it is one.

NaN policy, common to all: an input that is not finite raises ValueError naming it, and a number that the
inputs leave undefined (a ratio of nothing) is returned as NaN; `summarise` turns that into None.
"""

import math

import numpy as np

# Returns of a constantly growing curve differ by rounding only; a ratio to that spread would mean nothing.
FLAT_SPREAD = 1e-12
# Holdings that come out of float32 arithmetic close to within a few of its last digits.
CLOSED = 1e-6


def total_return(equity: np.ndarray) -> float:
    """equity[T] / equity[0] - 1, a fraction; equity is [T+1], starting positive."""
    equity = _checked_equity(equity)
    return float(equity[-1] / equity[0] - 1.0)


def annual_return(equity: np.ndarray, bars_per_year: float) -> float:
    """(equity[T] / equity[0]) ** (bars_per_year / T) - 1, a fraction a year.

    -1 when nothing is left; NaN without a bar, or when the power is beyond a float (a few bars extrapolated).
    """
    equity, years = _checked_equity(equity), _checked_year(bars_per_year)
    bars = equity.size - 1
    if bars == 0:
        return math.nan
    if equity[-1] <= 0.0:
        return -1.0
    exponent = math.log(equity[-1] / equity[0]) * years / bars
    return math.expm1(exponent) if exponent < 700.0 else math.nan


def net_returns(equity: np.ndarray) -> np.ndarray:
    """[T] simple return of each bar, equity[t+1] / equity[t] - 1; 0 once the equity is gone."""
    equity = _checked_equity(equity)
    alive = equity[:-1] > 0.0
    return np.where(alive, equity[1:] / np.where(alive, equity[:-1], 1.0) - 1.0, 0.0)


def volatility(returns: np.ndarray, bars_per_year: float) -> float:
    """std(returns, ddof=1) * sqrt(bars_per_year), a fraction a year; NaN for fewer than two returns [T]."""
    returns, years = _checked(returns, "returns"), _checked_year(bars_per_year)
    if returns.size < 2:
        return math.nan
    return float(np.std(returns, ddof=1) * math.sqrt(years))


def sharpe(returns: np.ndarray, bars_per_year: float) -> float:
    """mean(returns) / std(returns, ddof=1) * sqrt(bars_per_year), annualised, no risk-free rate.

    `bars_per_year` belongs to the instrument's own calendar. 0 when the returns do not vary; NaN for fewer
    than two.

    Args:
      returns: [T] simple returns per bar, net of costs.
      bars_per_year: bars in a year.
    """
    returns, years = _checked(returns, "returns"), _checked_year(bars_per_year)
    if returns.size < 2:
        return math.nan
    spread = float(np.std(returns, ddof=1))
    if spread <= FLAT_SPREAD:
        return 0.0
    return float(np.mean(returns)) / spread * math.sqrt(years)


def drawdown(equity: np.ndarray) -> np.ndarray:
    """[T+1] 1 - equity / running peak, a fraction from 0 (at a peak) to 1 (nothing left)."""
    equity = _checked_equity(equity)
    return 1.0 - equity / np.maximum.accumulate(equity)


def max_drawdown(equity: np.ndarray) -> float:
    """The largest fall from a running peak, max of `drawdown`, a positive fraction."""
    return float(drawdown(equity).max())


def turnover(traded: np.ndarray, equity: np.ndarray, bars_per_year: float) -> float:
    """sum(|traded[t]| / equity[t]) * bars_per_year / T: equity traded a year, each side counted once.

    A round trip at full exposure is 2. NaN without a bar. Nothing counts once the equity is gone.

    Args:
      traded: [T] value bought (positive) or sold (negative) at each fill, 0 where nothing was traded.
      equity: [T+1]; equity[t] is the one at which the order was decided.
      bars_per_year: bars in a year.
    """
    traded, equity, years = _checked(traded, "traded"), _checked_equity(equity), _checked_year(bars_per_year)
    _check_bars(traded, equity, "traded")
    if traded.size == 0:
        return math.nan
    alive = equity[:-1] > 0.0
    shares = np.where(alive, np.abs(traded) / np.where(alive, equity[:-1], 1.0), 0.0)
    return float(shares.sum() * years / traded.size)


def num_trades(traded: np.ndarray) -> int:
    """Number of fills: bars whose traded value [T] is not zero. Turning from long to short is one fill."""
    return int(np.count_nonzero(_checked(traded, "traded")))


def fees_paid(costs: np.ndarray, equity: np.ndarray) -> float:
    """sum(costs) / equity[0]: spread, slippage and fees as a fraction of the starting equity.

    Args:
      costs: [T] paid at each fill, positive, in the unit of equity.
      equity: [T+1].
    """
    costs, equity = _checked(costs, "costs"), _checked_equity(equity)
    _check_bars(costs, equity, "costs")
    return float(costs.sum() / equity[0])


def exposures(value: np.ndarray, equity: np.ndarray) -> np.ndarray:
    """[T] value[t+1] / equity[t+1], signed, at each close after a decision; 0 once the equity is gone.

    Args:
      value: [T+1] signed market value of the holding at the closes.
      equity: [T+1].
    """
    value, equity = _checked(value, "value"), _checked_equity(equity)
    if value.shape != equity.shape:
        raise ValueError(f"value has {value.size} marks and equity {equity.size}: give one value a mark.")
    alive = equity[1:] > 0.0
    return np.where(alive, value[1:] / np.where(alive, equity[1:], 1.0), 0.0)


def exposure(value: np.ndarray, equity: np.ndarray) -> float:
    """mean(|value / equity|) over the T closes after a decision, a fraction of equity; NaN without a bar."""
    shares = np.abs(exposures(value, equity))
    return float(shares.mean()) if shares.size else math.nan


def net_exposure(value: np.ndarray, equity: np.ndarray) -> float:
    """mean(value / equity) over the T closes after a decision, signed: long above 0; NaN without a bar."""
    shares = exposures(value, equity)
    return float(shares.mean()) if shares.size else math.nan


def round_trips(held: np.ndarray, traded: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """[K] profit of each closed round trip net of its own costs, in order of closing.

    A round trip runs from the fill that opens a position to the one that closes or turns it; resizing in
    between belongs to it. Its profit is the cash received less the cash paid and the costs. A turn is a close
    and an open: its cost is shared by the values closed and opened. A position still open at the end is no
    round trip.

    Args:
      held: [T] signed value of the holding at each fill's price, before the fill.
      traded: [T] value bought (positive) or sold (negative) by the fill; 0 where nothing was traded.
      costs: [T] paid at each fill, positive.
    """
    held, traded, costs = _checked(held, "held"), _checked(traded, "traded"), _checked(costs, "costs")
    if not held.shape == traded.shape == costs.shape:
        raise ValueError(
            f"held, traded and costs have {held.size}, {traded.size} and {costs.size} bars: align them."
        )
    left = held + traded
    left = np.where(np.abs(left) <= CLOSED * np.abs(held), 0.0, left)
    closes = (held != 0.0) & (np.sign(left) != np.sign(held))
    opens = (left != 0.0) & (np.sign(left) != np.sign(held))
    # A fill's closing part belongs to the trip under way, its opening part to the one it starts.
    closed, opened = np.where(closes, np.abs(held), 0.0), np.where(opens, np.abs(left), 0.0)
    moved = closed + opened
    share_old = np.where(moved > 0.0, closed / np.where(moved > 0.0, moved, 1.0), 1.0)
    cash_old = np.where(closes, held, np.where(opens, 0.0, -traded)) - costs * share_old
    cash_new = np.where(opens, -left - costs * (1.0 - share_old), 0.0)
    started = np.cumsum(opens)
    trips = int(started[-1]) if started.size else 0
    cash = np.bincount(started - opens, cash_old, trips + 1) + np.bincount(started, cash_new, trips + 1)
    return cash[(started - opens)[closes]]


def win_rate(held: np.ndarray, traded: np.ndarray, costs: np.ndarray) -> float:
    """Share of `round_trips` with a profit above zero after costs, a fraction; NaN when none was closed."""
    profits = round_trips(held, traded, costs)
    return float(np.mean(profits > 0.0)) if profits.size else math.nan


def summarise(
    *,
    equity: np.ndarray,
    value: np.ndarray,
    held: np.ndarray,
    traded: np.ndarray,
    costs: np.ndarray,
    bars_per_year: float,
    ruined: bool = False,
) -> dict[str, float | None]:
    """Every metric of one account as plain floats under its function's name; None where it is undefined.

    Args:
      equity: [T+1] at the closes, the first before the first decision.
      value: [T+1] signed market value of the holding at the closes.
      held: [T] or [T, F], signed value of the holding at the price of each of a bar's fills, before it.
      traded: like held, signed value traded at the fill, 0 where nothing was traded.
      costs: like held, spread, slippage and fees paid at the fill.
      bars_per_year: from the instrument's own calendar.
      ruined: the simulator ended the account before the last bar. Also set when no equity is left.

    Raises:
      ValueError: an input is not finite, or lengths disagree.
    """
    returns = net_returns(equity)
    held, traded, costs = (np.asarray(fills, np.float64) for fills in (held, traded, costs))
    per_bar = [fills if fills.ndim < 2 else fills.sum(axis=1) for fills in (np.abs(traded), costs)]
    numbers = {
        "total_return": total_return(equity),
        "annual_return": annual_return(equity, bars_per_year),
        "volatility": volatility(returns, bars_per_year),
        "sharpe": sharpe(returns, bars_per_year),
        "max_drawdown": max_drawdown(equity),
        "turnover": turnover(per_bar[0], equity, bars_per_year),
        "num_trades": num_trades(traded.reshape(-1)),
        "fees_paid": fees_paid(per_bar[1], equity),
        "exposure": exposure(value, equity),
        "net_exposure": net_exposure(value, equity),
        "win_rate": win_rate(held.reshape(-1), traded.reshape(-1), costs.reshape(-1)),
        "ruined": ruined or np.asarray(equity)[-1] <= 0.0,
    }
    return {name: float(number) if math.isfinite(number) else None for name, number in numbers.items()}


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise ValueError(f"{name} has shape {values.shape}: give one account, a series of one axis.")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(f"{name} has {bad.size} values that are not finite, first at bar {bad[0]}.")
    return values


def _checked_equity(equity: np.ndarray) -> np.ndarray:
    equity = _checked(equity, "equity")
    if equity.size == 0 or not equity[0] > 0.0:
        raise ValueError(
            "equity must start with a positive value: there is nothing to measure a return against."
        )
    return equity


def _checked_year(bars_per_year: float) -> float:
    if not (math.isfinite(bars_per_year) and bars_per_year > 0.0):
        raise ValueError(
            f"bars_per_year is {bars_per_year}: give the bars in a year of the instrument's calendar."
        )
    return float(bars_per_year)


def _check_bars(per_bar: np.ndarray, equity: np.ndarray, name: str) -> None:
    if per_bar.size != equity.size - 1:
        raise ValueError(
            f"{name} has {per_bar.size} bars and equity {equity.size} marks: give one bar a step."
        )
