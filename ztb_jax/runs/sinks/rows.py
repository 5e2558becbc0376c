"""What trackers show of a run's records: finite numbers, by names under which a person finds them."""

import math
from collections.abc import Mapping
from typing import Any

NAMED = {
    "return_mean": "episode/reward",
    "episode_length_mean": "episode/length",
    "episodes_completed": "episode/completed",
    "validation_log_growth": "performance/validation_log_growth",
    "profit_mean": "performance/profit_mean",
    "steps_per_second": "performance/steps_per_second",
    "survival_rate": "risk/survival_rate",
    "terminated_episodes": "risk/ruined",
    "validation_drawdown": "risk/drawdown",
    "turnover_mean": "risk/turnover",
    "verdict": "risk/verdict",
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
    found = {}
    for key, value in numbers(row).items():
        name = key.removesuffix("_mean")
        other = f"{'loss' if name.endswith('loss') else 'train'}/{name}"
        if key not in PLACES:
            found[NAMED.get(key, other)] = value
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
