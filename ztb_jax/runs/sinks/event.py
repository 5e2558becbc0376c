"""What a run tells, and the callable that it is told to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ztb_jax.runs import directory

Kind = Literal["begun", "line", "window", "checkpoint", "replay", "ended"]


@dataclass(frozen=True)
class Event:
    """Something that happened in a run.

    Attributes:
      kind: "begun" (facts: the resolved configuration), "line" (`text`: what the terminal was told),
        "window" (a `WindowRow`), "checkpoint" (a `LatestCheckpoint`), "replay" (a `ReplayEntry`), or "ended"
        (the `RunMetadata`, and `evaluation` if the run was judged); records of `ztb_jax.runs.artifacts`.
      run: its directory.
      env_steps: done so far.
      facts: by the kind.
    """

    kind: Kind
    run: directory.RunDirectory
    env_steps: int
    facts: Mapping[str, Any] = field(default_factory=dict)


Sink = Callable[[Event], Mapping[str, Any] | None]
