"""Events of a small run for the tests of sinks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ztb_jax.config import Config, as_dict
from ztb_jax.runs import directory
from ztb_jax.runs.sinks import Event

EVALUATION = {
    "verdict": "Beat buy-and-hold.",
    "strategies": {"policy": {"sharpe": 1.5, "win_rate": None}, "flat": {"sharpe": 0.0}},
}


@dataclass(frozen=True)
class Settings:
    logs: str = "logs"
    tensorboard: bool = False
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    wandb_project: str = "ztb_jax"
    mlflow: str | None = None


def make_run(tmp_path: Path) -> directory.RunDirectory:
    run = directory.create(tmp_path / "runs", "r-1", {})
    (run.checkpoints / "0").mkdir(parents=True)
    (run.checkpoints / "0" / "carry.bin").write_bytes(b"carry")
    (run.checkpoints / "ckpt_000001.pt").write_bytes(b"policy")
    run.replays.mkdir()
    (run.replays / "best.jsonl.gz").write_bytes(b"frames")
    return run


def row(number: int, **changes) -> dict:
    steps = 1024
    return {
        "run_id": "r-1",
        "window_id": number,
        "window_complete": True,
        "env_steps_start": steps * number,
        "env_steps_end": steps * (number + 1),
        "env_steps_in_window": steps,
        "env_steps_total": steps * (number + 1),
        "episodes_completed": 4,
        "return_mean": 0.25 + number,
        "profit_mean": None,
        "survival_rate": 1.0,
        "verdict": 0,
        "validation_log_growth": float("nan"),
        "steps_per_second": 20_000.0,
        "reward_mean": -0.5,
        "loss_mean": 0.75,
        "policy_loss_mean": 0.125,
        "episode_length_mean": 256.0,
        "entropy_mean": 1.0,
        "terminated_episodes": 0,
        "validation_drawdown": 0.125,
        "turnover_mean": 0.5,
        **changes,
    }


def begun(run, env_steps: int = 0) -> Event:
    return Event("begun", run, env_steps, as_dict(Config()))


def window(run, number: int, **changes) -> Event:
    return Event("window", run, 1024 * (number + 1), row(number, **changes))


def checkpoint(run, number: int, path: str) -> Event:
    return Event(
        "checkpoint",
        run,
        1024 * (number + 1),
        {"window_id": number, "path": path, "resume_path": f"checkpoints/{number}"},
    )


def replay(run, number: int) -> Event:
    facts = {
        "window_id": number,
        "replay_id": "best",
        "replay_path": "replays/best.jsonl.gz",
        "tags": ["best", "return:100%"],
    }
    return Event("replay", run, 1024 * (number + 1), facts)


def ended(run, number: int, status: str = "completed", error: str | None = None) -> Event:
    facts = {"run_id": "r-1", "status": status, "error": error, "evaluation": EVALUATION}
    return Event("ended", run, 1024 * (number + 1), facts)


def story(run) -> list[Event]:
    """Two windows, a checkpoint that is a directory, one that is a file, a replay, and a good end."""
    return [
        begun(run),
        Event("line", run, 0, {"text": "train      2,048 steps\nin 2 windows"}),
        window(run, 0),
        checkpoint(run, 0, "checkpoints/0"),
        window(run, 1, verdict=13, terminated_episodes=3),
        checkpoint(run, 1, "checkpoints/ckpt_000001.pt"),
        replay(run, 1),
        ended(run, 1),
    ]
