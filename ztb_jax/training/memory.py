"""Whether a run fits its device: told from the compiled program, before it runs."""

import jax

from ztb_jax import devices
from ztb_jax.config import Config
from ztb_jax.errors import JobError

MARGIN = 0.9  # of what is available: validation, checkpoints and the allocator want some, too


def check_fits(needed: int | None, device: devices.Handle, config: Config) -> None:
    """Refuse a window of updates that needs more bytes than `device` has available.

    Raises:
      JobError: it does; the message names both sizes and the settings to lower.
    """
    available = devices.available_bytes(device)
    if needed is not None and device.platform == "cpu":
        needed *= config.run.devices  # a plan is of one device, and CPUs share their memory
    if needed is None or available is None or needed <= available:
        return
    raise JobError(
        f"a window of updates needs {_size(needed)} of memory and {devices.describe(device).name} has "
        f"{_size(available)} available: {smaller(config, available / needed)}"
    )


def room(device: devices.Handle) -> int | None:
    """Bytes that programs may hold beside each other on `device`; None where it does not tell."""
    available = devices.available_bytes(device)
    return None if available is None else int(MARGIN * available)


def smaller(config: Config, share: float) -> str:
    """What to change so that a run takes at most `share` of its memory."""
    ppo = config.ppo
    step = ppo.sharing * ppo.num_minibatches * config.run.devices
    accounts = int(MARGIN * share * ppo.num_accounts) // step * step
    about = f" to {accounts}" if accounts else ""
    return (
        f"lower ppo.num_accounts ({ppo.num_accounts}){about}, or ppo.rollout_bars ({ppo.rollout_bars}) or "
        f"policy.width ({config.policy.width}), or raise ppo.num_minibatches ({ppo.num_minibatches})"
    )


def is_exhausted(error: BaseException) -> bool:
    """Whether `error` says that memory of the host or of a device ran out."""
    device = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return device or isinstance(error, MemoryError)


def _size(count: int) -> str:
    return f"{count:,} bytes ({count / 2**30:,.2f} GiB)"
