"""Making a sealed run again in memory, and saying whether it is the same to the bit.

Three answers: "identical"; "within tolerance", when bits differ in other surroundings than the seal's and the
first window's metrics agree to `TOLERANCE`; and "different", with the window and the leaf where it begins.
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from ztb_jax import build, devices, schedule
from ztb_jax.config import as_dict
from ztb_jax.errors import RunError
from ztb_jax.runs import checkpoint, directory, loop, packing, windowing
from ztb_jax.training import evaluate, job, run_seal
from ztb_jax.training.between import CARRY
from ztb_jax.training.interrupt import StopRequest
from ztb_jax.training.progress import Reporter

TOLERANCE = 0.05
"""Of a metric's mean over the first window, relative: sums in another order soon lead to other trades."""
SMALL = 1e-4
"""Absolute, for metrics about zero; a basis point."""
SURROUNDINGS = ("environment.", "requirements.")


@dataclass(frozen=True)
class Verification:
    """What verifying a run found.

    Attributes:
      run: its directory.
      result: "identical", "within tolerance" or "different".
      windows: that were made again.
      first_difference: the window and the leaves of the carry that differ first; None where none do.
      changed: what the run depends on and is not as it was, and checkpoints that are not as written.
      resumed: windows from which on it was made in changed surroundings, after a resume.
      deviation: largest relative deviation of a metric's mean over the first window; None for equal bits.
    """

    run: str
    result: str
    windows: int
    first_difference: dict[str, Any] | None
    changed: list[str]
    resumed: list[int]
    deviation: float | None

    def sentences(self) -> list[str]:
        """The same for a person, the answer first."""
        lines = [self.result]
        if self.result == "identical":
            lines[0] += f": every bit of {self.windows} windows"
        if self.deviation is not None:
            lines[0] += (
                f": metrics of the first window deviate by {self.deviation:.2%}, and {TOLERANCE:.0%} is "
                "allowed in other surroundings"
            )
        if self.first_difference is not None:
            leaves = self.first_difference["leaves"]
            more = f" and {len(leaves) - 1} others" if len(leaves) > 1 else ""
            lines.append(f"first difference: window {self.first_difference['window_id']}, {leaves[0]}{more}")
        lines += [f"changed: {each}" for each in self.changed]
        lines += [f"resumed in changed surroundings from window {window} on" for window in self.resumed]
        return lines


def verify(
    path: str | Path,
    reporter: Reporter,
    stop: StopRequest | None = None,
    *,
    windows: int | None = None,
    cache_dir: str | None = None,
) -> Verification:
    """Compare a run with its seal, and its windows with the same ones made again.

    Args:
      path: of the run directory; nothing is written there.
      reporter: told phases and progress.
      stop: looked at between windows.
      windows: only the first so many; None is all that the run recorded.
      cache_dir: where the prices are, when not where the run had them.

    Raises:
      RunError: no run, one without a seal or a finished window, or prices that cannot be found.
      KeyboardInterrupt: a signal came.
    """
    stop = stop or StopRequest()
    run = directory.find(path)
    if not run.seal.is_file():
        raise RunError(f"{run.path} holds no {run.seal.name}, so that there is nothing to compare with")
    seal, recorded = run_seal.read_seal(run.seal), directory.read_windows(run.digests)
    if not recorded:
        raise RunError(f"{run.digests} holds no window: the run was stopped before its first checkpoint")
    if windows is not None and windows < 1:
        raise RunError(f"--windows {windows}: give 1 or more")
    recorded = recorded[:windows]
    config = evaluate.saved_config(run, {} if cache_dir is None else {"data.cache_dir": cache_dir})
    device = devices.choose(config.run.device)
    with jax.default_device(device):
        prepared = job.prepared_market(config, reporter)
        changed = run_seal.changes(seal, config=as_dict(config), facts=job.seal_facts(config, prepared))
        changed += _chain_broken(recorded) + _damaged(run)
        elsewhere = [told["from_window"] for told in (seal.metadata.get("resumed") or []) if told["changed"]]
        if any(not each.startswith(SURROUNDINGS) for each in changed):
            return Verification(str(run.path), "different", 0, None, changed, elsewhere, None)
        again = _made_again(config, prepared, reporter, stop, device=device, recorded=recorded)
    difference, first_metrics = again
    if difference is None:
        return Verification(str(run.path), "identical", len(recorded), None, changed, elsewhere, None)
    deviation = _deviation(next(iter(directory.read_lines(run.windows)), {}), first_metrics)
    near = bool(changed or elsewhere) and deviation <= TOLERANCE
    result = "within tolerance" if near else "different"
    return Verification(str(run.path), result, len(recorded), difference, changed, elsewhere, deviation)


def _made_again(
    config, prepared: build.Prepared, reporter: Reporter, stop: StopRequest, *, device, recorded
) -> tuple[dict[str, Any] | None, dict[str, float | None]]:
    """Where the first difference is, None without any, and the first window's metrics."""
    _, data, compiled = job.compiled_job(config, prepared, reporter, device=device)
    state = compiled.init(jax.random.key(config.seed), data)
    steps, first_metrics = schedule.window_env_steps(config), {}
    reporter.phase("train", f"{len(recorded)} windows again")
    found: list[dict[str, Any]] = []

    def compare(state, window: loop.Window) -> str | None:
        stop.check()
        if window.number == 0:
            first_metrics.update(_means(config, window))
        told, here = recorded[window.number]["leaves"], packing.digests({CARRY: state})
        wrong = sorted(name for name in {*told, *here} if told.get(name) != here.get(name))
        done = window.number + 1
        note = "different" if wrong else "identical"
        reporter.advance(done * steps, len(recorded) * steps, rate=steps / window.seconds, note=note)
        if wrong:
            found.append({"window_id": window.number, "leaves": wrong})
            return note
        return None

    calls = partial(schedule.calls_in, config)
    loop.run_windows(compiled.window, state, data, count=len(recorded), after=compare, calls=calls)
    return (found[0] if found else None), first_metrics


def _means(config, window: loop.Window) -> dict[str, float | None]:
    """The means that the first window's row tells."""
    update = schedule.update_env_steps(config)
    stop = min(schedule.window_env_steps(config), len(window.metrics["verdict"]) * update)
    row = windowing.window_row(
        window.metrics, first=0, update_env_steps=update, start=0, stop=stop, capital=config.env.capital
    )
    return {name: value for name, value in row.items() if name.endswith("_mean")}


def _chain_broken(recorded: list[dict[str, Any]]) -> list[str]:
    """Rows of digests that were edited, moved or lost: each hashes the one before."""
    before = ""
    for number, row in enumerate(recorded):
        leaves = row.get("leaves")
        before = packing.chained(before, leaves) if isinstance(leaves, dict) else ""
        if row["window_id"] != number or row.get("chain") != before:
            return [f"digests of window {number} are not what was written"]
    return []


def _damaged(run: directory.RunDirectory) -> list[str]:
    """What is wrong with the checkpoints that are kept; of a run that is being made they come and go."""
    if directory.is_locked(run):
        return []
    read = (
        checkpoint.read_manifest(run.checkpoints, number)
        for number in checkpoint.generations(run.checkpoints)
        if (run.checkpoints / str(number) / checkpoint.MANIFEST).is_file()
    )
    return [f"checkpoint {each}" for each in read if isinstance(each, str)]


def _deviation(then: dict[str, Any], now: dict[str, float | None]) -> float:
    """The largest relative deviation of a metric's mean; infinite where one is not finite."""
    worst = 0.0
    for name, value in now.items():
        before = then.get(name)
        if value is None or before is None:
            worst = worst if value is before else math.inf
            continue
        worst = max(worst, (abs(value - before) - SMALL) / max(abs(before), abs(value), SMALL))
    return worst
