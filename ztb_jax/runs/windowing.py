"""Rows of windows from updates that need not end where windows do. Imports no jax.

Updates of U environment steps follow one another; window w is the steps from w W to (w + 1) W. What an update
adds up over its steps is split among windows in proportion to the steps that fall into each; what happens at
a moment, such as the end of an episode, counts where the update ends.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

MOMENTS = ("episodes", "episode_return", "episode_length", "episode_profit", "ruined")
"""Metrics that are sums over what ended in an update; all others are means over its steps."""


def window_row(
    metrics: Mapping[str, np.ndarray],
    *,
    first: int,
    update_env_steps: int,
    start: int,
    stop: int,
    capital: float = 1.0,
) -> dict[str, Any]:
    """What happened from environment step `start` to `stop`.

    Args:
      metrics: [n] by name, one value an update; those that reach into the window, in a row.
      first: the number of the first of them, from 0.
      update_env_steps: U.
      start: first environment step of the window.
      stop: one past its last.
      capital: what an episode begins with.

    Returns:
      `episodes_completed`, `terminated_episodes`, `truncated_episodes`, `reward_sum`, `reward_mean`,
      `return_mean`, `invalid_action_rate`, `profit_mean`, `survival_rate`, and the mean over steps of every
      other metric as `<name>_mean`; None where there is nothing to tell.
    """
    count = len(next(iter(metrics.values())))
    ends = update_env_steps * (first + 1 + np.arange(count))
    inside = np.minimum(ends, stop) - np.maximum(ends - update_env_steps, start)
    shares = np.maximum(inside, 0) / update_env_steps
    ended = (ends > start) & (ends <= stop)
    total = shares.sum()
    means = {
        name: _finite((shares * values)[shares > 0].sum(dtype=np.float64) / total) if total > 0 else None
        for name, values in metrics.items()
        if name not in (*MOMENTS, "verdict")
    }
    sums = {name: float(metrics[name][ended].sum(dtype=np.float64)) for name in MOMENTS if name in metrics}
    episodes, ruined = round(sums.get("episodes", 0.0)), round(sums.get("ruined", 0.0))
    reward = means.pop("reward", None)

    def each(name: str, unit: float = 1.0) -> float | None:
        return _finite(unit * sums[name] / episodes) if episodes and name in sums else None

    return {
        "episodes_completed": episodes,
        "terminated_episodes": ruined,
        "truncated_episodes": episodes - ruined,
        "reward_sum": None if reward is None else reward * (stop - start),
        "reward_mean": reward,
        "return_mean": each("episode_return"),
        "invalid_action_rate": means.pop("invalid", None),
        "profit_mean": each("episode_profit", capital),
        "survival_rate": 1.0 - ruined / episodes if episodes else None,
        "episode_length_mean": each("episode_length"),
        **{f"{name}_mean": value for name, value in means.items()},
    }


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
