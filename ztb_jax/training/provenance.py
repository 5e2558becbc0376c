"""The gates and the seal of a run, gathered from its files for the report."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ztb_jax.config import Config
from ztb_jax.contradictions import GATES_UNREAD
from ztb_jax.evaluation.provenance import Gates, Resume, Seal
from ztb_jax.runs import directory
from ztb_jax.settings import GateConfig
from ztb_jax.verdicts import (
    BEHIND_BUY_AND_HOLD,
    BELOW_BASELINE,
    DRAWDOWN,
    ENTROPY_COLLAPSE,
    FALLING_REWARD,
    HOLD_COLLAPSE,
    KL_RUNAWAY,
    MEMORY,
    NOT_FINITE,
    OVERFIT,
    OVERPAID,
    OVERTRADING,
    REPEATED_STEPS,
    SLOW_RESUME,
    UNDERPAID,
    VERDICTS,
)


def gates_of(run: directory.RunDirectory, config: Config) -> Gates:
    """What watched the run, and what it said after each window.

    Raises:
      RunError: the file of windows is damaged.
    """
    rows = directory.read_windows(run.windows)
    return Gates(asked_of(config), [(row["window_id"], row["verdict"]) for row in rows])


def asked_of(config: Config) -> dict[str, str]:
    """Name of a failure to what would be one, for every gate that watches a run of `config`."""
    wanted, unread = config.gates, GATES_UNREAD.get(config.learner, ())
    told = {
        NOT_FINITE: "loss, reward, gradient or weights are not finite",
        REPEATED_STEPS: "a step counts twice",
    }
    told |= {MEMORY: _memory(wanted)}
    if wanted.fees:
        told[UNDERPAID] = "trades cost less than the settings say"
        if not config.env.volatility_slippage:
            told[OVERPAID] = "trades cost more than the settings say"
    told |= _of_updates(wanted, unread) | _of_windows(wanted)
    return {VERDICTS[code].name: told[code] for code in sorted(told)}


def _memory(wanted: GateConfig) -> str:
    if wanted.memory_gb is None:
        return "the process holds more than 2 GiB, or 2 GiB above its start, plus what a window was to take"
    return f"the process holds {wanted.memory_gb:g} GiB"


def _of_updates(wanted: GateConfig, unread: tuple[str, ...]) -> dict[int, str]:
    running = f", {wanted.patience_updates} updates running"
    told = {}
    if wanted.kl is not None and "kl" not in unread:
        told[KL_RUNAWAY] = f"the policy moves from the one that played by a KL above {wanted.kl:g}{running}"
    if wanted.least_entropy is not None and "least_entropy" not in unread:
        told[ENTROPY_COLLAPSE] = f"the entropy is under {wanted.least_entropy:g} nats{running}"
    for code, word, bounds in (
        (HOLD_COLLAPSE, "less", (wanted.least_turnover, wanted.least_trades)),
        (OVERTRADING, "more", (wanted.most_turnover, wanted.most_trades)),
    ):
        asked = [
            f"{word} than {bound:g} {what} of a bar and account"
            for bound, what in zip(bounds, ("of turnover", "trades"), strict=True)
            if bound is not None
        ]
        if asked:
            told[code] = f"there is {' or '.join(asked)}{running}"
    if wanted.falling_reward is not None:
        told[FALLING_REWARD] = (
            f"the reward's slope is {wanted.falling_reward:g} standard errors below 0 "
            f"after {wanted.falling_after_steps:,} steps"
        )
    return told


def _of_windows(wanted: GateConfig) -> dict[int, str]:
    running = f", {wanted.patience_windows} windows running"
    asked = (
        (SLOW_RESUME, wanted.resume_seconds, "a resume takes {:g} s", ""),
        (BELOW_BASELINE, wanted.baseline, "the validation grows by no more than {:g} a bar", running),
        (DRAWDOWN, wanted.drawdown, "the validation falls by more than {:.0%} from its highest", running),
        (BEHIND_BUY_AND_HOLD, wanted.behind_buy_and_hold,
         "the validation is more than {:g} a bar behind buy-and-hold", running),
        (OVERFIT, wanted.gap, "training is more than {:g} a bar ahead of the validation", running),
    )  # fmt: skip
    return {code: sentence.format(limit) + more for code, limit, sentence, more in asked if limit is not None}


def seal_of(run: directory.RunDirectory, config: Config, metadata: Mapping[str, Any]) -> Seal | None:
    """What the run depended on; None where it has no seal.

    Raises:
      RunError: the seal is damaged.
    """
    if not run.seal.is_file():
        return None
    seal = directory.read_json(run.seal)
    there = seal["environment"]
    words = " ".join(map(str, seal["key"]["words"]))
    facts = {
        "Sealed": seal["timestamp"],
        "Seed": seal["seed"],
        "Key": f"{seal['key']['impl']} {words}",
        "Device": f"{metadata['environment']['device']['name']} ({there['device_kind']})",
        "Cores": there["cpu_cores"],
        "Python, JAX": f"{there['python_version']}, {metadata['environment']['jax']}",
        "Commit": metadata["environment"]["commit"],
        "Prices, SHA-256": metadata["data"]["content_hash"],
        "config.json, SHA-256": metadata["config_sha256"],
        "Sources, SHA-256": there["sources_hash"],
        "Packages, SHA-256": there["requirements_hash"],
    }
    resumes = [
        Resume(each["at"], each["from_window"], each["changed"], each["passed_over"])
        for each in seal["metadata"].get("resumed") or ()
    ]
    # From the settings, not as it was typed: a run judged again from another folder has the same page.
    path = Path(config.run.root) / run.id
    return Seal(facts, f"ztb verify {shlex.quote(str(path))}", resumes)
