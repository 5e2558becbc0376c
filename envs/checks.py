"""Whether parameters have what they and the environment need.

Structure is looked at whenever a program is traced; numbers only where they are known, outside of any `jit`.
"""

import jax
import numpy as np

from envs.types import Actions, EnvParams, Limits


def check_params(params: EnvParams, space: Actions, *, guarded: bool, max_latency: int) -> None:
    """Refuse parameters that lack an array or a number that something else in them needs.

    Raises:
      ValueError: every finding at once.
    """
    market, costs = params.market, params.costs
    in_money = {
        "lots": params.lots,
        "costs.fee_per_lot": costs.fee_per_lot,
        "costs.fee_minimum": costs.fee_minimum,
        "costs.impact": costs.impact,
        "costs.volume_cap": costs.volume_cap,
    }
    needs = [
        (space.rests, "limit and stop orders", "market.prices"),
        (space.protects, "stops and targets", "market.prices"),
        (params.margin, "margin", "market.prices"),
        (params.lots, "lots", "market.prices"),
        (params.financing, "financing", "market.years"),
        (costs.fee_per_lot, "costs.fee_per_lot", "lots"),
        (costs.impact, "costs.impact", "market.volatility"),
        (costs.impact, "costs.impact", "market.depth"),
        (costs.volume_cap, "costs.volume_cap", "market.depth"),
        (costs.volatility_slippage, "costs.volatility_slippage", "market.volatility"),
        (guarded, "a guarded environment", "limits"),
        (max_latency > 0, "max_latency", "latency"),
        *((part, name, "capital") for name, part in in_money.items()),
    ]
    has = {
        "market.prices": market.prices,
        "market.years": market.years,
        "market.volatility": market.volatility,
        "market.depth": market.depth,
        "lots": params.lots,
        "limits": params.limits,
        "latency": params.latency,
        "capital": params.capital,
    }
    findings = [
        f"{name} needs {other}, which is None"
        for part, name, other in needs
        if part is not None and part is not False and has[other] is None
    ]
    findings += value_findings(params)
    if params.limits is not None and not guarded:
        findings.append("limits are given: make the environment with guarded=True")
    if params.latency is not None and max_latency == 0:
        findings.append("latency is given: make the environment with the largest one as max_latency")
    if params.order_bars is not None and not space.rests:
        findings.append("order_bars is given, and no order of this action space rests")
    daily = None if params.limits is None else _known(getattr(params.limits, "daily_loss", None))
    if daily is not None and (daily < 1).any() and market.new_day is None:
        findings.append("limits.daily_loss needs market.new_day, which is None; 1 is no limit of a day")
    late = _known(params.latency)
    if late is not None and max_latency and not ((late >= 0) & (late <= max_latency)).all():
        findings.append(f"latency ({params.latency}) must be from 0 to max_latency ({max_latency})")
    if findings:
        raise ValueError("; ".join(findings))


def value_findings(params: EnvParams) -> list[str]:
    """Known numbers that no environment can play by: a ruin, a life of orders or a limit out of its range."""
    findings = []
    ruin, alive = _known(params.ruin_equity), _known(params.order_bars)
    if ruin is not None and not ((ruin >= 0) & (ruin < 1)).all():
        findings.append(f"ruin_equity ({ruin}) must be at least 0 and below 1, a share of the start")
    if alive is not None and not (alive >= 1).all():
        findings.append(f"order_bars ({alive}) must be at least 1")
    # What may be lost is at most everything; a portfolio's limits are on books, which leverage makes larger.
    most, rule = (1.0, "from 0 to 1") if isinstance(params.limits, Limits) else (np.inf, "at least 0")
    for name, limit in ({} if params.limits is None else vars(params.limits)).items():
        known = _known(limit)
        if known is not None and not ((known >= 0) & (known <= most)).all():
            findings.append(f"limits.{name} ({known}) must be {rule}")
    return findings


def check_windows(params: EnvParams, *, num_bars: int, episode_bars: int) -> None:
    """Refuse a slice that is not among the bars or holds no episode, where its ends are known.

    Raises:
      ValueError: every finding at once.
    """
    findings = window_findings(params, num_bars=num_bars, episode_bars=episode_bars)
    if findings:
        raise ValueError("; ".join(findings))


def window_findings(params: EnvParams, *, num_bars: int, episode_bars: int) -> list[str]:
    """What `check_windows` refuses."""
    first, stop = _known(params.first), _known(params.stop)
    findings: list[str] = []
    if first is None or stop is None:
        return findings
    if first < 0 or stop > num_bars:
        findings.append(f"first ({first}) and stop ({stop}) must be a slice of the {num_bars} bars")
    if stop - first <= episode_bars:
        findings.append(
            f"bars {first} … {stop - 1} hold no episode of {episode_bars} steps: give more bars, or make the "
            f"environment with episode_bars of at most {stop - first - 1}"
        )
    return findings + _start_findings(params, last=int(stop) - 1 - episode_bars)


def _start_findings(params: EnvParams, *, last: int) -> list[str]:
    """What is wrong with known `starts` of windows that may begin at `last` at the latest."""
    starts, count = _known(params.starts), _known(params.num_starts)
    if params.starts is None:
        return [] if params.num_starts is None else ["num_starts is given without starts"]
    if starts is None or (count is None and params.num_starts is not None):
        return []
    if starts.ndim != 1 or starts.dtype != np.int32:
        return [f"starts must be [S] int32, got {starts.dtype} of shape {starts.shape}"]
    most = len(starts) if count is None else int(count)
    if not 1 <= most <= len(starts):
        return [f"{most} of {len(starts)} starts count: give at least one, and num_starts of no more"]
    first, used = int(np.asarray(params.first)), starts[:most]
    if used.min() < first or used.max() > last:
        return [
            f"starts ({used.min()} … {used.max()}) must be among bars {first} … {last}, the last to start at"
        ]
    return []


def check_unbroken(params: EnvParams) -> None:
    """Refuse bars that are several stretches in a row to whoever plays them from the first to the last.

    Raises:
      ValueError: `starts` are given.
    """
    if params.starts is not None:
        raise ValueError(
            "starts are given, so the bars may be several stretches in a row, which no account can be played "
            "through: play each stretch's own data"
        )


def _known(value) -> np.ndarray | None:
    """`value` as an array, or None where it is absent or a program is being traced."""
    try:
        return None if value is None else np.asarray(value)
    except jax.errors.TracerArrayConversionError:
        return None
