"""Limits of a training session: from the call, the environment, `trade-config.json` or the defaults."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ztb_jax.errors import ConfigError
from ztb_jax.settings import LIMIT_VARIABLES

FILE = "trade-config.json"
NAMES = ("checkpoint_interval", "max_memory_gb", "max_consecutive_failures")
VARIABLES = dict(zip(NAMES, LIMIT_VARIABLES, strict=True))


class Limits(BaseModel):
    """Limits of a session.

    Attributes:
      checkpoint_interval: steps between checks and saves.
      max_memory_gb: GiB that the process may hold; None is 2, raised where the process holds much already.
      max_consecutive_failures: checks with a failed gate in a row that halt.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    checkpoint_interval: int = Field(10_000, ge=1)
    max_memory_gb: float | None = Field(None, gt=0.0, allow_inf_nan=False)
    max_consecutive_failures: int = Field(3, ge=1)


def resolve_limits(
    *, environ: Mapping[str, str] | None = None, folder: Path | None = None, **given: float | None
) -> Limits:
    """The limits.

    Args:
      environ: None is the process's.
      folder: of `trade-config.json`, whose `training` holds them; None is the working directory.
      given: values of this call; None is not given.

    Raises:
      ConfigError: values that cannot be used, each with its place, all at once.
    """
    environ = os.environ if environ is None else environ
    path = (Path.cwd() if folder is None else folder) / FILE
    found: dict[str, tuple[str, Any]] = {}
    for name, variable in VARIABLES.items():
        told = (
            (f"{path}: training.{name}", _training(path).get(name)),
            (variable, environ.get(variable) or None),
            (name, given.get(name)),
        )
        known = [each for each in told if each[1] is not None]
        if known:
            found[name] = known[-1]
    try:
        return Limits.model_validate({name: value for name, (_, value) in found.items()})
    except ValidationError as error:
        raise ConfigError([_said(found, finding) for finding in error.errors()]) from error


def _said(found: Mapping[str, tuple[str, Any]], finding: Any) -> str:
    place, value = found[str(finding["loc"][0])]
    return f"{place} is {value!r}: {finding['msg']}"


def _training(path: Path) -> dict[str, Any]:
    """What the file says of training; nothing where there is no file."""
    if not path.is_file():
        return {}
    try:
        whole = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
    training = whole.get("training", {}) if isinstance(whole, dict) else None
    if not isinstance(training, dict):
        raise ConfigError(f'{path} must be an object such as {{"training": {{"checkpoint_interval": 1000}}}}')
    return training
