"""What there is in a folder of runs, from their metadata alone. Imports no jax."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ztb_jax.config import flattened
from ztb_jax.errors import RunError
from ztb_jax.runs import directory

FIELDS = (
    "run_id",
    "status",
    "started_at",
    "finished_at",
    "phase",
    "fraction",
    "env_steps_total",
    "steps_per_second",
    "eta_seconds",
    "best_window",
    "verdict",
    "edge",
    "halt_reason",
    "error",
)
NUMBERS = {"fraction", "env_steps_total", "steps_per_second", "eta_seconds", "best_window"}
KILLED, DAMAGED = "killed", "damaged"


def list_runs(
    root: str | Path, *, status: str | None = None, sort: str = "started_at"
) -> list[dict[str, Any]]:
    """A summary of every run in a folder.

    Args:
      root: of the runs; what is no run there is left out.
      status: only those of this one.
      sort: of `FIELDS`; the greatest come first and those without a value last.

    Returns:
      `FIELDS`, `symbol`, `timeframe` and `path` of each. The status is "killed" where metadata say that a run
      is under way and no process writes to it, and "damaged" where they cannot be read, as `error` says.

    Raises:
      RunError: there is no such folder, or nothing by that name to sort by.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise RunError(f"{root} is no directory: give the folder of runs with --root")
    runs = [summary(directory.RunDirectory(path)) for path in root.iterdir() if _is_run(path)]
    return in_order(runs, status=status, sort=sort)


def in_order(
    runs: Iterable[dict[str, Any]], *, status: str | None = None, sort: str = "started_at"
) -> list[dict[str, Any]]:
    """Summaries of one status, the greatest first and those without a value last.

    Raises:
      RunError: there is nothing by that name to sort by.
    """
    if sort not in FIELDS:
        raise RunError(f"there is no {sort!r} to sort by: take of {', '.join(FIELDS)}")
    found = [run for run in runs if status is None or run["status"] == status]
    return sorted(found, key=_order_by(sort), reverse=True)


def _is_run(path: Path) -> bool:
    return (path / "config.json").is_file()


def _order_by(field: str) -> Callable[[dict[str, Any]], Any]:
    def order(run: dict[str, Any]) -> Any:
        value = run[field]
        return (value is not None, isinstance(value, str), value if value is not None else 0, run["run_id"])

    return order


def compare(runs: Sequence[directory.RunDirectory]) -> dict[str, dict[str, list[Any]]]:
    """What differs between runs: a value of each, in their order, None where one has none.

    Returns:
      "settings" by dotted key, those that are not all equal; and "metrics" of the policy on the test slice by
      name, all of them, of runs that were judged.

    Raises:
      RunError: a file is missing or damaged.
    """
    settings = [flattened(directory.read_object(run.config)) for run in runs]
    judged = [directory.read_object(run.evaluation) if run.evaluation.is_file() else {} for run in runs]
    try:
        metrics = [dict(each["strategies"]["policy"]) if each else {} for each in judged]
    except (KeyError, TypeError, ValueError):
        raise RunError(
            "an evaluation.json is damaged (it tells nothing of the policy): evaluate the run again"
        ) from None
    return {
        "settings": {key: values for key, values in _side_by_side(settings).items() if _differ(values)},
        "metrics": _side_by_side(metrics),
    }


def _side_by_side(told: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for each in told for name in each)
    return {name: [each.get(name) for each in told] for name in names}


def _differ(values: list[Any]) -> bool:
    return any(value != values[0] for value in values)


def summary(run: directory.RunDirectory) -> dict[str, Any]:
    """One run, as `list_runs` tells of it."""
    told = _told(run)
    if told["status"] == "running" and not directory.is_locked(run):
        told = _told(run)  # it may have ended since
        if told["status"] == "running":
            told["status"] = KILLED
    return told


def result(run: Mapping[str, Any]) -> str | None:
    """What came of a run of `list_runs` in few words, None where nothing has yet."""
    told = verdict(run)
    if isinstance(told, str):
        told = told.replace(" on the test slice", "").replace(" net of costs", "")
    return run["error"] or told or run["halt_reason"]


def verdict(told: Mapping[str, Any]) -> str | None:
    """The label of a run's metadata or summary, and what the policy did; None before it was judged."""
    sentence, label = told.get("verdict"), told.get("edge")
    if not sentence or not label:
        return sentence
    return f"{str(label).capitalize()}. {sentence}"


def _told(run: directory.RunDirectory) -> dict[str, Any]:
    """What the files of a run say."""
    told: dict[str, Any] = dict.fromkeys(FIELDS) | {"symbol": None, "timeframe": None}
    told |= {"run_id": run.id, "path": str(run.path)}
    try:
        config = directory.read_json(run.config)
        metadata = directory.read_json(run.metadata) if run.metadata.is_file() else {"status": "running"}
        facts = {name: config["data"][name] for name in ("symbol", "timeframe")}
        facts |= {name: metadata[name] for name in FIELDS if name in metadata and name != "run_id"}
        told |= _plain(facts, run.metadata)
    except (RunError, KeyError, TypeError) as error:
        return told | {"status": DAMAGED, "error": str(error)}
    return told


def _plain(facts: Mapping[str, Any], source: Path) -> Mapping[str, Any]:
    """`facts`, of which each can be shown and sorted by."""
    for name, value in facts.items():
        if not isinstance(value, (int | float if name in NUMBERS else str) | None):
            raise RunError(f"{source} is damaged ({name} is {value!r}): restore it, or train again")
    if not isinstance(facts.get("status"), str):
        raise RunError(f"{source} is damaged (it tells no status): restore it, or train again")
    return facts
