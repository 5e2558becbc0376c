"""A policy beside its baselines on one slice: same bars, same simulator, same costs.

Axes: N steps, N + 1 closing marks.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Env
from ztb_jax.data.market import MarketData
from ztb_jax.errors import DataError
from ztb_jax.evaluation import metrics, oracle
from ztb_jax.evaluation.backtest import Trace, make_path_backtest

RANDOM_ACCOUNTS = 101
# Beyond this log growth a float64 equity overflows: such a curve cannot be drawn, nor means anything.
LARGEST_LOG_GROWTH = 600.0


class Account(NamedTuple):
    """A trace in units of the starting equity, float64.

    Attributes:
      equity: [N+1] at the closes, 1 first.
      value: [N+1] signed holding at the closes.
      held: [N, F] signed holding at the price of each of a bar's F fills, before it.
      traded: [N, F] signed value that the fill traded.
      costs: [N, F] paid for it.
      price: [N, F] price paid or got over the bar's open; 0 where nothing was traded.
      exposure: [N] signed holding over equity at the closes.
      ruined: whether the account was closed.
    """

    equity: np.ndarray
    value: np.ndarray
    held: np.ndarray
    traded: np.ndarray
    costs: np.ndarray
    price: np.ndarray
    exposure: np.ndarray
    ruined: bool


def account_of(trace: Trace, gap: np.ndarray) -> Account:
    """The account that `trace` describes.

    Args:
      trace: of N steps.
      gap: [N] simple return from each close to the next open.

    Raises:
      DataError: the equity would overflow.
    """
    gain, exposure = (np.asarray(x, np.float64) for x in (trace.gain, trace.exposure))
    if np.log1p(gain).sum() > LARGEST_LOG_GROWTH:
        raise DataError(
            f"an account grows by e^{np.log1p(gain).sum():.0f} on this slice, beyond any number: judge "
            "fewer bars (data.end)"
        )
    equity = np.concatenate([[1.0], np.cumprod(1.0 + gain)])
    value = np.concatenate([[0.0], exposure]) * equity
    fills = [trace.fill] if trace.exit is None else [trace.fill, trace.exit]
    traded, cost, fee, price = (
        np.stack([np.asarray(getattr(fill, name), np.float64) for fill in fills], axis=-1)
        for name in ("traded", "cost", "fee", "price")
    )
    # What the order met: the holding, moved by the gap and on to the price before spread and slippage.
    edge = np.divide(cost[:, 0] - fee[:, 0], traded[:, 0], out=np.zeros_like(gain), where=traded[:, 0] != 0)
    met = np.where(traded[:, 0] != 0, price[:, 0] / (1.0 + edge), 1.0)
    held = [value[:-1] * (1.0 + gap) * met, *(-traded[:, 1:] * equity[:-1, None]).T]
    return Account(
        equity=equity,
        value=value,
        held=np.stack(held, axis=-1),
        traded=traded * equity[:-1, None],
        costs=cost * equity[:-1, None],
        price=price,
        exposure=exposure,
        ruined=bool(np.asarray(trace.ruined)[-1]),
    )


def summarise(account: Account, bars_per_year: float) -> dict[str, float | None]:
    """Every metric of `account`."""
    return metrics.summarise(
        equity=account.equity,
        value=account.value,
        held=account.held,
        traded=account.traded,
        costs=account.costs,
        bars_per_year=bars_per_year,
        ruined=account.ruined,
    )


def bars_of(data: MarketData) -> tuple[np.ndarray, np.ndarray]:
    """Gap [N] and body [N] float64 of the bars that the N steps of a slice move to."""
    params = data.env_params
    first, stop = int(params.first), int(params.stop)
    gap, body = (np.asarray(x, np.float64)[first + 1 : stop] for x in (params.market.gap, params.market.body))
    return gap, body


def play_baselines(data: MarketData, env: Env, *, seed: int) -> dict[str, Trace]:
    """Traces of buy-and-hold, flat, random and the hindsight optimum.

    Buy-and-hold takes level 1 at the first open and keeps it. Random draws a level for every bar; of
    `RANDOM_ACCOUNTS` such accounts the one of median growth stands for them. Hindsight is the best path of
    levels for one who knows every price, found at constant exposure and then played in the simulator; it is
    left out where its equity would overflow, and where no path of levels survives.

    Args:
      data: the slice.
      env: whose levels (of a range its ends and 0) and rules to play by; baselines trade at the market and
        unprotected.
      seed: of the random accounts.
    """
    gap, body = bars_of(data)
    backtest, levels = make_path_backtest(env), levels_of(env)
    costs = data.env_params.costs
    one_way = float(costs.fee_rate + costs.half_spread + costs.slippage)

    def play(path: np.ndarray) -> Trace:
        return jax.device_get(backtest(jnp.asarray(path, jnp.float32), data.env_params))

    drawn = np.random.default_rng(seed).choice(np.asarray(levels), size=(RANDOM_ACCOUNTS, gap.size))
    growth = [np.log1p(play(path).gain.astype(np.float64)).sum() for path in drawn]
    median = int(np.argsort(growth, kind="stable")[RANDOM_ACCOUNTS // 2])
    traces = {
        "buy_and_hold": play(np.ones(gap.size)),
        "flat": play(np.zeros(gap.size)),
        "random": play(drawn[median]),
    }
    try:
        best = play(oracle.hindsight(gap, body, levels=levels, cost=one_way).path)
    except oracle.NoPathError:
        return traces
    if np.log1p(best.gain.astype(np.float64)).sum() < LARGEST_LOG_GROWTH:
        traces["hindsight"] = best
    return traces


def play_buy_and_hold(data: MarketData, env: Env) -> Trace:
    """Level 1 from the first open on."""
    bars = int(data.env_params.stop) - 1 - int(data.env_params.first)
    return jax.device_get(make_path_backtest(env)(jnp.ones(bars, jnp.float32), data.env_params))


def levels_of(env: Env) -> tuple[float, ...]:
    """The levels that an account may take; of a range its ends and, where it holds it, being flat."""
    low, high = env.actions.low, env.actions.high
    return env.levels or tuple(sorted({low, high, *([0.0] if low < 0.0 < high else [])}))


def log_growth(trace: Any) -> float:
    """Mean log growth of equity per bar of a trace, net of costs: what validation chooses by."""
    return float(np.log1p(np.asarray(trace.gain, np.float64)).mean())
