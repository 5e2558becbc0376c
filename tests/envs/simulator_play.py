"""A case played by the simulator and by its oracle, and the two compared."""

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.single import Draw, make_single
from envs.types import (
    Actions,
    Conversion,
    Costs,
    Env,
    EnvParams,
    Financing,
    Limits,
    Lots,
    Margin,
    Market,
    Order,
    Prices,
)
from tests.envs.simulator_cases import MAX_LATENCY, MONEY, Case, neutral_bars
from tests.envs.simulator_ledger import (
    ASKED,
    BAR,
    BY_LIQUIDATION,
    COLUMNS,
    EQUITY,
    EXIT,
    EXPOSURE,
    FILL,
    LEVEL,
    LOCKED,
    MARKET,
    MAX_FLIPS,
    NEAR,
    NEUTRAL,
    PROFIT,
    REASON,
    RULES,
    TERMINATED,
)
from tests.envs.simulator_reference import play_all

INSIDE = frozenset(("rests", "protects", "lots", "margin"))
ALWAYS = ("fee_rate", "half_spread", "slippage")
COSTS = [(name, "" if name in ALWAYS else name) for name in Costs.__dataclass_fields__]
UNLIMITED = 10_000  # bars in an episode, more than any sequence has
ENOUGH = 3  # failures, after which near-ties are not looked into any more
TRADED = [f"{what} {name}" for what in ("fill", "exit") for name in ("traded", "cost", "fee", "price")]
TOLD = ["equity", "exposure", "level", "reason", "terminated", "locked", "profit", *TRADED]


class Result(NamedTuple):
    """What was compared.

    Attributes:
      expected: [S, N, COLUMNS] of the oracle, near-ties settled; NaN after the end.
      got: [S, N, COLUMNS] of the implementation.
      adopted: near-ties in which the implementation's answer was taken.
      failures: (sequence, bar, names of what differs) of what remains.
    """

    expected: np.ndarray
    got: np.ndarray
    adopted: int
    failures: list[tuple[int, int, list[str]]]


def ratio(new: np.ndarray, old: np.ndarray) -> jax.Array:
    """The change from `old` to `new`, as a fraction."""
    return jnp.asarray(new / old - 1.0, jnp.float32)


def after_first(numbers: np.ndarray, first: float) -> np.ndarray:
    """`numbers` one bar later."""
    return np.concatenate([[first], numbers[:-1]])


def make_conversion(bars: np.ndarray) -> Conversion:
    opened, closed = bars["rate_open"], bars["rate_close"]
    before = after_first(closed, opened[0])
    return Conversion(ratio(opened, before), ratio(closed, opened), jnp.asarray(opened, jnp.float32))


def make_market(bars: np.ndarray, parts: frozenset[str]) -> Market:
    """The bars as the environment knows them, with the leaves that `parts` need."""

    def leaf(name, *users, kind=jnp.float32):
        return jnp.asarray(bars[name], kind) if parts & set(users or [name]) else None

    prices = Prices(*(jnp.asarray(bars[name], jnp.float32) for name in ("open", "high", "low", "close")))
    return Market(
        gap=ratio(bars["open"], after_first(bars["close"], bars["open"][0])),
        body=ratio(bars["close"], bars["open"]),
        prices=prices if parts & INSIDE else None,
        half_spread=leaf("half_spread"),
        volatility=leaf("volatility", "volatility_slippage", "impact"),
        depth=leaf("depth", "impact", "volume_cap"),
        tradable=leaf("tradable", kind=jnp.bool_),
        new_day=leaf("new_day", "limits", kind=jnp.bool_),
        years=leaf("years", "financing"),
        funding=leaf("funding"),
        scale=leaf("scale"),
        cap=leaf("cap"),
        conversion=make_conversion(bars) if "conversion" in parts else None,
    )


def make_params(case: Case, bars: np.ndarray) -> EnvParams:
    """What the environment is given, every number [S]."""
    parts, rules = case.parts, case.rules

    def number(name, part="", kind=jnp.float32) -> Any:
        return jnp.asarray(rules[name], kind) if not part or part in parts else None

    def record(kind, part, *names):
        return kind(*(number(name) for name in names)) if part in parts else None

    lots = Lots(number("lot"), number("tick", "tick")) if "lots" in parts else None
    return EnvParams(
        market=make_market(bars, parts),
        costs=Costs(*(number(name, part) for name, part in COSTS)),
        ruin_equity=number("ruin_equity"),
        first=jnp.int32(0),
        stop=jnp.int32(len(bars)),
        capital=number("capital") if MONEY & parts else None,
        lots=lots,
        margin=record(Margin, "margin", "max_leverage", "maintenance", "penalty"),
        financing=record(Financing, "financing", "borrow_rate", "loan_rate", "cash_rate"),
        limits=record(Limits, "limits", "daily_loss", "drawdown"),
        latency=number("latency", "latency", jnp.int32),
        order_bars=number("order_bars", "order_bars", jnp.int32),
        band=number("band", "band"),
    )


def make_orders(case: Case) -> Order:
    """What is asked for, every leaf [S, N]."""
    asked = case.orders[:, :-2]

    def leaf(name, part, kind=jnp.float32):
        return jnp.asarray(asked[name], kind) if part in case.parts else None

    return Order(
        level=jnp.asarray(asked["level"], jnp.float32),
        kind=leaf("kind", "rests", jnp.int32),
        limit=leaf("limit", "rests"),
        stop=leaf("stop", "rests"),
        stop_loss=leaf("stop_loss", "protects"),
        take_profit=leaf("take_profit", "protects"),
        trail=leaf("trail", "trails"),
        label=leaf("label", "rests", jnp.int32),
        asks=leaf("asks", "holds", jnp.int32),
    )


@cache
def make_env(parts: frozenset[str]) -> Env:
    """The environment of a case."""
    can: dict[str, Any] = {name: name in parts for name in ("protects", "trails", "rests", "holds")}
    return make_single(
        actions=Actions(decode=Order, **can),
        episode_bars=UNLIMITED,
        guarded="limits" in parts,
        max_latency=MAX_LATENCY if "latency" in parts else 0,
    )


@cache
def make_follow(parts: frozenset[str]):
    """(start, level, orders, params) -> accounts, locks and time steps, all [S, N]."""
    env = make_env(parts)

    def follow(start, level, orders, params):
        def step(state, order):
            state, out = env.advance(state, order, params)
            return state, (state.account, state.guard.lock if "limits" in parts else jnp.int32(0), out)

        return jax.lax.scan(step, env.begin(Draw(start, level), params), orders)[1]

    shared = ("market", "first", "stop")
    along: dict[str, Any] = {n: None if n in shared else 0 for n in EnvParams.__dataclass_fields__}
    axes = EnvParams(**along)
    # Compiling is most of the time, and level 0 takes the least of it.
    options = {"xla_backend_optimization_level": 0} if len(parts) < 6 else None
    return jax.jit(jax.vmap(follow, in_axes=(0, 0, 0, axes)), compiler_options=options)


def simulate(case: Case, bars: np.ndarray):
    """Accounts, locks and time steps of the implementation."""
    start, level = jnp.asarray(case.start[0], jnp.int32), jnp.asarray(case.start[1], jnp.float32)
    follow = make_follow(case.parts)
    return jax.device_get(follow(start, level, make_orders(case), make_params(case, bars)))


def tabulate(account, lock, out) -> np.ndarray:
    """What the implementation says, in the oracle's columns."""
    table = np.zeros((*out.reward.shape, COLUMNS))
    table[..., EQUITY] = np.exp(account.log_equity.astype(np.float64))
    table[..., EXPOSURE], table[..., LEVEL] = account.exposure, account.level
    table[..., TERMINATED], table[..., LOCKED] = out.terminated, lock > 0
    table[..., REASON] = 0 if out.reason is None else out.reason
    for column, fill in ((FILL, out.fill), (EXIT, out.exit)):
        if fill is not None:
            for i, leaf in enumerate((fill.traded, fill.cost, fill.fee, fill.price)):
                table[..., column + i] = leaf
    return table


def held_at_most(rows: np.ndarray) -> np.ndarray:
    """[S, N] a bound on the holding in each bar, over the equity at the last close."""
    before = np.concatenate([np.ones_like(rows[:, :1, EQUITY]), rows[:, :-1, EQUITY]], axis=1)
    after = np.abs(rows[..., EXPOSURE]) * rows[..., EQUITY] / before
    return after + np.abs(rows[..., FILL]) + np.abs(rows[..., EXIT])


def disagreements(case: Case, expected: np.ndarray, got: np.ndarray) -> dict[str, np.ndarray]:
    """Where the two differ, by what: booleans [S, N], false after the end."""

    def far(column, relative, absolute):
        a, b = expected[..., column], got[..., column]
        return ~(np.abs(a - b) <= relative * np.abs(a) + absolute)

    on = expected[..., TERMINATED] == 0  # what a closed account remembers is nobody's concern
    # What is left after a loss is known as much less well as it is smaller.
    highest = np.fmax(1.0, np.maximum.accumulate(expected[..., EQUITY], axis=1))
    left = highest / expected[..., EQUITY]
    worse = np.fmax(1.0, 0.1 * np.fmax.accumulate(left, axis=1))
    # A trade is target less holding, each known to some roundings of its own size however small the trade is.
    # A holding is rounded five times a bar: 240 roundings of at most 2^-24, mean square 0.41 of it, deviate
    # by 6.4 x 2^-24, and five deviations are 2e-6.
    rounded = 2e-6 * np.fmax(1.0, held_at_most(expected))
    # A long holding's liquidation price is known 1 / (1 - maintenance) times worse than the holding.
    called = (expected[..., REASON] == BY_LIQUIDATION) & (expected[..., EXIT] < 0)
    called = np.where(called, 2e-6 / (1.0 - case.rules["maintenance"][:, None]), 0.0)
    found = {
        "terminated": far(TERMINATED, 0, 0),
        "locked": far(LOCKED, 0, 0) & on,
        "reason": far(REASON, 0, 0),
        "equity": far(EQUITY, 1e-5 * worse + called, 0),
        "exposure": far(EXPOSURE, 2e-5 * worse, 2e-5),
        "level": far(LEVEL, 2e-5, 2e-5) & on,
    }
    for name, column in (("fill", FILL), ("exit", EXIT)):
        # What is less than its rounding has no side.
        some = np.fmax(np.abs(expected[..., column]), np.abs(got[..., column])) > rounded
        found[f"{name}: side"] = some & (np.sign(expected[..., column]) != np.sign(got[..., column]))
        found[f"{name}: traded"] = far(column, 1e-4 * worse, rounded)
        found[f"{name}: cost"] = far(column + 1, 1e-4 * worse, 2e-6)
        found[f"{name}: fee"] = far(column + 2, 1e-4 * worse, 2e-6)
        found[f"{name}: price"] = some & far(column + 3, 1e-5 + (called if column == EXIT else 0.0), 0)
    alive = ~np.isnan(expected[..., EQUITY])
    return {name: where & alive for name, where in found.items()}


def first_bad(case: Case, expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    """[S] the first bar in which the two differ; N for none."""
    bad = np.logical_or.reduce(list(disagreements(case, expected, got).values()))
    return np.where(bad.any(axis=1), bad.argmax(axis=1), bad.shape[1])


def settle(case: Case, bars: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """One sequence's rows with the near-ties turned round, one or two at a time, that bring it further."""
    flips: tuple[int, ...] = ()
    best, ties = play_all(bars, case.rules, case.orders, case.start)
    reached, found = first_bad(case, best, got)[0], True
    while found and reached < got.shape[1] and len(flips) < MAX_FLIPS - 1:
        found = False
        for more, tried, seen in turned(case, bars, flips, int(ties[0])):
            if first_bad(case, tried, got)[0] > reached:
                best, ties, flips, found = tried, seen, flips + more, True
                reached = first_bad(case, best, got)[0]
                break
    return best, flips


def turned(case: Case, bars: np.ndarray, flips: tuple[int, ...], ties: int):
    """Replays with one more near-tie turned round, then with two; (which, rows, near-ties seen) of each.

    An answer turned round may bring near-ties that were not there before, of which the second can be one.
    """

    def replay(*more):
        return more, *play_all(bars, case.rules, case.orders, case.start, flips + more)

    after = {}
    for first in range(ties, 0, -1):
        once = replay(first)
        after[first] = int(once[2][0])
        yield once
    for first, seen in after.items():
        for second in range(seen, first, -1):
            yield replay(first, second)


def compare(case: Case, bars: np.ndarray, got: np.ndarray) -> Result:
    """The oracle on `case`, against what the implementation says."""
    expected, _ = play_all(bars, case.rules, case.orders, case.start)
    adopted, failures, length = 0, [], got.shape[1]
    for s in np.flatnonzero(first_bad(case, expected, got) < length).tolist():
        rows, flips, one = expected[[s]], (), case.at(s)
        if len(failures) < ENOUGH:
            rows, flips = settle(one, bars, got[s : s + 1])
        expected[s], adopted = rows[0], adopted + len(flips)
        bar = int(first_bad(one, rows, got[s : s + 1])[0])
        if bar < length:
            named = disagreements(one, rows, got[s : s + 1]).items()
            failures.append((s, bar, [name for name, where in named if where[0, bar]]))
    return Result(expected, got, adopted, failures)


def tossed_sides(case: Case, rows: np.ndarray) -> int:
    """Orders with a price, for the very exposure at their close, that find another level when they arrive.

    Free of costs an exposure of 1 stays 1 but for rounding, which then tosses for the order's side; half of
    the tosses may differ.
    """
    asked, late = case.orders[:, :-2], case.rules["latency"].astype(int)[:, None]
    start = case.start[1][:, None]
    before = np.concatenate([start, rows[:, :-1, EXPOSURE]], axis=1)
    step = np.arange(rows.shape[1])[None] + late
    level = np.concatenate([start, rows[..., LEVEL]], axis=1)
    found = np.take_along_axis(level, np.minimum(step, rows.shape[1]), axis=1)
    same = np.abs(asked["level"] - before) <= NEAR * np.fmax(1.0, np.abs(before))
    return int(((asked["kind"] != MARKET) & same & (late > 0) & (found != asked["level"])).sum())


def told(names: Iterable[str], numbers: np.ndarray | np.void) -> dict[str, float]:
    """Names and numbers, without the zeros."""
    named = zip(names, numbers.tolist(), strict=False)
    return {name: float(f"{number:.7g}") for name, number in named if number}


def describe(case: Case, bars: np.ndarray, result: Result) -> str:
    """The first disagreement, told so that it can be played by hand."""
    s, k, names = result.failures[0]
    first = int(case.start[0][s]) + 1
    given = {name: x for name, x in told(RULES.names or (), case.rules[s]).items() if x != NEUTRAL[name]}
    lines = [f"{len(result.failures)} sequences differ; first {s}, step {k}: {names}", f"rules {given}"]
    for step in range(max(0, k - 2), k + 1):
        bar = told(BAR.names or (), bars[first + step])
        lines.append(f"step {step}: close[t] {bars['close'][first + step - 1]:.7g}, bar {bar}")
        lines.append(f"  order {told(ASKED, case.orders[s, step])}")
        lines.append(f"  expected {told(TOLD, result.expected[s, step])}")
        lines.append(f"  got {told(TOLD, result.got[s, step])}")
    return "\n".join(lines)


def assert_closes(rows: np.ndarray, alive: np.ndarray) -> None:
    """Fails where the oracle's equity is not what it started with and has earned since.

    Money is rounded at the size of cash and holding, which may be large when what is left of the equity is
    small: some sixteen times a bar, by at most 2^-53 of it.
    """
    earned = 1.0 + np.cumsum(rows[..., PROFIT], axis=1)
    before = np.concatenate([np.ones_like(rows[:, :1, EQUITY]), rows[:, :-1, EQUITY]], axis=1)
    money = before + rows[..., EQUITY] + 2.0 * held_at_most(rows) * before
    rounded = 16 * 2.0**-53 * np.cumsum(money, axis=1)
    off = np.abs(earned - rows[..., EQUITY]) / rounded
    assert (off[alive] <= 1.0).all(), f"equity is off by {off[alive].max():.3g} times what rounding explains"


def check(case: Case, table: np.ndarray) -> Result:
    """Play `case` both ways; fails where they differ, or where either account does not close."""
    bars = neutral_bars(table, case.parts)
    account, lock, out = simulate(case, bars)
    result = compare(case, bars, tabulate(account, lock, out))
    assert not result.failures, describe(case, bars, result)
    alive = ~np.isnan(result.expected[..., EQUITY])
    most = 5e-4 * alive.sum() + 2 + 0.5 * tossed_sides(case, result.expected)
    assert result.adopted <= most, f"{result.adopted} near-ties in {alive.sum()} bars, at most {most:.0f}"
    assert_closes(result.expected, alive)
    growth = np.cumsum(np.log1p(account.gain.astype(np.float64)), axis=1)
    np.testing.assert_allclose(account.log_equity[alive], growth[alive], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(out.reward[alive], np.log1p(account.gain)[alive], rtol=1e-5, atol=1e-7)
    return result
