"""What trackers show of a run's records: finite numbers, by names under which a person finds them."""

import math
from collections.abc import Mapping
from typing import Any

# Of several keys the first that the row has.
NAMED = {
    "episode/reward": ("return_mean", "episode_return_mean"),
    "episode/length": ("episode_length_mean",),
    "episode/completed": ("episodes_completed",),
    "performance/validation_log_growth": ("validation_log_growth",),
    "performance/profit_mean": ("profit_mean",),
    "performance/steps_per_second": ("steps_per_second",),
    "risk/survival_rate": ("survival_rate",),
    "risk/ruined": ("ruined_mean",),
    "risk/drawdown": ("drawdown_mean",),
    "risk/turnover": ("turnover_mean",),
    "risk/verdict": ("verdict",),
}
PLACES = ("window_id", "env_steps_start", "env_steps_end", "env_steps_total", "window_complete")


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a record, by its own keys."""
    return {
        key: value
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def grouped(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a `WindowRow` as `episode/*`, `loss/*`, `performance/*`, `risk/*` and `train/*`.

    Where the row is, such as its step, is no number of it.
    """
    left = {key: value for key, value in numbers(row).items() if key not in PLACES}
    found = {}
    for tag, keys in NAMED.items():
        key = next((key for key in keys if key in left), None)
        if key is not None:
            found[tag] = left.pop(key)
    for key, value in left.items():
        name = key.removesuffix("_mean")
        found[f"{'loss' if name.endswith('loss') else 'train'}/{name}"] = value
    return found


def judged(facts: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of the evaluation in the facts of "ended", as `evaluation/<strategy>/<metric>`."""
    strategies = (facts.get("evaluation") or {}).get("strategies", {})
    return {
        f"evaluation/{strategy}/{metric}": value
        for strategy, metrics in strategies.items()
        for metric, value in numbers(metrics).items()
    }


def is_policy(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has a policy file, which stays; a generation may go before a sink reads it."""
    return checkpoint["path"] != checkpoint["resume_path"]
