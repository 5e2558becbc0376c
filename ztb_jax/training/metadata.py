"""What `run_metadata.json` begins with; `ztb_jax.runs.artifacts.RunMetadata` says what the fields mean."""

import dataclasses
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from ztb_jax import build, devices, schedule
from ztb_jax.config import Config
from ztb_jax.data.frame import content_hash
from ztb_jax.runs import directory
from ztb_jax.training.saved_policy import architecture

VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pandas", "ztb-jax")
INFO_KEYS = ("turnover", "cost", "trades")
"""Of each step, beside reward, profit and survival; a row has the mean of each."""


def begun(
    config: Config,
    prepared: build.Prepared,
    run: directory.RunDirectory,
    *,
    device: devices.Handle,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The first metadata of a run, or over the `known` ones of a run that goes on."""
    first = {
        "env_steps_total": 0,
        "episodes_total": 0,
        "windows_emitted": 0,
        "checkpoints_written": 0,
        "replays_written": 0,
        "latest_window": None,
        "latest_checkpoint": None,
        "latest_replay": None,
        "best_window": None,
        "profile": None,
        "wandb_run_url": None,
        "constellation_url": None,
        "ppo_policy_updates": 0,
        "ppo_num_workers": None,
        "ppo_vector_backend": None,
        "troubles": [],
    }
    replayed = bool(config.replays.episodes)
    now = {
        "status": "running",
        "process": {"pid": os.getpid(), "host": platform.node()},
        "trainer_backend": backend_of(config),
        "target_env_steps": schedule.target_env_steps(config),
        "window_env_steps": schedule.window_env_steps(config),
        "finished_at": None,
        "verdict": None,
        "edge": None,
        "error": None,
        "halt_reason": None,
        "config_path": run.relative(run.config),
        "seal_path": run.relative(run.seal),
        "metrics_windows_path": run.relative(run.windows),
        "checkpoints_dir": run.relative(run.checkpoints),
        "replays_dir": run.relative(run.replays) if replayed else None,
        "replay_index_path": run.relative(run.replay_index) if replayed else None,
        "info_metric_keys": list(INFO_KEYS),
        "data": _data_facts(prepared),
        "config_sha256": directory.sha256(run.config),
        "environment": environment_facts(device),
        "ppo_device": devices.describe(device).name,
        "ppo_num_envs": config.ppo.num_accounts,
        "ppo_rollout_steps": config.ppo.rollout_bars,
        "ppo_policy_arch": architecture(config),
    }
    return first | dict(known or {}) | now


def backend_of(config: Config) -> str:
    """The learner by the name that the windowed trainer's flag gives it."""
    return "puffer_ppo" if (config.preset, config.learner) == ("asteroid", "ppo") else config.learner


def environment_facts(device: devices.Handle) -> dict[str, Any]:
    """What else the result depends on: versions, the device that was chosen, cores, commit."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_cores": devices.cores(),
        "device": dataclasses.asdict(devices.describe(device)),
        "commit": directory.commit(),
        **{name: version(name) for name in VERSIONED},
    }


def _data_facts(prepared: build.Prepared) -> dict[str, Any]:
    stamps = prepared.frame.index
    return {
        "bars": len(stamps),
        "first": str(stamps[0]),
        "last": str(stamps[-1]),
        "bars_per_year": prepared.bars_per_year,
        "content_hash": content_hash(prepared.frame),
    }
