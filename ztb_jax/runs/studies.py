"""The directory of a study, many trainings judged together: what is done stays done. Imports no jax.

<root>/studies/<id>/
  study.json           what is trained, program sizes, and what it took so far
  seal.json            what the bits depend on: code, packages, machine, settings, bars and features
  trials/<batch>-<program>-<chunk>.npz  a finished chunk of trainings, whole or not there: rows and arrays
  trials.jsonl         the rows of all trainings
  returns.npz          net returns out of sample, of a walk-forward study
  result.json          what came of it
  report.html          the same for a person, of a walk-forward study
"""

import io
import itertools
import json
import shutil
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ztb_jax.errors import RunError
from ztb_jax.runs import artifacts, directory

FOLDER = "studies"
TOLD = "rows.json"
"""The array of a chunk that holds its rows and the names of the others."""
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError)
"""What NumPy and zipfile say of damage; the last one of compression or encryption that was never used."""
Rows = list[dict[str, Any]]
Arrays = dict[str, np.ndarray]


class StudyDirectory(directory.RunDirectory):
    """Paths of one study."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.study = path / "study.json"
        self.chunks = path / "trials"
        self.trials = path / "trials.jsonl"
        self.returns = path / "returns.npz"
        self.result = path / "result.json"


def check_id(root: str | Path, study_id: str | None) -> None:
    """Refuse early what `create` would refuse late: nothing is made.

    Raises:
      RunError: the name is taken or unusable.
    """
    if study_id is None:
        return
    if not directory.RUN_ID.fullmatch(study_id):
        raise RunError(
            f"--id {study_id!r} cannot name a directory: use letters, digits, dot, dash and underscore"
        )
    path = Path(root).expanduser() / FOLDER / study_id
    if path.exists():
        raise RunError(f"{path} exists: choose another --id, go on with --resume {path}, or remove it")


def create(root: str | Path, study_id: str | None, told: Mapping[str, Any]) -> StudyDirectory:
    """A new study directory that holds its study.json, whole or not there.

    Args:
      root: folder of runs; studies lie in a folder of it.
      study_id: its name, or None for `<kind>-YYYYmmddTHHMMSSZ`.
      told: of study.json.

    Raises:
      RunError: the name is taken or unusable, or the folder cannot be written.
      ValueError: `told` is no study.
    """
    check_id(root, study_id)
    folder = Path(root).expanduser() / FOLDER
    stamp = directory.timestamp().translate(str.maketrans("", "", "-:")).split(".")[0]
    path = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _claim(folder, study_id, f"{told['kind']}-{stamp}Z")
        study = StudyDirectory(path)
        study.chunks.mkdir()
        write_study(study, told)
    except OSError as error:
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)
        raise RunError(
            f"cannot create a study in {folder}: {error.strerror}; give a folder that you can write with "
            "--run.root"
        ) from None
    return study


def _claim(folder: Path, study_id: str | None, generated: str) -> Path:
    """Make a folder; a generated name that another study took in the same second gets a number."""
    for number in itertools.count(1):
        path = folder / (study_id or (generated if number == 1 else f"{generated}-{number}"))
        try:
            path.mkdir()
        except FileExistsError:
            check_id(folder.parent, study_id)
        else:
            return path
    raise AssertionError("unreachable")


def find(path: str | Path) -> StudyDirectory:
    """An existing study directory; a bare name is also looked for in `runs/studies`.

    Raises:
      RunError: there is none, or it is no study.
    """
    study = StudyDirectory(Path(path))
    if not study.path.exists() and study.path.name == str(path):
        study = StudyDirectory(Path("runs") / FOLDER / path)
    if not study.study.is_file():
        raise RunError(f"{path} holds no study.json: give the path of a study, such as runs/{FOLDER}/<id>")
    return study


def clear_drafts(study: StudyDirectory) -> None:
    """Remove what a killed process was about to put in place; only for the one that holds the lock."""
    for folder in (study.path, study.chunks):
        for path in folder.glob(".*.tmp"):
            path.unlink()


def write_chunk(
    study: StudyDirectory, name: str, rows: Sequence[Mapping[str, Any]], arrays: Mapping[str, np.ndarray]
) -> None:
    """Keep a finished chunk: its file is there whole or not at all.

    Args:
      study: that it is of.
      name: of the chunk.
      rows: [n] `ztb_jax.runs.studied.TrialRow`.
      arrays: [n, ...] by name.
    """
    told = {"rows": list(rows), "arrays": sorted(arrays)}
    text = np.frombuffer(json.dumps(told, allow_nan=False).encode(), np.uint8)
    write_arrays(study.chunks / f"{name}.npz", {TOLD: text, **arrays})


def read_chunk(study: StudyDirectory, name: str, *, trials: Sequence[int]) -> tuple[Rows, Arrays] | None:
    """The rows [n] and arrays [n, ...] of a finished chunk, or None.

    Args:
      study: that it is of.
      name: of the chunk.
      trials: [n] numbers of the trainings that it must hold.

    Raises:
      RunError: the file is damaged, or of other trainings.
    """
    path = study.chunks / f"{name}.npz"
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        told = directory.parsed(arrays.pop(TOLD).tobytes())
        rows = told["rows"]
        for row in rows:
            artifacts.check("trial", row)
        if [row["trial"] for row in rows] != list(trials):
            raise ValueError("it holds other trainings")
        if sorted(arrays) != told["arrays"]:
            raise ValueError("it holds other arrays")
        if any(len(values) != len(rows) for values in arrays.values()):
            raise ValueError("an array has another length than the rows")
    except (*UNREADABLE, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(
            f"{path} is damaged ({error}): remove it and resume, which trains its trials again"
        ) from None
    return rows, arrays


def read_study(study: StudyDirectory) -> dict[str, Any]:
    """What study.json holds, one of `ztb_jax.runs.studied.StudyFile` as plain values.

    Raises:
      RunError: it is missing or damaged.
    """
    found = directory.read_object(study.study)
    try:
        artifacts.parse("study", json.dumps(found).encode())
    except ValueError as error:
        raise RunError(f"{study.study} is damaged ({error}): restore it, or begin anew") from None
    return found


def write_study(study: StudyDirectory, told: Mapping[str, Any]) -> None:
    """Replace study.json at once.

    Raises:
      ValueError: `told` is no study.
    """
    artifacts.parse("study", json.dumps(told).encode())
    directory.write_json(study.study, told)


def write_rows(study: StudyDirectory, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace trials.jsonl at once."""
    directory.write_lines(study.trials, rows)


def write_result(study: StudyDirectory, result: Mapping[str, Any]) -> None:
    """Replace result.json at once.

    Raises:
      ValueError: `result` is none of `ztb_jax.runs.studied.StudyResult`.
    """
    artifacts.parse("study_result", json.dumps(result).encode())
    directory.write_json(study.result, result)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace a NumPy archive at once; the same arrays give the same bytes."""
    whole = io.BytesIO()
    np.savez(whole, **arrays)  # pyright: ignore[reportArgumentType]
    directory.write_bytes(path, whole.getvalue())
