"""Checkpoints: the whole carry, the best policy so far and the loop's counters, by orbax, asynchronously."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from ztb_jax.errors import RunError

CARRY, BEST, COUNTERS = "carry", "best", "counters"


def open_checkpoints(directory: Path, *, keep: int) -> ocp.CheckpointManager:
    """A manager over `directory` that keeps the newest `keep`; each is written aside and then renamed."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
    return ocp.CheckpointManager(directory.absolute(), options=options)


def save(
    manager: ocp.CheckpointManager, window: int, *, carry: Any, best: Any, counters: dict[str, Any]
) -> None:
    """Start to save; `manager.wait_until_finished()` makes it durable.

    The carry is copied first: the loop donates it to the next window while the save is in flight.

    Args:
      manager: from `open_checkpoints`.
      window: number of the window that has just ended.
      carry: the learner's state.
      best: weights of the best policy so far.
      counters: plain values the loop goes on from.
    """
    carry, best = jax.tree.map(jnp.copy, (carry, best))
    manager.save(
        window,
        args=ocp.args.Composite(
            **{
                CARRY: ocp.args.StandardSave(carry),  # pyright: ignore[reportCallIssue]
                BEST: ocp.args.StandardSave(best),  # pyright: ignore[reportCallIssue]
                COUNTERS: ocp.args.JsonSave(counters),  # pyright: ignore[reportCallIssue]
            }
        ),
        force=True,
    )


def load_best(directory: Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """The best policy's weights in the newest checkpoint, and its counters.

    Args:
      directory: of the checkpoints.
      like: weights, or their shapes, of the same structure.

    Raises:
      RunError: there is no checkpoint, or it does not fit.
    """
    if not directory.is_dir():
        raise RunError(f"{directory} does not exist: the run ended before its first checkpoint; train again")
    with open_checkpoints(directory, keep=1_000_000) as manager:
        newest = manager.latest_step()
        if newest is None:
            raise RunError(f"{directory} holds no checkpoint: the run ended before its first; train again")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        arguments = {
            BEST: ocp.args.StandardRestore(abstract),  # pyright: ignore[reportCallIssue]
            COUNTERS: ocp.args.JsonRestore(),
        }
        try:
            restored = manager.restore(newest, args=ocp.args.Composite(**arguments))
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise RunError(f"checkpoint {newest} in {directory} does not fit its run: {error}") from error
    return restored[BEST], restored[COUNTERS]
