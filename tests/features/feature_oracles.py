"""Bars to compute features on, and what TA-Lib, NumPy and pandas make of them."""

from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
import talib
from arch.data import sp500

from ztb_jax.features import indicators as ind
from ztb_jax.features.indicators import Bar


class Periods(NamedTuple):
    """One parameter of each indicator; each set of periods compiles one program."""

    average: int
    wilder: int
    macd: tuple[int, int, int]
    bollinger: tuple[int, float]
    stochastic: tuple[int, int, int]
    window: int


USUAL = Periods(20, 14, (12, 26, 9), (20, 2.0), (14, 3, 3), 20)
SHORTEST = Periods(2, 2, (2, 3, 2), (2, 1.0), (1, 1, 1), 2)
ODD = Periods(7, 5, (3, 11, 4), (9, 2.5), (5, 4, 2), 6)


def all_indicators(periods: Periods) -> ind.Indicator:
    """Every indicator that TA-Lib knows, and those it lacks, in one program."""
    return ind.combine(
        sma=ind.make_sma(periods.average),
        ema=ind.make_ema(periods.average),
        rsi=ind.make_rsi(periods.wilder),
        macd=ind.make_macd(*periods.macd),
        atr=ind.make_atr(periods.wilder),
        bollinger=ind.make_bollinger(*periods.bollinger),
        adx=ind.make_adx(periods.wilder),
        stochastic=ind.make_stochastic(*periods.stochastic),
        one_bar=ind.make_return(1),
        some_bars=ind.make_return(periods.window),
        realised_volatility=ind.make_realised_volatility(periods.window),
        volume_zscore=ind.make_volume_zscore(periods.window),
    )


def by_name(indicator: ind.Indicator, values: dict) -> dict[str, np.ndarray]:
    """Values of a combined indicator by the names it announces."""
    return dict(zip(indicator.names, map(np.asarray, jax.tree.leaves(values)), strict=True))


def expected(bars: Bar, periods: Periods) -> dict[str, np.ndarray]:
    """The same by TA-Lib, and by pandas where TA-Lib has none."""
    _, high, low, close, volume = bars
    macd = talib.MACD(close, *periods.macd)
    upper, middle, lower = talib.BBANDS(close, periods.bollinger[0], *[periods.bollinger[1]] * 2)
    fast_k, slow_k, slow_d = periods.stochastic
    stochastic = talib.STOCH(high, low, close, fast_k, slow_k, 0, slow_d, 0)
    logs = pd.Series(np.log(close)).diff()
    return {
        "sma": talib.SMA(close, periods.average),
        "ema": talib.EMA(close, periods.average),
        "rsi": talib.RSI(close, periods.wilder),
        "macd.line": macd[0],
        "macd.signal": macd[1],
        "macd.histogram": macd[2],
        "atr": talib.ATR(high, low, close, periods.wilder),
        "bollinger.upper": upper,
        "bollinger.middle": middle,
        "bollinger.lower": lower,
        "adx.adx": talib.ADX(high, low, close, periods.wilder),
        "adx.plus_di": talib.PLUS_DI(high, low, close, periods.wilder),
        "adx.minus_di": talib.MINUS_DI(high, low, close, periods.wilder),
        "stochastic.k": stochastic[0],
        "stochastic.d": stochastic[1],
        "one_bar.simple": talib.ROCP(close, 1),
        "one_bar.log": logs.to_numpy(),
        "some_bars.simple": talib.ROCP(close, periods.window),
        "some_bars.log": pd.Series(np.log(close)).diff(periods.window).to_numpy(),
        "realised_volatility": trailing(logs.to_numpy(), periods.window, lambda w: w.std(ddof=1)),
        "volume_zscore": trailing(volume, periods.window, zscore),
    }


def trailing(series: np.ndarray, length: int, reduce) -> np.ndarray:
    """`reduce` of each whole window of `length` values, written as a loop."""
    out = np.full(len(series), np.nan)
    for t in range(length - 1, len(series)):
        out[t] = reduce(series[t - length + 1 : t + 1])
    return out


def zscore(window: np.ndarray) -> float:
    """The last value in standard deviations from the mean; 0 where all are equal."""
    return 0.0 if np.ptp(window) == 0 else (window[-1] - window.mean()) / window.std()


def random_bars(seed: int, num_bars: int, *, num_flat: int = 0, num_gaps: int = 0, tick: float = 0.0) -> Bar:
    """A random walk from 100 with stretches that stand still, jumps of 10 % and, on a tick, exact ties."""
    draw = np.random.default_rng(seed)
    moves = draw.normal(0.0, 0.01, num_bars)
    moves[draw.integers(0, num_bars, num_gaps)] += 0.1 * draw.choice([-1, 1], num_gaps)
    still = np.zeros(num_bars, bool)
    for first in draw.integers(0, num_bars, num_flat):
        still[first : first + draw.integers(1, 60)] = True
    moves[still] = 0.0
    close = 100.0 * np.exp(np.cumsum(moves))
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(
        np.where(still, 0.0, draw.normal(0, 0.003, num_bars))
    )
    reach = np.where(still, 0.0, np.abs(draw.normal(0.0, 0.005, (2, num_bars))))
    high, low = np.maximum(open_, close) * (1 + reach[0]), np.minimum(open_, close) * (1 - reach[1])
    volume = np.where(still, 1000.0, np.round(1000 * np.exp(draw.normal(0, 0.5, num_bars))))
    prices = [np.round(x / tick) * tick if tick else x for x in (open_, high, low, close)]
    return Bar(*prices, volume)


def sp500_frame() -> pd.DataFrame:
    """Daily S&P 500, 1999 to 2018, 5,031 bars, as recipes want it."""
    frame = sp500.load().rename(columns=str.lower)[list(Bar._fields)].astype(np.float64)
    return frame.rename_axis("time")


def bars_of(frame: pd.DataFrame) -> Bar:
    """The columns of a frame as float64 bars."""
    return Bar(*(frame[name].to_numpy(np.float64) for name in Bar._fields))


def frame_of(bars: Bar) -> pd.DataFrame:
    """Bars as an hourly frame."""
    times = pd.date_range("2020-01-01", periods=len(bars.close), freq="h", name="time")
    return pd.DataFrame(bars._asdict(), index=times)
