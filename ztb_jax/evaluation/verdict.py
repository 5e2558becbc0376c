"""One honest sentence about what a policy did on one slice, from its metrics and its baselines'."""

from collections.abc import Mapping

Metrics = Mapping[str, float | None]

CAVEAT = "One slice is not evidence of an edge."
# Returns that agree to half a basis point are told apart by nothing a reader can see.
LEVEL = 5e-5
SAME = 1e-6
# Slices that made the policy: what it earns there says nothing about what it will.
SEEN = {"train": "the policy was trained on these bars", "validation": "the policy was chosen on these bars"}


def verdict_sentence(
    metrics_by_name: Mapping[str, Metrics], *, slice_name: str = "test", judged: bool = False
) -> str:
    """What the policy did against buy-and-hold on a slice, in plain words, net of costs.

    The first sentence says ruined, no trades, the same as buy-and-hold, beat or did not beat; remarks follow
    where a reader could be misled: a beaten baseline is no proof, a loss is still a loss, mostly flat, nearly
    buy-and-hold, worse than random.

    Args:
      metrics_by_name: `metrics.summarise` of "policy" and "buy_and_hold", and of "random" if it was run.
      slice_name: the slice that was scored.
      judged: a verdict on the edge stands beside it, so that a beaten baseline needs no warning.

    Raises:
      ValueError: "policy" or "buy_and_hold" is missing.
    """
    missing = [name for name in ("policy", "buy_and_hold") if name not in metrics_by_name]
    if missing:
        raise ValueError(f"metrics of {' and '.join(missing)} are missing: a verdict compares the two.")
    policy, market = metrics_by_name["policy"], metrics_by_name["buy_and_hold"]
    where = f"the {slice_name} slice"
    if _is_ruined(policy):
        lost = _percent(-_number(policy, "total_return"), signed=False)
        return (
            f"Ruined on {where}: the account lost {lost} and was closed; "
            f"buy-and-hold made {_made(market)} net of costs."
        )
    if _number(policy, "num_trades") == 0:
        return f"Did not trade on {where}: it stayed flat, {_against(policy, market)}."
    if _same_account(policy, market):
        return (
            f"Buy-and-hold in disguise on {where}: it held the same position on every bar and made the same "
            f"{_made(policy)} net of costs."
        )
    if slice_name in SEEN:
        return (
            f"No judgement, {SEEN[slice_name]}: it made {_made(policy)} on {where} and buy-and-hold "
            f"{_made(market)} net of costs."
        )
    return " ".join([_comparison(policy, market, where, judged=judged), *_remarks(metrics_by_name)])


def _comparison(policy: Metrics, market: Metrics, where: str, *, judged: bool) -> str:
    lead = _number(policy, "total_return") - _number(market, "total_return")
    if abs(lead) < LEVEL:
        return f"Level with buy-and-hold on {where}: {_against(policy, market)}."
    if lead < 0.0:
        return f"Did not beat buy-and-hold on {where}: {_against(policy, market)}."
    beat = f"Beat buy-and-hold on {where}: {_against(policy, market)}."
    return beat if judged else f"{beat} {CAVEAT}"


def _remarks(metrics_by_name: Mapping[str, Metrics]) -> list[str]:
    policy, market = metrics_by_name["policy"], metrics_by_name["buy_and_hold"]
    made, remarks = _number(policy, "total_return"), []
    if made < -LEVEL and made > _number(market, "total_return"):
        remarks.append("It still lost money.")
    if _number(policy, "exposure") < 0.1:
        share = _percent(_number(policy, "exposure"), signed=False)
        remarks.append(f"It was mostly flat: the average exposure was {share} of equity.")
    if 0.0 < 0.95 * _number(market, "net_exposure") <= _number(policy, "net_exposure"):
        remarks.append("It was long almost all the time, close to buy-and-hold.")
    lucky = metrics_by_name.get("random")
    if lucky is not None and _number(lucky, "total_return") > made:
        remarks.append(f"A random policy did better ({_made(lucky)}).")
    return remarks


def _same_account(policy: Metrics, market: Metrics) -> bool:
    names = ("total_return", "max_drawdown", "num_trades", "exposure", "net_exposure")
    return all(abs(_number(policy, name) - _number(market, name)) <= SAME for name in names)


def _is_ruined(policy: Metrics) -> bool:
    return bool(policy.get("ruined")) or _number(policy, "total_return") <= -1.0


def _number(metrics: Metrics, name: str) -> float:
    number = metrics[name]
    if number is None:
        raise ValueError(f"{name} is undefined: a verdict needs at least one bar.")
    return number


def _made(metrics: Metrics) -> str:
    return _percent(_number(metrics, "total_return"))


def _against(policy: Metrics, market: Metrics) -> str:
    ours, theirs = _number(policy, "total_return"), _number(market, "total_return")
    digits = 1 if _percent(ours) != _percent(theirs) else 2
    return f"{_percent(ours, digits=digits)} against {_percent(theirs, digits=digits)} net of costs"


def _percent(fraction: float, *, signed: bool = True, digits: int = 1) -> str:
    text = f"{100.0 * fraction:z,.{digits}f}"
    sign = "+" if signed and text.strip("0.") and not text.startswith("-") else ""
    return f"{sign}{text} %".replace("-", "−")
