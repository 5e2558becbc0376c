"""`ztb sweep`: try settings on the validation slice, and make a run of the best."""

import argparse
import sys
from typing import Any

from ztb_jax.cli import train, walkforward
from ztb_jax.cli.tables import print_table
from ztb_jax.space import described
from ztb_jax.training.interrupt import stop_requests
from ztb_jax.training.progress import Reporter

SHOWN = 20  # configurations in the table; result.json has all


def main(arguments: list[str]) -> int:
    """Try, choose, and train the best; the last line on standard output is its run directory."""
    known, rest = _parser().parse_known_args(arguments)
    search = _search(known)
    resumed: str | None = known.resume
    config = None
    if resumed is not None:
        walkforward.refuse_settings(_parser(), known, rest, allowed={"no_run"})
    elif known.allow_drift:
        _parser().error("--allow-drift is of --resume")
    else:
        config = train.parse(rest, prog="ztb sweep", defaults=walkforward.DEFAULTS)
    with stop_requests() as stop, Reporter() as reporter:
        reporter.phase("loading", "jax")
        from ztb_jax.runs import loop, studies
        from ztb_jax.training import sweep

        loop.use_compilation_cache()
        if config is None:
            store = studies.find(resumed or "")
            outcome = sweep.go_on(store, reporter, stop, allow_drift=known.allow_drift)
        else:
            outcome = sweep.sweep(config, sweep.Search(**search), reporter, stop, study_id=known.id)
        if outcome.result is None:
            sys.stderr.write(f"stopped; go on with: ztb sweep --resume {outcome.store.path}\n")
            sys.stdout.write(f"{outcome.store.path}\n")
            return walkforward.NOT_DONE
        print_result(outcome.result)
        sys.stdout.write(f"{outcome.store.path}\n")
        if outcome.best is None:
            sys.stderr.write("ztb sweep: no training passed its gates on every seed, so none is the best\n")
            return walkforward.NO_POLICY
        if known.no_run:
            return 0
        trained = sweep.run_best(outcome, reporter, stop, allow_drift=known.allow_drift)
    return train.ending(trained, "ztb sweep")


def _search(known: argparse.Namespace) -> dict[str, Any]:
    search = walkforward.asked(known, "method", "points", "batch", "seeds")
    method = search.get("method", "grid")
    reads = {"grid": (), "random": ("points",), "optuna": ("points", "batch")}[method]
    if unread := sorted({"points", "batch"} & set(search) - set(reads)):
        _parser().error(f"--method {method} does not read {walkforward.flags(unread)}")
    return search | {"vary": tuple(known.vary)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ztb sweep",
        allow_abbrev=False,
        description="Try settings on the validation slice, many trainings in one program, and make a run of "
        "the best: it alone plays the test slice. Settings of `ztb train` follow, such as --config FILE.",
    )
    add = parser.add_argument
    vary = "a setting with values (K=1,2,3) or a range (K=1e-4..1e-2:log); repeatable"
    add("--vary", action="append", default=[], metavar="KEY=VALUES", help=vary)
    add("--method", choices=("grid", "random", "optuna"), help="how configurations are found (grid)")
    add("--points", type=int, help="configurations of random and optuna (16)")
    add("--batch", type=int, help="configurations that optuna proposes at a time (8)")
    add("--seeds", type=int, help="trainings of each configuration (1)")
    add("--no-run", action="store_true", help="make no run of the best")
    add("--id", help="name of the sweep's directory; by default the time")
    add("--resume", metavar="SWEEP", help="go on with a sweep that was stopped, or with the run of its best")
    add("--allow-drift", action="store_true", help="resume though code, packages, machine or data changed")
    return parser


def print_result(result: dict[str, Any]) -> None:
    """The configurations, the best first."""
    last = float("-inf")
    points = sorted(result["points"], key=lambda each: last if each["mean"] is None else each["mean"])[::-1]
    rows = [
        (f"{1e4 * each['mean']:+.3f}" if each["mean"] is not None else "–", described(each["settings"]))
        for each in points[:SHOWN]
    ]
    sys.stdout.write(f"\n{result['symbol']} {result['timeframe']}, {result['trainings']:,} trainings\n")
    print_table(("validation bp/bar", "configuration"), rows, right=("validation bp/bar",))
    if len(points) > SHOWN:
        sys.stdout.write(f"and {len(points) - SHOWN:,} more in result.json\n")
