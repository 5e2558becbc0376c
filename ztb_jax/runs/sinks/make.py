"""The sinks that settings ask for."""

import importlib
from pathlib import Path
from typing import Literal, Protocol

from ztb_jax.errors import ConfigError
from ztb_jax.runs import directory
from ztb_jax.runs.sinks.event import Sink


class Settings(Protocol):
    """The section `sinks` of a configuration, as far as it is read here."""

    @property
    def logs(self) -> str:
        """Folder in which every run has a folder of event files and a text log."""
        ...

    @property
    def tensorboard(self) -> bool:
        """Whether to write there."""
        ...

    @property
    def wandb(self) -> Literal["disabled", "offline", "online"]:
        """Weights & Biases: not at all, into the run directory only, or to the server too."""
        ...

    @property
    def wandb_project(self) -> str:
        """The project's name there."""
        ...

    @property
    def mlflow(self) -> str | None:
        """URI of a tracking server or folder, or None."""
        ...


def check_sinks(settings: Settings) -> None:
    """Refuse before there is a run what would fail in it.

    Raises:
      ConfigError: a tracker's package is missing or broken, its server takes no run, or its URI is of
        no known kind.
    """
    checks = {
        "tensorboard": (settings.tensorboard, _check_tensorboard),
        "wandb": (settings.wandb != "disabled", _check_wandb),
        "mlflow": (settings.mlflow is not None, _check_mlflow),
    }
    findings = [check(settings) for wanted, check in checks.values() if wanted]
    if found := [finding for finding in findings if finding]:
        raise ConfigError(found)


def make_sinks(
    settings: Settings, run: directory.RunDirectory, *, name: str | None = None
) -> dict[str, Sink]:
    """The sinks that settings ask for, by the setting that each belongs to.

    Args:
      settings: the section `sinks`.
      run: whose events they will be told.
      name: of its folder in `settings.logs`; without it, the run's id.

    Raises:
      ConfigError: as of `check_sinks`.
    """
    check_sinks(settings)
    sinks: dict[str, Sink] = {}
    if settings.tensorboard:
        from ztb_jax.runs.sinks.tensorboard import TensorBoard
        from ztb_jax.runs.sinks.text import TextLog

        folder = Path(settings.logs).expanduser() / (name or run.id)
        sinks["logs"] = TextLog(folder / "training.log")
        sinks["tensorboard"] = TensorBoard(folder)
    if settings.wandb != "disabled":
        from ztb_jax.runs.sinks.wandb import WandB

        sinks["wandb"] = WandB(settings.wandb_project, mode=settings.wandb)
    if settings.mlflow is not None:
        from ztb_jax.runs.sinks.mlflow import MLflow

        sinks["mlflow"] = MLflow(settings.mlflow)
    return sinks


def _check_tensorboard(settings: Settings) -> str | None:
    return _unusable("tensorboardX", setting="sinks.tensorboard", install="pip install tensorboardX")


def _check_wandb(settings: Settings) -> str | None:
    if found := _unusable("wandb", setting="sinks.wandb", install="pip install wandb"):
        return found
    if settings.wandb == "online":
        from ztb_jax.runs.sinks.wandb import unreachable

        if cause := unreachable():
            return (
                f"sinks.wandb online cannot be used ({cause}): run `wandb login`, or set WANDB_API_KEY, or "
                "take --sinks.wandb offline"
            )
    return None


def _check_mlflow(settings: Settings) -> str | None:
    from ztb_jax.runs.sinks.mlflow import prepare, unknown

    prepare()
    if found := _unusable("mlflow", setting="sinks.mlflow", install="pip install mlflow-skinny"):
        return found
    cause = unknown(str(settings.mlflow))
    return cause and (
        f"sinks.mlflow {settings.mlflow} cannot be used ({cause}): give file:… or http://…, or for a "
        "database `pip install mlflow`, of which mlflow-skinny is only the client"
    )


def _unusable(package: str, *, setting: str, install: str) -> str | None:
    """Why `package` cannot be imported and what to do, or None."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            return _broken(package, error, setting=setting, install=install)
        return f"{setting} needs the package {package}, which is not installed: `{install}`, or leave it out"
    except Exception as error:  # noqa: BLE001 - a broken install raises anything; what it was is told
        return _broken(package, error, setting=setting, install=install)
    return None


def _broken(package: str, error: Exception, *, setting: str, install: str) -> str:
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    again = install.replace("pip install", "pip install --force-reinstall")
    return f"{setting} needs the package {package}, whose import fails ({cause}): `{again}`, or leave it out"
