"""Numbers, times and codes as a person reads them.

Values come out of files: whatever they are, there is a text.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ztb_jax.runs import listing
from ztb_jax.verdicts import HEALTHY, VERDICTS

UNKNOWN = "–"
PERCENTAGES = (
    "return", "volatility", "drawdown", "win_rate", "exposure", "fees_paid", "survival", "value_at_risk",
    "cvar", "hit_rate", "time_in_market", "fees_share", "expectancy", "average_win", "average_loss",
)  # fmt: skip


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def whole(value: Any) -> str:
    """A whole number with commas."""
    number = _number(value)
    return UNKNOWN if number is None else f"{number:,.0f}"


def short(value: Any) -> str:
    """A large number in three or four digits: 12.6 M."""
    number = _number(value)
    if number is None:
        return UNKNOWN
    for size_of, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size_of:
            return f"{number / size_of:.3g} {unit}"
    return f"{number:.3g}"


def share(value: Any, digits: int = 0) -> str:
    """A fraction in percent."""
    number = _number(value)
    return UNKNOWN if number is None else f"{number:.{digits}%}".replace("%", " %").replace("-", "−")


def signed(value: Any, digits: int = 2, unit: str = "") -> str:
    """A number with its sign."""
    number = _number(value)
    return UNKNOWN if number is None else f"{number:+,.{digits}f}{unit}".replace("-", "−")


def plain(value: Any) -> str:
    """Any value of a setting or a metric, short."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(plain, value))
    return str(value)


def metric(name: str, value: Any) -> str:
    """A metric of an evaluation: fractions in percent, the rest as numbers."""
    if isinstance(value, bool):
        return plain(value)
    number = _number(value)
    if number is None:
        return UNKNOWN
    if any(part in name for part in PERCENTAGES):
        return share(number, 1) if abs(number) < 100 else f"×{1 + number:,.4g}"
    return f"{number:,.0f}" if name.startswith("num_") else f"{number:,.2f}".replace("-", "−")


def worded(name: str) -> str:
    """A key as words: `max_drawdown` is "Max drawdown"."""
    return name.removeprefix("num_").replace("_", " ").capitalize()


def span(value: Any) -> str:
    """Seconds as hours, minutes or seconds."""
    number = _number(value)
    if number is None:
        return UNKNOWN
    seconds = max(0, round(number))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600:,} h {seconds % 3600 // 60:02d} min"


def moment(value: Any) -> str:
    """A time of ISO 8601 to the second, as it stands."""
    return value[:19].replace("T", " ") if isinstance(value, str) and value else UNKNOWN


def took(told: Mapping[str, Any]) -> str:
    """How long a run took, from its start to its end or its newest news."""
    try:
        start, end = (datetime.fromisoformat(str(told.get(name))) for name in ("started_at", "finished_at"))
        return span((end - start).total_seconds())
    except (ValueError, TypeError):
        return UNKNOWN


def size(value: Any) -> str:
    """Bytes in the largest unit that keeps the number readable."""
    number = _number(value)
    if number is None:
        return UNKNOWN
    for bytes_of, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= bytes_of:
            return f"{number / bytes_of:.1f} {unit}"
    return f"{number:.0f} B"


def gate(code: Any) -> tuple[str, str, str]:
    """Name, sentence and remedy of a verdict's code."""
    found = VERDICTS.get(code) if isinstance(code, int) else None
    if found is None:
        return f"code {code}", "a gate that this version does not know", UNKNOWN
    return found.name, found.sentence, found.remedy


def failures(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, tuple[str, str, str]]]:
    """Windows that a gate did not pass, newest first, with what its code means."""
    failed = [row for row in reversed(rows) if row.get("verdict", HEALTHY) != HEALTHY]
    return [(row["window_id"], gate(row["verdict"])) for row in failed]


PHASES = {"train": "Training", "replays": "Recording replays", "evaluate": "Judging the policy"}


def headline(told: Mapping[str, Any]) -> str:
    """What there is to say first of a run, from `listing.summary`."""
    status = told["status"]
    if status == "running":
        phase = PHASES.get(told["phase"], "Getting ready")
        return f"{phase}: {share(told['fraction'])} done." if told["phase"] == "train" else f"{phase}."
    if status == "killed":
        return "Nobody writes to this run any more: it was killed. Resume it to go on."
    ended = told["error"] or listing.verdict(told) or told["halt_reason"]
    return str(ended) if ended else f"{status.capitalize()}."


FILTERS = (whole, short, share, signed, plain, worded, span, moment, size)
"""What templates have as filters, each by its own name."""
