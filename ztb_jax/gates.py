"""Gates: reductions over what a run tells that can stop it before a bad update is kept.

Those inside the training window read the metrics of every update and are part of its program; those between
windows read `facts` of the process and of the validation, and are jitted by the host. A number that is NaN
is unknown: `finite` alone judges it, every other gate passes it over. `docs/reference/gates.md` lists them.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ztb_jax.learner import Learner
from ztb_jax.verdicts import (
    BEHIND_BUY_AND_HOLD,
    BELOW_BASELINE,
    DRAWDOWN,
    ENTROPY_COLLAPSE,
    FALLING_REWARD,
    HEALTHY,
    HOLD_COLLAPSE,
    KL_RUNAWAY,
    MEMORY,
    NOT_FINITE,
    OVERFIT,
    OVERPAID,
    OVERTRADING,
    REPEATED_STEPS,
    SLOW_RESUME,
    UNDERPAID,
    VERDICTS,
)


def reason(code: int) -> str:
    """The sentence of a failure's code."""
    return VERDICTS[code].sentence


def remedy(code: int) -> str:
    """What to change after a failure of this code."""
    return VERDICTS[code].remedy


class Gate(NamedTuple):
    """A gate.

    Attributes:
      init: () -> state.
      update: (state, metrics) -> (state, verdict [] int32), 0 while healthy.
    """

    init: Callable[[], Any]
    update: Callable[[Any, Mapping[str, Any]], tuple[Any, jax.Array]]


class Gated(struct.PyTreeNode):
    """A learner's state behind a gate.

    Attributes:
      learner: the state of the last update that the gate let pass.
      gate: the gate's own state, after that update.
      verdict: [] int32, 0 or the code of the first failure; it stays.
    """

    learner: Any
    gate: Any
    verdict: jax.Array


def gated(learner: Learner, gate: Gate) -> Learner:
    """`learner` that freezes before the first update that `gate` refuses; metrics gain `verdict`.

    A healthy gate changes no bit of the learner's state.
    """

    def init(key, data):
        return Gated(learner=learner.init(key, data), gate=gate.init(), verdict=jnp.int32(HEALTHY))

    def step(state, data):
        proposed, metrics = learner.step(state.learner, data)
        told, verdict = gate.update(state.gate, metrics)
        verdict = jnp.where(state.verdict == HEALTHY, verdict, state.verdict)
        keep = verdict == HEALTHY
        kept, told = jax.lax.cond(keep, lambda: (proposed, told), lambda: (state.learner, state.gate))
        return Gated(kept, told, verdict), metrics | {"verdict": verdict}

    return learner._replace(init=init, step=step, params=lambda state: learner.params(state.learner))


def all_of(*gates: Gate) -> Gate:
    """Healthy while all of `gates` are; of several that trip at once the first one's code is told."""

    def update(states, metrics):
        told = [gate.update(state, metrics) for gate, state in zip(gates, states, strict=True)]
        verdict = jnp.int32(HEALTHY)
        for _, one in reversed(told):
            verdict = jnp.where(one == HEALTHY, verdict, one)
        return tuple(state for state, _ in told), verdict

    return Gate(init=lambda: tuple(gate.init() for gate in gates), update=update)


def finite(*names: str) -> Gate:
    """Trips with `NOT_FINITE` when one of the named metrics is NaN or infinite."""

    def update(state, metrics):
        healthy = functools.reduce(jnp.logical_and, [jnp.isfinite(metrics[name]) for name in names])
        return state, _verdict(~healthy, NOT_FINITE)

    return Gate(init=lambda: (), update=update)


def kl(limit: float, *, patience: int = 8) -> Gate:
    """Trips with `KL_RUNAWAY` when `kl` was above `limit` [nats] for `patience` updates running."""
    return _running(KL_RUNAWAY, "kl", lambda value: value > limit, patience=patience)


def entropy(least: float, *, patience: int = 8) -> Gate:
    """Trips with `ENTROPY_COLLAPSE` when `entropy` was below `least` [nats] for `patience` updates running.

    That of a continuous head is a density's, which may be negative.
    """
    return _running(ENTROPY_COLLAPSE, "entropy", lambda value: value < least, patience=patience)


def turnover(least: float | None = None, most: float | None = None, *, patience: int = 8) -> Gate:
    """Trips with `HOLD_COLLAPSE` or `OVERTRADING` when `turnover` was beyond a bound for `patience` updates.

    Args:
      least: notional traded over equity, a mean of accounts and bars; None has no bound.
      most: likewise.
      patience: updates running.

    Raises:
      ValueError: bounds that nothing lies between.
    """
    return _within("turnover", least, most, patience)


def trades(least: float | None = None, most: float | None = None, *, patience: int = 8) -> Gate:
    """As `turnover`, of `trades`: fills of a bar and account, up to 1, or 2 where orders protect."""
    return _within("trades", least, most, patience)


def _within(name: str, least: float | None, most: float | None, patience: int) -> Gate:
    if least is not None and most is not None and least > most:
        raise ValueError(f"{name} cannot be at least {least} and at most {most}: swap the bounds")
    parts = []
    if least is not None:
        parts.append(_running(HOLD_COLLAPSE, name, lambda value: value < least, patience=patience))
    if most is not None:
        parts.append(_running(OVERTRADING, name, lambda value: value > most, patience=patience))
    return all_of(*parts)


SLACK = 0.01  # sums of float32 over 10^7 accounts lose less
TRACE = 1e-6  # turnover of a bar that is rounding: of what is held, when an account is told to hold it


def fees(least: float, most: float | None = None) -> Gate:
    """Trips with `UNDERPAID` or `OVERPAID` where `cost` is not `least` to `most` times `turnover`.

    Each is widened by 1 %, and turnover by a millionth of the equity a bar, for the rounding of float32.

    Args:
      least: cost of trading a notional of 1, spread, slippage and fee, of the cheapest fill.
      most: of the dearest; None has no bound.
    """

    def update(state, metrics):
        cost, traded = metrics["cost"], metrics["turnover"]
        verdict = _verdict(cost < least * ((1.0 - SLACK) * traded - TRACE), UNDERPAID)
        if most is not None:
            over = cost > most * ((1.0 + SLACK) * traded + TRACE)
            verdict = jnp.where(over, jnp.int32(OVERPAID), verdict)
        return state, verdict

    return Gate(init=lambda: (), update=update)


FEWEST_SAMPLES = 30  # before them a slope's standard error is too uncertain to be a measure


class Trend(struct.PyTreeNode):
    """Moments of the values v so far and their numbers i = 0, 1, …, about their means.

    Attributes:
      seen: [] int32, updates, those before the first value among them.
      count: [] int32, values.
      high: [3] float32, the mean of v, sum (i - mean i) (v - mean v), and sum (v - mean v)^2.
      low: [3] float32, what float32 leaves out of `high`.
    """

    seen: jax.Array
    count: jax.Array
    high: jax.Array
    low: jax.Array


def falling_reward(
    *, env_steps: int, after_steps: int = 300_000, z: float = 5.0, name: str = "reward"
) -> Gate:
    """Trips with `FALLING_REWARD` where the metric's least-squares slope is significantly below 0.

    The slope is against the number of the sample, an update, from the first on that ends at step
    `after_steps` or later. It must be below 0 by more than `z` of its own standard errors, and of at least
    30 samples; with a `z` of 0 any slope below 0 will do, as in `training.eval_gates.reward_trend`. It is
    right at 10^7 samples and more: sums are about the means, and in pairs of float32.

    Args:
      env_steps: in one update.
      after_steps: environment steps.
      z: standard errors, as if rewards of successive updates were independent. A look after every update
        sees further than a single one: 3 stops one plateau in ten within 10^4 updates, 5 none of 2,000.
      name: of the metric.

    Raises:
      ValueError: a negative z, or an update of no step.

    Source: Welford 1962, https://doi.org/10.1080/00401706.1962.10490022; two-sum, Knuth, TAOCP 2, 4.2.2.
    """
    if z < 0.0 or env_steps < 1:
        raise ValueError(f"z ({z}) must be at least 0 and env_steps ({env_steps}) at least 1")
    before = max(-(-after_steps // env_steps) - 1, 0)

    def init():
        nothing = jnp.zeros(3, jnp.float32)
        return Trend(jnp.int32(0), jnp.int32(0), nothing, nothing)

    def update(trend, metrics):
        value = metrics[name]
        taken = (trend.seen >= before) & jnp.isfinite(value)
        high, low = _with_value(trend, value)
        trend = Trend(
            seen=trend.seen + 1,
            count=trend.count + taken.astype(jnp.int32),
            high=jnp.where(taken, high, trend.high),
            low=jnp.where(taken, low, trend.low),
        )
        return trend, _verdict(_falls(trend, z), FALLING_REWARD)

    return Gate(init, update)


def _with_value(trend: Trend, value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`high` and `low` with one more value.

    Added to them is what they grow by, a float32; its own rounding is as small a part of it as that of the
    values. Whatever a sum in float32 would drop of it stays in `low`.
    """
    n = trend.count.astype(jnp.float32)
    off = (value - trend.high[0]) - trend.low[0]
    added = jnp.stack([off / (n + 1.0), off * (0.5 * n), off * off * (n / (n + 1.0))])
    total = trend.high + added
    part = total - trend.high
    lost = ((trend.high - (total - part)) + (added - part)) + trend.low
    high = total + lost
    return high, lost - (high - total)


def _falls(trend: Trend, z: float) -> jax.Array:
    """[] bool: t = r sqrt((n - 2) / (1 - r^2)) < -z, with r the correlation of values and numbers."""
    n = trend.count.astype(jnp.float32)
    _, product, square = trend.high
    if z == 0.0:
        return product < 0.0
    # Root by root: their product overflows for large rewards.
    r = product / jnp.sqrt(n * (n * n - 1.0) / 12.0) / jnp.sqrt(square)
    significant = (n - 2.0) * r * r > z * z * (1.0 - r * r)
    return (trend.count >= FEWEST_SAMPLES) & (product < 0.0) & significant


# What the host tells between windows; growth is the mean log return per bar.
FACTS = (
    "rss_gb",
    "resume_seconds",
    "repeated_steps",
    "validation",
    "validation_drawdown",
    "train",
    "buy_and_hold",
)


def facts(**known: float | None) -> dict[str, np.float32]:
    """Every one of `FACTS` as the gates between windows read them; what is not given, or None, is NaN.

    Args:
      known: rss_gb, GiB that the process holds; resume_seconds, of the resume that the run began with;
        repeated_steps, global steps that were counted before; validation, train and buy_and_hold, log growth
        per bar, the last one of the validation slice; validation_drawdown, share of the highest equity.

    Raises:
      ValueError: a name that is no fact.
    """
    if unknown := sorted(set(known) - set(FACTS)):
        raise ValueError(f"{', '.join(unknown)} is no fact: there are {', '.join(FACTS)}")
    given = {name: value for name, value in known.items() if value is not None}
    return {name: np.float32(given.get(name, np.nan)) for name in FACTS}


def memory(limit_gb: float) -> Gate:
    """Trips with `MEMORY` when the process holds `limit_gb` GiB or more."""
    return _running(MEMORY, "rss_gb", lambda held: held >= limit_gb)


def resume_time(limit_s: float = 30.0) -> Gate:
    """Trips with `SLOW_RESUME` when a resume took `limit_s` seconds or more."""
    return _running(SLOW_RESUME, "resume_seconds", lambda took: (took < 0.0) | (took >= limit_s))


def no_repeated_steps() -> Gate:
    """Trips with `REPEATED_STEPS` when a global step was counted twice."""
    return _running(REPEATED_STEPS, "repeated_steps", lambda count: count > 0.0)


def above_baseline(baseline: float = 0.0, *, patience: int = 1) -> Gate:
    """Trips with `BELOW_BASELINE` when `validation` stayed at or below `baseline` for `patience` windows."""
    return _running(BELOW_BASELINE, "validation", lambda growth: growth <= baseline, patience=patience)


def drawdown(most: float, *, patience: int = 1) -> Gate:
    """Trips with `DRAWDOWN` when `validation_drawdown` was above `most` for `patience` windows running."""
    return _running(DRAWDOWN, "validation_drawdown", lambda share: share > most, patience=patience)


def behind_buy_and_hold(most: float, *, patience: int = 1) -> Gate:
    """Trips with `BEHIND_BUY_AND_HOLD` when `buy_and_hold` less `validation` was above `most`, likewise."""
    return _running(
        BEHIND_BUY_AND_HOLD, ("buy_and_hold", "validation"), lambda far: far > most, patience=patience
    )


def gap(most: float, *, patience: int = 1) -> Gate:
    """Trips with `OVERFIT` when `train` less `validation` was above `most`, likewise."""
    return _running(OVERFIT, ("train", "validation"), lambda far: far > most, patience=patience)


def _running(
    code: int,
    name: str | tuple[str, str],
    fails: Callable[[jax.Array], jax.Array],
    *,
    patience: int = 1,
) -> Gate:
    """Trips with `code` when a number, or one of two less the other, fails `patience` times running."""
    if patience < 1:
        raise ValueError(f"patience must be at least 1, got {patience}")

    def update(count, metrics):
        value = metrics[name] if isinstance(name, str) else metrics[name[0]] - metrics[name[1]]
        failed = fails(value)  # which no NaN does
        count = jnp.where(failed, count + 1, jnp.where(jnp.isnan(value), count, 0))
        return count, _verdict(failed & (count >= patience), code)

    return Gate(init=lambda: jnp.int32(0), update=update)


def _verdict(failed: jax.Array, code: int) -> jax.Array:
    return jnp.where(failed, jnp.int32(code), jnp.int32(HEALTHY))
