"""A scoring is written into the record first, and judged then, with the M that the record tells."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ztb_jax import build
from ztb_jax.config import Config, flat
from ztb_jax.data.frame import canonical_timeframe, content_hash
from ztb_jax.evaluation import compare, judgement, metrics, robustness
from ztb_jax.evaluation.verdict import SEEN
from ztb_jax.runs import directory, ledger, packing
from ztb_jax.runs.judged import Scored
from ztb_jax.training.progress import Reporter
from ztb_jax.training.run_seal import PLACES


class Verdict(NamedTuple):
    """What `evaluation.json` holds as `edge` and `stress`, and sentences to stand under the verdict."""

    edge: dict[str, Any]
    stress: dict[str, Any] | None
    notes: list[str]


def judge(
    run: directory.RunDirectory,
    reporter: Reporter,
    config: Config,
    prepared: build.Prepared,
    *,
    slice_name: str,
    params: Any,
    accounts: Mapping[str, compare.Account],
    row: Scored,
) -> Verdict:
    """The verdict on `params`, once the record of scorings holds them.

    Args:
      run: that they are of.
      reporter: told of what the record lacks.
      config: of the run.
      prepared: its market.
      slice_name: what they were scored on.
      params: weights of the policy.
      accounts: of "policy" and its baselines on that slice.
      row: of `row_of`, to be recorded.

    Raises:
      RunError: the record cannot be written, or is damaged.
    """
    returns = {name: metrics.net_returns(account.equity) for name, account in accounts.items()}
    policy, year = returns.pop("policy"), prepared.bars_per_year
    root = run.path.resolve().parent
    notes = _without_record(root, config, run)
    counted = record(root, config, [row], reporter)
    before = _counted_before(run, slice_name)
    many, stressed = max(counted.policies, before), None
    if slice_name in SEEN:
        edge = judgement.no_judgement(SEEN[slice_name], trials=many)
    else:
        stressed = _stressed(config, prepared, params, slice_name=slice_name, trials=many)
        edge = judgement.judge(
            policy,
            returns,
            trials=many,
            trial_sharpes=counted.sharpes,
            bars_per_year=year,
            further=robustness.evidence_of(stressed),
        )
        notes += robustness.warnings_of(stressed)
    edge |= {
        "trials_at_first": counted.at_first,
        "ledger": config.run.ledger,
    }
    if before > counted.policies:
        notes.append(
            f"The record of scorings holds {counted.policies:,} of the {before:,} policies that were counted "
            f"before: M stays {before:,}."
        )
    return Verdict(edge, stressed, notes)


def _without_record(root: Path, config: Config, run: directory.RunDirectory) -> list[str]:
    """A note where runs beside this one were judged and there is no record of it."""
    if ledger.place(root, config.run.ledger).exists():
        return []
    judged = sum((path / run.evaluation.name).is_file() for path in root.iterdir() if path.name != run.id)
    if not judged:
        return []
    return [
        f"The record of scorings is new, though {judged:,} runs in the same folder were judged before: what "
        "they scored is not in M."
    ]


def row_of(
    run: directory.RunDirectory,
    config: Config,
    prepared: build.Prepared,
    *,
    slice_name: str,
    params: Any,
    returns: np.ndarray,
) -> Scored:
    """The line of the record for weights of `run` that earned `returns` [T] on a slice."""
    return scored(
        config,
        prepared.frame,
        getattr(prepared.split, slice_name),
        kind=directory.read_object(run.metadata).get("kind", "run"),
        run_id=run.id,
        slice_name=slice_name,
        policy=policy_digest(params),
        sharpe=metrics.sharpe(returns, prepared.bars_per_year),
        year=prepared.bars_per_year,
    )


def _stressed(
    config: Config, prepared: build.Prepared, params: Any, *, slice_name: str, trials: int
) -> dict[str, Any]:
    """What becomes of the policy on the slice when something is made harder."""
    env = build.make_environment(config, measured=prepared.measured, extra_latency=robustness.LATENCY)
    _, stop = getattr(prepared.split, slice_name)
    return robustness.stress_report(
        build.make_network(config, num_features=prepared.num_features),
        env,
        params,
        prepared.slices[slice_name],
        closed=prepared.frame["close"].to_numpy(np.float64)[:stop],
        bars_per_year=prepared.bars_per_year,
        trials=trials,
        seed=config.seed,
    )


def record(root: Path, config: Config, rows: Sequence[Scored], reporter: Reporter) -> ledger.Trials:
    """Write scorings into the record; what it then tells of the bars of the last one.

    Args:
      root: the folder of runs.
      config: says where the record is, if not there.
      rows: to be written, in order.
      reporter: told of what the record lacks.

    Raises:
      RunError: the record cannot be written, or is damaged.
    """
    path, found = ledger.place(root, config.run.ledger), None
    for row in rows:
        found = ledger.append(path, row)
        for each in found.told:
            reporter.say(f"{'evaluate':<11}{each}")
    assert found is not None
    return ledger.trials(found.rows, rows[-1])


def settings_digest(config: Config) -> str:
    """SHA-256 of the settings without the seed and without where a run lies: equal for seeds of one kind."""
    kept = {name: value for name, value in flat(config).items() if name != "seed" and name not in PLACES}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def scored(
    config: Config,
    frame: pd.DataFrame,
    bars: tuple[int, int],
    *,
    kind: str,
    run_id: str,
    slice_name: str,
    policy: str,
    sharpe: float,
    year: float,
) -> Scored:
    """A line of the record.

    Args:
      config: of what was trained.
      frame: every bar.
      bars: [start, stop) of the slice; money is at stake from the bar after its first one on.
      kind: run, sweep or walkforward.
      run_id: of the run or study.
      slice_name: what it called those bars.
      policy: digest of the weights.
      sharpe: net, a year's; NaN where it is undefined.
      year: bars in a year.
    """
    start, stop = bars
    stamps = pd.DatetimeIndex(frame.index)
    first, last = (stamps[at].strftime("%Y-%m-%dT%H:%M:%SZ") for at in (start + 1, stop - 1))
    defined = math.isfinite(sharpe)  # it is not for a single bar
    return {
        "kind": kind,  # pyright: ignore[reportReturnType]
        "run_id": run_id,
        "seed": config.seed,
        "config": settings_digest(config),
        "policy": policy,
        "symbol": config.data.symbol,
        "timeframe": canonical_timeframe(config.data.timeframe),
        "data": content_hash(frame),
        "slice": slice_name,
        "first": first,
        "last": last,
        "bars": stop - 1 - start,
        "sharpe": sharpe if defined else None,
        "sharpe_per_bar": sharpe / year**0.5 if defined else None,
        "scored_at": directory.timestamp(),
    }


def policy_digest(params: Any) -> str:
    """SHA-256 of a policy's weights: of their names, forms and bytes."""
    return packing.chained("", packing.digests({"weights": params}))


def _counted_before(run: directory.RunDirectory, slice_name: str) -> int:
    """M as this run's last evaluation tells it: a record that was lost since makes it no smaller."""
    path, _ = run.results(slice_name)
    if not path.is_file():
        return 0
    edge = directory.read_object(path).get("edge")
    trials = edge.get("trials") if isinstance(edge, dict) else None
    return trials if isinstance(trials, int) else 0
