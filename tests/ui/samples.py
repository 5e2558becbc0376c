"""Run directories that no training made: files exactly as `ztb_jax.runs.artifacts` describes them."""

import dataclasses
import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ztb_jax.runs import directory, replays
from ztb_jax.settings import Config, DataConfig, PPOConfig

WINDOW_STEPS = 524_288
START = datetime(2026, 11, 28, 8, 0, tzinfo=UTC)
REPORT = "<!doctype html><html lang='en'><title>Report</title><h1>Report</h1></html>"
VERDICT = "Beat buy-and-hold on the test slice: +12.4 % against +7.1 %."
EDGE = {
    "label": "inconclusive",
    "reasons": ["The mean return is not significantly above zero (p = 0.08 > 0.017)."],
    "p_mean": 0.08,
    "p_alpha": 0.09,
    "sharpe": 0.99,
    "sharpe_upper": 2.1,
    "bars_needed": 4100,
    "trials": 3,
    "trials_at_first": 2,
    "ledger": None,
    "alpha": 0.05,
    "contradictions": {},
    "evidence": None,
}


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def window_row(run_id: str, number: int, *, seed: int = 0, verdict: int = 0) -> dict[str, Any]:
    """One `WindowRow` of a run that learns, with the means of a learner beside it."""
    draw = random.Random(f"{seed} {number}")
    learnt = 1.0 - math.exp(-number / 12)
    reward = 4e-4 * learnt - 1.5e-4 + draw.gauss(0, 2e-5)
    return {
        "run_id": run_id,
        "window_id": number,
        "window_complete": True,
        "env_steps_start": number * WINDOW_STEPS,
        "env_steps_end": (number + 1) * WINDOW_STEPS,
        "env_steps_in_window": WINDOW_STEPS,
        "env_steps_total": (number + 1) * WINDOW_STEPS,
        "episodes_completed": 2048,
        "terminated_episodes": 3,
        "truncated_episodes": 2045,
        "reward_sum": reward * WINDOW_STEPS,
        "reward_mean": reward,
        "return_mean": reward * 256,
        "invalid_action_rate": 0.0,
        "profit_mean": 1e4 * reward * 256,
        "survival_rate": 2045 / 2048,
        "verdict": verdict,
        "validation_log_growth": 2.2e-4 * learnt - 6e-5 + draw.gauss(0, 3e-5),
        "validation_drawdown": 0.1,
        "best_window": number if number < 3 else 3 + 7 * ((number - 3) // 7),
        "seconds": 2.1 + draw.uniform(0, 0.2),
        "steps_per_second": 241_000 + draw.gauss(0, 4_000),
        "entropy_mean": 1.09 * math.exp(-number / 40),
        "kl_mean": 0.004 + abs(draw.gauss(0, 1e-3)),
        "explained_variance_mean": 0.6 * learnt,
        "turnover_mean": 0.4 * math.exp(-number / 25) + 0.05,
    }


def frames(count: int, *, seed: int = 0, minutes: int = 15) -> Iterator[dict[str, Any]]:
    """`ReplayFrame`s of a random walk on which an account goes long, short and flat, one at a time."""
    draw = random.Random(seed)
    price, equity, peak, position = 100.0, 10_000.0, 10_000.0, 0.0
    for number in range(count):
        opened = price
        price *= math.exp(draw.gauss(2e-5, 0.0018))
        high = max(opened, price) * (1 + abs(draw.gauss(0, 0.0006)))
        low = min(opened, price) * (1 - abs(draw.gauss(0, 0.0006)))
        events: list[dict[str, Any]] = []
        paid = 0.0
        if draw.random() < 0.05:
            target = draw.choice([-1.0, 0.0, 1.0])
            events.append({"type": "order", "level": target})
            if target != position:
                size, cost = abs(target - position), abs(target - position) * equity * 6e-4
                side = "buy" if target > position else "sell"
                events.append({"type": "fill", "side": side, "size": size, "price": opened, "cost": cost})
                paid, position = cost, target
        elif position and draw.random() < 0.008:
            events.append(_exit(draw, position, price=low if position > 0 else high, equity=equity))
            paid, position = events[-1]["cost"], 0.0
        before, equity = equity, (equity - paid) * (1 + position * (price / opened - 1))
        peak = max(peak, equity)
        yield {
            "schema_version": 1,
            "frame_index": number,
            "t": number + 1,
            "dt": 1,
            "action": int(position) + 1,
            "reward": math.log(equity / before),
            "terminated": False,
            "truncated": number == count - 1,
            "render_state": {
                "time": _text(START + timedelta(minutes=minutes * number)),
                "bar": {"open": opened, "high": high, "low": low, "close": price},
                "observation": [position, equity / 10_000, draw.gauss(0, 1), draw.gauss(0, 1)],
                "position": position,
                "equity": equity,
                "net_profit": equity - 10_000,
                "drawdown": 1 - equity / peak,
                "survival": 1.0,
                "time_remaining": count - number - 1,
            },
            "events": events,
            "info": {"bar": number},
        }


def _exit(draw: random.Random, position: float, *, price: float, equity: float) -> dict[str, Any]:
    return {
        "type": "exit",
        "side": "sell" if position > 0 else "buy",
        "size": abs(position),
        "price": price,
        "cost": abs(position) * equity * 6e-4,
        "reason": draw.choice(["stop", "target", "trail"]),
    }


def add_replay(
    run: directory.RunDirectory, window: int, *, steps: int, seed: int = 0, minutes: int = 15
) -> dict[str, Any]:
    """Write a replay of one window, and its entry in the index."""
    name = f"window_{window:06d}"
    path = run.replays / f"{name}.jsonl.gz"
    run.replays.mkdir(exist_ok=True)
    last: dict[str, Any] = {}
    total = 0.0

    def followed() -> Iterator[dict[str, Any]]:
        nonlocal last, total
        for last in frames(steps, seed=seed, minutes=minutes):
            total += last["reward"]
            yield last

    replays.write_frames(path, followed())
    entries = replays.read_index(run)
    entry = {
        "run_id": run.id,
        "window_id": window,
        "replay_id": name,
        "replay_path": run.relative(path),
        "checkpoint_path": f"checkpoints/ckpt_{window:06d}.pt",
        "trainer_backend": "ppo",
        "return_total": total,
        "return_percent": 100 * math.expm1(total),
        "steps": steps,
        "profit": last["render_state"]["net_profit"],
        "survival": 1.0,
        "terminated": False,
        "truncated": True,
        "checkpoint_env_steps_total": (window + 1) * WINDOW_STEPS,
        "episodes": 4,
        "slice": "validation",
        "first_time": _text(START),
        "last_time": last["render_state"]["time"],
        "created_at": _text(START + timedelta(minutes=window)),
    }
    entry["tags"] = replays.tags_of(entry, entries, returns=(5.0,))
    replays.write_index(run, [*entries, entry])
    return entry


def metadata(run_id: str, *, windows: int, target_windows: int, **facts: Any) -> dict[str, Any]:
    """`RunMetadata` of a PPO run after so many windows."""
    started = facts.pop("started", START)
    last = windows - 1
    done = windows * WINDOW_STEPS
    stamp = _text(started + timedelta(seconds=3 * windows))
    whole = {
        "run_id": run_id,
        "status": "completed",
        "trainer_backend": "ppo",
        "phase": "train",
        "fraction": windows / target_windows,
        "target_env_steps": target_windows * WINDOW_STEPS,
        "window_env_steps": WINDOW_STEPS,
        "env_steps_total": done,
        "episodes_total": 2048 * windows,
        "windows_emitted": windows,
        "checkpoints_written": windows,
        "replays_written": 0,
        "latest_window": None,
        "latest_checkpoint": None,
        "latest_replay": None,
        "best_window": None,
        "config_path": "config.json",
        "seal_path": "seal.json",
        "metrics_windows_path": "metrics/windows.jsonl",
        "checkpoints_dir": "checkpoints",
        "replays_dir": "replays",
        "replay_index_path": "replay_index.json",
        "wandb_run_url": None,
        "constellation_url": None,
        "info_metric_keys": [],
        "troubles": [],
        "started_at": _text(started),
        "verdict": None,
        "edge": None,
        "updated_at": stamp,
        "finished_at": stamp,
        "error": None,
        "halt_reason": None,
        "ppo_device": "cpu:0",
        "ppo_num_envs": 1024,
        "ppo_num_workers": None,
        "ppo_rollout_steps": 64,
        "ppo_policy_updates": 8 * windows,
        "ppo_vector_backend": None,
        "ppo_policy_arch": "mlp 64x2",
        "steps_per_second": 241_312.5,
        "eta_seconds": 3.0 * (target_windows - windows),
        "process": {"pid": 4242, "host": "desk"},
        "environment": {"python": "3.11.7", "jax": "0.10.2", "commit": "a89c37d00"},
    }
    if windows:
        whole |= {
            "best_window": window_row(run_id, last)["best_window"],
            "latest_window": {
                "window_id": last,
                "window_complete": True,
                "env_steps_start": last * WINDOW_STEPS,
                "env_steps_end": done,
                "metrics_row_path": "metrics/windows.jsonl",
            },
            "latest_checkpoint": {
                "window_id": last,
                "env_steps_total": done,
                "path": f"checkpoints/ckpt_{last:06d}.pt",
                "resume_path": f"checkpoints/{last}",
                "created_at": stamp,
            },
        }
    return whole | facts


def evaluation(run_id: str, *, symbol: str, verdict: str = VERDICT, growth: float = 0.124) -> dict[str, Any]:
    """An `Evaluation` with the policy and three baselines."""

    def metrics(growth: float, **others: Any) -> dict[str, Any]:
        return {
            "total_return": growth,
            "annual_return": 2 * growth,
            "volatility": 0.18,
            "sharpe": 8 * growth,
            "max_drawdown": 0.083,
            "turnover": 41.5,
            "num_trades": 62.0,
            "fees_paid": 0.0213,
            "exposure": 0.71,
            "win_rate": 0.54,
        } | others

    return {
        "run_id": run_id,
        "symbol": symbol,
        "timeframe": "1h",
        "slice": "test",
        "first_bar": "2026-05-01 00:00:00",
        "last_bar": "2026-10-30 23:00:00",
        "bars": 3120,
        "bars_per_year": 6048.0,
        "chosen_window": 17,
        "beats_buy_and_hold": True,
        "verdict": verdict,
        "edge": EDGE,
        "targets": [
            {"phase": "overall", "name": "sharpe", "target": "> 2.00", "value": 8 * growth, "met": False},
        ],
        "notes": ["Costs of borrowing are not charged."],
        "strategies": {
            "policy": metrics(growth),
            "buy_and_hold": metrics(0.071, num_trades=1.0, win_rate=None),
            "flat": metrics(0.0, volatility=0.0, num_trades=0.0, win_rate=None),
            "random": metrics(-0.152),
        },
    }


def make_run(
    root: Path,
    run_id: str,
    *,
    windows: int = 24,
    target_windows: int = 24,
    symbol: str = "SP500",
    seed: int = 0,
    replay_steps: tuple[int, ...] = (),
    learning_rate: float = 3e-4,
    gate: tuple[int, int] | None = None,
    growth: float = 0.124,
    **facts: Any,
) -> directory.RunDirectory:
    """One run directory.

    Args:
      root: folder of runs.
      run_id: its name.
      windows: that are done.
      target_windows: of the whole run.
      symbol: of the market.
      seed: of its numbers.
      replay_steps: frames of each of its replays, one every fourth window.
      learning_rate: a setting to differ in.
      gate: a window and the code of the verdict that stopped it.
      growth: of the policy on the test slice.
      facts: that replace those of `metadata`.
    """
    config = Config(
        seed=seed,
        data=DataConfig(symbol=symbol, timeframe="1h"),
        ppo=PPOConfig(learning_rate=learning_rate),
    )
    run = directory.create(root, run_id, dataclasses.asdict(config))
    rows = [
        window_row(run_id, number, seed=seed, verdict=gate[1] if gate and gate[0] == number else 0)
        for number in range(windows)
    ]
    directory.write_lines(run.windows, rows)
    directory.write_json(run.seal, {"run_id": run_id, "seed": seed, "data": {"bars": 30_000}})
    for number in range(max(0, windows - 3), windows):
        folder = run.checkpoints / str(number)
        folder.mkdir(parents=True)
        directory.write_json(folder / "manifest.json", {"window": number})
        (run.checkpoints / f"ckpt_{number:06d}.pt").write_bytes(bytes(40_000))
    entries = [
        add_replay(run, 4 * at + 3, steps=steps, seed=seed + at) for at, steps in enumerate(replay_steps)
    ]
    whole = metadata(run_id, windows=windows, target_windows=target_windows, replays_written=len(entries))
    if entries:
        keys = ("window_id", "replay_id", "replay_path", "return_total", "tags", "created_at")
        whole["latest_replay"] = {key: entries[-1][key] for key in keys}
    if facts.get("status", "completed") == "completed":
        verdict = facts.get("verdict", VERDICT)
        told = evaluation(run_id, symbol=symbol, verdict=verdict, growth=growth)
        directory.write_json(run.evaluation, told)
        directory.write_text(run.report, REPORT)
        whole |= {
            "verdict": told["verdict"],
            "edge": told["edge"]["label"],
            "phase": "evaluate",
            "fraction": 1.0,
        }
    directory.write_json(run.metadata, whole | facts)
    return run


def grow(run: directory.RunDirectory, *, seed: int = 0) -> int:
    """One more window of a run, in the order a training run writes: the row, then the metadata."""
    told = directory.read_json(run.metadata)
    number = told["windows_emitted"]
    directory.append_line(run.windows, window_row(run.id, number, seed=seed))
    target = told["target_env_steps"] // WINDOW_STEPS
    kept = ("status", "started_at", "finished_at", "replays_written", "latest_replay", "troubles")
    fresh = metadata(run.id, windows=number + 1, target_windows=target)
    directory.write_json(run.metadata, fresh | {key: told[key] for key in kept})
    return number


def finish(run: directory.RunDirectory) -> None:
    """The run is judged and ends."""
    told = directory.read_json(run.metadata)
    directory.write_json(run.evaluation, evaluation(run.id, symbol="SP500"))
    ended = {"status": "completed", "verdict": VERDICT, "fraction": 1.0, "finished_at": told["updated_at"]}
    directory.write_json(run.metadata, told | ended)
