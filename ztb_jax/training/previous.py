"""The best run before this one on the same bars: what a new policy is to be better than."""

from collections.abc import Iterator, Sequence

from ztb_jax.errors import UserError
from ztb_jax.runs import directory
from ztb_jax.runs.judged import Scored

SAME = ("first", "last", "slice", "data")


def best_first(run: directory.RunDirectory, rows: Sequence[Scored], bars: Scored) -> Iterator[str]:
    """Ids of runs in the same folder that were scored on the same bars, the one of the best validation first.

    Validation ranks them: ranked by these bars the luckiest would be first.

    Args:
      run: this one, which is left out.
      rows: the record of scorings.
      bars: a scoring of them.
    """
    names = {
        row["run_id"]
        for row in rows
        if row["kind"] == "run" and row["run_id"] != run.id and all(row[key] == bars[key] for key in SAME)
    }
    scores = {name: _validation(directory.RunDirectory(run.path.resolve().parent / name)) for name in names}
    known = {name: score for name, score in scores.items() if score is not None}
    yield from sorted(known, key=lambda name: (known[name], name), reverse=True)


def _validation(run: directory.RunDirectory) -> float | None:
    """The validation score of the window that a run chose; None where it is gone or damaged."""
    try:
        best = directory.read_object(run.metadata).get("best_window")
        found = [row for row in directory.read_windows(run.windows) if row["window_id"] == best]
    except UserError:
        return None
    return found[-1].get("validation_log_growth") if found else None
