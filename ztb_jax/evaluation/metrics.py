"""Performance numbers of one simulated account, one pure function each, NumPy float64 on the host.

Of its returns alone: `ratios`. Of losses: `risk`. Of round trips: `trips`. `summarise` has them all.

Axes: T bars traded; equity and value are marked at T + 1 closes, the first one before the first decision.
Money is in units of the starting equity or any other currency, as long as it is one.

NaN policy, common to all: an input that is not finite raises ValueError naming it, and a number that the
inputs leave undefined (a ratio of nothing) is returned as NaN; `summarise` turns that into None.
"""

import math

import numpy as np

from ztb_jax.evaluation import ratios, risk, trips
from ztb_jax.evaluation.series import FLAT_SPREAD, check_bars, checked, checked_equity, checked_year


def total_return(equity: np.ndarray) -> float:
    """equity[T] / equity[0] - 1, a fraction; equity is [T+1], starting positive."""
    equity = checked_equity(equity)
    return float(equity[-1] / equity[0] - 1.0)


def annual_return(equity: np.ndarray, bars_per_year: float) -> float:
    """(equity[T] / equity[0]) ** (bars_per_year / T) - 1, a fraction a year.

    -1 when nothing is left; NaN without a bar, or when the power is beyond a float (a few bars extrapolated).
    """
    equity, years = checked_equity(equity), checked_year(bars_per_year)
    bars = equity.size - 1
    if bars == 0:
        return math.nan
    if equity[-1] <= 0.0:
        return -1.0
    exponent = math.log(equity[-1] / equity[0]) * years / bars
    return math.expm1(exponent) if exponent < 700.0 else math.nan


def net_returns(equity: np.ndarray) -> np.ndarray:
    """[T] simple return of each bar, equity[t+1] / equity[t] - 1; 0 once the equity is gone."""
    equity = checked_equity(equity)
    alive = equity[:-1] > 0.0
    return np.where(alive, equity[1:] / np.where(alive, equity[:-1], 1.0) - 1.0, 0.0)


def volatility(returns: np.ndarray, bars_per_year: float) -> float:
    """std(returns, ddof=1) * sqrt(bars_per_year), a fraction a year; NaN for fewer than two returns [T]."""
    returns, years = checked(returns, "returns"), checked_year(bars_per_year)
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
    returns, years = checked(returns, "returns"), checked_year(bars_per_year)
    if returns.size < 2:
        return math.nan
    spread = float(np.std(returns, ddof=1))
    if spread <= FLAT_SPREAD:
        return 0.0
    return float(np.mean(returns)) / spread * math.sqrt(years)


def drawdown(equity: np.ndarray) -> np.ndarray:
    """[T+1] 1 - equity / running peak, a fraction from 0 (at a peak) to 1 (nothing left)."""
    equity = checked_equity(equity)
    return 1.0 - equity / np.maximum.accumulate(equity)


def max_drawdown(equity: np.ndarray) -> float:
    """The largest fall from a running peak, max of `drawdown`, a positive fraction."""
    return float(drawdown(equity).max())


def calmar(equity: np.ndarray, bars_per_year: float) -> float:
    """`annual_return` / `max_drawdown` of equity [T+1] (Young 1991, over all bars); NaN when nothing fell."""
    fall = max_drawdown(equity)
    return annual_return(equity, bars_per_year) / fall if fall > 0.0 else math.nan


def turnover(traded: np.ndarray, equity: np.ndarray, bars_per_year: float) -> float:
    """sum(|traded[t]| / equity[t]) * bars_per_year / T: equity traded a year, each side counted once.

    A round trip at full exposure is 2. NaN without a bar. Nothing counts once the equity is gone.

    Args:
      traded: [T] value bought (positive) or sold (negative) at each fill, 0 where nothing was traded.
      equity: [T+1]; equity[t] is the one at which the order was decided.
      bars_per_year: bars in a year.
    """
    traded, equity, years = checked(traded, "traded"), checked_equity(equity), checked_year(bars_per_year)
    check_bars(traded, equity, "traded")
    if traded.size == 0:
        return math.nan
    alive = equity[:-1] > 0.0
    shares = np.where(alive, np.abs(traded) / np.where(alive, equity[:-1], 1.0), 0.0)
    return float(shares.sum() * years / traded.size)


def num_trades(traded: np.ndarray) -> int:
    """Number of fills: bars whose traded value [T] is not zero. Turning from long to short is one fill."""
    return int(np.count_nonzero(checked(traded, "traded")))


def fees_paid(costs: np.ndarray, equity: np.ndarray) -> float:
    """sum(costs) / equity[0]: spread, slippage and fees as a fraction of the starting equity.

    Args:
      costs: [T] paid at each fill, positive, in the unit of equity.
      equity: [T+1].
    """
    costs, equity = checked(costs, "costs"), checked_equity(equity)
    check_bars(costs, equity, "costs")
    return float(costs.sum() / equity[0])


def fees_share(costs: np.ndarray, equity: np.ndarray) -> float:
    """sum(costs) / (equity[T] - equity[0] + sum(costs)): the part of the gross profit that trading cost.

    Gross is what the account would have made had its fills been free, without what it would have earned on
    the money saved. Above 1 the costs turned a profit into a loss. NaN when there was no gross profit.

    Args:
      costs: [T] paid at each fill, positive, in the unit of equity.
      equity: [T+1].
    """
    costs, equity = checked(costs, "costs"), checked_equity(equity)
    check_bars(costs, equity, "costs")
    paid = float(costs.sum())
    gross = float(equity[-1] - equity[0]) + paid
    return paid / gross if gross > 0.0 else math.nan


def exposures(value: np.ndarray, equity: np.ndarray) -> np.ndarray:
    """[T] value[t+1] / equity[t+1], signed, at each close after a decision; 0 once the equity is gone.

    Args:
      value: [T+1] signed market value of the holding at the closes.
      equity: [T+1].
    """
    value, equity = checked(value, "value"), checked_equity(equity)
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


def time_in_market(value: np.ndarray, equity: np.ndarray) -> float:
    """Share of the T closes after a decision at which something was held; NaN without a bar."""
    held = exposures(value, equity) != 0.0
    return float(held.mean()) if held.size else math.nan


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

    Ratios to a target, VaR and CVaR take their functions' defaults: no loss, 95 %. Time under water is in
    bars; expectancy, average win and loss are of closed round trips, as fractions of the starting equity.

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
    start = checked_equity(equity)[0]
    profits = trips.round_trips(held.reshape(-1), traded.reshape(-1), costs.reshape(-1)) / start
    spells = risk.under_water(equity)
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
        "win_rate": trips.win_rate(profits),
        "ruined": ruined or np.asarray(equity)[-1] <= 0.0,
        "sortino": ratios.sortino(returns, bars_per_year),
        "calmar": calmar(equity, bars_per_year),
        "omega": ratios.omega(returns),
        "tail_ratio": ratios.tail_ratio(returns),
        "skewness": ratios.skewness(returns),
        "kurtosis": ratios.kurtosis(returns),
        "hit_rate": ratios.hit_rate(returns),
        "value_at_risk": risk.value_at_risk(returns),
        "cvar": risk.cvar(returns),
        "longest_under_water": spells.longest,
        "average_under_water": spells.average,
        "time_in_market": time_in_market(value, equity),
        "fees_share": fees_share(per_bar[1], equity),
        "profit_factor": trips.profit_factor(profits),
        "expectancy": trips.expectancy(profits),
        "average_win": trips.average_win(profits),
        "average_loss": trips.average_loss(profits),
        "payoff": trips.payoff(profits),
    }
    return {name: float(number) if math.isfinite(number) else None for name, number in numbers.items()}
