"""Training jobs: `python -m ztb_jax.training` and its siblings; and the seals of runs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ztb_jax.training.run_seal import create_run_seal, get_run_seal_manager

__all__ = ["create_run_seal", "get_run_seal_manager"]


def __getattr__(name: str) -> Any:
    # Seals need jax, which takes a second to import; jobs say what they do before that.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ztb_jax.training import run_seal

    return getattr(run_seal, name)
