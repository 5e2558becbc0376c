"""Rows of windows against a loop that goes over every environment step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztb_jax.runs.windowing import window_row


def rows_of(metrics, *, update, window):
    """As the job calls `window_row`: the updates that reach into each window, the straddling one twice."""
    count = len(metrics["reward"])
    rows, made = [], 0
    for number in range(-(-count * update // window)):
        start, stop = number * window, min((number + 1) * window, count * update)
        first = start // update
        made = min(-(-stop // update), count)
        some = {name: values[first:made] for name, values in metrics.items()}
        rows.append(
            window_row(some, first=first, update_env_steps=update, start=start, stop=stop, capital=100.0)
        )
    return rows


def oracle(metrics, *, update, window):
    """Step by step: means are of each step's update; an episode counts where its update has its last step."""
    count = len(metrics["reward"]) * update
    rows = [{"steps": 0, "reward": 0.0, "episodes": 0.0, "profit": 0.0} for _ in range(-(-count // window))]
    for step in range(count):
        row, number = rows[step // window], step // update
        row["steps"] += 1
        row["reward"] += float(metrics["reward"][number])
        if step % update == update - 1:
            row["episodes"] += float(metrics["episodes"][number])
            row["profit"] += float(metrics["episode_profit"][number])
    return rows


@given(
    update=st.integers(1, 40),
    window=st.integers(1, 90),
    episodes=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    seed=st.integers(0, 99),
)
def test_rows_equal_a_loop_over_every_step(update, window, episodes, seed):
    chance = np.random.default_rng(seed)
    metrics = {
        "reward": chance.normal(size=len(episodes)).astype(np.float32),
        "episodes": np.array(episodes, np.float32),
        "episode_profit": (np.array(episodes) * chance.normal(size=len(episodes))).astype(np.float32),
    }
    rows = rows_of(metrics, update=update, window=window)
    for row, told in zip(rows, oracle(metrics, update=update, window=window), strict=True):
        assert row["episodes_completed"] == told["episodes"]
        assert math.isclose(row["reward_sum"], told["reward"], rel_tol=1e-6, abs_tol=1e-6)
        if told["episodes"]:
            profit = 100.0 * told["profit"] / told["episodes"]
            assert math.isclose(row["profit_mean"], profit, rel_tol=1e-6, abs_tol=1e-6)
    assert sum(row["episodes_completed"] for row in rows) == sum(episodes)


def test_a_step_of_25_units_in_windows_of_10():
    """The published example: a reward of 5 becomes 2, 2 and 1, and the episode counts where the step ends."""
    metrics = {
        name: np.array([value], np.float32) for name, value in {"reward": 0.2, "episodes": 1.0}.items()
    }
    rows = rows_of(metrics, update=25, window=10)
    assert [row["reward_sum"] for row in rows] == pytest.approx([2.0, 2.0, 1.0])
    assert [row["episodes_completed"] for row in rows] == [0, 0, 1]


def test_nothing_to_tell_is_none():
    metrics = {"reward": np.array([np.nan], np.float32), "episodes": np.zeros(1, np.float32)}
    row = window_row(metrics, first=0, update_env_steps=4, start=0, stop=4)
    assert row["reward_mean"] is row["return_mean"] is row["survival_rate"] is row["profit_mean"] is None
    assert row["episodes_completed"] == 0


def test_survival_is_the_share_of_episodes_that_were_not_ruined():
    metrics = {"reward": np.zeros(1), "episodes": np.array([4.0]), "ruined": np.array([1.0])}
    row = window_row(metrics, first=0, update_env_steps=4, start=0, stop=4)
    assert (row["survival_rate"], row["terminated_episodes"], row["truncated_episodes"]) == (0.75, 1, 3)
