"""Seeded markets whose best policy is known or computable.

Each generator draws simple returns r[T] and builds bars whose open is the close before, so that a position
taken after bar t earns close[t] -> close[t+1] and nothing is lost in between: close[t] = close[t-1] (1 +
r[t]), open[t] = close[t-1], high and low bracket both, and the first open is 100. Stamps stand one timeframe
apart from 2000-01-03 on, weekends included. Drift, volatility and the like are per bar. The default
timeframe is `1h`, for which a million bars end in the year 2114; a thousand years of days would leave the
range of dates.

Equal seeds give equal frames, bit for bit; the draws of wicks and volumes are apart from those of the
returns.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ztb_jax.data.frame import as_frame, canonical_timeframe, timeframe_seconds
from ztb_jax.errors import DataError

START = np.datetime64("2000-01-03", "us")
FIRST_OPEN = 100.0
_LAST = np.datetime64("2200-01-01", "us")
_WICK = 0.25
_FARTHEST = 1e30


def gbm(
    seed: int, num_bars: int, *, drift: float = 0.0, volatility: float = 0.01, timeframe: str = "1h"
) -> pd.DataFrame:
    """Geometric Brownian motion: log(1 + r) = log(1 + drift) - volatility²/2 + volatility z.

    E[r] = drift exactly, so the price is a martingale in simple returns at drift 0 and no policy has an edge
    on it; its logarithm then falls by volatility²/2 a bar.
    """
    _check_sizes(num_bars, volatility=volatility)
    returns = np.expm1(
        _log_drift(drift) + _martingale(_returns_rng(seed).standard_normal(num_bars), volatility)
    )
    return from_returns(seed, returns, timeframe=timeframe)


def ar1(
    seed: int, num_bars: int, *, phi: float = 0.3, sigma: float = 0.01, timeframe: str = "1h"
) -> pd.DataFrame:
    """Autoregressive simple returns: r[t+1] = phi r[t] + sigma z[t+1], begun in its stationary distribution.

    sigma is the standard deviation of the innovation; that of r is sigma / sqrt(1 - phi²). The conditional
    mean of the next return is phi r[t], from which the best policy under costs follows by value iteration.
    """
    _check_sizes(num_bars, sigma=sigma)
    if not abs(phi) < 1:
        raise DataError(
            f"phi {phi} makes returns without a stationary distribution. Choose one between -1 and 1."
        )
    shocks = sigma * _returns_rng(seed).standard_normal(num_bars)
    shocks[0] /= np.sqrt(1.0 - phi**2)
    return from_returns(seed, _autoregress(shocks, phi), timeframe=timeframe)


def sine(
    seed: int,
    num_bars: int,
    *,
    period: float = 60.0,
    amplitude: float = 0.02,
    noise: float = 0.0,
    timeframe: str = "1h",
) -> pd.DataFrame:
    """Log-price amplitude sin(2 pi t / period + phase), the phase drawn by the seed, plus a martingale.

    Between trough and crest the price moves by 2 amplitude = 4 %, more than three times what turning a
    position from short to long costs at 60 bp a side, while no single bar's move pays for it. noise is the
    volatility per bar of the martingale factor, which changes no conditional mean.
    """
    _check_sizes(num_bars, noise=noise)
    if period < 2:
        raise DataError(f"period {period} is shorter than two bars. Choose 2 or more.")
    rng = _returns_rng(seed)
    phase = rng.uniform(0.0, 2.0 * np.pi)
    wave = amplitude * np.sin(2.0 * np.pi * np.arange(-1, num_bars) / period + phase)
    return from_returns(
        seed, np.expm1(np.diff(wave) + _martingale(rng.standard_normal(num_bars), noise)), timeframe=timeframe
    )


def regimes(
    seed: int,
    num_bars: int,
    *,
    drift: float = 0.003,
    persistence: float = 0.98,
    volatility: float = 0.01,
    arch: float = 0.08,
    garch: float = 0.9,
    jump_probability: float = 0.0,
    jump_volatility: float = 0.03,
    timeframe: str = "1h",
) -> pd.DataFrame:
    """Two hidden regimes of drift ±drift, GARCH(1,1) volatility and, where asked for, jumps.

    The regime s stays with probability persistence a bar and begins in either with probability ½. The
    variance is h[t] = volatility² (1 - arch - garch) + arch e[t-1]² + garch h[t-1] with e = sqrt(h) z, so
    that volatility² is its mean. A jump of log-size N(-v²/2, v²), v = jump_volatility, comes with
    jump_probability a bar. E[r[t] | s[t]] = s[t] drift exactly: neither the variance nor the jumps add drift.
    """
    _check_sizes(num_bars, volatility=volatility, arch=arch, garch=garch, jump_volatility=jump_volatility)
    _check_probabilities(persistence=persistence, jump_probability=jump_probability)
    if arch + garch >= 1:
        raise DataError(
            f"arch + garch is {arch + garch:g}, so the variance has no mean. Choose less than 1 together."
        )
    rng = _returns_rng(seed)
    turned = np.cumsum(rng.uniform(size=num_bars) >= persistence) + rng.integers(2)
    side = 1.0 - 2.0 * (turned % 2)
    variance, noise = _garch(rng.standard_normal(num_bars), volatility=volatility, arch=arch, garch=garch)
    jumps = _martingale(rng.standard_normal(num_bars), jump_volatility)
    jumps = np.where(rng.uniform(size=num_bars) < jump_probability, jumps, 0.0)
    trend = np.where(side > 0, _log_drift(drift), _log_drift(-drift))
    return from_returns(seed, np.expm1(trend + noise - variance / 2 + jumps), timeframe=timeframe)


def correlated(
    seed: int,
    num_bars: int,
    *,
    correlation: ArrayLike,
    drift: float = 0.0,
    volatility: float = 0.01,
    timeframe: str = "1h",
) -> dict[str, pd.DataFrame]:
    """Geometric Brownian motions of correlated log-returns on one calendar, named asset0, asset1, …

    Args:
      seed: of all assets together.
      num_bars: T.
      correlation: [A, A] correlation matrix, or one number for two assets.
      drift: expected simple return of each asset.
      volatility: of each asset's log-return.
      timeframe: between stamps.

    Raises:
      DataError: not a correlation matrix (symmetric, ones on the diagonal, positive definite).
    """
    _check_sizes(num_bars, volatility=volatility)
    matrix = np.asarray(correlation, np.float64)
    matrix = np.array([[1.0, matrix], [matrix, 1.0]]) if matrix.ndim == 0 else matrix
    normals = _returns_rng(seed).standard_normal((num_bars, len(matrix))) @ _cholesky(matrix).T
    returns = np.expm1(_log_drift(drift) + _martingale(normals, volatility))
    return {
        f"asset{i}": from_returns(seed, column, timeframe=timeframe, stream=i)
        for i, column in enumerate(returns.T)
    }


def factors(
    seed: int,
    num_bars: int,
    *,
    num_signals: int = 4,
    num_noise: int = 12,
    persistence: float = 0.9,
    strength: float = 0.002,
    volatility: float = 0.01,
    timeframe: str = "1h",
) -> tuple[pd.DataFrame, np.ndarray]:
    """Returns that several weak features forecast, and features that look alike and forecast nothing.

        r[t+1] = strength / sqrt(S) · sum(x[t, :S]) + volatility z[t+1]

    Each feature x is an AR(1) of deviation 1, independent of the others. The conditional mean has deviation
    `strength`, so that R² is strength² / (strength² + volatility²), and is itself an AR(1) of `persistence`,
    from which the best policy under costs follows by value iteration.

    Args:
      seed: of returns and features.
      num_bars: T.
      num_signals: S, features that forecast; the first ones.
      num_noise: features that do not.
      persistence: of every feature, from 0 to below 1.
      strength: standard deviation of the conditional mean.
      volatility: standard deviation of the return around it.
      timeframe: between stamps.

    Returns:
      The frame, and the features [T, num_signals + num_noise] as known at each bar's close.

    Raises:
      DataError: no signal, or a negative number, of features or else; or a persistence out of range.
    """
    _check_sizes(num_bars, strength=strength, volatility=volatility, num_noise=num_noise)
    if num_signals < 1:
        raise DataError(f"num_signals is {num_signals}. Choose 1 or more.")
    if not 0 <= persistence < 1:
        raise DataError(f"persistence is {persistence}. Choose one from 0 to below 1.")
    rng = _returns_rng(seed)
    shocks = rng.standard_normal((num_signals + num_noise, num_bars))
    shocks[:, 1:] *= np.sqrt(1.0 - persistence**2)
    features = np.stack([_autoregress(row, persistence) for row in shocks], axis=1)
    mean = strength / np.sqrt(num_signals) * features[:, :num_signals].sum(axis=1)
    returns = volatility * rng.standard_normal(num_bars)
    returns[1:] += mean[:-1]
    return from_returns(seed, returns, timeframe=timeframe), features


def shuffled(seed: int, frame: pd.DataFrame, *, timeframe: str = "1h") -> pd.DataFrame:
    """A market of the close-to-close returns of `frame` in random order: what no policy can forecast.

    Mean, deviation and tails stay, and every dependence in time is gone. Gaps become part of the bar.
    """
    closed = frame["close"].to_numpy(np.float64)
    returns = closed / np.concatenate([frame["open"].to_numpy(np.float64)[:1], closed[:-1]]) - 1.0
    return from_returns(seed, np.random.default_rng([seed, 2]).permutation(returns), timeframe=timeframe)


GENERATORS: Mapping[str, Callable[..., pd.DataFrame]] = MappingProxyType(
    {"gbm": gbm, "ar1": ar1, "sine": sine, "regimes": regimes}
)
"""What `synthetic/NAME` names; each takes (seed, num_bars, *, timeframe, …)."""


def from_returns(seed: int, returns: np.ndarray, *, timeframe: str, stream: int = 0) -> pd.DataFrame:
    """The frame of simple returns [T] close to close; seed and stream draw the wicks and the volume.

    A wick is a quarter of a half-normal times the bar's own move, so no bar tells of a later one; volume is
    log-normal with median 1,000.

    Raises:
      DataError: a return of -1 or less, a price that float32 cannot hold, or more bars than dates reach.
    """
    if (returns <= -1).any():
        raise DataError(
            f"bar {int((returns <= -1).argmax())} would lose all of its price. Choose a smaller volatility."
        )
    stamps = _stamps(len(returns), timeframe)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        close = FIRST_OPEN * np.cumprod(1.0 + returns)
    lost = ~((close > 1.0 / _FARTHEST) & (close < _FARTHEST))
    if lost.any():
        raise DataError(
            f"the price leaves the range of single precision at bar {lost.argmax()}. Take fewer bars, or a "
            "smaller volatility or drift."
        )
    opening = np.concatenate([[FIRST_OPEN], close[:-1]])
    rng = np.random.default_rng([seed, 1, stream])
    wicks = np.exp(_WICK * np.abs(returns) * np.abs(rng.standard_normal((2, len(returns)))))
    high, low = np.maximum(opening, close) * wicks[0], np.minimum(opening, close) / wicks[1]
    volume = 1_000.0 * rng.lognormal(sigma=0.5, size=len(returns))
    return as_frame(stamps, {"open": opening, "high": high, "low": low, "close": close, "volume": volume})


def _returns_rng(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0])


def _stamps(num_bars: int, timeframe: str) -> np.ndarray:
    step = np.timedelta64(round(timeframe_seconds(timeframe) * 1e6), "us")
    if num_bars > (_LAST - START) // step:
        raise DataError(
            f"{num_bars} bars of {canonical_timeframe(timeframe)} from 2000 on end after 2200. Take fewer "
            "bars, or a "
            "shorter timeframe such as 1h or 1m."
        )
    return START + np.arange(num_bars) * step


def _martingale(normals: np.ndarray, volatility: float) -> np.ndarray:
    """Log-factors of mean 1."""
    return volatility * normals - volatility**2 / 2


def _log_drift(drift: float) -> float:
    if drift <= -1:
        raise DataError(f"drift {drift} a bar loses everything. Choose one above -1.")
    return float(np.log1p(drift))


def _autoregress(shocks: np.ndarray, phi: float) -> np.ndarray:
    values = shocks.tolist()
    for t in range(1, len(values)):
        values[t] += phi * values[t - 1]
    return np.asarray(values)


def _garch(
    normals: np.ndarray, *, volatility: float, arch: float, garch: float
) -> tuple[np.ndarray, np.ndarray]:
    """Variances [T] and shocks [T], begun at the mean variance."""
    base = volatility**2 * (1.0 - arch - garch)
    variances, shocks, variance = [], [], volatility**2
    for normal in normals.tolist():
        shock = variance**0.5 * normal
        variances.append(variance)
        shocks.append(shock)
        variance = base + arch * shock**2 + garch * variance
    return np.asarray(variances), np.asarray(shocks)


def _cholesky(matrix: np.ndarray) -> np.ndarray:
    try:
        if np.allclose(matrix, matrix.T) and np.allclose(np.diagonal(matrix), 1.0):
            return np.linalg.cholesky(matrix)
    except (np.linalg.LinAlgError, ValueError):
        pass
    raise DataError(
        f"{matrix.tolist()} is not a correlation matrix. Give a square, symmetric, positive definite one "
        "with ones "
        "on the diagonal."
    )


def _check_sizes(num_bars: int, **scales: float) -> None:
    findings = [f"num_bars is {num_bars}. Choose 1 or more."] if num_bars < 1 else []
    findings += [f"{name} is {value}. Choose 0 or more." for name, value in scales.items() if not value >= 0]
    if findings:
        raise DataError(findings)


def _check_probabilities(**chances: float) -> None:
    findings = [
        f"{name} is {p}, not a probability. Choose 0 to 1." for name, p in chances.items() if not 0 <= p <= 1
    ]
    if findings:
        raise DataError(findings)
