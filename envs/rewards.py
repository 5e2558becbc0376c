"""Reward terms: pure functions of the account before and after a step, and their weighted sums.

A `Reward` is an (init, value) pair: `init()` is its memory, `value(memory, played)` gives the memory and the
reward. Terms that remember nothing carry an empty memory. All rewards are [] float32, and every return in
them is net of costs, which are therefore counted once.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Played(NamedTuple):
    """What a reward is made of.

    Attributes:
      before: the account at the last close; it has log_equity [] and exposure [] (or [A] in a portfolio).
      after: the account now; gain [] is the simple net return of the bar.
      cost: [] float32, spread, slippage and fees of the bar over the equity before.
      turnover: [] float32, absolute notional traded over the equity before.
      value_at_risk: [] float32, of the holding after, as a share of equity; None where it is not measured.
    """

    before: Any
    after: Any
    cost: jax.Array
    turnover: jax.Array
    value_at_risk: jax.Array | None = None


class Reward(NamedTuple):
    """A reward with memory.

    Attributes:
      init: () -> memory.
      value: (memory, played) -> (memory, reward [] float32).
    """

    init: Callable[[], Any]
    value: Callable[[Any, Played], tuple[Any, jax.Array]]


class Moments(NamedTuple):
    """Exponential means [] of a return and of its square, or of its squared losses."""

    first: jax.Array
    second: jax.Array


def _memoryless(value: Callable[[Played], jax.Array]) -> Reward:
    return Reward(init=lambda: (), value=lambda memory, played: (memory, value(played)))


def _no_moments() -> Moments:
    return Moments(jnp.float32(0), jnp.float32(0))


def log_return() -> Reward:
    """log(equity after / equity before): adds up to the log growth of the episode."""
    return _memoryless(lambda played: jnp.log1p(played.after.gain))


def pnl() -> Reward:
    """Profit over the starting equity: adds up to the simple return of the episode."""
    return _memoryless(lambda played: jnp.exp(played.before.log_equity) * played.after.gain)


def turnover() -> Reward:
    """Minus the notional traded over equity."""
    return _memoryless(lambda played: -played.turnover)


def cost() -> Reward:
    """Minus the costs paid over equity, on top of their share in the return."""
    return _memoryless(lambda played: -played.cost)


def value_at_risk(*, limit: float = 0.02) -> Reward:
    """Minus what the value at risk exceeds `limit` by; only where the environment measures it."""

    def value(played):
        if played.value_at_risk is None:
            raise ValueError("this environment measures no value at risk: use it with envs.portfolio")
        return -jnp.maximum(played.value_at_risk - limit, 0.0)

    return _memoryless(value)


def concentration() -> Reward:
    """Minus the Herfindahl index of absolute weights: 1 for one holding, 1/A for A equal ones, 0 flat."""
    return _memoryless(lambda played: -_herfindahl(played.after.exposure))


def diversification() -> Reward:
    """1 - Herfindahl index of absolute weights where anything is held, else 0."""
    return _memoryless(lambda played: _spread(played.after.exposure))


def downside(*, hurdle: float = 0.0) -> Reward:
    """Minus half the squared shortfall of the return below `hurdle`: a risk-averse account's second order."""
    return _memoryless(lambda played: -0.5 * jnp.minimum(played.after.gain - hurdle, 0.0) ** 2)


def drawdown(*, limit: float = 0.0) -> Reward:
    """Minus what the depth under the highest equity since the start exceeds `limit` by, as a fraction."""

    def value(peak, played):
        peak = jnp.maximum(peak, played.after.log_equity)
        depth = -jnp.expm1(played.after.log_equity - peak)
        return peak, -jnp.maximum(depth - limit, 0.0)

    return Reward(init=lambda: jnp.float32(0), value=value)


def differential_sharpe(*, decay: float = 0.01, deviation: float = 1e-3) -> Reward:
    """How much the return moves an exponential Sharpe ratio: (B dA - A dB / 2) / (B - A^2)^(3/2).

    A and B are exponential means of the return and its square, dA = R - A, dB = R^2 - B. It is 0 while the
    variance B - A^2 is at most `decay * deviation**2`, what one ordinary bar leaves in it: with less, the
    first bars of an episode would be divided by next to nothing.

    Args:
      decay: weight of the newest return.
      deviation: of an ordinary bar's return at full size. Where it is not the market's own, the ratio stays 0
        or starts huge.

    Source: Moody and Saffell 2001, Learning to trade via direct reinforcement.
    """

    def value(memory, played):
        gain = played.after.gain
        first, second = gain - memory.first, gain**2 - memory.second
        variance = memory.second - memory.first**2
        known = variance > decay * deviation**2
        ratio = (memory.second * first - 0.5 * memory.first * second) / jnp.where(known, variance, 1.0) ** 1.5
        moved = Moments(memory.first + decay * first, memory.second + decay * second)
        return moved, jnp.where(known, ratio, 0.0)

    return Reward(init=_no_moments, value=value)


def differential_sortino(*, decay: float = 0.01, deviation: float = 1e-3) -> Reward:
    """How much the return moves an exponential downside-deviation ratio.

    With A the mean return and D^2 the mean squared loss: (R - A/2) / D for a gain, and
    (D^2 (R - A/2) - A R^2 / 2) / D^3 for a loss. It is 0 while D^2 is at most `decay * deviation**2`.

    Args:
      decay: weight of the newest return.
      deviation: of an ordinary bar's return at full size, as in `differential_sharpe`.

    Source: Moody and Saffell 2001, equation for the differential downside deviation ratio.
    """

    def value(memory, played):
        gain = played.after.gain
        loss = jnp.minimum(gain, 0.0)
        known = memory.second > decay * deviation**2
        square = jnp.where(known, memory.second, 1.0)
        ratio = (square * (gain - 0.5 * memory.first) - 0.5 * memory.first * loss**2) / square**1.5
        moved = Moments(
            memory.first + decay * (gain - memory.first), memory.second + decay * (loss**2 - memory.second)
        )
        return moved, jnp.where(known, ratio, 0.0)

    return Reward(init=_no_moments, value=value)


def sharpe_shortfall(
    *, target: float, bars_per_year: float, risk_free_rate: float = 0.0, decay: float = 0.01
) -> Reward:
    """Minus the mean return that is missing to an annual Sharpe ratio of `target`, per bar.

    max(0, target x deviation / sqrt(bars_per_year) + risk_free_rate / bars_per_year - mean), over exponential
    moments.
    """

    def value(memory, played):
        gain = played.after.gain
        mean = memory.first + decay * (gain - memory.first)
        square = memory.second + decay * (gain**2 - memory.second)
        deviation = jnp.sqrt(jnp.maximum(square - mean**2, 0.0))
        needed = target * deviation / bars_per_year**0.5 + risk_free_rate / bars_per_year
        return Moments(mean, square), -jnp.maximum(needed - mean, 0.0)

    return Reward(init=_no_moments, value=value)


def weighted(terms: Mapping[str, tuple[float, Reward]]) -> Reward:
    """The sum of weight x term; terms of weight 0 are left out.

    Raises:
      ValueError: no term is left.
    """
    kept = {name: (weight, term) for name, (weight, term) in terms.items() if weight != 0.0}
    if not kept:
        raise ValueError("a reward needs at least one term whose weight is not 0")

    def value(memory, played):
        total, after = jnp.float32(0), {}
        for name, (weight, term) in kept.items():
            after[name], part = term.value(memory[name], played)
            total += weight * part
        return after, total

    return Reward(init=lambda: {name: term.init() for name, (_, term) in kept.items()}, value=value)


def risk_adjusted(
    *,
    bars_per_year: float,
    risk_penalty_weight: float = 1.0,
    transaction_cost_weight: float = 1.0,
    diversification_bonus_weight: float = 0.5,
    sharpe_target: float = 2.0,
    max_drawdown_target: float = 0.15,
    risk_free_rate: float = 0.02,
    downside_volatility_weight: float = 1.0,
) -> Reward:
    """Log growth less penalties for risk, in units of a bar's return.

    log return
    - (transaction_cost_weight - 1) x costs, which the return has paid once already
    - risk_penalty_weight x (Sharpe shortfall + depth beyond max_drawdown_target / bars_per_year)
    - downside_volatility_weight x squared shortfall below the risk-free return / 2
    + diversification_bonus_weight x (1 - Herfindahl) / bars_per_year

    Args:
      bars_per_year: of the instrument's own calendar; annual rates become rates of a bar by it.
      risk_penalty_weight: of missing Sharpe and excess drawdown.
      transaction_cost_weight: 1 counts costs once.
      diversification_bonus_weight: of a spread book; a single instrument never earns it.
      sharpe_target: annual.
      max_drawdown_target: depth that is free of charge.
      risk_free_rate: annual.
      downside_volatility_weight: of losses.
    """
    shortfall = sharpe_shortfall(
        target=sharpe_target, bars_per_year=bars_per_year, risk_free_rate=risk_free_rate
    )
    return weighted(
        {
            "growth": (1.0, log_return()),
            "cost": (transaction_cost_weight - 1.0, cost()),
            "sharpe": (risk_penalty_weight, shortfall),
            "drawdown": (risk_penalty_weight / bars_per_year, drawdown(limit=max_drawdown_target)),
            "downside": (downside_volatility_weight, downside(hurdle=risk_free_rate / bars_per_year)),
            "diversification": (diversification_bonus_weight / bars_per_year, diversification()),
        }
    )


def _herfindahl(exposure: jax.Array) -> jax.Array:
    """[] sum of squared shares of the absolute exposures [] or [A]; 0 for a flat account."""
    sizes = jnp.abs(jnp.atleast_1d(exposure))
    gross = sizes.sum()
    return jnp.where(gross > 0, (sizes**2).sum() / jnp.where(gross > 0, gross, 1.0) ** 2, 0.0)


def _spread(exposure: jax.Array) -> jax.Array:
    held = jnp.abs(jnp.atleast_1d(exposure)).sum() > 0
    return jnp.where(held, 1.0 - _herfindahl(exposure), 0.0)
