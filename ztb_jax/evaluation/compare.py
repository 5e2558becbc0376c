"""A policy beside its baselines on one slice: same bars, same simulator, same costs.

Axes: N steps, N + 1 closing marks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Env
from ztb_jax.data.market import MarketData
from ztb_jax.errors import DataError
from ztb_jax.evaluation import baselines, metrics, oracle
from ztb_jax.evaluation.backtest import Trace, make_path_backtest

RANDOM_ACCOUNTS = 101
LANES = 32  # accounts played at once: one program for any number of them, whose traces fit in memory
RANGE_STEPS = 10  # levels of a range that rules choose among, from 0 to its farther end
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


class Luck(NamedTuple):
    """Where the policy's path of levels lies among accounts with the same spells in random orders.

    All are played alike, at the market and unprotected, the policy's own path, too.

    Attributes:
      growth: log growth of the policy's path over the slice, net of costs.
      accounts: [B] of the others.
    """

    growth: float
    accounts: np.ndarray

    @property
    def below(self) -> float:
        """Share of the accounts that grew less."""
        return float((self.accounts < self.growth).mean())

    @property
    def p_value(self) -> float:
        """(1 + accounts that grew no less) / (1 + B): how often mere timing by chance does as well.

        1 where there is but one order of the spells. Phipson and Smyth 2010.
        """
        return float((1 + (self.accounts >= self.growth).sum()) / (1 + self.accounts.size))


class Baselines(NamedTuple):
    """What stands beside a policy.

    Attributes:
      traces: by name.
      luck: of the policy; None where none was given.
    """

    traces: dict[str, Trace]
    luck: Luck | None


def play_baselines(
    data: MarketData,
    env: Env,
    *,
    seed: int,
    close: np.ndarray | None = None,
    policy: Trace | None = None,
) -> Baselines:
    """Play every baseline by the rules of `env`.

    Buy-and-hold takes level 1 at the first open and keeps it. Random draws a level for every bar; of
    `RANDOM_ACCOUNTS` such accounts the one of median growth stands for them. The simple rules are those of
    `baselines.rule_paths`. Matched random has the policy's own spells in random orders, again the median of
    as many. Hindsight is the best path of levels for one who knows every price, found at constant exposure
    and then played in the simulator; it is left out where its equity would overflow, and where no path of
    levels survives.

    Args:
      data: the slice.
      env: whose levels and rules to play by; baselines trade at the market and unprotected. Of a range,
        random and hindsight take its ends and 0, and the simple rules tenths of its farther end.
      seed: of the random accounts.
      close: [M] closes of every bar up to the slice's last one, for the rules to warm up on; None has only
        those of the slice and its lookback, and rules that are warming up are flat.
      policy: what the policy did, to be matched; None leaves that baseline out.

    Raises:
      ValueError: `close` does not end as the slice does, or has prices that are not positive and finite.
    """
    gap, body = bars_of(data)
    growth, play = _player(env, data)
    rng, levels = np.random.default_rng(seed), levels_of(env)
    drawn = rng.choice(np.asarray(levels), size=(RANDOM_ACCOUNTS, gap.size))
    paths = {
        "buy_and_hold": np.ones(gap.size),
        "flat": np.zeros(gap.size),
        "random": drawn[_median(growth(drawn))],
        **_rules(data, env, close),
    }
    luck = None
    if policy is not None:
        own = np.asarray(policy.level, np.float64)
        step = 0.0 if env.levels else _step_of(env)
        orders = baselines.shuffled_spells(own, rng, accounts=RANDOM_ACCOUNTS, step=step)
        grown = growth(np.concatenate([own[None], orders]))
        luck = Luck(growth=float(grown[0]), accounts=grown[1:])
        paths["matched_random"] = orders[_median(luck.accounts)]
    costs = data.env_params.costs
    one_way = float(costs.fee_rate + costs.half_spread + costs.slippage)
    try:
        paths["hindsight"] = oracle.hindsight(gap, body, levels=levels, cost=one_way).path
    except oracle.NoPathError:
        return Baselines(play(paths), luck)
    traces = play(paths)
    if not np.log1p(traces["hindsight"].gain.astype(np.float64)).sum() < LARGEST_LOG_GROWTH:
        del traces["hindsight"]
    return Baselines(traces, luck)


def play_buy_and_hold(data: MarketData, env: Env) -> Trace:
    """Level 1 from the first open on."""
    bars = int(data.env_params.stop) - 1 - int(data.env_params.first)
    return jax.device_get(make_path_backtest(env)(jnp.ones(bars, jnp.float32), data.env_params))


def levels_of(env: Env) -> tuple[float, ...]:
    """The levels that an account may take; of a range its ends and, where it holds it, being flat."""
    low, high = env.actions.low, env.actions.high
    return tuple(dict.fromkeys(env.levels)) or ((low, 0.0, high) if low < 0.0 < high else (low, high))


def _step_of(env: Env) -> float:
    """What counts as one level of a range."""
    return max(abs(env.actions.low), abs(env.actions.high)) / RANGE_STEPS


def _rules(data: MarketData, env: Env, close: np.ndarray | None) -> dict[str, np.ndarray]:
    """The paths [N] of the simple rules over the slice."""
    levels, steps = levels_of(env), data.num_steps
    if not env.levels:
        grid = _step_of(env) * np.arange(-RANGE_STEPS, RANGE_STEPS + 1)
        inside = grid[(levels[0] < grid) & (grid < levels[-1])]
        levels = (levels[0], *inside.tolist(), levels[-1])
    market = data.env_params.market
    gap, body = (np.asarray(part, np.float64) for part in (market.gap, market.body))
    moved = (1.0 + gap) * (1.0 + body)
    close = np.cumprod(moved) if close is None else np.asarray(close, np.float64)
    if len(close) <= steps:
        raise ValueError(
            f"close has {len(close)} bars and the slice {steps + 1}: give every bar up to its last"
        )
    # A close too many would be tomorrow's price. The market's returns are rounded to float32.
    rounding = 1e-6 * ((1.0 + abs(gap)) * (1.0 + abs(body)) - 1.0) + 1e-12
    differs = abs(close[-steps:] / close[-steps - 1 : -1] - moved[-steps:]) > rounding[-steps:]
    if differs.any():
        raise ValueError(
            f"close does not move as the slice does in {differs.sum()} of {steps} bars: give every bar up to "
            "its last, and none after"
        )
    # The last close comes after the last decision.
    return {name: path[-steps:] for name, path in baselines.rule_paths(close[:-1], levels).items()}


def _player(env: Env, data: MarketData) -> tuple[Callable, Callable]:
    """growth(paths [B, N]) -> [B] log growth, and play(name to path [N]) -> name to Trace, of one program."""
    backtest = jax.jit(jax.vmap(make_path_backtest(env), in_axes=(0, None)))

    def lanes(paths: np.ndarray):
        for start in range(0, len(paths), LANES):
            part = np.zeros((LANES, paths.shape[1]), np.float32)
            here = paths[start : start + LANES]
            part[: len(here)] = here
            yield len(here), backtest(jnp.asarray(part), data.env_params)

    def growth(paths: np.ndarray) -> np.ndarray:
        gains = [np.asarray(trace.gain, np.float64)[:count] for count, trace in lanes(paths)]
        return np.log1p(np.concatenate(gains)).sum(axis=1)

    def play(paths: dict[str, np.ndarray]) -> dict[str, Trace]:
        rows: list[Trace] = []
        for count, trace in lanes(np.stack(list(paths.values()))):
            host = jax.device_get(trace)
            rows += [jax.tree.map(lambda leaf, row=row: leaf[row].copy(), host) for row in range(count)]
        return dict(zip(paths, rows, strict=True))

    return growth, play


def _median(growth: np.ndarray) -> int:
    """The account of median growth."""
    return int(np.argsort(growth, kind="stable")[growth.size // 2])


def log_growth(trace: Any) -> float:
    """Mean log growth of equity per bar of a trace, net of costs: what validation chooses by."""
    return float(np.log1p(np.asarray(trace.gain, np.float64)).mean())
