"""Markets on which the answer is known: without anything to find, and with everything given away.

Negative controls ask whether the verdict finds an edge where there is none; positive ones, whether a slice
could show any edge at all. How to read them: `docs/reference/stress.md`.

Axes: T bars, N steps (step n moves to bar first + 1 + n), K draws, A accounts, G stretches.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from envs.types import Conversion, Env, EnvParams, Market, Prices
from ztb_jax.data.frame import COLUMNS, as_frame
from ztb_jax.data.market import MarketData
from ztb_jax.evaluation import significance
from ztb_jax.evaluation.backtest import axes_of, make_path_backtest
from ztb_jax.evaluation.compare import levels_of
from ztb_jax.evaluation.edge import FEWEST_BARS, Label, judge_edge
from ztb_jax.evaluation.pooling import pooled
from ztb_jax.evaluation.series import checked, checked_share
from ztb_jax.features.recipe import Features, check_frame

CONFIDENCE = 0.99  # of the binomial quantile that the number of false edges may reach
# What moves with its bar. What is known beforehand stays in its place: the calendar (tradable, new_day,
# years), and sizes (scale, cap), which belong to the decision.
MOVES = ("gap", "body", "half_spread", "volatility", "depth", "funding")
LEAK = "next_body"
MOST_PLAYED = 2**24  # returns at a time, 64 MiB


class Shuffled(NamedTuple):
    """A path of levels on bars in another order.

    Attributes:
      draws: K.
      edges: draws that the verdict calls an edge at M = 1.
      allowed: most of them that chance explains, the 99 % quantile of a binomial law of K and alpha.
      contradicts: more than that: the verdict finds what is not there, with this path.
      t: of the path's alpha on the bars as they were; NaN where degenerate.
      p_value: (1 + draws with a t as high) / (1 + K), of a permutation test that the order of the bars does
        not matter to the path; NaN where `t` is. A draw whose t is degenerate counts as one that is as high.
    """

    draws: int
    edges: int
    allowed: int
    contradicts: bool
    t: float
    p_value: float

    @property
    def share(self) -> float:
        """Of the draws that the verdict calls an edge."""
        return self.edges / self.draws


class Leak(NamedTuple):
    """The verdict on who knows the next bar.

    Attributes:
      label: the verdict.
      p_mean: of the mean return.
      p_alpha: of the alpha on buy-and-hold.
      trades: steps in which the path asks for another level.
      reason: what follows for the slice, a sentence.
    """

    label: Label
    p_mean: float
    p_alpha: float
    trades: int
    reason: str


def shuffled(
    path: np.ndarray,
    data: MarketData,
    env: Env,
    *,
    bars_per_year: float,
    seed: int,
    draws: int = 100,
    block: int = 20,
    alpha: float = 0.05,
) -> Shuffled:
    """Play `path` on the slice's bars in another order, and count the edges that the verdict finds.

    The bars that the steps move to are cut into blocks, which are put in a random order. What a bar does
    (`MOVES`) goes with it, and prices are compounded anew, so that the market ends where it did. So the path
    meets bars that it knows nothing of, while what it asks for, its costs and the dependence within blocks
    stay as they were. Each draw is judged against buy-and-hold of its own market.

    All draws, and the bars as they were, are played by one program.

    Args:
      path: [N] levels asked for, such as `Trace.level`; played at the market and unprotected, also where the
        policy's own orders are neither.
      data: the slice.
      env: whose rules to play by.
      bars_per_year: of the instrument's own calendar.
      seed: of the orders.
      draws: K.
      block: bars; short against the slice, long against how far dependence reaches.
      alpha: level of the verdict.

    Raises:
      ValueError: a path of another length than the slice's steps, fewer than `edge.FEWEST_BARS` steps, a
        block below 1 or beyond half of them, no draw, or a number that is not finite.
    """
    path = checked(path, "path", at_least=FEWEST_BARS)
    return shuffled_accounts(
        [path[None]], data, env, bars_per_year=bars_per_year, seed=seed, draws=draws, block=block, alpha=alpha
    )


def shuffled_accounts(
    levels: Sequence[np.ndarray],
    data: MarketData,
    env: Env,
    *,
    bars_per_year: float,
    seed: int,
    draws: int = 100,
    block: int = 20,
    alpha: float = 0.05,
) -> Shuffled:
    """`shuffled` for equal capital in many accounts, anew and flat in each of G stretches of the slice.

    Bars are permuted over the whole slice, so that a stretch keeps none of its own, and in a draw all
    accounts meet the same ones. Their returns are pooled (`pooling.pooled`), and what the stretches bring is
    one history; nothing is sold at a stretch's end.

    Args:
      levels: [A, N of the stretch] for each of the stretches, which follow one another.
      data: the slice.
      env, bars_per_year, seed, draws, block, alpha: as of `shuffled`.

    Raises:
      ValueError: as `shuffled`, N being all bars.
    """
    alpha, paths = checked_share(alpha, "alpha"), [checked(each, "levels", axes=2) for each in levels]
    size = sum(accounts.shape[1] for accounts in paths)
    _check_length(size, data)
    if size < FEWEST_BARS or not 1 <= block <= size // 2 or draws < 1:
        raise ValueError(
            f"block ({block}) must be from 1 to half of the {size} bars, those at least {FEWEST_BARS}, and "
            f"draws ({draws}) at least 1"
        )
    rng = np.random.default_rng(seed)
    orders = np.stack([np.arange(size), *(_order(rng, size, block) for _ in range(draws))])
    play = _player(env, data.env_params)
    lanes = 1 + max(len(accounts) for accounts in paths)
    batches = np.array_split(orders, -(-orders.size * lanes // MOST_PLAYED))
    histories = np.concatenate([_histories(play, paths, batch) for batch in batches])  # [1 + K, 2, N]
    verdicts = [
        judge_edge(ours, held, trials=1, bars_per_year=bars_per_year, alpha=alpha)
        for ours, held in histories[1:]
    ]
    edges = sum(verdict.label == "edge" for verdict in verdicts)
    allowed = significance.binomial_quantile(draws, alpha, CONFIDENCE)
    own, *others = (significance.alpha_test(ours, held).t for ours, held in histories)
    as_high = sum(not other < own for other in others)
    return Shuffled(
        draws=draws,
        edges=edges,
        allowed=allowed,
        contradicts=edges > allowed,
        t=own,
        p_value=math.nan if math.isnan(own) else (1 + as_high) / (1 + draws),
    )


def leak_path(data: MarketData, env: Env) -> np.ndarray:
    """[N] the level at each decision of one who knows the body of the bar in which the order fills.

    The one of the environment's levels, and flat, with the highest level x body less the cost of opening and
    closing it, flat in a tie: it trades where a bar pays for a round trip. A slice's latency is known, too.
    Costs are those that do not depend on size: fee, spreads, slippage.
    """
    params = data.env_params
    first, stop = int(params.first), int(params.stop)
    late = 0 if params.latency is None else int(params.latency)
    levels = np.array([0.0, *(level for level in levels_of(env) if level != 0.0)])
    body, cost = (series[first + 1 : stop] for series in (_host(params.market.body), _one_way(params)))
    worth = levels[:, None] * body - 2.0 * np.abs(levels)[:, None] * cost
    path = levels[worth.argmax(axis=0)]
    return np.concatenate([path[late:], np.zeros(min(late, path.size))])


def leak(data: MarketData, env: Env, *, trials: int, bars_per_year: float, alpha: float = 0.05) -> Leak:
    """Is one who knows each next bar called an edge? If not, nobody would be on this slice.

    Args:
      data: the slice.
      env: whose levels and rules to play by.
      trials: M of the verdict on the policy.
      bars_per_year: of the instrument's own calendar.
      alpha: level of the verdict.
    """
    path = leak_path(data, env)
    backtest = make_path_backtest(env)
    returns, held = (
        np.asarray(backtest(jnp.asarray(levels, jnp.float32), data.env_params).gain, np.float64)
        for levels in (path, np.ones_like(path))
    )
    verdict = judge_edge(returns, held, trials=trials, bars_per_year=bars_per_year, alpha=alpha)
    trades = int(np.count_nonzero(np.diff(path, prepend=0.0)))
    return Leak(verdict.label, verdict.p_mean, verdict.p_alpha, trades, _in_words(verdict.label, trades))


def shuffle_bars(frame: pd.DataFrame, *, seed: int, block: int = 1) -> pd.DataFrame:
    """The bars of `frame` in another order under the same stamps: a market to train on in vain.

    Each bar's moves (open over the close before, and close, high and low over the open) and its volume are
    permuted in blocks, and prices compounded anew from the first bar, which stays. So the bars' moves are the
    same ones, the last close is the same to rounding, and with `block` 1 no order in time is left; what a
    bar's own parts have to do with one another stays. `data.synthetic.shuffled` keeps closes alone.

    Args:
      frame: [T] bars with open, high, low, close and volume; other columns are refused, since nobody knows
        whether they would move.
      seed: of the order.
      block: bars that stay together.

    Raises:
      DataError: bars that no feature can be computed on.
      ValueError: a column that is none of a bar's, or a block below 1.
    """
    check_frame(frame)
    alien = [name for name in frame.columns if name not in COLUMNS]
    if alien or block < 1:
        raise ValueError(f"block ({block}) must be at least 1, and the frame have no column {alien}")
    opened, high, low, closed, volume = (frame[name].to_numpy(np.float64) for name in COLUMNS)
    order = np.concatenate([[0], 1 + _order(np.random.default_rng(seed), len(frame) - 1, block)])
    gap = np.concatenate([[1.0], opened[1:] / closed[:-1]])
    prices = _compounded(opened[0], gap[order], *((price / opened)[order] for price in (closed, high, low)))
    return as_frame(pd.DatetimeIndex(frame.index), {**prices, "volume": volume[order]})


def plant_leak(features: Features, frame: pd.DataFrame) -> Features:
    """`features` with one column more, `LEAK`: the return from the next bar's open to its close.

    A learner that makes nothing of it makes nothing of anything. It tells what an order without latency will
    earn; the last row, which has no next bar, is 0.

    Args:
      features: of every bar of `frame`.
      frame: [T] bars with open and close.

    Raises:
      ValueError: another number of rows, or features that leak already.
    """
    if len(features.values) != len(frame) or LEAK in features.names:
        raise ValueError(
            f"features of {len(features.values)} bars, named {features.names}, take no leak from a frame of "
            f"{len(frame)}: give those of its bars, without a {LEAK}"
        )
    body = frame["close"].to_numpy(np.float64) / frame["open"].to_numpy(np.float64) - 1.0
    column = np.append(body[1:], 0.0)
    return Features(np.column_stack([features.values, column]), features.valid, (*features.names, LEAK))


def _player(env: Env, params: EnvParams) -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
    """(levels [A, N], orders [K, all bars], step that N begin at) -> returns [K, A + 1, N], holding last."""
    backtest = make_path_backtest(env)

    def gains(levels: jax.Array, params: EnvParams) -> jax.Array:
        return backtest(levels, params).gain

    axes = _moving(params.market)
    program = jax.jit(jax.vmap(jax.vmap(gains, in_axes=(0, None)), in_axes=(None, axes)))

    def play(levels: np.ndarray, orders: np.ndarray, begin: int) -> np.ndarray:
        asked = jnp.asarray(np.concatenate([levels, np.ones((1, levels.shape[1]))]), jnp.float32)
        first = params.first + begin
        markets = _reordered(params, orders).replace(first=first, stop=first + levels.shape[1] + 1)
        return np.asarray(program(asked, markets), np.float64)

    return play


def _histories(play: Callable, paths: Sequence[np.ndarray], orders: np.ndarray) -> np.ndarray:
    """[K, 2, N] of the pooled accounts and of holding."""
    parts, begin = [], 0
    for accounts in paths:
        returns = play(accounts, orders, begin)
        parts.append([[pooled(each[:-1]), each[-1]] for each in returns])
        begin += accounts.shape[1]
    return np.concatenate(parts, axis=2)


def _order(rng: np.random.Generator, size: int, block: int) -> np.ndarray:
    """[size] a permutation that keeps blocks together; the last one may be shorter."""
    blocks = np.split(np.arange(size), np.arange(block, size, block))
    return np.concatenate([blocks[place] for place in rng.permutation(len(blocks))])


def _moving(market: Market) -> EnvParams:
    """Where an axis of draws is: what moves with its bar. What is the same in every draw has none."""
    moved = [name for name in (*MOVES, "prices", "conversion") if getattr(market, name) is not None]
    return axes_of(EnvParams, market=axes_of(Market, **dict.fromkeys(moved, 0)))


def _reordered(params: EnvParams, orders: np.ndarray) -> EnvParams:
    """`params` whose bars after the first come in each of `orders` [K, N]; the others stay."""
    first, market = int(params.first), params.market
    places = np.tile(np.arange(len(market.gap)), (len(orders), 1))
    places[:, first + 1 : int(params.stop)] = first + 1 + orders
    moved: dict[str, Any] = {
        name: jnp.asarray(np.asarray(leaf)[places])
        for name in MOVES
        if (leaf := getattr(market, name)) is not None
    }
    if market.prices is not None:
        moved["prices"] = _prices(market.prices, places)
    if market.conversion is not None:
        moved["conversion"] = _conversion(market.conversion, places)
    return params.replace(market=market.replace(**moved))


def _prices(prices: Prices, places: np.ndarray) -> Prices:
    opened, high, low, closed = (
        _host(price) for price in (prices.open, prices.high, prices.low, prices.close)
    )
    gap = np.concatenate([[1.0], opened[1:] / closed[:-1]])
    rows = [
        _compounded(opened[0], gap[order], *((price / opened)[order] for price in (closed, high, low)))
        for order in places
    ]
    return Prices(
        **{name: jnp.asarray(np.stack([row[name] for row in rows]), jnp.float32) for name in rows[0]}
    )


def _conversion(conversion: Conversion, places: np.ndarray) -> Conversion:
    gap, body = _host(conversion.gap)[places], _host(conversion.body)[places]
    closed = np.cumprod((1.0 + gap) * (1.0 + body), axis=1)
    rate = closed / (1.0 + body) * (_host(conversion.rate)[0] / (1.0 + gap[:, :1]))
    return Conversion(*(jnp.asarray(leaf, jnp.float32) for leaf in (gap, body, rate)))


def _compounded(
    start: float, gap: np.ndarray, body: np.ndarray, high: np.ndarray, low: np.ndarray
) -> dict[str, np.ndarray]:
    """Prices [T] out of factors [T]: open over the close before, the rest over the open; first `start`."""
    closed = start * np.cumprod(gap * body)
    opened = np.concatenate([[start], closed[:-1] * gap[1:]])
    return {
        "open": opened,
        # Not by a rounding may an open or close lie outside of its bar.
        "high": np.maximum(opened * high, np.maximum(opened, closed)),
        "low": np.minimum(opened * low, np.minimum(opened, closed)),
        "close": closed,
    }


def _one_way(params: EnvParams) -> np.ndarray:
    """[T] what a trade of any size costs at each bar's open, over its notional."""
    costs, market = params.costs, params.market
    cost = np.full(len(market.gap), float(costs.fee_rate + costs.half_spread + costs.slippage))
    if market.half_spread is not None:
        cost += _host(market.half_spread)
    if costs.volatility_slippage is not None and market.volatility is not None:
        cost += float(costs.volatility_slippage) * _host(market.volatility)
    return cost


def _host(leaf: jax.Array) -> np.ndarray:
    return np.asarray(leaf, np.float64)


def _check_length(size: int, data: MarketData) -> None:
    steps = int(data.env_params.stop) - 1 - int(data.env_params.first)
    if size != steps:
        raise ValueError(f"path has {size} levels and the slice {steps} steps: give one a step.")


def _in_words(label: Label, trades: int) -> str:
    if label == "edge":
        return "Who knows each next bar is told from luck here, so the slice can show an edge."
    if not trades:
        return "No bar pays for a round trip: the costs are too high for any edge from bar to bar."
    return (
        "Not even who knows each next bar is told from luck here: the slice is too short, or its costs too "
        "high, to show an edge."
    )
