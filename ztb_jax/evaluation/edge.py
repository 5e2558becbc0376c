"""Edge, no edge or inconclusive: the verdict on one untouched slice, as a pure function.

The rule, why it is this one and how often it errs: `docs/explanation/verdict.md`.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ztb_jax.evaluation.metrics import sharpe
from ztb_jax.evaluation.series import FLAT_SPREAD, checked_share, checked_year, paired
from ztb_jax.evaluation.significance import alpha_test, critical_value, mean_test, sharpe_error

Label = Literal["edge", "no edge", "inconclusive"]
# A year's net Sharpe ratio that a policy must still be able to have, or it is not worth waiting for.
WORTHWHILE = 1.0
# Fewer bars are too few for a Newey-West error to mean what it says.
FEWEST_BARS = 100
POWER = 0.9


class EdgeVerdict(NamedTuple):
    """What a slice says about a policy.

    Attributes:
      label: the verdict.
      p_mean: one-sided p-value of the mean net return; to be held against alpha / M.
      p_alpha: one-sided p-value of the alpha on buy-and-hold; 1 where that is degenerate.
      sharpe: net, a year's; None where the returns do not vary.
      sharpe_upper: its upper bound; None where the returns do not vary.
      bars_needed: further bars that would decide with a probability of 90 %, should the returns go on as they
        were; 0 when decided; None when no number would, or nothing can be said.
      reasons: sentences, the deciding one first.
    """

    label: Label
    p_mean: float
    p_alpha: float
    sharpe: float | None
    sharpe_upper: float | None
    bars_needed: int | None
    reasons: tuple[str, ...]


class Evidence(NamedTuple):
    """What else was measured on the same policy; None where it was not.

    Attributes:
      deflated_sharpe: `significance.deflated_sharpe` with everything ever scored on the slice.
      bootstrap_low: lower end of `resampling.bootstrap`'s interval of the mean return.
      spa_p_value: `resampling.superior_ability`'s consistent p-value against the baselines.
      doubled_costs: total return with every cost doubled.
      latency: one-sided p-value that every order a bar late loses. What is earned in the next bar alone is
        gone by then, and no wonder; but an edge that turns into a loss is in doubt.
      controls: names of the controls (shuffled or synthetic markets without anything to find) on which the
        same training and rule found an edge, too; empty where none did.
    """

    deflated_sharpe: float | None = None
    bootstrap_low: float | None = None
    spa_p_value: float | None = None
    doubled_costs: float | None = None
    latency: float | None = None
    controls: Sequence[str] | None = None


class _Findings(NamedTuple):
    """The numbers that the rule looks at; `level` is alpha / M."""

    bars: int
    t_mean: float
    p_mean: float
    t_alpha: float
    p_alpha: float
    degenerate: bool
    sharpe: float
    error: float
    upper: float
    level: float
    critical: float


def judge_edge(
    returns: np.ndarray,
    benchmark: np.ndarray,
    *,
    trials: int,
    bars_per_year: float,
    alpha: float = 0.05,
) -> EdgeVerdict:
    """The verdict on net returns [T] of a slice that nothing was fitted to or chosen by.

    edge: p(mean > 0) and p(alpha on buy-and-hold > 0), Newey-West and one-sided, are both at most alpha / M.
    no edge: otherwise, and the upper bound of the annual net Sharpe ratio is below 1; or nothing was traded.
    inconclusive: otherwise, or fewer than a hundred bars.

    The bound is one-sided, SR + Phi^-1(1 - alpha) e, with e of `significance.sharpe_error`: the delta method
    on mean and variance (Mertens 2002), so that it knows skewness and fat tails, with a Newey-West variance,
    so that it knows autocorrelation and clusters of volatility, as the p-values do. Lo's error for normal
    returns would be too narrow where losses are rare and large. M does not widen it: calling one given
    worthwhile policy worthless happens alpha of the time at most, however many were tried beside it.

    A policy whose returns are a multiple of buy-and-hold's has no alpha to test, and is never an edge.

    Args:
      returns: [T] simple net returns per bar.
      benchmark: [T] net returns of buy-and-hold on the same bars.
      trials: M, everything ever scored on this slice: runs, seeds, configurations.
      bars_per_year: of the instrument's own calendar.
      alpha: chance of a false edge, over all M trials.

    Raises:
      ValueError: a value is not finite or out of its range, or the lengths disagree.
    """
    returns, benchmark = paired(returns, benchmark)
    years, alpha, critical = (
        checked_year(bars_per_year),
        checked_share(alpha, "alpha"),
        _critical(alpha, trials),
    )
    if returns.size and not returns.any():
        return EdgeVerdict("no edge", 1.0, 1.0, 0.0, 0.0, 0, ("It earned nothing in any bar: no trades.",))
    if returns.size < FEWEST_BARS:
        missing = FEWEST_BARS - returns.size
        why = f"{returns.size} bars are too few to judge: at least {FEWEST_BARS} are needed."
        return EdgeVerdict("inconclusive", 1.0, 1.0, None, None, missing, (why,))
    if np.std(returns) <= FLAT_SPREAD:
        why = "Its returns do not vary: there is no luck to tell apart from skill, and nothing to test."
        return EdgeVerdict("inconclusive", 1.0, 1.0, None, None, None, (why,))
    mean, against = mean_test(returns), alpha_test(returns, benchmark)
    ratio, error = sharpe(returns, years), sharpe_error(returns) * math.sqrt(years)
    found = _Findings(
        bars=returns.size,
        t_mean=mean.t,
        p_mean=mean.p_value,
        t_alpha=against.t,
        p_alpha=against.p_value,
        degenerate=against.degenerate,
        sharpe=ratio,
        error=error,
        upper=ratio + critical_value(alpha, 1) * error,
        level=alpha / trials,
        critical=critical,
    )
    label = _label(found)
    return EdgeVerdict(
        label=label,
        p_mean=found.p_mean,
        p_alpha=found.p_alpha,
        sharpe=found.sharpe,
        sharpe_upper=found.upper,
        bars_needed=_bars_needed(found, alpha) if label == "inconclusive" else 0,
        reasons=(*_tests_in_words(found), _bound_in_words(found, alpha)),
    )


def capped(verdict: EdgeVerdict, evidence: Evidence, *, alpha: float = 0.05) -> EdgeVerdict:
    """`verdict`, but at most "inconclusive" where a piece of evidence contradicts an edge.

    Evidence never lifts a verdict, and what was not measured says nothing. An undefined number (NaN) does not
    support an edge, so it contradicts.

    Args:
      verdict: of `judge_edge`.
      evidence: on the same policy and slice.
      alpha: level of the pieces that are tests.
    """
    against = contradictions(evidence, alpha=alpha)
    if verdict.label != "edge" or not against:
        return verdict
    reasons = (*against.values(), *verdict.reasons)
    return verdict._replace(label="inconclusive", bars_needed=None, reasons=reasons)


def contradictions(evidence: Evidence, *, alpha: float = 0.05) -> dict[str, str]:
    """Name of each piece of `evidence` that speaks against an edge, to a sentence; as `capped` takes them."""
    alpha, found = checked_share(alpha, "alpha"), {}
    deflated, spa = evidence.deflated_sharpe, evidence.spa_p_value
    if deflated is not None and not deflated >= 1.0 - alpha:
        found["deflated_sharpe"] = (
            f"The best of so many trials could have this Sharpe ratio by luck (deflated {deflated:.2f})."
        )
    if spa is not None and not spa <= alpha:
        found["spa_p_value"] = f"It is not superior to every baseline (SPA p = {spa:.2g})."
    losing = {
        "bootstrap_low": (
            "A resampled history loses money too often: the interval of its mean return reaches {:.2g}."
        ),
        "doubled_costs": "With doubled costs it does not earn: {:+.1%}.",
    }
    for name, words in losing.items():
        number = getattr(evidence, name)
        if number is not None and not number > 0.0:
            found[name] = words.format(number)
    if evidence.latency is not None and not evidence.latency > alpha:
        found["latency"] = f"With orders one bar late it loses (p = {evidence.latency:.2g})."
    if evidence.controls:
        named = ", ".join(evidence.controls)
        found["controls"] = f"The same procedure finds an edge where there is none: {named}."
    return found


def _critical(alpha: float, trials: int) -> float:
    critical = critical_value(alpha, trials)
    if trials != int(trials):
        raise ValueError(f"trials is {trials}: count everything ever scored on this slice, a whole number.")
    return critical


def _label(found: _Findings) -> Label:
    if max(found.p_mean, found.p_alpha) <= found.level:
        return "edge"
    return "no edge" if found.upper < WORTHWHILE else "inconclusive"


def _bars_needed(found: _Findings, alpha: float) -> int | None:
    """Further bars until either label is reached with a probability of `POWER`, were all to go on as it did.

    A t-value grows with the root of the number of bars, and an error shrinks with it.
    """
    margin, needed = critical_value(1.0 - POWER, 1), []
    weaker = 0.0 if found.degenerate else min(found.t_mean, found.t_alpha)
    if weaker > 0.0:
        needed.append(((found.critical + margin) / weaker) ** 2)
    if found.sharpe < WORTHWHILE:
        widths = critical_value(alpha, 1) + margin
        needed.append((widths * found.error / (WORTHWHILE - found.sharpe)) ** 2)
    return math.ceil(found.bars * (min(needed) - 1.0)) if needed else None


def _tests_in_words(found: _Findings) -> list[str]:
    mean = _compared("The mean return", found.p_mean, found.level)
    if found.degenerate:
        return ["Buy-and-hold explains its returns wholly: there is no alpha to test, so no edge.", mean]
    return [mean, _compared("The alpha on buy-and-hold", found.p_alpha, found.level)]


def _compared(what: str, p_value: float, level: float) -> str:
    verb = "is" if p_value <= level else "is not"
    sign = "≤" if p_value <= level else ">"
    return f"{what} {verb} significantly above zero (p = {p_value:.2g} {sign} {level:.2g})."


def _bound_in_words(found: _Findings, alpha: float) -> str:
    place = "below" if found.upper < WORTHWHILE else "not below"
    return (
        f"The net Sharpe ratio of a year is {found.sharpe:.2f}, and with {1.0 - alpha:.0%} confidence "
        f"at most {found.upper:.2f}, {place} {WORTHWHILE:.0f}."
    )
