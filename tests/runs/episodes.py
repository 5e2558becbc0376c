"""A run with replays of a made-up market, as `ztb_jax.runs.artifacts` says they are."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ztb_jax.runs import directory, replays

START = 10_000.0


def frames(count: int) -> Iterator[dict[str, Any]]:
    """A market that swings, and an account that buys at 3, sells at 7 by its stop, and so on every eight."""
    equity, highest = START, START
    for number in range(count):
        opened, closed = (1_000.0 + 50.0 * math.sin(at / 9.0) for at in (number, number + 1))
        held = 0.98 if number % 8 in (3, 4, 5, 6) else 0.0
        equity *= 1.0 + held * (closed / opened - 1.0)
        highest = max(highest, equity)
        last = number == count - 1
        events: list[dict[str, Any]] = []
        traded = {"size": 0.98, "price": opened, "cost": 6.9}
        if number % 8 == 3:
            events += [{"type": "order", "level": 1.0}, {"type": "fill", "side": "buy", **traded}]
        if number % 8 == 7:
            events += [{"type": "exit", "side": "sell", "reason": "stop", **traded}]
        yield {
            "schema_version": 1, "frame_index": number, "t": number + 1, "dt": 1, "action": 2, "reward": 0.0,
            "terminated": False, "truncated": last,
            "render_state": {
                "time": f"2020-01-{1 + number // 24 % 28:02d}T{number % 24:02d}:00:00Z",
                "bar": {
                    "open": opened, "high": max(opened, closed) + 4.0, "low": min(opened, closed) - 4.0,
                    "close": closed,
                },
                "observation": [0.5, -0.25], "position": held, "equity": equity,
                "net_profit": equity - START, "drawdown": 1.0 - equity / highest, "survival": 1.0,
                "time_remaining": count - number - 1,
            },
            "events": events, "info": {},
        }  # fmt: skip


def entry_of(run: str, window: int, count: int, tags: list[str]) -> dict[str, Any]:
    """An entry of the index for a replay of `frames(count)`."""
    name = f"w{window:04d}"
    (last,) = itertools.islice(frames(count), count - 1, count)
    state = last["render_state"]
    return {
        "run_id": run, "window_id": window, "replay_id": name, "replay_path": f"replays/{name}.jsonl.gz",
        "checkpoint_path": f"checkpoints/{window}", "tags": tags, "trainer_backend": "ppo",
        "return_total": 0.01 * window, "return_percent": 100.0 * state["net_profit"] / START, "steps": count,
        "profit": state["net_profit"], "survival": 1.0, "terminated": False, "truncated": True,
        "checkpoint_env_steps_total": 1024, "episodes": 4, "slice": "validation",
        "first_time": "2020-01-01T00:00:00Z", "last_time": state["time"],
        "created_at": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip


def make_run(root: Path, name: str = "watched", *, count: int = 100) -> directory.RunDirectory:
    """A run with three replays; the one of window 5 is the newest that was best so far."""
    run = directory.create(root, name, {"data": {"symbol": "SP500", "timeframe": "1h"}})
    run.replays.mkdir()
    entries = [
        entry_of(name, 2, 40, ["every_window", "best_so_far"]),
        entry_of(name, 5, count, ["every_window", "best_so_far", "milestone:profit:100"]),
        entry_of(name, 7, 50, ["every_window"]),
    ]
    for entry in entries:
        replays.write_frames(run.path / entry["replay_path"], frames(entry["steps"]))
    replays.write_index(run, entries)
    return run
