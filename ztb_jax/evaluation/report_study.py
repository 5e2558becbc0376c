"""The report of a walk-forward study, a page of the kind that `report` makes. Imports no jax.

Axes: T bars out of sample, P paths through the test ranges. Every number was computed before.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ztb_jax.evaluation import figures, report_stress, report_verdict
from ztb_jax.evaluation.metrics import drawdown
from ztb_jax.evaluation.report import COLUMNS, METRICS, UNDEFINED, flatten, growth, template, times

DRAWN = ("buy_and_hold", "random")
MOST_SEAMS = 60  # more of them would hide the curves


def render(
    result: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    names: Sequence[str],
    config: Mapping[str, Any],
) -> str:
    """The page as HTML text. The same arguments give the same text, byte for byte.

    Args:
      result: `ztb_jax.runs.studied.WalkForwardResult`.
      arrays: of returns.npz.
      names: of the configurations.
      config: the settings that all configurations began with, nested.
    """
    returns = {"policy": arrays["strategy"], **{name: arrays[f"baselines/{name}"] for name in DRAWN}}
    curves = {name: np.append(1.0, np.cumprod(1.0 + each)) for name, each in returns.items()}
    summaries = {"policy": result["strategy"], **result["baselines"]}
    shown = list(summaries["policy"])
    combinatorial = result["scheme"]["scheme"] == "combinatorial"
    return template("study.html.j2").render(
        result=result,
        verdict=headline(result).replace(" %", "\N{NBSP}%"),
        notes=sentences(result),
        edge=report_verdict.view(result["edge"]),
        columns=[METRICS[name][0] for name in shown],
        strategies=[(name, *COLUMNS[name], _cells(told, shown)) for name, told in summaries.items()],
        ends=[(name, COLUMNS[name][0], times(float(curve[-1]))) for name, curve in curves.items()],
        figures=_figures(curves, arrays, result["paths"] if combinatorial else ()),
        folds=list(_folds(result, names)),
        configurations=list(_configurations(result, names)),
        paths=_quantiles(result["paths"]) if combinatorial else [],
        scheme=flatten(result["scheme"]),
        config=flatten(config),
    )


def headline(result: Mapping[str, Any]) -> str:
    """What the strategy did against buying and holding, in a sentence."""
    ours = result["strategy"]["total_return"]
    theirs = result["baselines"]["buy_and_hold"]["total_return"]
    if result["without_policy"] == result["trainings"]:
        return "No training brought a policy: gates stopped them all."
    beat = "Beat" if ours > theirs else "Did not beat"
    return f"{beat} buy-and-hold out of sample: {growth(ours)} against {growth(theirs)}, net of costs."


def sentences(result: Mapping[str, Any]) -> list[str]:
    """On seeds, on choosing among configurations, on controls, and on what gates stopped."""
    told = []
    middle = result["seeds"]["interquartile_mean"]
    if middle is not None:
        told.append(
            f"Sharpe ratio of the seeds: middle half {middle['seen']:.2f}, 95 % interval "
            f"{middle['low']:.2f} to {middle['high']:.2f}."
        )
    if result["overfitting"] is not None:
        told.append(
            f"Probability of backtest overfitting: {result['overfitting']['probability']:.0%}, how often the "
            "best configuration of one half of the bars is below the median in the other."
        )
    told += report_stress.controls(result["controls"])
    if result["stopped"]:
        gates = ", ".join(f"{name} {count:,}" for name, count in result["stopped"].items())
        told.append(f"Gates stopped {sum(result['stopped'].values()):,} trainings: {gates}.")
    if result["without_policy"]:
        told.append(
            f"{result['without_policy']:,} of {result['trainings']:,} trainings brought no policy: their "
            "capital stays flat."
        )
    return told


def _cells(told: Mapping[str, float | None], names: Sequence[str]) -> list[str]:
    return [_cell(name, told[name]) for name in names]


def _cell(name: str, number: float | None) -> str:
    return UNDEFINED if number is None else METRICS[name][1](number)


def _figures(
    curves: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], paths: Sequence[float]
) -> dict[str, dict[str, Markup]]:
    stamps = arrays["stamps"].astype("datetime64[s]")
    begin = stamps[0] - (stamps[1] - stamps[0])
    seams = stamps[np.flatnonzero(np.diff(arrays["stretch"]))]
    falls = {name: drawdown(curves[name]) for name in ("buy_and_hold", "policy")}
    drawn = {
        "equity": figures.equity_figure(
            np.append(begin, stamps), curves, falls, seams=seams if len(seams) <= MOST_SEAMS else None
        )
    }
    if paths:
        drawn["spread"] = figures.spread_figure(np.array(paths))
    # The SVG holds numbers and dates only, so it is markup by construction.
    return {name: {k: Markup(v) for k, v in sizes._asdict().items()} for name, sizes in drawn.items()}


def _folds(result: Mapping[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, fold in enumerate(result["folds"]):
        yield {
            "number": number,
            "train": [_span(dates) for dates in fold["train"]],
            "test": [_span(dates) for dates in fold["test"]],
            "configuration": names[fold["configuration"]],
            "total_return": [growth(each) for each in fold["total_return"]],
            "buy_and_hold": [growth(each) for each in fold["buy_and_hold"]],
            "seeds": [
                f"{growth(min(each))} … {growth(max(each))}" for each in zip(*fold["seeds"], strict=True)
            ],
        }


def _span(dates: Sequence[str]) -> str:
    return " … ".join(each.removesuffix(":00").removesuffix(" 00:00") for each in dates)


def _configurations(result: Mapping[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for name, told in zip(names, result["configurations"], strict=True):
        growth, seeds = told["validation_log_growth"], told["seeds"]
        middle = seeds["interquartile_mean"]
        yield {
            "name": name,
            "chosen": f"{told['chosen']:,}",
            "validation": UNDEFINED if growth is None else f"{1e4 * growth:+.2f}".replace("-", "−"),
            "total_return": _cell("total_return", told["summary"]["total_return"]),
            "sharpe": _cell("sharpe", told["summary"]["sharpe"]),
            "seeds": ", ".join(_cell("sharpe", each) for each in seeds["sharpe"]),
            "middle": UNDEFINED
            if middle is None
            else f"{_cell('sharpe', middle['seen'])} ({_cell('sharpe', middle['low'])} … "
            f"{_cell('sharpe', middle['high'])})",
        }


def _quantiles(paths: Sequence[float]) -> list[tuple[str, str]]:
    names = ("Lowest", "First quartile", "Median", "Third quartile", "Highest")
    found = np.quantile(np.asarray(paths, np.float64), [0.0, 0.25, 0.5, 0.75, 1.0])
    return [(name, _cell("sharpe", float(value))) for name, value in zip(names, found, strict=True)]
