"""What a hierarchy looks up by the bar: the fixed specialists' signals, and the table of features.

Both are made once per market and shared by all accounts. Axes: T bars, A instruments, P pairs, M macro
columns, F features of an instrument.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.portfolio_market import PortfolioMarket


class HierarchyMarket(PortfolioMarket):
    """A portfolio's market whose specialists have made up their minds.

    Attributes:
      signals: [T, A] float32 in [-1, 1], the exposure that the instrument's specialist asks for at close[t],
        as a share of the capital that it gets for the instrument. Row t may depend on rows up to t alone.
    """

    signals: jax.Array | None = None


def with_signals(market: PortfolioMarket, signals: Any) -> HierarchyMarket:
    """`market` with the fixed specialists' `signals` [T, A].

    Raises:
      ValueError: another shape, or a signal that is not in [-1, 1].
    """
    table = np.asarray(signals, np.float32)
    if table.shape != market.gap.shape:
        raise ValueError(f"signals must be {market.gap.shape}, a row for each bar, got {table.shape}")
    wrong = ~(np.abs(table) <= 1.0)
    if wrong.any():
        bar, which = np.argwhere(wrong)[0]
        raise ValueError(
            f"{wrong.sum()} signals are not in [-1, 1], first at bar {bar}, instrument {which} "
            f"({table[bar, which]}): clip them"
        )
    names = PortfolioMarket.__dataclass_fields__
    return HierarchyMarket(**{name: getattr(market, name) for name in names}, signals=jnp.asarray(table))


def bar_table(market: PortfolioMarket, *, macro: Any = None, features: Any = None) -> np.ndarray:
    """[T, P + M + A F] float32 what is seen of each bar, laid out by `envs.specialists.bar_layout`.

    Args:
      market: its absolute correlations are the first columns, if it has them.
      macro: [T, M] the user's own columns, row t known at close[t].
      features: [T, A, F] of the instruments.

    Raises:
      ValueError: a table of another number of bars or instruments.
    """
    num_bars, num = market.gap.shape
    parts = {
        "correlation": np.zeros((num_bars, 0))
        if market.correlation is None
        else np.asarray(market.correlation),
        "macro": np.zeros((num_bars, 0)) if macro is None else np.asarray(macro),
        "features": np.zeros((num_bars, num, 0)) if features is None else np.asarray(features),
    }
    wanted = {"macro": (num_bars, "M"), "features": (num_bars, num, "F")}
    findings = [
        f"{name} must be {shape}, got {parts[name].shape}"
        for name, shape in wanted.items()
        if parts[name].ndim != len(shape) or parts[name].shape[:-1] != shape[:-1]
    ]
    if findings:
        raise ValueError("; ".join(findings))
    return np.concatenate([part.reshape(num_bars, -1) for part in parts.values()], axis=1).astype(np.float32)


def momentum(closed: np.ndarray, *, window: int = 20) -> np.ndarray:
    """[T, A] signals of specialists who follow the sign of the last `window` bars' move.

    Specialists without training, for examples and as a baseline. 0 before there are as many bars.

    Args:
      closed: [T, A] closes.
      window: bars.
    """
    signals = np.zeros(closed.shape, np.float32)
    signals[window:] = np.sign(closed[window:] - closed[:-window])
    return signals
