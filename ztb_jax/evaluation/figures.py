"""The report's figures as inline SVG: deterministic, themed by the page's CSS variables, in two widths.

Axes: T bars, T + 1 closing marks. No text from a user is ever drawn, so the markup is safe to inline.
matplotlib is imported inside functions only: a training process never loads it.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from io import StringIO
from itertools import pairwise
from typing import NamedTuple

import numpy as np

# Colours that the page replaces by its own: each stands for the CSS variable of that name.
SENTINELS = {
    "ink": "#fe0001",
    "muted": "#fe0002",
    "line": "#fe0003",
    "long": "#fe0004",
    "short": "#fe0005",
    "policy": "#fe0006",
    "buy_and_hold": "#fe0007",
    "flat": "#fe0008",
    "random": "#fe0009",
    "hindsight": "#fe000a",
    "other": "#fe000b",
}
DASHES = {"hindsight": (0, (1, 1.5)), "random": (0, (4, 2)), "flat": (0, (6, 3))}
WIDE_POINTS, NARROW_POINTS = 2000, 600
SHADES = 300
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Beyond this ratio a linear axis flattens the start of the curves.
WIDE_RANGE = 4.0


class Sizes(NamedTuple):
    """One drawing at two sizes: SVG text for screens from 640 px on, and for narrower ones."""

    wide: str
    narrow: str


def equity_figure(
    stamps: np.ndarray,
    curves: Mapping[str, np.ndarray],
    drawdowns: Mapping[str, np.ndarray],
    *,
    seams: np.ndarray | None = None,
) -> Sizes:
    """Equity of every strategy above the drawdown of some.

    The axis fits what is attainable: a hindsight optimum that leaves it is cut off rather than allowed to
    flatten everything else. It is logarithmic when the attainable range is wide.

    Args:
      stamps: [T+1] datetime64.
      curves: name to equity [T+1]; names as in `SENTINELS`, others share one colour.
      drawdowns: name to drawdown [T+1], fractions.
      seams: [S] datetime64 of vertical lines, where one stretch ends and the next begins.
    """
    draw = partial(_equity, stamps=stamps, curves=curves, drawdowns=drawdowns, seams=seams)
    return _draw("equity", 0.52, draw)


def spread_figure(values: np.ndarray) -> Sizes:
    """Values [P] as dots on one axis, those of about the same value above each other; 0 is marked."""
    return _draw("spread", 0.16, partial(_spread, values=np.sort(values)))


class Turns(NamedTuple):
    """Fills to be drawn: N stamps [N], prices [N], and whether each bought [N]."""

    stamps: np.ndarray
    prices: np.ndarray
    bought: np.ndarray


def position_figure(
    stamps: np.ndarray, price: np.ndarray, exposure: np.ndarray, turns: Turns | None = None
) -> Sizes:
    """Price [T+1], tinted where the exposure [T] is mostly long or short, above the exposure itself.

    Turns are triangles at their prices: upward from below where something was bought, downward from above
    where it was sold.
    """
    draw = partial(_position, stamps=stamps, price=price, exposure=exposure, turns=turns)
    return _draw("position", 0.46, draw)


def learning_figure(
    windows: np.ndarray, train_reward: np.ndarray, validation_score: np.ndarray, chosen: int | None
) -> Sizes:
    """Train reward beside validation score, [W] each over windows [W]; the chosen window is marked.

    A score that was not computed is NaN and left out.
    """
    series = {"train_reward": train_reward, "validation_score": validation_score}
    return _draw("learning", 0.34, partial(_learning, windows=windows, series=series, chosen=chosen))


def thin(values: np.ndarray, limit: int) -> np.ndarray:
    """[K] ascending indices, K <= limit, that keep the first, the last and the extremes of values [N].

    The series is cut into equal stretches and each keeps its minimum and its maximum, so a peak never
    vanishes. All indices when N <= limit.
    """
    if limit < 4:
        raise ValueError(
            f"limit is {limit}: at least 4 points are needed to keep both ends and both extremes."
        )
    size = values.size
    if size <= limit:
        return np.arange(size)
    edges = np.linspace(0, size, (limit - 2) // 2 + 1).astype(int)
    kept = {0, size - 1}
    for start, stop in pairwise(edges):
        kept |= {start + int(values[start:stop].argmin()), start + int(values[start:stop].argmax())}
    return np.array(sorted(kept))


def equity_limits(curves: Mapping[str, np.ndarray]) -> tuple[float, float, bool]:
    """(low, high, logarithmic): the equity axis that fits every curve but the hindsight optimum."""
    attainable = [curve for name, curve in curves.items() if name != "hindsight"]
    low, high = min(curve.min() for curve in attainable), max(curve.max() for curve in attainable)
    if low > 0.0 and high / low > WIDE_RANGE:
        return float(low / 1.1), float(high * 1.1), True
    pad = 0.06 * max(high - low, 0.01)
    return float(low - pad), float(high + pad), False


def _spread(figure, points: int, *, values) -> None:
    panel = figure.subplots()
    columns = 60 if points == WIDE_POINTS else 25
    low, high = min(values[0], 0.0), max(values[-1], 0.0)
    width = max(high - low, 1e-9) / columns
    column = np.round((values - low) / width).astype(int)
    height = np.arange(values.size) - np.searchsorted(column, column)
    panel.axvline(0.0, color=_colour("muted"), linewidth=1.0)
    panel.plot(low + column * width, height, "o", color=_colour("policy"), markersize=6.0)
    panel.set_ylim(-1.0, max(3.0, float(height.max()) + 1.0))
    panel.margins(x=0.04)
    panel.set_yticks([])


def _equity(figure, points: int, *, stamps, curves, drawdowns, seams) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    low, high, logarithmic = equity_limits(curves)
    for order, (name, curve) in enumerate(reversed(curves.items())):
        kept = thin(curve, points)
        # A cut-off line is clamped just outside, or its far end would swell the page for nothing.
        shown = np.clip(curve[kept], low - (high - low) * 0.1 if not logarithmic else low / 1.3, high * 1.3)
        strong = name in ("policy", "buy_and_hold")
        upper.plot(
            stamps[kept], shown, color=_colour(name), linestyle=DASHES.get(name, "-"),
            linewidth=1.8 if name == "policy" else 1.4 if strong else 1.1, zorder=3 + order,
        )  # fmt: skip
    if logarithmic:
        upper.set_yscale("log")
        upper.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        upper.yaxis.set_minor_locator(NullLocator())
        upper.yaxis.set_major_formatter(FuncFormatter(_plain))
    upper.set_ylim(low, high)
    upper.set_title("Equity, start = 1" + (", logarithmic" if logarithmic else ""))

    for name, curve in drawdowns.items():
        kept = thin(curve, points)
        if name == "policy":
            lower.fill_between(stamps[kept], -curve[kept], 0.0, color=_colour(name), alpha=0.25, linewidth=0)
        lower.plot(stamps[kept], -curve[kept], color=_colour(name), linewidth=1.1)
    deepest = max(float(curve.max()) for curve in drawdowns.values())
    lower.set_ylim(-1.08 * max(deepest, 0.01), 0.0)
    lower.yaxis.set_major_formatter(FuncFormatter(_percent))
    lower.locator_params(axis="y", nbins=3)
    lower.set_title("Drawdown from the last peak")
    for stamp in () if seams is None else seams:
        for panel in (upper, lower):
            panel.axvline(stamp, color=_colour("muted"), linewidth=0.7, linestyle=(0, (2, 3)), zorder=1)
    _date_axis(lower, stamps)


def _position(figure, points: int, *, stamps, price, exposure, turns) -> None:
    from matplotlib.ticker import FuncFormatter

    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    stretches = shades(exposure)
    for side, sign in (("long", 1), ("short", -1)):
        spans = [(stamps[a], stamps[b] - stamps[a]) for a, b, s in stretches if s == sign]
        upper.broken_barh(
            spans,
            (0.0, 1.0),
            transform=upper.get_xaxis_transform(),
            color=_colour(side),
            alpha=0.16,
            linewidth=0,
        )
    kept = thin(price, points)
    upper.plot(stamps[kept], price[kept], color=_colour("ink"), linewidth=1.1)
    if turns is not None:
        _triangles(figure, upper, turns, size=5.0 if points == WIDE_POINTS else 3.5)
    upper.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.7g}"))
    upper.set_title("Closing price, tinted where mostly long or short")

    held = np.append(exposure, exposure[-1])
    kept = thin(held, points)
    for side, part in (("long", np.maximum(held, 0.0)), ("short", np.minimum(held, 0.0))):
        lower.fill_between(
            stamps[kept], part[kept], 0.0, step="post", color=_colour(side), alpha=0.7, linewidth=0
        )
    lower.axhline(0.0, color=_colour("muted"), linewidth=0.7)
    reach = 1.15 * max(float(np.abs(held).max()), 0.1)
    lower.set_ylim(-reach, reach)
    lower.yaxis.set_major_formatter(FuncFormatter(_percent))
    lower.locator_params(axis="y", nbins=3)
    lower.set_title("Exposure, share of equity")
    _date_axis(lower, stamps)


def _triangles(figure, panel, turns: Turns, *, size: float) -> None:
    from matplotlib.transforms import ScaledTranslation

    for side, chosen, marker, away in (
        ("long", turns.bought, "^", -size),
        ("short", ~turns.bought, "v", size),
    ):
        # Beside the price, which it points at, or it would hide what it is about.
        beside = panel.transData + ScaledTranslation(0.0, away / 72, figure.dpi_scale_trans)
        panel.plot(
            turns.stamps[chosen], turns.prices[chosen], marker, color=_colour(side), markersize=size,
            markeredgewidth=0.0, transform=beside, zorder=4,
        )  # fmt: skip
    # What is moved aside does not widen the axes by itself, and a fill may lie beyond all closes.
    panel.update_datalim([(panel.dataLim.x0, turns.prices.min()), (panel.dataLim.x0, turns.prices.max())])


def shades(exposure: np.ndarray) -> list[tuple[int, int, int]]:
    """(first mark, last mark, sign) of each stretch over which exposure [T] is mostly long or short.

    Stretches are told apart at a resolution of `SHADES` over the whole series, so that a policy that turns on
    every bar does not draw thousands of slivers.
    """
    edges = np.unique(np.linspace(0, exposure.size, min(SHADES, exposure.size) + 1).astype(int))
    means = np.add.reduceat(np.sign(exposure), edges[:-1]) / np.diff(edges)
    signs = np.where(np.abs(means) > 0.5, np.sign(means), 0.0).astype(int)
    turns = np.flatnonzero(np.diff(signs)) + 1
    starts, stops = np.concatenate([[0], turns]), np.concatenate([turns, [signs.size]])
    return [
        (int(edges[start]), int(edges[stop]), int(signs[start]))
        for start, stop in zip(starts, stops, strict=True)
        if signs[start]
    ]


def _learning(figure, points: int, *, windows, series, chosen) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    panels = (
        figure.subplots(1, 2, sharex=True) if points == WIDE_POINTS else figure.subplots(2, 1, sharex=True)
    )
    titles = ("Train reward per window", "Validation score per window")
    for panel, title, name, unscaled in zip(panels, titles, series, series.values(), strict=True):
        values, unit = _readable(unscaled)
        known = np.flatnonzero(np.isfinite(values))
        kept = known[thin(values[known], points)] if known.size else known
        colour = _colour("policy" if name == "validation_score" else "muted")
        marker = "o" if kept.size <= 40 else None
        panel.plot(windows[kept], values[kept], color=colour, linewidth=1.4, marker=marker, markersize=2.6)
        panel.set_title(title + unit)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.yaxis.set_major_formatter(FuncFormatter(_plain))
        panel.margins(x=0.03, y=0.15)
        if windows.size == 1:
            panel.set_xlim(windows[0] - 0.5, windows[0] + 0.5)
        if chosen is not None:
            panel.axvline(chosen, color=_colour("long"), linewidth=1.1, linestyle=(0, (3, 2)))
            at = np.flatnonzero((windows == chosen) & np.isfinite(values))
            panel.plot(windows[at], values[at], "o", color=_colour("long"), markersize=5)


def _readable(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Values of a size that fits beside an axis, and what to say of the factor taken out."""
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    if not 0.0 < largest < 0.01:
        return values, ""
    power = math.floor(math.log10(largest))
    return values / 10.0**power, f", ×10{str(power).translate(RAISED)}"


def _date_axis(panel, stamps) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    panel.set_xlim(stamps[0], stamps[-1])


def _draw(name: str, aspect: float, draw: Callable) -> Sizes:
    """Both sizes of one drawing: `draw(figure, points)` on an empty figure."""
    return Sizes(
        wide=_svg(f"{name}-wide", (880, 880 * aspect), 12, partial(draw, points=WIDE_POINTS)),
        narrow=_svg(
            f"{name}-narrow", (400, 400 * max(aspect * 1.7, 0.85)), 12, partial(draw, points=NARROW_POINTS)
        ),
    )


def _svg(name: str, size: tuple[float, float], font_size: float, draw: Callable) -> str:
    """One drawing as an SVG element; its name salts the ids, since drawings in one page share their space."""
    import matplotlib.style
    from matplotlib.figure import Figure

    look = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.size": font_size, "figure.dpi": 72,
        "axes.edgecolor": _colour("line"), "axes.labelcolor": _colour("muted"), "text.color": _colour("ink"),
        "axes.titlecolor": _colour("ink"), "axes.titlesize": font_size, "axes.titlelocation": "left",
        "axes.titley": 1.0,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.grid": True,
        "axes.grid.axis": "y", "axes.axisbelow": True, "grid.color": _colour("line"), "grid.linewidth": 0.7,
        "xtick.color": _colour("line"), "ytick.color": _colour("line"), "xtick.labelcolor": _colour("muted"),
        "ytick.labelcolor": _colour("muted"), "ytick.major.size": 0.0, "axes.unicode_minus": True,
        "lines.solid_joinstyle": "round", "axes.formatter.useoffset": False,
    }  # fmt: skip
    text = StringIO()
    with matplotlib.style.context(["default", look]):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72))
        draw(figure)
        # Fixed margins: an automatic layout takes half of the rendering time, and aligns no two figures.
        left, right, top, bottom = 58 / size[0], 1 - 10 / size[0], 1 - 24 / size[1], 26 / size[1]
        figure.subplots_adjust(left=left, right=right, top=top, bottom=bottom, hspace=0.24, wspace=0.16)
        figure.savefig(text, format="svg", transparent=True)
    return inline(text.getvalue())


def inline(svg: str) -> str:
    """The SVG element of a matplotlib file, ready to stand in a page beside others.

    Header, metadata (it holds the date) and fixed size go; fonts come from the page; sentinel colours become
    CSS variables; only ids that are referred to stay; coordinates keep two decimals.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 aria-hidden="true">', svg, count=1)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag.group(0)), svg)
    svg = re.sub(r"\s*\n\s*(?=[MLCQHVz\"])", "", svg)
    svg = svg.replace("xlink:href", "href")
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match.group(0) if match.group(1) in used else "", svg)
    for variable, sentinel in SENTINELS.items():
        svg = svg.replace(sentinel, f"var(--{variable.replace('_', '-')})")
    return svg


def _plain(number: float, _position: int) -> str:
    text = f"{number:.4g}"
    return (text if len(text) <= 7 else f"{number:.2e}").replace("-", "−")


def _percent(number: float, _position: int) -> str:
    return f"{100 * number:.3g} %".replace("-", "−")


def _colour(name: str) -> str:
    return SENTINELS.get(name, SENTINELS["other"])
