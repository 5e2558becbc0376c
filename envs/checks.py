"""Whether parameters have what they and the environment need; structure only, so nothing is computed."""

from envs.types import Actions, EnvParams


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
    if params.limits is not None and not guarded:
        findings.append("limits are given: make the environment with guarded=True")
    if params.latency is not None and max_latency == 0:
        findings.append("latency is given: make the environment with the largest one as max_latency")
    if findings:
        raise ValueError("; ".join(findings))
