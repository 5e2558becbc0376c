"""The directory of a study, many trainings judged together: what is done stays done. Imports no jax.

<root>/studies/<id>/
  study.json           what is trained: configuration, folds, seeds, settings that differ, program sizes
  trials/<group>-<chunk>.npz  a finished chunk, whole or not there: its rows and its arrays
  trials.jsonl         the rows of all finished chunks
  result.json          what came of it
  report.html          the same for a person
"""

import itertools
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ztb_jax.errors import RunError
from ztb_jax.runs import directory

FOLDER = "studies"


class StudyDirectory(directory.RunDirectory):
    """Paths of one study."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.study = path / "study.json"
        self.chunks = path / "trials"
        self.trials = path / "trials.jsonl"
        self.result = path / "result.json"


def create(root: str | Path, study_id: str | None, kind: str) -> StudyDirectory:
    """A new, empty study directory.

    Args:
      root: folder of runs; studies lie in a folder of it.
      study_id: its name, or None for `<kind>-YYYYmmddTHHMMSSZ`.
      kind: of study.

    Raises:
      RunError: the name is taken or unusable, or the folder cannot be written.
    """
    folder = Path(root).expanduser() / FOLDER
    if study_id is not None:
        directory.check_name(folder, study_id)
    stamp = directory.timestamp().translate(str.maketrans("", "", "-:")).split(".")[0]
    name = study_id or f"{kind}-{stamp}Z"
    taken = (folder / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    path = folder / name if study_id is not None else next(each for each in taken if not each.exists())
    try:
        path.mkdir(parents=True)
        study = StudyDirectory(path)
        study.chunks.mkdir()
    except OSError as error:
        raise RunError(
            f"cannot create a study in {folder}: {error.strerror}; give a folder that you can write with "
            "--run.root"
        ) from None
    return study


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


def write_chunk(
    study: StudyDirectory, name: str, rows: Sequence[Mapping[str, Any]], arrays: Mapping[str, np.ndarray]
) -> None:
    """Keep a finished chunk: its file is there whole or not at all."""
    text = np.frombuffer(json.dumps(list(rows), allow_nan=False).encode(), np.uint8)
    with directory.replacing(study.chunks / f"{name}.npz") as file:
        np.savez(file, **{"rows": text, **arrays})  # pyright: ignore[reportArgumentType]


def read_chunk(study: StudyDirectory, name: str) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]] | None:
    """The rows and arrays of a finished chunk, or None.

    Raises:
      RunError: the file is damaged.
    """
    path = study.chunks / f"{name}.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        rows = json.loads(arrays.pop("rows").tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(
            f"{path} is damaged ({error}): remove it and resume, which trains its trials again"
        ) from None
    return rows, arrays


def read_study(study: StudyDirectory) -> dict[str, Any]:
    """What study.json holds.

    Raises:
      RunError: it is missing or damaged.
    """
    found = directory.read_object(study.study)
    if not isinstance(found.get("members"), dict):
        raise RunError(f"{study.study} is damaged (it tells no members): restore it, or begin anew")
    return found


def write_study(study: StudyDirectory, told: Mapping[str, Any]) -> None:
    """Replace study.json at once."""
    directory.write_json(study.study, told)


def write_rows(study: StudyDirectory, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace trials.jsonl at once."""
    directory.write_lines(study.trials, rows)
