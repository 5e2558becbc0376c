"""A policy in one file, `checkpoints/ckpt_<window>.pt`: what it is, and its weights. Imports no jax.

`ppo_jax_v1` is a zip archive that NumPy reads: `header.json`, and `weights/<name>.npy` for each leaf. A run
that trades at random has no weights: its `json_v1` is the header alone, as JSON.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ztb_jax.errors import FormatError, RunError
from ztb_jax.runs import directory

RANDOM, WEIGHTS = "json_v1", "ppo_jax_v1"
NAME = re.compile(r"ckpt_\d{6,}\.pt", re.ASCII)
HEADER, FOLDER = "header.json", "weights/"
REQUIRED = ("checkpoint_format", "run_id", "window_id", "env_steps_total", "trainer_backend", "created_at")
REQUIRED_OF_WEIGHTS = ("policy_arch", "obs_shape", "n_actions", "num_features", "config")


def path_of(run: directory.RunDirectory, window: int) -> Path:
    """Where the policy of a window is."""
    return run.checkpoints / f"ckpt_{window:06d}.pt"


def is_due(window: int, every: int | None) -> bool:
    """Whether the policy of a window is kept where it is neither the last one nor stopped after."""
    return every is not None and window % every == 0


def window_of(path: Path) -> int:
    """The window whose policy `path` is of."""
    return int(path.stem.removeprefix("ckpt_"))


def paths(run: directory.RunDirectory) -> list[Path]:
    """Every policy of a run, oldest first."""
    return sorted(
        (path for path in run.checkpoints.glob("ckpt_*.pt") if NAME.fullmatch(path.name)), key=window_of
    )


def forget(run: directory.RunDirectory, *, after: int, every: int | None) -> None:
    """Remove the policies of windows after `after`, which are made again, and what only a stop had kept."""
    for path in paths(run):
        if window_of(path) > after or not is_due(window_of(path), every):
            path.unlink()


def write(path: Path, header: Mapping[str, Any], weights: Mapping[str, np.ndarray] | None) -> None:
    """Write a policy at once; the same policy makes the same bytes.

    Args:
      path: of the file.
      header: with `REQUIRED`, and with weights `REQUIRED_OF_WEIGHTS`; the format is set here.
      weights: by name; None for a policy that has none.
    """
    told = {"checkpoint_format": RANDOM if weights is None else WEIGHTS, **header}
    text = json.dumps(told, indent=2, allow_nan=False) + "\n"
    if weights is None:
        directory.write_text(path, text)
        return
    with directory.replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(HEADER), text)
        for name, values in weights.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(values, order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{FOLDER}{name}.npy"), buffer.getvalue())


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
    """Header and weights of a policy, None where it has none.

    Raises:
      RunError: the file is missing or damaged; a FormatError, which is a ValueError, where it is of another
        format or lacks fields.
    """
    try:
        if not zipfile.is_zipfile(path):
            header, weights = directory.parsed(path.read_text()), None
        else:
            with zipfile.ZipFile(path) as archive:
                header, weights = _unpacked(path, archive)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, FormatError):
            raise
        raise RunError(f"{path} is damaged ({error}): restore it, or train again") from None
    _check(path, header, weights)
    return header, weights


def _unpacked(path: Path, archive: zipfile.ZipFile) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    names = archive.namelist()
    if HEADER not in names:
        torch = any(name.endswith("data.pkl") for name in names)
        raise FormatError(
            f"{path} is a checkpoint of PyTorch (ppo_torch_v1), whose network this trainer does not have: "
            "train again here, with --trainer-backend puffer_ppo"
            if torch
            else f"{path} is a zip archive without {HEADER}: it is no policy of this trainer"
        )
    weights = {
        name.removeprefix(FOLDER).removesuffix(".npy"): np.lib.format.read_array(
            io.BytesIO(archive.read(name)), allow_pickle=False
        )
        for name in names
        if name.startswith(FOLDER)
    }
    return directory.parsed(archive.read(HEADER)), weights


def _check(path: Path, header: Any, weights: Mapping[str, Any] | None) -> None:
    if not isinstance(header, dict):
        raise FormatError(f"{path} is no policy: its header is not an object")
    wanted = RANDOM if weights is None else WEIGHTS
    told = header.get("checkpoint_format")
    if told != wanted:
        raise FormatError(
            f"{path} says it is {told!r} and this trainer reads {RANDOM} (JSON) and {WEIGHTS} (an archive): "
            "train again here"
        )
    required = REQUIRED if weights is None else REQUIRED + REQUIRED_OF_WEIGHTS
    missing = [name for name in required if name not in header]
    if missing:
        raise FormatError(f"{path} lacks {', '.join(missing)}: restore it, or train again")
