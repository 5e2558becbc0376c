"""Stress, controls and regimes of one policy on one slice, as plain numbers for a file or a page."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Env
from ztb_jax.data.market import MarketData
from ztb_jax.evaluation import controls, regimes, stress
from ztb_jax.evaluation.backtest import make_path_backtest
from ztb_jax.evaluation.edge import FEWEST_BARS, Evidence
from ztb_jax.policies.policy import Policy

PLAIN = "costs_x1"
LATENCY = 2  # bars that `stress` delays orders by, at the most


def stress_report(
    policy: Policy,
    env: Env,
    params: Any,
    data: MarketData,
    *,
    closed: np.ndarray,
    bars_per_year: float,
    trials: int,
    seed: int,
) -> dict[str, Any]:
    """Everything of `stress`, `controls` and `regimes` with their default numbers; floats are finite or None.

    Keys: `variants` (`stress.summary`), `breakeven_costs`, `shuffled` (None with fewer than
    `edge.FEWEST_BARS` steps, which nobody can judge), `leak`, `regimes` (`regimes.by_regime`).

    Args:
      policy: the network.
      env: its environment with room for 2 bars of latency more than the slice's own.
      params: the weights to judge.
      data: the slice of N steps.
      closed: [M] closing prices up to the slice's last bar, and as many before it as there are.
      bars_per_year: of the instrument's own calendar.
      trials: M of the verdict.
      seed: of jitter and shuffles.

    Raises:
      ValueError: too little room for latency, fewer closes than the slice has bars, or what the parts refuse.
    """
    labels = _labels(closed, data.num_steps)
    tested = stress.make_stress(policy, env)
    trace = jax.device_get(tested.run(params, data, jax.random.key(seed)))
    plain = stress.variant_of(trace, tested.names.index(PLAIN))
    timed = data.replace(env_params=stress.delayed(data.env_params, 0))
    variants = stress.summary(tested, trace, data, bars_per_year=bars_per_year)
    shuffled = None
    if plain.gain.size >= FEWEST_BARS:
        shuffled = controls.shuffled(
            np.asarray(plain.level), timed, env, bars_per_year=bars_per_year, seed=seed
        )
    leak = controls.leak(timed, env, trials=trials, bars_per_year=bars_per_year)
    held = make_path_backtest(env)(jnp.ones(plain.gain.size), timed.env_params).gain
    found = regimes.by_regime(np.asarray(plain.gain), np.asarray(held), labels, bars_per_year)
    return {
        "variants": variants,
        "breakeven_costs": _breakeven(tested, variants),
        **controls_report(shuffled, leak),
        "regimes": {name: _plain(regime._asdict()) for name, regime in found.items()},
    }


def controls_report(shuffled: controls.Shuffled | None, leak: controls.Leak) -> dict[str, Any]:
    """Keys `shuffled` and `leak`; floats are finite or None."""
    told = None if shuffled is None else {**_plain(shuffled._asdict()), "share": shuffled.share}
    return {"shuffled": told, "leak": _plain(leak._asdict())}


def evidence_of(report: Mapping[str, Any]) -> Evidence:
    """What a `stress_report` says for or against an edge."""
    variants = report["variants"]
    return Evidence(
        doubled_costs=variants["costs_x2"]["total_return"],
        latency=variants["latency_plus_1"]["p_loss"],
        controls=found_on(report["shuffled"]),
    )


def found_on(shuffled: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """Controls on which an edge was found: `Evidence.controls`."""
    if shuffled is None:
        return None
    return ("shuffled bars",) if shuffled["contradicts"] else ()


def warnings_of(report: Mapping[str, Any]) -> list[str]:
    """Sentences on what the slice itself cannot show."""
    return [] if report["leak"]["label"] == "edge" else [report["leak"]["reason"]]


def _breakeven(tested: stress.Stress, variants: dict[str, Any]) -> float | None:
    totals = {
        variant.costs: variants[variant.name]["total_return"]
        for variant in tested.variants
        if variant == stress.Variant(variant.name, costs=variant.costs)
    }
    known = {multiple: total for multiple, total in totals.items() if total is not None}
    return stress.breakeven_cost(known) if len(known) > 1 else None


def _labels(closed: np.ndarray, num_steps: int) -> np.ndarray:
    """[N] of the bars at which the steps are decided."""
    if len(closed) <= num_steps:
        raise ValueError(
            f"{len(closed)} closes are fewer than the {num_steps + 1} bars of the slice: give all there are"
        )
    return regimes.label_regimes(closed)[-num_steps - 1 : -1]


def _plain(numbers: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(number, float) and not math.isfinite(number) else number
        for name, number in numbers.items()
    }
