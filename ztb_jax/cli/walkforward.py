"""`ztb walkforward`: folds x configurations x seeds as one command."""

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ztb_jax.cli import train
from ztb_jax.cli.tables import growth, print_table
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
NO_POLICY = 1
CUTS = {
    "combinatorial": ("groups", "held_out"),
    "anchored": ("folds", "train_bars", "test_bars"),
    "rolling": ("folds", "train_bars", "test_bars"),
}
"""What only some schemes read."""


def main(arguments: list[str]) -> int:
    """Train and judge; the last line on standard output is the study's directory."""
    known, rest = _parser().parse_known_args(arguments)
    resumed: str | None = known.resume
    if resumed is not None:
        refuse_settings(_parser(), known, rest)
    elif known.allow_drift:
        _parser().error("--allow-drift is of --resume")
    scheme = _scheme(known)
    # A study that goes on has its own.
    config = None if resumed is not None else train.parse(rest, prog="ztb walkforward", defaults=DEFAULTS)
    with stop_requests() as stop, Reporter() as reporter:
        reporter.phase("loading", "jax")
        from ztb_jax.runs import loop, studies
        from ztb_jax.training import walkforward

        loop.use_compilation_cache()
        if resumed is not None:
            store = studies.find(resumed)
            outcome = walkforward.go_on(store, reporter, stop, allow_drift=known.allow_drift)
        else:
            assert config is not None
            outcome = walkforward.walk_forward(
                config, walkforward.Scheme(**scheme), reporter, stop, study_id=known.id
            )
    if outcome.result is None:
        sys.stderr.write(f"stopped; go on with: ztb walkforward --resume {outcome.store.path}\n")
    else:
        print_result(outcome.result)
    sys.stdout.write(f"{outcome.store.path}\n")
    if outcome.result is None:
        return NOT_DONE
    if outcome.result["without_policy"] == outcome.result["trainings"]:
        return NO_POLICY
    return train.told_edge(outcome.result["edge"], "ztb walkforward") if known.require_edge else 0


def _scheme(known: argparse.Namespace) -> dict[str, Any]:
    scheme = asked(known, "scheme", "folds", "train_bars", "test_bars", "groups", "held_out", "purge",
                   "validation", "seeds")  # fmt: skip
    name = scheme.get("scheme", "anchored")
    others = {option for options in CUTS.values() for option in options if option not in CUTS[name]}
    if unread := sorted(others & set(scheme)):
        _parser().error(f"--scheme {name} does not read {flags(unread)}")
    return scheme | {"vary": tuple(known.vary)}


def asked(known: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those options of `names` that were given."""
    return {name: getattr(known, name) for name in names if getattr(known, name) is not None}


def flags(names: Sequence[str]) -> str:
    """Options as they are written."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def refuse_settings(
    parser: argparse.ArgumentParser,
    known: argparse.Namespace,
    rest: Sequence[str],
    *,
    allowed: Collection[str] = (),
) -> None:
    """End with status 2 where something besides `--resume`, `--allow-drift` and `allowed` was given."""
    spare = {"resume", "allow_drift", "require_edge", *allowed}
    given = [
        name for name, value in vars(known).items() if name not in spare and value not in (None, [], False)
    ]
    if given or rest:
        told = " ".join(filter(None, [flags(given), *rest]))
        parser.error(f"--resume takes no settings, what is resumed has its own: leave out {told}")


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
    add("--require-edge", action="store_true", help="exit with status 3 unless the verdict is an edge")
    add("--allow-drift", action="store_true", help="resume though code, packages, machine or data changed")
    return parser


def print_result(result: dict[str, Any]) -> None:
    """What came of a study, for a person."""
    from ztb_jax.evaluation import judgement, report_study

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
            (*_row(described(each["settings"]), each["summary"])[:-1], f"{each['chosen']}")
            for each in result["configurations"]
        ]
        names = (*COLUMNS[:-1], "chosen")
        print_table(("configuration", *names), rows, right=names)
    out.write(
        "\n".join(["", *report_study.sentences(result), *judgement.in_words(result["edge"]), ""]) + "\n"
    )


def _row(name: str, told: dict[str, Any]) -> tuple[str, ...]:
    def cell(key: str, form: Callable[[float], str]) -> str:
        return "–" if told[key] is None else form(told[key])

    return (
        name,
        cell("total_return", growth),
        cell("annual_return", growth),
        cell("sharpe", "{:.2f}".format),
        cell("max_drawdown", "{:.1%}".format),
    )
