"""Saving states of any program: `CheckpointManager` by experiment, `ModelCheckpointingSystem` by metric."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ztb_jax.utils.checkpoints import CheckpointManager
    from ztb_jax.utils.model_checkpoints import ModelCheckpointingSystem

__all__ = ["CheckpointManager", "ModelCheckpointingSystem"]


def __getattr__(name: str) -> Any:
    # They need jax and orbax, which take a second to import.
    if name == "CheckpointManager":
        from ztb_jax.utils.checkpoints import CheckpointManager

        return CheckpointManager
    if name == "ModelCheckpointingSystem":
        from ztb_jax.utils.model_checkpoints import ModelCheckpointingSystem

        return ModelCheckpointingSystem
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
