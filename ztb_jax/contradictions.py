"""What no single setting shows: sizes that do not divide, rules that undo each other, what nobody reads."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ztb_jax.settings import Config, EnvConfig, GateConfig, PPOConfig, RunConfig


def contradictions(config: Config) -> list[str]:
    """Every one in `config`, as sentences with a remedy; none where it can be trained."""
    ppo, env, data = config.ppo, config.env, config.data
    findings = _undivided(ppo, config.learner, config.policy.memory)
    if env.episode_bars % ppo.rollout_bars:
        findings.append(
            f"env.episode_bars ({env.episode_bars}) is not a multiple of ppo.rollout_bars "
            f"({ppo.rollout_bars}): take {_round_up(env.episode_bars, ppo.rollout_bars)}"
        )
    if abs(data.train + data.validation + data.test - 1.0) > 1e-9:
        total = data.train + data.validation + data.test
        findings.append(f"data.train, data.validation and data.test add up to {total:.6g}: make it 1")
    if len(set(env.levels)) < max(2, len(env.levels)):
        findings.append(f"env.levels ({env.levels}) needs at least two levels and none twice")
    if config.policy.encoder == "attention" and config.policy.width % ATTENTION_HEADS:
        findings.append(
            f"policy.width ({config.policy.width}) is shared among the {ATTENTION_HEADS} heads of "
            f"policy.encoder attention: take {_round_up(config.policy.width, ATTENTION_HEADS)}"
        )
    if config.policy.memory and not _in_a_row(ppo):
        findings.append(
            f"ppo.shuffle {ppo.shuffle} tears apart the steps that policy.memory needs in a row: take "
            "accounts or segments"
        )
    if config.policy.head != "categorical":
        findings += [
            f"env.{name} protects levels, and policy.head {config.policy.head} asks for any exposure: leave "
            "one of them out"
            for name in ("stop_loss", "take_profit", "trail")
            if getattr(env, name) is not None
        ]
    findings += _unplayable(env) + _unread(env) + _unkept(config)
    findings += _unread_of("ppo", ppo, {"kl_rule": ("ppo.target_kl", ppo.target_kl is not None)})
    return findings + _gateless(config.gates, config.learner) + _unfit(config) + _unspread(config)


ATTENTION_HEADS = 4  # as `ztb_jax.policies.sequences` has them, which this module cannot import without jax


def _in_a_row(ppo: PPOConfig) -> bool:
    """Whether minibatches keep the steps of an account together."""
    return ppo.shuffle not in {"full", "affine"}


def _undivided(ppo: PPOConfig, learner: str, memory: int) -> list[str]:
    """Sizes of the learner that do not divide each other."""
    if ppo.num_accounts % ppo.sharing:
        return [
            f"ppo.num_accounts ({ppo.num_accounts}) is not a multiple of ppo.sharing ({ppo.sharing}): "
            f"take {_round_up(ppo.num_accounts, ppo.sharing)}"
        ]
    if learner != "ppo":
        return []
    groups, parts = ppo.num_accounts // ppo.sharing, ppo.num_minibatches
    steps = ppo.num_accounts * ppo.rollout_bars
    wholes = {
        "auto": {"accounts of a group (ppo.sharing)": ppo.sharing, "groups of accounts": groups},
        "accounts": {"accounts of a group (ppo.sharing)": ppo.sharing},
        "segments": {"groups of accounts": groups},
    }.get(ppo.shuffle, {"steps of a rollout": steps})
    fitting = [whole for whole in wholes.values() if whole % parts == 0]
    if not fitting:
        told = " nor ".join(f"the {whole} {name}" for name, whole in wholes.items())
        divides = "divides neither" if len(wholes) > 1 else "does not divide"
        dividing = [n for n in range(1, parts) if any(whole % n == 0 for whole in wholes.values())]
        return [f"ppo.num_minibatches ({parts}) {divides} {told}: take {dividing[-1]}"]
    whole = fitting[0] // parts if memory else steps // parts
    if whole % ppo.accumulate:
        return [f"ppo.accumulate ({ppo.accumulate}) does not divide a minibatch of {whole}: take a divisor"]
    return []


def _unspread(config: Config) -> list[str]:
    """What several devices cannot share evenly."""
    run, ppo, count = config.run, config.ppo, config.run.devices
    if count == 1:
        return []
    findings = []
    if ":" in run.device:
        findings.append(
            f"run.device {run.device} is one device and run.devices asks for {count}: drop its number"
        )
    if config.learner != "ppo":
        findings.append(f"learner {config.learner} trains on one device: leave run.devices out")
    if count and ppo.num_accounts % (ppo.sharing * count):
        findings.append(
            f"ppo.num_accounts ({ppo.num_accounts}) in groups of ppo.sharing ({ppo.sharing}) do not divide "
            f"among run.devices ({count}): take {_round_up(ppo.num_accounts, ppo.sharing * count)}"
        )
    elif count:
        part = dataclasses.replace(ppo, num_accounts=ppo.num_accounts // count)
        findings += [
            f"with {part.num_accounts} accounts on each of run.devices ({count}), {finding}"
            for finding in _undivided(part, config.learner, config.policy.memory)
        ]
    return findings


READ_BY_ALL = {"num_accounts", "rollout_bars", "sharing"}
READ_BY_APG = READ_BY_ALL | {
    "optimizer",
    "learning_rate",
    "learning_rate_schedule",
    "beta1",
    "beta2",
    "epsilon",
    "weight_decay",
    "gamma",
    "value_weight",
    "entropy_weight",
    "entropy_schedule",
    "max_grad_norm",
}


def _unfit(config: Config) -> list[str]:
    """What another learner than PPO cannot work with, or does not read."""
    if config.learner == "ppo":
        return []
    findings = []
    if config.learner == "apg" and config.policy.head == "categorical":
        findings.append(
            "learner apg needs actions with a derivative, and policy.head is categorical: take "
            "squashed_gaussian or beta"
        )
    if config.learner == "apg" and config.env.band:
        findings.append(
            f"env.band ({config.env.band}) makes growth jump where a trade is made or not, which learner apg "
            "does not see: leave it out, or take learner ppo"
        )
    read, usual = READ_BY_APG if config.learner == "apg" else READ_BY_ALL, PPOConfig()
    return findings + [
        f"ppo.{field.name} is not read by learner {config.learner}: leave it, or the preset that sets it, out"
        for field in dataclasses.fields(usual)
        if field.name not in read and getattr(config.ppo, field.name) != getattr(usual, field.name)
    ]


def _unplayable(env: EnvConfig) -> list[str]:
    """Rules of the account that undo each other."""
    findings = []
    if env.latency >= env.episode_bars:
        findings.append(
            f"env.latency ({env.latency}) lets no order arrive within env.episode_bars ({env.episode_bars}): "
            "keep it below"
        )
    if env.max_leverage is None:
        return findings
    if env.max_leverage * env.maintenance >= 1.0:
        findings.append(
            f"env.max_leverage ({env.max_leverage}) meets env.maintenance ({env.maintenance}) at once: "
            f"keep it below {1.0 / env.maintenance:.6g}"
        )
    largest = max(map(abs, env.levels), default=0.0)
    if env.volatility_target is None and env.max_leverage < largest:
        findings.append(
            f"env.max_leverage ({env.max_leverage}) cuts env.levels ({env.levels}) off, so that actions "
            f"become equal: raise it to {largest:g} or keep levels within it"
        )
    return findings


def _unread(env: EnvConfig) -> list[str]:
    """Settings that were changed and that nothing would read."""
    readers = {
        "maintenance": ("env.max_leverage", env.max_leverage),
        "loan_rate": (
            "a level above 1 in env.levels or env.volatility_target",
            env.volatility_target or max(env.levels, default=0.0) > 1.0,
        ),
        "volatility_window": (
            "env.volatility_target or env.volatility_slippage",
            env.volatility_target or env.volatility_slippage,
        ),
        "risk_adjusted": ("env.reward: risk_adjusted", env.reward == "risk_adjusted"),
    }
    return _unread_of("env", env, readers)


GATES_UNREAD = {"ppo": (), "apg": ("kl",), "random": ("kl", "least_entropy")}  # a learner does not tell them


def _gateless(asked: GateConfig, learner: str) -> list[str]:
    """Bounds with nothing between them, and settings of gates that nothing would read."""
    findings = []
    for name in ("turnover", "trades"):
        least, most = getattr(asked, f"least_{name}"), getattr(asked, f"most_{name}")
        if least is not None and most is not None and least > most:
            findings.append(f"gates.least_{name} ({least}) is above gates.most_{name} ({most}): swap them")
    judged = (asked.baseline, asked.drawdown, asked.behind_buy_and_hold, asked.gap)
    readers = {name: ("another learner", False) for name in GATES_UNREAD[learner]} | {
        "falling_after_steps": ("gates.falling_reward", asked.falling_reward is not None),
        "patience_windows": (
            "gates.baseline, drawdown, behind_buy_and_hold or gap",
            judged != (None,) * len(judged),
        ),
    }
    return findings + _unread_of("gates", asked, readers)


def _unread_of(section: str, asked: Any, readers: Mapping[str, tuple[str, Any]]) -> list[str]:
    return [
        f"{section}.{name} is read only with {needed}: set that, or leave {section}.{name} out"
        for name, (needed, there) in readers.items()
        if not there and getattr(asked, name) != getattr(type(asked)(), name)
    ]


def _unkept(config: Config) -> list[str]:
    """Settings of windows and replays that nothing would read."""
    run, replays = config.run, config.replays
    findings = _unread_of(
        "run", run, {"flush_partial_window": ("run.window_env_steps", run.window_env_steps is not None)}
    )
    if run.window_env_steps is not None and run.window_updates != RunConfig().window_updates:
        findings.append(
            f"run.window_env_steps ({run.window_env_steps}) and run.window_updates ({run.window_updates}) "
            "both say how long a window is: leave one of them out"
        )
    played = {name: ("replays.episodes", replays.episodes) for name in vars(replays) if name != "episodes"}
    findings += _unread_of("sinks", config.sinks, {"logs": ("sinks.tensorboard", config.sinks.tensorboard)})
    return findings + _unread_of("replays", replays, played)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
