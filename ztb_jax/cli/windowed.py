"""`ztb windowed`: the main job under the flags of the windowed trainer, for environment steps and replays."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from ztb_jax.cli import train
from ztb_jax.config import Config
from ztb_jax.errors import ConfigError

SIZES = {"ppo.num_accounts": 8, "ppo.rollout_bars": 128, "ppo.sharing": 1}
# Backend: what it is, and the defaults that come with it.
BACKENDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "random": ({"learner": "random"}, dict.fromkeys(SIZES, 1)),
    "puffer_ppo": ({"learner": "ppo", "preset": "asteroid"}, {}),
    "ppo": ({"learner": "ppo"}, SIZES),
    "apg": ({"learner": "apg"}, SIZES | {"policy.head": "squashed_gaussian"}),
}
DEFAULTS = {
    "run.total_env_steps": 6000,
    "run.window_env_steps": 2000,
    "run.policy_every_windows": 1,
    "sinks.wandb_project": "asteroid-prospector",
}
# Flag: the setting that it is.
SETTINGS = {
    "run_root": "run.root",
    "run_id": "run.id",
    "total_env_steps": "run.total_env_steps",
    "window_env_steps": "run.window_env_steps",
    "checkpoint_every_windows": "run.policy_every_windows",
    "seed": "seed",
    "env_time_max": "env.episode_bars",
    "wandb_mode": "sinks.wandb",
    "wandb_project": "sinks.wandb_project",
    "flush_partial_window": "run.flush_partial_window",
    "eval_replays_per_window": "replays.episodes",
    "eval_max_steps_per_episode": "replays.max_steps",
    "eval_include_info": "replays.include_info",
    "eval_policy_deterministic": "replays.deterministic",
    "eval_seed_offset": "replays.seed_offset",
    "eval_milestone_profit_thresholds": "replays.profit_thresholds",
    "eval_milestone_return_thresholds": "replays.return_thresholds",
    "eval_milestone_survival_thresholds": "replays.survival_thresholds",
    "ppo_num_envs": "ppo.num_accounts",
    "ppo_rollout_steps": "ppo.rollout_bars",
    "ppo_num_minibatches": "ppo.num_minibatches",
    "ppo_update_epochs": "ppo.epochs",
    "ppo_learning_rate": "ppo.learning_rate",
    "ppo_gamma": "ppo.gamma",
    "ppo_gae_lambda": "ppo.lam",
    "ppo_clip_coef": "ppo.clip",
    "ppo_ent_coef": "ppo.entropy_weight",
    "ppo_vf_coef": "ppo.value_weight",
    "ppo_max_grad_norm": "ppo.max_grad_norm",
}
THRESHOLDS = [name for name in SETTINGS if name.endswith("thresholds")]
WORKERS, VECTOR_BACKENDS = 4, ("multiprocessing", "serial")


def main(arguments: list[str]) -> int:
    """Train in windows of environment steps; the last line on standard output is the run directory."""
    require_edge, rest = train.edge_required(arguments)
    config, facts = parse(rest)
    return train.run(config, prog="ztb windowed", facts=facts, require_edge=require_edge)


def parse(arguments: Sequence[str]) -> tuple[Config, dict[str, Any]]:
    """The configuration that the flags make, and what else they put into the run's metadata.

    Every setting of `ztb train` is a flag here, too, and so are `--config`, `--device` and `--profile`.

    Raises:
      ConfigError: all findings at once, by the flags' names.
      SystemExit: a flag does not parse (2), or help was asked for (0); the message is printed.
    """
    known, rest = _flags().parse_known_args(list(arguments))
    given = {name: value for name, value in vars(known).items() if value is not None}
    backend = given.pop("trainer_backend")
    is_what, defaults = BACKENDS[backend]
    facts, findings = _workers(given, backend)
    flags = {SETTINGS[name]: value for name, value in given.items()}
    for name in THRESHOLDS:
        if name in given:
            try:
                flags[SETTINGS[name]] = [float(part) for part in given[name].split(",") if part.strip()]
            except ValueError:
                findings.append(f"{_written(name)} {given[name]!r}: give numbers with commas between them")
                del flags[SETTINGS[name]]
    try:
        config = train.parse(rest, prog="ztb windowed", flags=flags | is_what, defaults=DEFAULTS | defaults)
    except ConfigError as error:
        raise ConfigError(findings + [_by_flags(finding) for finding in error.findings]) from None
    if findings:
        raise ConfigError(findings)
    return config, facts


def _workers(given: dict[str, Any], backend: str) -> tuple[dict[str, Any], list[str]]:
    """What the flags of worker processes say; accounts are an axis of one program, so none is started."""
    workers = given.pop("ppo_num_workers", WORKERS)
    vector = given.pop("ppo_vector_backend", VECTOR_BACKENDS[0])
    if backend != "puffer_ppo":
        return {}, []
    facts, envs = {"ppo_num_workers": workers, "ppo_vector_backend": vector}, given.get("ppo_num_envs", 8)
    if workers < 1:
        return facts, [f"--ppo-num-workers {workers}: give 1 or more"]
    if vector == "multiprocessing" and envs % workers:
        return facts, [
            f"--ppo-num-envs {envs} is not divisible by --ppo-num-workers {workers}: take a multiple, or "
            "--ppo-vector-backend serial"
        ]
    return facts, []


def _written(name: str) -> str:
    return "--" + name.replace("_", "-")


def _by_flags(finding: str) -> str:
    """A finding with the flags' own names for the settings."""
    names = {setting: _written(name) for name, setting in SETTINGS.items()}
    finding = re.sub(r"flag --([a-z_.]+)", lambda flag: names.get(flag[1], f"--{flag[1]}"), finding)
    return re.sub(r"(?<!-)\b[a-z_]+\.[a-z_]+", lambda setting: names.get(setting[0], setting[0]), finding)


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ztb windowed",
        allow_abbrev=False,
        description="Train in windows of environment steps, keep a policy and a replay of each.",
        epilog="Every setting of `ztb train` is a flag, too, such as --data.symbol and --env.fee-rate. With "
        "--require-edge the exit status is 3 unless the verdict is an edge.",
    )
    whole = (
        "total_env_steps", "window_env_steps", "checkpoint_every_windows", "seed", "env_time_max",
        "eval_replays_per_window", "eval_max_steps_per_episode", "eval_seed_offset", "ppo_num_envs",
        "ppo_rollout_steps", "ppo_num_minibatches", "ppo_update_epochs", "ppo_num_workers",
    )  # fmt: skip
    real = [name for name in SETTINGS if name.startswith("ppo_") and name not in whole]
    texts = ["run_root", "run_id", "wandb_project", *THRESHOLDS]
    parser.add_argument("--trainer-backend", choices=BACKENDS, default="random")
    for names, kind in ((whole, int), (real, float), (texts, str)):
        for name in names:
            parser.add_argument(_written(name), type=kind, metavar=kind.__name__.upper())
    parser.add_argument("--wandb-mode", choices=("disabled", "offline", "online"))
    parser.add_argument("--ppo-vector-backend", choices=VECTOR_BACKENDS)
    parser.add_argument("--flush-partial-window", action=argparse.BooleanOptionalAction)
    parser.add_argument("--eval-include-info", action=argparse.BooleanOptionalAction)
    chosen = parser.add_mutually_exclusive_group()
    for name, value in (("deterministic", True), ("stochastic", False)):
        chosen.add_argument(
            f"--eval-policy-{name}", dest="eval_policy_deterministic", action="store_const", const=value
        )
    return parser
