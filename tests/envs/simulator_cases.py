"""What the simulator and its oracle are both given: bars, the parts of an environment, and random numbers."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from arch.data import sp500

from tests.envs.simulator_ledger import (
    ASKS_LEVEL,
    ASKS_NOTHING,
    BAR,
    LIMIT,
    MARKET,
    NEUTRAL,
    ORDER,
    RULES,
    STOP,
    STOP_LIMIT,
    WITHDRAWS,
)

FILES = ("BRENTCMDUSD_D1", "EURUSD_H4", "USA500IDXUSD_H4", "XAUUSD_D1")
BARS = 48
CHUNK = 2000  # sequences that are played at once
MAX_LATENCY = 3
COST_PARTS = ("maker_rate", "fee_per_lot", "fee_minimum", "volatility_slippage", "impact", "volume_cap")
MARKET_PARTS = ("half_spread", "tradable", "funding", "scale", "cap", "conversion")
ORDER_PARTS = ("rests", "protects", "trails", "latency", "holds", "order_bars", "band")
OTHER_PARTS = ("lots", "tick", "margin", "financing", "limits")
EVERYTHING = frozenset(COST_PARTS + MARKET_PARTS + ORDER_PARTS + OTHER_PARTS)
MONEY = frozenset(("lots", "fee_minimum", "impact", "volume_cap"))


class World(NamedTuple):
    """Bars of several instruments in one table [T], and where each begins and ends."""

    bars: np.ndarray
    segments: list[tuple[int, int]]


class Case(NamedTuple):
    """S sequences over one table of bars.

    Attributes:
      parts: what the environment has.
      rules: [S] `RULES`, neutral where a part is not there.
      orders: [S, N + 2] `ORDER`; the last two rows are the oracle's own.
      start: [S] bars and [S] levels.
    """

    parts: frozenset[str]
    rules: np.ndarray
    orders: np.ndarray
    start: tuple[np.ndarray, np.ndarray]

    def at(self, s: int) -> "Case":
        """The case of one sequence."""
        one = slice(s, s + 1)
        return Case(self.parts, self.rules[one], self.orders[one], (self.start[0][one], self.start[1][one]))


def single(table: np.ndarray) -> np.ndarray:
    """`table` with the numbers that float32 knows, so that both sides are given the same ones."""
    for name in table.dtype.names or ():
        table[name] = table[name].astype(np.float32)
    return table


def plain_bars(prices: np.ndarray) -> np.ndarray:
    """A table of otherwise neutral bars from `prices` [T, 4]: open, high, low, close."""
    bars = np.zeros(len(prices), BAR)
    for column, name in enumerate(("open", "high", "low", "close")):
        bars[name] = prices[:, column]
    for name in ("tradable", "scale", "rate_open", "rate_close", "depth"):
        bars[name] = 1.0
    bars["cap"] = np.inf
    return single(bars)


@cache
def make_world(folder: Path | None = None) -> World:
    """Real prices, and random everything else."""
    frames = [sp500.load()]
    if folder is not None:
        frames += [pd.read_csv(folder / f"{name}.csv", sep="\t")[-6000:] for name in FILES]
    bars = np.concatenate(
        [plain_bars(frame[["Open", "High", "Low", "Close"]].to_numpy()) for frame in frames]
    )
    ends = np.cumsum([len(frame) for frame in frames]).tolist()
    generator, size = np.random.default_rng(0), len(bars)
    bars["half_spread"] = generator.uniform(0, 2e-4, size)
    bars["volatility"] = generator.uniform(0.5, 2.0, size) * (bars["high"] / bars["low"] - 1)
    bars["depth"] = 1e5 * np.exp(generator.normal(0, 1.5, size))
    bars["tradable"] = generator.random(size) < 0.9
    bars["new_day"] = generator.random(size) < 0.2
    bars["years"] = generator.choice([1, 1, 3], size) / 365
    bars["funding"] = generator.normal(0, 2e-4, size)
    bars["scale"] = generator.uniform(0.5, 1.5, size)
    bars["cap"] = generator.uniform(0.5, 20.0, size)
    rates = np.exp(0.3 * np.sin(np.arange(2 * size) / 300) + generator.normal(0, 0.004, 2 * size))
    bars["rate_open"], bars["rate_close"] = rates[::2], rates[1::2]
    return World(single(bars), list(zip([0, *ends[:-1]], ends, strict=True)))


def neutral_bars(bars: np.ndarray, parts: frozenset[str]) -> np.ndarray:
    """`bars` with the leaves that `parts` do not have set to what does nothing."""
    table = bars.copy()
    neutral = {"half_spread": 0.0, "tradable": 1.0, "funding": 0.0, "scale": 1.0, "cap": np.inf}
    for name, number in neutral.items():
        if name not in parts:
            table[name] = number
    if "conversion" not in parts:
        table["rate_open"] = table["rate_close"] = 1.0
    return table


def draw_rules(generator, parts: frozenset[str], unit: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Random numbers for `parts`, some neutral; `unit` is what one unit costs, `reach` the range of a bar."""
    size = len(unit)

    def between(low, high, off=None):
        drawn = generator.uniform(low, high, size)
        return drawn if off is None else np.where(generator.random(size) < 0.3, off, drawn)

    def among(*numbers):
        return generator.choice(numbers, size)

    capital = between(5e3, 2e4)
    fee, leverage = between(0, 1e-3, off=0), among(1, 2, 5, 10)
    drawn = {
        "fee_rate": fee,
        "half_spread": between(0, 5e-4, off=0),
        "slippage": between(0, 5e-4, off=0),
        "maker_rate": between(0, 5e-4, off=0),
        "fee_per_lot": capital * between(0, 1e-4, off=0),
        "fee_minimum": capital * between(0, 5e-4, off=0),
        "volatility_slippage": between(0, 0.1, off=0),
        "impact": between(0, 0.1, off=0),
        "volume_cap": between(0.02, 1, off=1e4),
        "lot": capital / unit * np.exp(between(np.log(0.01), np.log(0.5))),
        "tick": between(0.02, 0.4, off=0.01) * reach,
        "max_leverage": leverage,
        "maintenance": np.minimum(between(0.3, 1.3, off=0) / leverage, 0.95),
        "penalty": between(0, 0.02, off=0),
        "borrow_rate": between(0, 0.3, off=0),
        "loan_rate": between(0, 0.3, off=0),
        "cash_rate": between(0, 0.3, off=0),
        "daily_loss": among(0.005, 0.02, 0.05, 1, 1, 1),
        "drawdown": among(0.02, 0.1, 0.3, 1, 1, 1),
        "latency": among(*range(MAX_LATENCY + 1)),
        "holds": 1.0,
        "order_bars": among(*range(1, 6)),
        "band": among(0, 0.02, 0.1, 0.3),
    }
    rules = np.zeros(size, RULES)
    groups = {"lot": "lots"} | dict.fromkeys(("max_leverage", "maintenance", "penalty"), "margin")
    groups |= dict.fromkeys(("borrow_rate", "loan_rate", "cash_rate"), "financing")
    groups |= dict.fromkeys(("daily_loss", "drawdown"), "limits")
    always = ("fee_rate", "half_spread", "slippage")
    for name, number in NEUTRAL.items():
        there = name in always or groups.get(name, name) in parts
        rules[name] = drawn[name] if there and name in drawn else number
    rules["ruin_equity"] = among(0, 0.1, 0.5, 0.9)
    if "maker_rate" not in parts:
        rules["maker_rate"] = fee
    if MONEY & parts:
        rules["capital"] = capital
    return single(rules)


def draw_orders(generator, parts: frozenset[str], rules: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Random orders [S, BARS + 2] with distances at the scale of `reach` [S], a bar's range per price."""
    shape = len(rules), BARS
    orders = np.zeros((shape[0], BARS + 2), ORDER)
    asked, far = orders[:, :BARS], reach[:, None]
    most = np.minimum(rules["max_leverage"], 10.0 if "margin" in parts else 2.0)
    gross = np.where(generator.random(shape[0]) < 0.5, 1.0, 1.2 * most)[:, None]
    level = generator.choice([-1.0, -0.5, 0.0, 0.5, 1.0], shape) * gross
    hold = generator.random(shape) < generator.uniform(0, 0.95, (shape[0], 1))
    for t in range(1, BARS):
        level[:, t] = np.where(hold[:, t], level[:, t - 1], level[:, t])
    asked["level"] = level
    bare = generator.random((shape[0], 1)) < 0.3
    for name in ("stop_loss", "take_profit", "trail"):
        asked[name] = np.inf
        if ("trails" if name == "trail" else "protects") in parts:
            distance = far * generator.choice([0.3, 0.6, 1.0, 2.0, 4.0, np.inf], shape)
            asked[name] = np.where(bare, np.inf, distance)
    if "rests" in parts:
        kind = generator.choice([MARKET, LIMIT, STOP, STOP_LIMIT], shape)
        stop = far * generator.choice([-0.2, 0.0, 0.1, 0.3, 0.5, 0.8], shape)
        limit = far * generator.choice([-0.2, 0.0, 0.1, 0.3, 0.5, 0.8], shape)
        asked["kind"], asked["stop"] = kind, stop
        asked["limit"] = np.where(kind == STOP_LIMIT, limit - stop, limit)
        asked["label"] = generator.integers(-1, 3, shape)  # -1: without one
    if "holds" in parts:
        silent = generator.choice([0.0, 0.5, 0.9], (shape[0], 1))
        asks = np.where(generator.random(shape) < silent, ASKS_NOTHING, ASKS_LEVEL)
        asked["asks"] = np.where(generator.random(shape) < 0.1 * (silent > 0), WITHDRAWS, asks)
    return single(orders)


def draw_case(seed: int, parts: frozenset[str], world: World, size: int) -> Case:
    """`size` random sequences."""
    generator = np.random.default_rng(seed)
    chosen = np.array(world.segments)[generator.integers(0, len(world.segments), size)]
    start = generator.integers(chosen[:, 0], chosen[:, 1] - BARS - 1)
    bars = neutral_bars(world.bars, parts)
    span = np.lib.stride_tricks.sliding_window_view(bars["high"] / bars["low"] - 1, BARS)
    reach = span.mean(axis=1)[start]
    price = bars["close"][start]
    rules = draw_rules(generator, parts, price * bars["rate_close"][start], price * reach)
    orders = draw_orders(generator, parts, rules, reach)
    return Case(parts, rules, orders, (start, orders["level"][:, 0].copy()))
