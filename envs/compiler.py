"""What XLA is told before it compiles anything for a CPU."""

import os
import sys
import warnings
from importlib import metadata

NO_YNN = "--xla_cpu_experimental_ynn_fusion_type="
"""Products and sums are left to XLA itself. jaxlib 0.10.2 to 0.11 hand them to YNNPACK, which without a word
returns wrong sums of products of 32,769 rows and more (https://github.com/jax-ml/jax/issues/39103), ends or
hangs on others (https://github.com/jax-ml/jax/issues/39257), and is slower at what is trained here."""
UNKNOWN_FROM = (0, 12)
"""A jaxlib that does not know a flag ends the process; this one was not seen yet."""


def keep_results_right() -> None:
    """Add `NO_YNN` to XLA_FLAGS, which jax reads when it is first used; a setting of the user's own stays.

    Warns where it comes too late.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if NO_YNN.rstrip("=") in flags or _release() >= UNKNOWN_FROM:
        return
    if _is_read() or (flags and not flags.lstrip().startswith("-")):  # then it names a file of flags
        warnings.warn(
            "jax was used before ztb_jax or envs was imported, or XLA_FLAGS names a file, so its CPU "
            f"compiler may return wrong sums: import ztb_jax first, or set XLA_FLAGS={NO_YNN}",
            RuntimeWarning,
            stacklevel=3,
        )
        return
    os.environ["XLA_FLAGS"] = f"{flags} {NO_YNN}".strip()


def _release() -> tuple[int, ...]:
    return tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])


def _is_read() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()
