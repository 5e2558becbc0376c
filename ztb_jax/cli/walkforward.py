"""`ztb walkforward`: folds x configurations x seeds as one command."""

import argparse
import sys
from typing import Any

from ztb_jax.cli import train
from ztb_jax.cli.tables import print_table
from ztb_jax.space import described
from ztb_jax.training.interrupt import stop_requests
from ztb_jax.training.progress import Reporter

DEFAULTS = {
    "run.total_env_steps": 524_288,
    "run.window_updates": 4,
    "ppo.num_accounts": 256,
}
"""Weaker than all that is asked for: a study is many trainings, each shorter than a run."""
COLUMNS = ("return", "a year", "Sharpe", "drawdown")
NOT_DONE = 130


def main(arguments: list[str]) -> int:
    """Train and judge; the last line on standard output is the study's directory."""
    known, rest = _parser().parse_known_args(arguments)
    resumed: str | None = known.resume
    if resumed is not None and rest:
        _parser().error(f"--resume takes no settings, the study has its own: leave out {' '.join(rest)}")
    # A study that goes on has its own.
    config = None if resumed is not None else train.parse(rest, prog="ztb walkforward", defaults=DEFAULTS)
    with stop_requests() as stop, Reporter() as reporter:
        reporter.phase("loading", "jax")
        from ztb_jax.runs import loop, studies
        from ztb_jax.training import walkforward

        loop.use_compilation_cache()
        if resumed is not None:
            outcome = walkforward.go_on(studies.find(resumed), reporter, stop)
        else:
            assert config is not None
            scheme = walkforward.Scheme(**_scheme(known))
            outcome = walkforward.walk_forward(config, scheme, reporter, stop, study_id=known.id)
    if outcome.result is None:
        sys.stderr.write(f"stopped; go on with: ztb walkforward --resume {outcome.store.path}\n")
    else:
        print_result(outcome.result)
    sys.stdout.write(f"{outcome.store.path}\n")
    return 0 if outcome.result is not None else NOT_DONE


def _scheme(known: argparse.Namespace) -> dict[str, Any]:
    asked = {
        name: value
        for name, value in vars(known).items()
        if name not in {"id", "resume"} and value is not None
    }
    return asked | {"vary": tuple(known.vary)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ztb walkforward",
        allow_abbrev=False,
        description="Train on the past and judge on what came next, again and again: folds x "
        "configurations x seeds, all in one program. Settings of `ztb train` follow, such as "
        "--config FILE or --data.symbol NASDAQ.",
    )
    add = parser.add_argument
    add("--scheme", choices=("anchored", "rolling", "combinatorial"), help="how bars become folds (anchored)")
    add("--folds", type=int, help="folds of walking forward (8)")
    add("--train-bars", type=int, help="bars of a training part; by default what the tests leave")
    add("--test-bars", type=int, help="bars of a test; by default what follows the first training, divided")
    add("--groups", type=int, help="groups of bars, combinatorial (6)")
    add("--held-out", type=int, help="groups of a test, combinatorial (2)")
    add("--purge", type=int, help="bars left out beside tests, for labels that reach forward (0)")
    add("--validation", type=float, help="share of a training part that chooses (0.2)")
    add("--seeds", type=int, help="trainings of each fold and configuration (4)")
    add(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=V1,V2",
        help="a setting to try values of; repeatable",
    )
    add("--id", help="name of the study's directory; by default the time")
    add("--resume", metavar="STUDY", help="go on with a study that was stopped")
    return parser


def print_result(result: dict[str, Any]) -> None:
    """What came of a study, for a person."""
    from ztb_jax.evaluation import judgement

    out = sys.stdout
    out.write(
        f"\n{result['symbol']} {result['timeframe']}, out of sample {result['first_bar']} to "
        f"{result['last_bar']}, {result['bars']:,} bars, {len(result['folds'])} folds, net of costs\n"
    )
    rows = [_row("strategy", result["strategy"])]
    rows += [_row(name.replace("_", " "), told) for name, told in result["baselines"].items()]
    print_table(("", *COLUMNS), rows, right=COLUMNS)
    if len(result["configurations"]) > 1:
        out.write("\n")
        rows = [
            (*_row(described(each["settings"]), each)[:-1], f"{each['chosen']}")
            for each in result["configurations"]
        ]
        names = (*COLUMNS[:-1], "chosen")
        print_table(("configuration", *names), rows, right=names)
    told = [""]
    middle = result["seeds"]["interquartile_mean"]
    if middle is not None:
        told.append(
            f"Sharpe ratio of the seeds: middle half {middle['seen']:.2f}, 95 % interval "
            f"{middle['low']:.2f} to {middle['high']:.2f}."
        )
    if result["overfitting"] is not None:
        told.append(f"Probability of backtest overfitting: {result['overfitting']['probability']:.0%}.")
    out.write("\n".join([*told, *judgement.in_words(result["edge"]), ""]) + "\n")


def _row(name: str, told: dict[str, Any]) -> tuple[str, ...]:
    def cell(key: str, form: str) -> str:
        return "–" if told[key] is None else format(told[key], form)

    return (
        name,
        cell("total_return", "+.1%"),
        cell("annual_return", "+.1%"),
        cell("sharpe", ".2f"),
        cell("max_drawdown", ".1%"),
    )
