"""The whole verdict on one policy: the two tests and what is measured beside them, as plain values.

Axes: T bars. Returns are simple, per bar, net of costs. The same arguments give the same numbers. The rule
and its reasons: `docs/explanation/verdict.md`. Imports no jax.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ztb_jax.evaluation import resampling, significance
from ztb_jax.evaluation.edge import Evidence, capped, contradictions, judge_edge
from ztb_jax.evaluation.series import FLAT_SPREAD, checked, paired

ALPHA = 0.05
DRAWS = 1000
# Bars times draws: longer slices get fewer draws, so that a verdict takes seconds and not minutes.
WORK = 25_000_000
# arch's variance takes time with the square of the bars: longer slices are compared by sums of several bars.
COMPARED_BARS = 5_000
SEED = 0
# To know tomorrow's prices is beyond anyone, and an edge need not beat another policy's edge.
UNCOMPARED = ("hindsight", "previous_best")
UNMEASURED = Evidence()
STRESS = {
    "doubled_costs": "the policy was not played with doubled costs",
    "latency": "the policy was not played with orders a bar late",
    "controls": "nothing was trained on controls",
}


def judge(
    returns: np.ndarray,
    baselines: Mapping[str, np.ndarray],
    *,
    trials: int,
    trial_sharpes: Sequence[float],
    bars_per_year: float,
    further: Evidence = UNMEASURED,
    alpha: float = ALPHA,
) -> dict[str, Any]:
    """The verdict on a slice that nothing was fitted to or chosen by, as `ztb_jax.runs.judged.Edge` has it.

    `edge.judge_edge`, lowered by `edge.capped` where evidence contradicts. The evidence is computed here, but
    for what takes the policy to be played or trained again:

    - the deflated Sharpe ratio, with M trials and the spread of those whose Sharpe ratios are known;
    - bootstrap intervals of a confidence of 1 - 2 alpha, so that a lower end is a one-sided test at alpha;
    - SPA against each baseline b, held in the share of it that the returns contain: their regression slope on
      it, from 0 to 1. A difference of plain means would punish a policy for holding little. The other trials'
      returns are not known here, so the p-value is this policy's alone; the largest one is what caps;
    - which of policy and baselines StepM finds better than nothing, at alpha for all of them together.

    A slice too short for a statistic, or returns that do not vary, leave it out, and `missing` says why.

    Args:
      returns: [T] of the policy.
      baselines: [T] of each by name; "buy_and_hold" is needed, and those of `UNCOMPARED` are left out.
      trials: M, policies that were ever scored on these bars.
      trial_sharpes: per bar, of those of them whose ratio is known, this one among them.
      bars_per_year: of the instrument's own calendar.
      further: the fields doubled_costs, latency and controls; the others are computed here.
      alpha: chance of a false edge over all M.

    Raises:
      ValueError: a value is not finite or out of its range, lengths disagree, or there is no buy-and-hold.
    """
    if "buy_and_hold" not in baselines:
        raise ValueError(f"baselines are {sorted(baselines)}: a verdict needs buy_and_hold.")
    returns = checked(returns, "returns", at_least=1)
    attainable = {name: paired(returns, b)[1] for name, b in baselines.items() if name not in UNCOMPARED}
    verdict = judge_edge(
        returns, attainable["buy_and_hold"], trials=trials, bars_per_year=bars_per_year, alpha=alpha
    )
    missing = {name: why for name, why in STRESS.items() if getattr(further, name) is None}
    measured = _of_sharpe(returns, trials, trial_sharpes, missing)
    measured |= _of_draws(returns, attainable, bars_per_year, alpha=alpha, missing=missing)
    bootstrap, spa = measured["bootstrap"], measured["spa"]
    evidence = further._replace(
        deflated_sharpe=measured["deflated_sharpe"],
        bootstrap_low=None if bootstrap is None else bootstrap["mean"]["low"],
        spa_p_value=None if not spa else max(spa.values()),
    )
    final = capped(verdict, evidence, alpha=alpha)
    return {
        "label": final.label,
        "reasons": list(final.reasons),
        **{name: _finite(getattr(final, name)) for name in ("p_mean", "p_alpha", "sharpe", "sharpe_upper")},
        "bars_needed": final.bars_needed,
        "trials": trials,
        "alpha": alpha,
        "contradictions": contradictions(evidence, alpha=alpha),
        "evidence": measured
        | {
            "doubled_costs": further.doubled_costs,
            "latency": further.latency,
            "controls": None if further.controls is None else list(further.controls),
            "missing": missing,
        },
    }


def no_judgement(why: str, *, trials: int, alpha: float = ALPHA) -> dict[str, Any]:
    """As `judge`, of a slice that the policy was trained or chosen on: there is no label, for `why`."""
    numbers = ("p_mean", "p_alpha", "sharpe", "sharpe_upper", "bars_needed", "evidence")
    return {
        "label": None,
        "reasons": [f"There is no verdict on this slice: {why}."],
        **dict.fromkeys(numbers),
        "trials": trials,
        "alpha": alpha,
        "contradictions": {},
    }


def in_words(edge: Mapping[str, Any]) -> list[str]:
    """A verdict for a person: the label, why, of how many trials, and how many bars more would decide.

    Args:
      edge: of `judge` or `no_judgement`, with `trials_at_first` and `ledger`.
    """
    told = [] if edge["label"] is None else [f"Verdict: {edge['label']}."]
    return [*told, edge["reasons"][0], counted(edge), *further_bars(edge)]


def counted(edge: Mapping[str, Any]) -> str:
    """M, where it was counted, and what it was before."""
    many, place = edge["trials"], edge["ledger"] or "scored.jsonl in the folder of runs"
    others = "nothing else was" if many == 1 else f"{many:,} policies were"
    told = f"M = {many:,}: {others} ever scored on these bars, says {place}"
    if edge["trials_at_first"] != many:
        told += f"; M was {edge['trials_at_first']:,} when this one was first scored"
    return f"{told}."


def further_bars(edge: Mapping[str, Any]) -> list[str]:
    """A sentence on the bars that are still needed; none where nothing is open."""
    if edge["label"] != "inconclusive":
        return []
    if edge["reasons"][0] in edge["contradictions"].values():
        return []  # it earns enough, and what speaks against it is no matter of time
    if edge["bars_needed"] is None:
        return ["No number of further bars would decide, should the returns go on as they did."]
    return [f"About {edge['bars_needed']:,} more bars would decide, should the returns go on as they did."]


def _of_sharpe(
    returns: np.ndarray, trials: int, ratios: Sequence[float], missing: dict[str, str]
) -> dict[str, Any]:
    """What the moments of the returns say of their Sharpe ratio."""
    names = ("probabilistic_sharpe", "deflated_sharpe", "min_track_record_length")
    if why := _unusable(returns, significance.FEWEST_BARS):
        missing.update(dict.fromkeys(names, why))
        return dict.fromkeys(names)
    seen = significance.moments(returns)
    length = _finite(significance.min_track_record(seen))
    if length is None:
        missing["min_track_record_length"] = "no number of bars makes a Sharpe ratio of 0 or less significant"
    found = {
        "probabilistic_sharpe": significance.probabilistic_sharpe(seen),
        "deflated_sharpe": None,
        "min_track_record_length": length,
    }
    if trials > 1 and len(ratios) < 2:
        missing["deflated_sharpe"] = "the Sharpe ratios of fewer than two trials are known"
        return found
    spread = float(np.std(ratios, ddof=1)) if trials > 1 else 0.0
    return found | {"deflated_sharpe": significance.deflated_sharpe(seen, trials=trials, spread=spread)}


def _of_draws(
    returns: np.ndarray,
    baselines: Mapping[str, np.ndarray],
    bars_per_year: float,
    *,
    alpha: float,
    missing: dict[str, str],
) -> dict[str, Any]:
    """What histories that are drawn again say."""
    names = ("bootstrap", "spa", "superior")
    if why := _unusable(returns, resampling.FEWEST_BARS):
        missing.update(dict.fromkeys(names, why))
        return dict.fromkeys(names)
    draws = min(DRAWS, max(resampling.FEWEST_DRAWS, WORK // returns.size))
    confidence = 1.0 - 2.0 * alpha
    with np.errstate(over="ignore", invalid="ignore"):  # a history that outgrows every number ends as None
        drawn = resampling.bootstrap(returns, bars_per_year, seed=SEED, draws=draws, confidence=confidence)
    return {
        "bootstrap": {
            "confidence": confidence,
            "draws": draws,
            "block": drawn.block,
            **{
                name: {end: _finite(number) for end, number in getattr(drawn, name)._asdict().items()}
                for name in ("mean", "sharpe", "total_return")
            },
        },
        "spa": {name: _spa(returns, baseline, draws) for name, baseline in baselines.items()},
        "superior": _superior({"policy": returns, **baselines}, draws, alpha),
    }


def _spa(returns: np.ndarray, baseline: np.ndarray, draws: int) -> float:
    """Consistent p-value against the share of a baseline that `returns` contain; 1 where they are no more."""
    moves = baseline - baseline.mean()
    energy = float(moves @ moves)
    slope = float(moves @ returns) / energy if np.std(baseline) > FLAT_SPREAD else 0.0
    against = min(1.0, max(0.0, slope)) * baseline
    rest, total = float(np.var(returns - against)), float(np.var(returns))
    if rest <= significance.EXPLAINED * total:
        return 1.0
    test = resampling.superior_ability(_summed(returns)[None], _summed(against), seed=SEED, draws=draws)
    return test.consistent


def _superior(strategies: Mapping[str, np.ndarray], draws: int, alpha: float) -> list[str]:
    moving = {name: _summed(series) for name, series in strategies.items() if np.std(series) > FLAT_SPREAD}
    nothing = np.zeros_like(next(iter(moving.values())))
    rows = resampling.superior_candidates(
        np.stack(list(moving.values())), nothing, seed=SEED, draws=draws, level=alpha
    )
    return [list(moving)[row] for row in rows]


def _summed(series: np.ndarray) -> np.ndarray:
    """[at most `COMPARED_BARS`] sums of equally many bars each, without the first few if need be."""
    bars = math.ceil(series.size / COMPARED_BARS)
    return series[series.size % bars :].reshape(-1, bars).sum(axis=1)


def _unusable(returns: np.ndarray, fewest: int) -> str | None:
    if returns.size < fewest:
        return f"{returns.size} bars are too few: at least {fewest} are needed"
    return "the returns do not vary" if np.std(returns) <= FLAT_SPREAD else None


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
