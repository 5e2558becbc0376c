"""The report of one run as a self-contained HTML page: no network, no script, light and dark, printable.

Axes: T bars of the scored slice, T + 1 closing marks, W windows of training. Imports without jax.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from ztb_jax.evaluation import figures, report_stress, report_verdict
from ztb_jax.evaluation.metrics import drawdown
from ztb_jax.evaluation.provenance import Gates, Seal
from ztb_jax.evaluation.verdict import verdict_sentence

LISTED_TRADES = 10  # at either end of the list
FOLDED_TRADES = 2_000  # between them, to be unfolded
PRINTED_TRADES = 200  # unfolded on paper
DRAWN_TRADES = 200
UNDEFINED = "–"
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Strategy(NamedTuple):
    """One account over the scored slice.

    Attributes:
      equity: [T+1] at the closes, any unit; drawn relative to its first value, which must be positive.
      exposure: [T] signed fraction of equity held after each decision.
      metrics: what `metrics.summarise` returned for it.
    """

    equity: np.ndarray
    exposure: np.ndarray
    metrics: Mapping[str, float | None]


class Trade(NamedTuple):
    """One fill of the policy.

    Attributes:
      stamp: when it was filled.
      side: "buy" or "sell".
      size: value traded as a fraction of equity, positive.
      price: fill price, quote currency.
      cost: spread, slippage and fee as a fraction of equity, positive.
    """

    stamp: np.datetime64
    side: str
    size: float
    price: float
    cost: float


class Slice(NamedTuple):
    """One chronological part of the data: its name, first and last stamp, and number of bars."""

    name: str
    start: np.datetime64
    end: np.datetime64
    bars: int


class LearningCurve(NamedTuple):
    """How training went.

    Attributes:
      windows: [W] window numbers.
      train_reward: [W] mean train reward, NaN where there is none.
      validation_score: [W] the score that chose the policy, NaN where it was not computed.
      chosen: the number of the window whose policy is reported, or None.
    """

    windows: np.ndarray
    train_reward: np.ndarray
    validation_score: np.ndarray
    chosen: int | None


@dataclass(frozen=True)
class Report:
    """Everything the page shows; nothing is computed from prices here but what is drawn.

    Attributes:
      run_id: name of the run.
      symbol: the instrument.
      timeframe: its bar length as the user wrote it.
      slice_name: the slice that was scored.
      bars_per_year: from the instrument's own calendar.
      stamps: [T+1] datetime64 of the closing marks.
      price: [T+1] closing price at them, quote currency.
      strategies: "policy" and "buy_and_hold", and any others, by name; those in `RULES` are not drawn.
      trades: every fill of the policy, in order; the page folds all but the first and the last ten, leaves
        out what is beyond two thousand more, and draws them where they are at most two hundred.
      learning: the learning curve, or None when nothing was trained here.
      slices: train, validation and test, in order.
      data: further facts about the data (source, content hash, number of bars), label to value.
      config: the resolved configuration, nested mappings and plain values.
      environment: versions, device and commit, label to value.
      notes: sentences that stand under the verdict.
      gates: that watched the training, or None when nothing was trained here.
      seal: of the run, or None when it has none.
      edge: the verdict as `evaluation.json` holds it, or None where none was asked for.
      targets: of the source documents, as there.
      stress: variants, controls and regimes, as there, or None.
    """

    run_id: str
    symbol: str
    timeframe: str
    slice_name: str
    bars_per_year: float
    stamps: np.ndarray
    price: np.ndarray
    strategies: Mapping[str, Strategy]
    trades: Sequence[Trade] = ()
    learning: LearningCurve | None = None
    slices: Sequence[Slice] = ()
    data: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()
    gates: Gates | None = None
    seal: Seal | None = None
    edge: Mapping[str, Any] | None = None
    targets: Sequence[Mapping[str, Any]] = ()
    stress: Mapping[str, Any] | None = None


def render(report: Report) -> str:
    """The page as HTML text. The same report gives the same text, byte for byte.

    Raises:
      ValueError: a series is not finite or has the wrong length, or the policy or buy-and-hold is missing.
    """
    _check(report)
    ranked = sorted(report.strategies, key=_rank)
    metrics = {name: report.strategies[name].metrics for name in ranked}
    names = [name for name in ranked if name not in RULES]
    return template("report.html.j2").render(
        report=report,
        verdict=verdict_sentence(
            metrics, slice_name=report.slice_name, judged=report.edge is not None
        ).replace(" %", "\N{NBSP}%"),
        edge=None if report.edge is None else report_verdict.view(report.edge),
        targets=report_verdict.target_rows(report.targets),
        stress=None if report.stress is None else report_stress.view(report.stress),
        span=(_stamp(report.stamps[0]), _stamp(report.stamps[-1])),
        num_bars=f"{report.stamps.size - 1:,}",
        tables=_tables(metrics, names),
        figures=_figures(report, names),
        ends=_ends(report, names),
        trades=_trade_list(report.trades),
        drawn_trades=0 < len(report.trades) <= DRAWN_TRADES,
        num_trades=f"{len(report.trades):,}",
        slices=[(s.name, _stamp(s.start), _stamp(s.end), f"{s.bars:,}") for s in report.slices],
        data=flatten(report.data),
        config=flatten(report.config),
        environment=flatten(report.environment),
        seal=[] if report.seal is None else flatten(report.seal.facts),
    )


def _percent(number: float) -> str:
    return times(number) if abs(number) >= 100.0 else f"{100.0 * number:z,.1f}\N{NBSP}%".replace("-", "−")


def _signed(number: float) -> str:
    text = _percent(number)
    return f"+{text}" if number > 0.0 and text.strip("0.%\N{NBSP}") else text


def growth(number: float) -> str:
    """A return with its sign; as a multiple of the start when it is beyond reading as a percentage."""
    return times(1.0 + number) if number >= 100.0 else _signed(number)


def _price(number: float) -> str:
    """Six significant digits with every decimal shown, so that a column of prices lines up."""
    decimals = 5 - math.floor(math.log10(abs(number))) if number else 2
    return f"{number:,.{min(max(decimals, 0), 10)}f}".replace("-", "−")


def times(number: float) -> str:
    """A multiple of the start."""
    if abs(number) >= 1e6:
        mantissa, exponent = f"{number:.1e}".split("e")
        return f"×{mantissa}·10{str(int(exponent)).translate(SUPERSCRIPT)}"
    return f"×{number:,.4g}" if abs(number) < 1e4 else f"×{number:,.0f}"


def _decimal(number: float) -> str:
    return f"{number:z,.2f}".replace("-", "−")


def _fine_percent(number: float) -> str:
    """Of what happens in one bar, where a tenth of a percent is much."""
    return f"{100.0 * number:z,.2f}\N{NBSP}%".replace("-", "−")


def _count(number: float) -> str:
    return f"{number:,.0f}"


COLUMNS = {
    "policy": ("Policy", ""),
    "buy_and_hold": ("Buy-and-hold", ""),
    "flat": ("Flat", ""),
    "random": ("Random", ""),
    "moving_average_cross": ("Moving averages", "20 against 50 bars"),
    "momentum": ("Momentum", "60 bars"),
    "mean_reversion": ("Mean reversion", "20 bars"),
    "inverse_volatility": ("Inverse volatility", "20 bars"),
    "matched_random": ("Matched random", "the policy’s positions in random order"),
    "previous_best": ("Previous best", "of the validation slice, at these costs"),
    "hindsight": ("Hindsight optimum", "not attainable, needs tomorrow’s prices"),
}
# Those between random and hindsight have a table of their own, and are not drawn: who tells ten curves apart?
RULES = tuple(COLUMNS)[4:-1]
METRICS = {
    "total_return": ("Total return", growth),
    "annual_return": ("Annual return", growth),
    "volatility": ("Volatility, annual", _percent),
    "sharpe": ("Sharpe ratio, annual", _decimal),
    "sortino": ("Sortino ratio, annual", _decimal),
    "max_drawdown": ("Maximum drawdown", _percent),
    "calmar": ("Calmar ratio", _decimal),
    "longest_under_water": ("Longest time under water, bars", _count),
    "cvar": ("Mean loss of the worst 5 % of bars", _fine_percent),
    "exposure": ("Average exposure", _percent),
    "net_exposure": ("Average net exposure", _signed),
    "turnover": ("Turnover a year, × equity", _decimal),
    "num_trades": ("Trades", _count),
    "win_rate": ("Winning round trips", _percent),
    "profit_factor": ("Profit factor of round trips", _decimal),
    "fees_paid": ("Costs paid, of starting equity", _percent),
}


def _tables(
    metrics: Mapping[str, Mapping[str, float | None]], drawn: Sequence[str]
) -> list[dict[str, object]]:
    """The policy beside what is drawn with it, and beside the rules."""
    rules = [name for name in RULES if name in metrics]
    groups = [("Table of metrics", drawn), ("Table of metrics, simple rules", ["policy", *rules])]
    return [
        {
            "label": label,
            "columns": [(name, *COLUMNS.get(name, (name, ""))) for name in group],
            "rows": _metric_rows({name: metrics[name] for name in group}),
        }
        for label, group in groups[: 1 + bool(rules)]
    ]


def _metric_rows(metrics: Mapping[str, Mapping[str, float | None]]) -> list[tuple[str, list[str]]]:
    rows = []
    for key, (label, text) in METRICS.items():
        numbers = [values.get(key) for values in metrics.values()]
        if any(number is not None for number in numbers):
            rows.append((label, [UNDEFINED if number is None else text(number) for number in numbers]))
    if any(values.get("ruined") for values in metrics.values()):
        rows.append(("Ruined", ["yes" if values.get("ruined") else "no" for values in metrics.values()]))
    return rows


def _figures(report: Report, names: Sequence[str]) -> dict[str, dict[str, Markup]]:
    stamps = np.asarray(report.stamps, "datetime64[s]")
    curves = {name: _relative(report.strategies[name]) for name in names}
    falls = {name: drawdown(curves[name]) for name in ("buy_and_hold", "policy")}
    drawn = {
        "equity": figures.equity_figure(stamps, curves, falls),
        "position": figures.position_figure(
            stamps,
            np.asarray(report.price, np.float64),
            np.asarray(report.strategies["policy"].exposure, np.float64),
            _turns(report.trades),
        ),
    }
    if report.learning is not None and len(report.learning.windows):
        curve = report.learning
        drawn["learning"] = figures.learning_figure(
            np.asarray(curve.windows),
            np.asarray(curve.train_reward, np.float64),
            np.asarray(curve.validation_score, np.float64),
            curve.chosen,
        )
    # The SVG holds numbers and dates only, so it is markup by construction.
    return {name: {k: Markup(v) for k, v in sizes._asdict().items()} for name, sizes in drawn.items()}


def _ends(report: Report, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """(name, label, final equity) of each strategy for the legend, saying which curve leaves the chart."""
    curves = {name: _relative(report.strategies[name]) for name in names}
    _, high, _ = figures.equity_limits(curves)
    ends = []
    for name, curve in curves.items():
        off = " (off the chart)" if curve[-1] > high else ""
        ends.append((name, COLUMNS.get(name, (name,))[0], f"{times(float(curve[-1]))}{off}"))
    return ends


def _turns(trades: Sequence[Trade]) -> figures.Turns | None:
    if not 0 < len(trades) <= DRAWN_TRADES:
        return None
    return figures.Turns(
        np.array([trade.stamp for trade in trades], "datetime64[s]"),
        np.array([trade.price for trade in trades], np.float64),
        np.array([trade.side == "buy" for trade in trades]),
    )


def _trade_list(trades: Sequence[Trade]) -> dict[str, object]:
    """The rows at either end, those folded between them, and which are left out."""
    cut = len(trades) > 2 * LISTED_TRADES
    middle = trades[LISTED_TRADES:-LISTED_TRADES] if cut else ()
    folded, left_out = middle[:FOLDED_TRADES], middle[FOLDED_TRADES:]
    return {
        "first": [_trade_row(trade) for trade in (trades[:LISTED_TRADES] if cut else trades)],
        "folded": [_trade_row(trade) for trade in folded],
        "printed": len(folded) <= PRINTED_TRADES,
        "last": [_trade_row(trade) for trade in trades[-LISTED_TRADES:]] if cut else [],
        "num_left_out": f"{len(left_out):,}" if left_out else "",
        "span_left_out": [_stamp(left_out[at].stamp) for at in (0, -1)] if left_out else [],
    }


def _trade_row(trade: Trade) -> tuple[str, str, str, str, str]:
    return (
        _stamp(trade.stamp),
        trade.side,
        _percent(trade.size),
        _price(trade.price),
        f"{1e4 * trade.cost:,.1f}\N{NBSP}bp",
    )


def _relative(strategy: Strategy) -> np.ndarray:
    equity = np.asarray(strategy.equity, np.float64)
    return equity / equity[0]


def flatten(tree: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """(dotted key, text) of every leaf of nested mappings, in their order."""
    rows = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows.extend(flatten(value, f"{prefix}{key}."))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            rows.append((f"{prefix}{key}", ", ".join(map(str, value))))
        else:
            rows.append((f"{prefix}{key}", UNDEFINED if value is None else str(value)))
    return rows


def _stamp(stamp: np.datetime64) -> str:
    minute = np.datetime_as_string(stamp, unit="m", casting="unsafe")
    return str(minute).removesuffix("T00:00").replace("T", " ")


def _rank(name: str) -> int:
    order = list(COLUMNS)
    return order.index(name) if name in order else len(order)


def _check(report: Report) -> None:
    missing = [name for name in ("policy", "buy_and_hold") if name not in report.strategies]
    if missing:
        raise ValueError(f"strategies lack {' and '.join(missing)}: the report compares the two.")
    marks = np.size(report.stamps)
    if marks < 2:
        raise ValueError(f"stamps has {marks} marks: a report needs at least one bar, two marks.")
    series: dict[str, tuple[np.ndarray, int]] = {"price": (report.price, marks)}
    for name, strategy in report.strategies.items():
        series[f"equity of {name}"] = (strategy.equity, marks)
        series[f"exposure of {name}"] = (strategy.exposure, marks - 1)
    for label, (values, size) in series.items():
        if np.shape(values) != (size,):
            raise ValueError(f"{label} has shape {np.shape(values)}: {marks} stamps call for ({size},).")
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{label} has values that are not finite: a report cannot draw them.")


def template(name: str) -> Template:
    """A page's template; what it shows is escaped, and a name that it lacks is an error."""
    pages = Environment(
        loader=PackageLoader("ztb_jax.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template(name)
