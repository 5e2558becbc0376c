"""What every JSON file of a run holds, and the JSON Schemas of it. Imports no jax.

The records below are the schemas' one source: `python -m ztb_jax.runs.artifacts` writes them to
`ztb_jax/runs/schemas`. Times are UTC, ISO 8601; paths are relative to the run directory, POSIX; what is not
known is null. A run's reward is log growth of equity unless `env.reward` says otherwise.
"""

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from ztb_jax.runs.judged import EXACT, OPEN, Count, Evaluation, Scored, Share
from ztb_jax.runs.studied import StudyFile, StudyResult, TrialRow
from ztb_jax.settings import Config

SCHEMAS = Path(__file__).parent / "schemas"

Price = Annotated[float, Field(gt=0.0)]
Status = Literal["running", "completed", "failed", "cancelled"]


@with_config(EXACT)
class LatestWindow(TypedDict):
    """The newest row of `metrics/windows.jsonl`."""

    window_id: Count
    window_complete: bool
    env_steps_start: Count
    env_steps_end: Count
    metrics_row_path: str


@with_config(EXACT)
class LatestCheckpoint(TypedDict):
    """The newest durable checkpoint.

    `path` is the policy file where there is one, else the generation; `resume_path` is the generation, which
    holds the whole carry.
    """

    window_id: Count
    env_steps_total: Count
    path: str
    resume_path: str
    created_at: str


@with_config(EXACT)
class LatestReplay(TypedDict):
    """The newest entry of the replay index."""

    window_id: Count
    replay_id: str
    replay_path: str
    return_total: float
    tags: list[str]
    created_at: str


@with_config(OPEN)
class RunMetadata(TypedDict):
    """`run_metadata.json`, replaced at once whenever something is new."""

    run_id: str
    status: Status
    trainer_backend: Literal["random", "puffer_ppo", "ppo", "apg"]
    phase: str
    fraction: float
    steps_per_second: NotRequired[float]
    eta_seconds: NotRequired[float | None]
    verdict: str | None
    edge: Literal["edge", "no edge", "inconclusive"] | None
    target_env_steps: Count
    window_env_steps: Count
    env_steps_total: Count
    episodes_total: Count
    windows_emitted: Count
    checkpoints_written: Count
    replays_written: Count
    latest_window: LatestWindow | None
    latest_checkpoint: LatestCheckpoint | None
    latest_replay: LatestReplay | None
    best_window: Count | None
    config_path: str
    seal_path: str
    metrics_windows_path: str
    checkpoints_dir: str
    replays_dir: str | None
    replay_index_path: str | None
    wandb_run_url: str | None
    constellation_url: str | None
    info_metric_keys: list[str]
    troubles: list[str]
    started_at: str
    updated_at: str
    finished_at: str | None
    error: str | None
    halt_reason: str | None
    ppo_device: str
    ppo_num_envs: Count
    ppo_num_workers: Count | None
    ppo_rollout_steps: Count
    ppo_policy_updates: Count
    ppo_vector_backend: str | None
    ppo_policy_arch: str


@with_config(OPEN)
class WindowRow(TypedDict):
    """One line of `metrics/windows.jsonl`; the learner's own means stand beside, as `<name>_mean`.

    Sums are split in proportion where an update reaches over the end of a window; an episode counts where it
    ends. `profit_mean` is in account currency.
    """

    run_id: str
    window_id: Count
    window_complete: bool
    env_steps_start: Count
    env_steps_end: Count
    env_steps_in_window: Count
    env_steps_total: Count
    episodes_completed: Count
    terminated_episodes: Count
    truncated_episodes: Count
    reward_sum: float | None
    reward_mean: float | None
    return_mean: float | None
    invalid_action_rate: Share | None
    profit_mean: float | None
    survival_rate: Share | None
    verdict: int
    validation_log_growth: float | None
    validation_drawdown: Share | None
    best_window: Count | None
    seconds: Annotated[float, Field(ge=0.0)]
    steps_per_second: Annotated[float, Field(ge=0.0)]


@with_config(EXACT)
class Bar(TypedDict):
    """Prices of a bar, quote currency."""

    open: Price
    high: Price
    low: Price
    close: Price


@with_config(EXACT)
class RenderState(TypedDict):
    """Where the account stands at the close of a frame's bar.

    Attributes:
      time: of the close.
      bar: its prices.
      observation: what the action was decided on: the account's view, then the features of the bar before.
      position: signed value held over equity.
      equity, net_profit: account currency.
      drawdown: from the highest equity of the episode, as a share of it.
      survival: 1, or 0 once the account is closed.
      time_remaining: bars until the episode is cut off.
    """

    time: str
    bar: Bar
    observation: list[float]
    position: float
    equity: float
    net_profit: float
    drawdown: float
    survival: float
    time_remaining: Count


@with_config(OPEN)
class OrderEvent(TypedDict):
    """`level`: the exposure that was asked for."""

    type: Literal["order"]
    level: float


@with_config(OPEN)
class TradeEvent(TypedDict):
    """What an order (`fill`) or a protection (`exit`) traded: share of equity, price, account currency."""

    type: Literal["fill", "exit"]
    side: Literal["buy", "sell"]
    size: float
    price: float
    cost: float
    reason: NotRequired[Literal["stop", "target", "trail", "liquidation"]]


@with_config(OPEN)
class RuinEvent(TypedDict):
    """The account was closed."""

    type: Literal["ruin"]


FrameEvent = Annotated[OrderEvent | TradeEvent | RuinEvent, Field(discriminator="type")]


@with_config(OPEN)
class ReplayFrame(TypedDict):
    """One line of `replays/<replay_id>.jsonl.gz`: a decision, and the bar that it was carried out in.

    `t` is the number of bars played with this one; `action` as the policy's head gives it; `info` is absent
    with `replays.include_info: false`.
    """

    schema_version: Literal[1]
    frame_index: Count
    t: Annotated[int, Field(gt=0)]
    dt: Annotated[int, Field(gt=0)]
    action: int | float | list[int] | list[float]
    reward: float
    terminated: bool
    truncated: bool
    render_state: RenderState
    events: list[FrameEvent]


@with_config(EXACT)
class ReplayEntry(TypedDict):
    """One replay in the index: the best of the episodes played with one checkpoint.

    Attributes:
      return_total: sum of the rewards.
      return_percent: simple return of the equity, in percent; milestones of `return` look at it.
      profit: the same in account currency.
      survival: share of the episode that the account lived.
      episodes: that were played, of which this one was kept.
      first_time, last_time: of the first and last bar played.
      slice: that it was played on.
    """

    run_id: str
    window_id: Count
    replay_id: str
    replay_path: str
    checkpoint_path: str
    tags: list[str]
    trainer_backend: str
    return_total: float
    return_percent: float
    steps: Annotated[int, Field(gt=0)]
    profit: float
    survival: Share
    terminated: bool
    truncated: bool
    checkpoint_env_steps_total: Count
    episodes: Annotated[int, Field(gt=0)]
    slice: str
    first_time: str
    last_time: str
    created_at: str


@with_config(EXACT)
class ReplayIndex(TypedDict):
    """`replay_index.json`, oldest replay first."""

    schema_version: Literal[1]
    run_id: str
    updated_at: str
    entries: list[ReplayEntry]


@with_config(OPEN)
class PolicyCheckpoint(TypedDict):
    """What `checkpoints/ckpt_<window>.pt` says of itself.

    `json_v1` is this as JSON, of a run that trades at random. `ppo_jax_v1` is a NumPy zip archive: this in
    `header.json`, with what makes the policy again, and one array for each weight.
    """

    checkpoint_format: Literal["json_v1", "ppo_jax_v1"]
    run_id: str
    window_id: Count
    env_steps_total: Count
    trainer_backend: str
    created_at: str


@with_config(EXACT)
class WindowDigests(TypedDict):
    """One line of `metrics/digests.jsonl`: SHA-256 of every leaf of the carry, and of all windows so far."""

    window_id: Count
    chain: str
    leaves: dict[str, str]


@with_config(OPEN)
class Seal(TypedDict):
    """`seal.json`: what the run depends on; `ztb_jax.training.run_seal.RunSeal` makes it."""

    run_id: str
    seed: Count | None
    key: dict[str, Any] | None
    timestamp: str
    environment: dict[str, Any]
    config: dict[str, Any]
    metadata: dict[str, Any] | None
    version: Count


ARTIFACTS: dict[str, Any] = {
    "config": Config,
    "seal": Seal,
    "run_metadata": RunMetadata,
    "window_row": WindowRow,
    "window_digests": WindowDigests,
    "replay_index": ReplayIndex,
    "replay_frame": ReplayFrame,
    "policy_checkpoint": PolicyCheckpoint,
    "evaluation": Evaluation,
    "scored": Scored,
    "study": StudyFile,
    "study_result": StudyResult,
    "trial": TrialRow,
}


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one of `ARTIFACTS`."""
    made = TypeAdapter(ARTIFACTS[name]).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


@cache
def _checker(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(ARTIFACTS[name])


def check(name: str, value: Any) -> Any:
    """`value` itself, where it is one of `ARTIFACTS`.

    Raises:
      ValueError: it is not; the first finding is told, with its place.
    """
    try:
        _checker(name).validate_python(value, strict=True)
    except ValidationError as error:
        raise ValueError(_first_of(error)) from None
    return value


def parse(name: str, text: bytes) -> Any:
    """As `check`, of a value that is JSON text; fast, for files of many lines."""
    try:
        return _checker(name).validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(_first_of(error)) from None


def _first_of(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg'].lower()}" if place else first["msg"].lower()


def write_schemas(folder: Path = SCHEMAS) -> None:
    """One file for each of `ARTIFACTS`."""
    folder.mkdir(exist_ok=True)
    for name in ARTIFACTS:
        (folder / f"{name}.schema.json").write_text(json.dumps(schema(name), indent=2) + "\n")


if __name__ == "__main__":
    write_schemas()
