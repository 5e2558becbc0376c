"""A policy under other costs, late orders, worse fills and shaken weights: variants of one backtest.

Each variant is a pair of weights and `EnvParams`, and one program plays all of them side by side. Bars are
shared; what the bars mean to the policy is worked out once for each set of weights. How to read the result:
`docs/reference/stress.md`.

Axes: V variants, W sets of weights (the policy's own and K jittered ones), N steps, T bars.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from envs.types import Costs, Env, EnvParams, Market
from ztb_jax.data.market import MarketData
from ztb_jax.evaluation import compare, significance
from ztb_jax.evaluation.backtest import Trace, axes_of, contexts_of, play_policy
from ztb_jax.policies.moments import Moments
from ztb_jax.policies.policy import Policy, check_actions

BASIS_POINT = 1e-4
BELOW_ONE = np.nextafter(
    np.float32(1.0), np.float32(0.0)
)  # a cost of all the notional is none that can be paid
SHARES = ("fee_rate", "half_spread", "slippage", "maker_rate")  # costs that are fractions of the notional
SUMMARY = ("total_return", "sharpe", "max_drawdown", "num_trades")


class Variant(NamedTuple):
    """What differs from the plain backtest.

    Attributes:
      name: unique.
      costs: what every cost of a trade is multiplied by.
      latency: bars that an order arrives later.
      slippage: further adverse distance of every fill, in basis points of the price.
      weights: 0 for the policy's own, k for its k-th jittered copy.
    """

    name: str
    costs: float = 1.0
    latency: int = 0
    slippage: float = 0.0
    weights: int = 0


class Stress(NamedTuple):
    """A policy's stress test.

    Attributes:
      variants: V, in the order of the trace's first axis.
      run: (params, data, key) -> Trace with leaves [V, N]. The key [], typed, draws the jitter.
    """

    variants: tuple[Variant, ...]
    run: Callable[[Any, MarketData, jax.Array], Trace]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the variants."""
        return tuple(variant.name for variant in self.variants)


def make_stress(
    policy: Policy,
    env: Env,
    *,
    costs: Sequence[float] = (0.0, 1.0, 2.0, 5.0),
    latency: Sequence[int] = (1, 2),
    slippage: Sequence[float] = (5.0, 10.0),
    draws: int = 8,
    jitter: float = 0.02,
) -> Stress:
    """The variants of a policy, and one jitted function that plays them all.

    costs_x0, costs_x1, …: every cost of a trade times that, as `scaled_costs` has it.
    latency_plus_1, …: every order so many bars later than the slice's own latency.
    slippage_plus_5bp, …: every fill so much worse.
    jitter_1, …: every weight times 1 + jitter ε, as `jittered` has it.

    Whatever differs, the policy decides by the account that it then has. With costs_x1 it is the plain
    backtest (`make_policy_backtest`), to rounding.

    Args:
      policy: the network.
      env: the rules of its training, with room for the latest orders: of `make_single(max_latency=)` or
        `build.make_environment(extra_latency=)`. An account does not see that room.
      costs: distinct multiples from 0 on.
      latency: distinct numbers of bars from 1 on, beyond the slice's own.
      slippage: distinct basis points above 0.
      draws: K, jittered copies of the weights.
      jitter: size of the noise on them, 0 or more.

    Raises:
      ValueError: a number out of its range or given twice, no variant at all, too little room, or a policy
        with other actions; all findings about numbers at once. When called: data of another lookback, or
        whose own latency leaves too little room.
    """
    check_actions(policy, env)
    wrong = _findings(costs, latency, slippage, draws=draws, jitter=jitter, room=env.max_latency)
    variants = _variants(costs, latency, slippage, draws)
    if len({variant.name for variant in variants}) < len(variants) or not variants:
        wrong.append("there must be a variant, and none twice")
    if wrong:
        raise ValueError("; ".join(wrong))
    copies = np.asarray([variant.weights for variant in variants])

    def play_all(params: Any, data: MarketData, key: jax.Array) -> Trace:
        weights = jax.tree.map(lambda leaf: leaf[None], params)
        if draws:
            shaken = jax.vmap(lambda each: jittered(each, params, size=jitter))(jax.random.split(key, draws))
            weights = jax.tree.map(lambda own, more: jnp.concatenate([own, more]), weights, shaken)
        contexts = jax.vmap(lambda each: contexts_of(policy, each, data))(weights)  # [W, N, D]
        conditions, axes = _conditions(variants, data.env_params, delays=env.max_latency > 0)

        def play(copy, env_params):
            own = jax.tree.map(lambda leaf: leaf[copy], weights)
            return play_policy(
                policy,
                env,
                own,
                env_params,
                lambda n: contexts.at[copy, n].get(mode="promise_in_bounds"),
                num_steps=contexts.shape[1],
            )

        return jax.vmap(play, in_axes=(0, axes))(jnp.asarray(copies), conditions)

    program = jax.jit(play_all)

    def run(params: Any, data: MarketData, key: jax.Array) -> Trace:
        _check_room(env, data.env_params.latency, max(variant.latency for variant in variants))
        return program(params, data, key)

    return Stress(variants, run)


def summary(stress: Stress, trace: Trace, data: MarketData, *, bars_per_year: float) -> dict[str, Any]:
    """`SUMMARY` of every variant by name, as `metrics.summarise` has them, and `p_loss`.

    That is the one-sided p-value of a mean return below zero; small ones say that the variant loses. All of a
    variant are None where its equity would be beyond any number, as it may be without costs.

    Args:
      stress: whose variants.
      trace: of `stress.run`, leaves [V, N].
      data: the slice.
      bars_per_year: of the instrument's own calendar.
    """
    trace, (gap, _) = jax.device_get(trace), compare.bars_of(data)
    growth = np.log1p(np.asarray(trace.gain, np.float64)).sum(axis=1)
    told = {}
    for place, name in enumerate(stress.names):
        if growth[place] > compare.LARGEST_LOG_GROWTH:
            told[name] = dict.fromkeys((*SUMMARY, "p_loss"))
            continue
        account = compare.account_of(variant_of(trace, place), gap)
        numbers = compare.summarise(account, bars_per_year)
        lost = significance.mean_test(-np.asarray(trace.gain[place], np.float64)).p_value
        told[name] = {metric: numbers[metric] for metric in SUMMARY} | {"p_loss": lost}
    return told


def variant_of(trace: Trace, place: int) -> Trace:
    """The trace [N] of one variant out of [V, N]."""
    return jax.tree.map(lambda leaf: leaf[place], trace)


def breakeven_cost(returns_at_costs: Mapping[float, float]) -> float | None:
    """The multiple of all costs at which the profit is gone.

    Log growth is taken to be linear between neighbouring multiples, as it nearly is where a policy trades
    alike. The answer is the lowest multiple at which it falls to 0 from above; None where there is none: no
    profit at the lowest multiple, or still one at the highest.

    Args:
      returns_at_costs: total return by multiple, at least two.

    Raises:
      ValueError: fewer than two, a multiple below 0, or a return that is not finite or below -1.
    """
    points = sorted(returns_at_costs.items())
    wrong = [
        f"×{multiple} returns {value}"
        for multiple, value in points
        if not (0.0 <= multiple < math.inf and -1.0 <= value < math.inf)
    ]
    if wrong or len(points) < 2:
        raise ValueError(
            f"{len(points)} multiples of costs{''.join(f', {each}' for each in wrong)}: give at least two "
            "multiples from 0 on, and total returns as fractions from -1 on."
        )
    growth = [(multiple, -math.inf if value == -1.0 else math.log1p(value)) for multiple, value in points]
    for (low, above), (high, below) in pairwise(growth):
        if above > 0.0 >= below:
            return low + (high - low) * above / (above - below)
    return None


def scaled_costs(costs: Costs, multiple: jax.Array) -> Costs:
    """`costs` with every price of a trade times `multiple`: fee, spread, slippage, impact, minimum, per lot.

    Fractions of the notional stay below 1. A volume cap is no price and stays, and so do interest, funding
    and a liquidation's penalty, which are no costs of a trade that was chosen.

    Args:
      costs: leaves [].
      multiple: [...], 0 or more.

    Returns:
      Costs with leaves [...].
    """

    def times(name: str, cost: jax.Array | None) -> Any:
        if cost is None:
            return None
        if name == "volume_cap":
            return jnp.broadcast_to(cost, multiple.shape)
        return jnp.minimum(cost * multiple, BELOW_ONE) if name in SHARES else cost * multiple

    return Costs(**{name: times(name, cost) for name, cost in vars(costs).items()})


def jittered(key: jax.Array, params: Any, *, size: float) -> Any:
    """Every weight times 1 + size ε, ε standard normal and of its own; whole numbers and statistics stay.

    Statistics are the running moments of `policies.moments`: measurements, not weights.

    Args:
      key: [] typed key.
      params: weights.
      size: 0 changes nothing.
    """
    leaves, structure = jax.tree.flatten(params, is_leaf=lambda node: isinstance(node, Moments))
    moves = [not isinstance(leaf, Moments) and jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    ends = np.cumsum([leaf.size for leaf, yes in zip(leaves, moves, strict=True) if yes])
    # One draw for all of them: every call to the generator is a loop of its own to compile.
    noise = iter(jnp.split(jax.random.normal(key, (int(ends[-1]) if ends.size else 0,)), ends[:-1]))
    return jax.tree.unflatten(
        structure,
        [
            (leaf * (1.0 + size * next(noise).reshape(leaf.shape))).astype(leaf.dtype) if yes else leaf
            for leaf, yes in zip(leaves, moves, strict=True)
        ],
    )


def delayed(params: EnvParams, bars: ArrayLike) -> EnvParams:
    """`params` with a latency of `bars` beyond its own, which is 0 where there is none."""
    own = jnp.int32(0) if params.latency is None else params.latency
    return params.replace(latency=own + jnp.asarray(bars, jnp.int32))


def _conditions(variants: Sequence[Variant], params: EnvParams, *, delays: bool) -> tuple[EnvParams, Any]:
    """`params` in which what differs has an axis [V], and where that axis is; the bars have none."""
    multiple, points = (
        jnp.asarray([getattr(variant, name) for variant in variants], jnp.float32)
        for name in ("costs", "slippage")
    )
    costs = scaled_costs(params.costs, multiple)
    slippage = jnp.minimum(costs.slippage + BASIS_POINT * points, BELOW_ONE)
    asked: EnvParams = params.replace(costs=costs.replace(slippage=slippage))
    parts: dict[str, Any] = {"costs": 0}
    if delays:
        asked = delayed(asked, np.asarray([variant.latency for variant in variants]))
        parts["latency"] = 0
    spread = params.market.half_spread
    if spread is not None:  # the one cost that is kept bar by bar
        wider = jnp.minimum(spread[None] * multiple[:, None], BELOW_ONE)
        asked = asked.replace(market=params.market.replace(half_spread=wider))
        parts["market"] = axes_of(Market, half_spread=0)
    return asked, axes_of(EnvParams, **parts)


def _variants(costs, latency, slippage, draws: int) -> tuple[Variant, ...]:
    return (
        *(Variant(f"costs_x{multiple:g}", costs=multiple) for multiple in costs),
        *(Variant(f"latency_plus_{bars}", latency=bars) for bars in latency),
        *(Variant(f"slippage_plus_{points:g}bp", slippage=points) for points in slippage),
        *(Variant(f"jitter_{draw}", weights=draw) for draw in range(1, draws + 1)),
    )


def _findings(costs, latency, slippage, *, draws: int, jitter: float, room: int) -> list[str]:
    ranges = {
        "costs": (costs, "0 or more", [0.0 <= multiple < math.inf for multiple in costs]),
        "latency": (
            latency,
            f"1 to the environment's max_latency ({room})",
            [1 <= n <= room for n in latency],
        ),
        "slippage": (slippage, "above 0", [0.0 < points < math.inf for points in slippage]),
        "draws": (draws, "0 or more", [draws >= 0]),
        "jitter": (jitter, "0 or more", [0.0 <= jitter < math.inf]),
    }
    return [
        f"{name} ({given}) must be {rule}" for name, (given, rule, good) in ranges.items() if not all(good)
    ]


def _check_room(env: Env, latency: jax.Array | None, latest: int) -> None:
    """Refuse data whose own latency leaves too little room, where it is known: an index would be clipped."""
    if isinstance(latency, Tracer):
        return
    own = 0 if latency is None else int(latency)
    if own + latest > env.max_latency:
        raise ValueError(
            f"orders {latest} bars later than the slice's latency of {own} need an environment made with "
            f"max_latency of at least {own + latest}, not {env.max_latency}"
        )
