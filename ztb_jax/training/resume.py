"""Going on with a run that was stopped, to the bits that it would have had."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from ztb_jax import devices, gates
from ztb_jax.config import as_dict
from ztb_jax.errors import RunError
from ztb_jax.runs import checkpoint, directory
from ztb_jax.training import evaluate, job, run_seal
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.progress import Reporter
from ztb_jax.verdicts import OF_SURROUNDINGS, VERDICTS


def resume(
    path: str | Path,
    reporter: Reporter,
    stop: StopRequest | None = None,
    *,
    allow_drift: bool = False,
    flags: Mapping[str, Any] | None = None,
) -> job.Outcome:
    """Go on from the newest checkpoint that is whole.

    Args:
      path: of the run directory.
      reporter: as of `job.train`.
      stop: likewise.
      allow_drift: go on though what the run depends on has changed; the seal then tells of it.
      flags: settings that say where to run, by dotted key: data.cache_dir, run.ledger, run.device and
        run.devices.

    Raises:
      UserError: no run, one that has ended, one that another process writes, or one whose surroundings have
        changed; nothing was written.
      JobError: as of `job.train`.
    """
    stop = stop or StopRequest()
    stop.check()
    run = directory.find(path)
    config = evaluate.saved_config(run, flags)
    with directory.locked(run):
        known, seal = _not_ended(run), run_seal.read_seal(run.seal)
        device = devices.choose(config.run.device)
        config = job.spread_over(devices.together(device, config.run.devices), config)
        with jax.default_device(device):
            prepared = job.prepared_market(config, reporter)
            changed = run_seal.changes(seal, config=as_dict(config), facts=job.seal_facts(config, prepared))
            if changed and not allow_drift:
                raise RunError(
                    [f"{run.path}: {each}" for each in changed]
                    + [
                        "the bits would not be those of an uninterrupted run: restore what has changed, or "
                        "give --allow-drift to go on regardless, which the seal will tell"
                    ]
                )
            stop.check()
            return job.go_on(
                config,
                prepared,
                run,
                reporter,
                stop=stop,
                device=device,
                known=known,
                read=lambda like: _newest(run, reporter, like, seal=seal, changed=changed),
            )


def _not_ended(run: directory.RunDirectory) -> dict[str, Any]:
    """The metadata of a run that has not come to an end; none where it was stopped before it had any.

    Raises:
      RunError: it has come to an end.
    """
    if not run.seal.is_file():
        raise RunError(
            f"{run.path} holds no {run.seal.name}: it was stopped before it began, or an earlier version "
            "made it; train again"
        )
    if os.path.lexists(run.checkpoints) and not run.checkpoints.is_dir():
        raise RunError(f"{run.checkpoints} is no directory: bring back what it should be, such as a disk")
    if not run.metadata.is_file():
        return {}
    metadata = directory.read_json(run.metadata)
    if not isinstance(metadata, dict):
        raise RunError(f"{run.metadata} holds no object: restore it, or train again")
    if metadata.get("status") == "completed":
        raise RunError(
            f"{run.path} has completed: there is nothing to resume; `ztb evaluate` judges it again"
        )
    failed = metadata.pop("verdict_code", gates.HEALTHY)
    if failed not in (gates.HEALTHY, *OF_SURROUNDINGS):
        told = VERDICTS[failed].sentence if failed in VERDICTS else f"verdict {failed}"
        raise RunError(
            f"{run.path} was stopped by a gate, which would stop it again: {metadata.get('error') or told}"
        )
    metadata.pop("failed_window", None)
    return metadata


def _newest(
    run: directory.RunDirectory,
    reporter: Reporter,
    like: dict[str, Any],
    *,
    seal: run_seal.RunSeal,
    changed: list[str],
) -> checkpoint.Restored | None:
    """The newest checkpoint that is whole, None without any; the seal tells of it, and room is made after."""
    restored, passed_over = checkpoint.newest(run.checkpoints, like)
    first = 0 if restored is None else restored.generation + 1
    for each in passed_over:
        reporter.say(f"{'resume':<11}{each}: passed over")
    reporter.say(f"{'resume':<11}" + (f"from window {first}" if first else "no checkpoint: from the start"))
    checkpoint.put_aside(run.checkpoints, first - 1)
    if restored is None:
        for path in (run.windows, run.digests):
            path.unlink(missing_ok=True)
    told = {
        "at": directory.timestamp(),
        "from_window": first,
        "passed_over": passed_over,
        "changed": changed,
    }
    reporter.update(resumed=[*reporter.metadata.get("resumed", []), told])
    surroundings = dataclasses.asdict(run_seal.snapshot(seal.config)) if changed else None
    told = told | {"environment": surroundings}
    metadata = seal.metadata | {"resumed": [*(seal.metadata.get("resumed") or []), told]}
    run_seal.write_seal(run.seal, dataclasses.replace(seal, metadata=metadata))
    return restored
