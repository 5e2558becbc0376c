"""MLflow: the configuration as parameters, windows as metrics, policies and replays as artifacts."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ztb_jax.config import flattened
from ztb_jax.runs.sinks import rows
from ztb_jax.runs.sinks.event import Event

EXPERIMENT = "ztb_jax"
MARK = "ztb.run_id"  # MLflow makes ids of its own; a run that goes on is found by this tag
STATUS = {"completed": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
LONGEST = 6000  # characters of a parameter that MLflow takes
SHORTENED = " … (shortened)"
BATCH = 100  # parameters that MLflow takes at once


def prepare() -> None:
    """Before MLflow is imported: let it use a folder, which it does only when told so, and not phone home."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def unknown(uri: str) -> str | None:
    """Why a tracking URI is of no kind that the installed MLflow can use, or None; asks no server."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient(tracking_uri=uri)
    except (MlflowException, ImportError, OSError) as error:
        return " ".join(str(error).split(". ")[0].split())
    return None


class MLflow:
    """Logs to a run of the same name in the experiment `ztb_jax`; a sink.

    Args:
      uri: of the tracking server or folder.
    """

    def __init__(self, uri: str):
        self.uri = uri
        self.client: Any = None
        self.run_id = ""

    def __call__(self, event: Event) -> None:
        """Take an event."""
        step, facts = event.env_steps, event.facts
        match event.kind:
            case "begun":
                self._begin(event)
            case "window":
                self._log(rows.grouped(facts), step=facts["env_steps_total"])
            case "checkpoint" if rows.is_policy(facts):
                self._artifact(event.run.path / facts["path"], f"model/window-{facts['window_id']:06d}")
            case "replay":
                self._artifact(event.run.path / facts["replay_path"], "replays")
            case "ended":
                self._log(rows.judged(facts), step=step)
                self.client.set_terminated(self.run_id, STATUS[facts["status"]])

    def _begin(self, event: Event) -> None:
        prepare()
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient(tracking_uri=self.uri)
        known = self.client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else self.client.create_experiment(EXPERIMENT)
        name = event.run.id
        if earlier := self.client.search_runs([experiment], f"tags.`{MARK}` = '{name}'", max_results=1):
            self.run_id = earlier[0].info.run_id
            self.client.update_run(self.run_id, status="RUNNING")
            return  # with the parameters it has, which cannot change
        self.run_id = self.client.create_run(experiment, run_name=name, tags={MARK: name}).info.run_id
        values = flattened(event.facts)
        params = [Param(key, _shortened(value)) for key, value in values.items()]
        for first in range(0, len(params), BATCH):
            self.client.log_batch(self.run_id, params=params[first : first + BATCH])

    def _log(self, values: Mapping[str, float], *, step: int) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def _artifact(self, path: Path, place: str) -> None:
        self.client.log_artifact(self.run_id, str(path), place)


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - len(SHORTENED)] + SHORTENED
