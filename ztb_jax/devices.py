"""Which devices there are, what they can do, and which one a run takes.

The first call sets JAX's backends up; an import does not.
"""

import dataclasses
import os
import platform as system
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.extend.backend import backends

from ztb_jax.errors import ConfigError
from ztb_jax.settings import DEVICE_PATTERN

PRIORITY = ("gpu", "tpu", "cpu")
ALIASES = {"cuda": "gpu"}
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # in /proc/cpuinfo, of x86 and of Arm
AMPERE = 8.0  # compute capability from which CUDA devices multiply bfloat16

Handle = Any  # a jax.Device, which type checkers take for a variable


@dataclasses.dataclass(frozen=True)
class Device:
    """One device of this process.

    Attributes:
      name: what `choose` takes, such as "gpu:0".
      platform: "gpu", "tpu" or "cpu"; another where a plugin brings it.
      kind: the model, as its maker calls it.
      index: among the devices of its platform, from 0.
      memory_bytes: what programs may allocate; of the CPU all memory of the host. None where it is not told.
      native_bf16: whether it computes in bfloat16 itself; None where it is not told.
      cores: multiprocessors of a GPU, cores of a TPU, threads this process may use of a CPU; None where it is
        not told.
      backend: the runtime's own version text.
    """

    name: str
    platform: str
    kind: str
    index: int
    memory_bytes: int | None
    native_bf16: bool | None
    cores: int | None
    backend: str


class HostMemory(NamedTuple):
    """Bytes of the host that this process may have (`total`) and may still take (`available`)."""

    total: int
    available: int


def report() -> tuple[Device, ...]:
    """Every device of this process, the one that "auto" takes first.

    Raises:
      ConfigError: JAX cannot set its devices up.
    """
    return tuple(_describe(name, device) for name, device in _local().items())


def choose(name: str) -> Handle:
    """The device called `name`.

    Args:
      name: "auto" is the first GPU, else the first TPU, else the CPU. "gpu", "cuda" (the same), "tpu" and
        "cpu" are the first of theirs, "gpu:1" is the second. With "cpu", chosen before anything else has set
        JAX up, no other device is touched for as long as the process lives.

    Raises:
      ConfigError: no such name, no such device here, or JAX cannot set its devices up.
    """
    if not re.fullmatch(DEVICE_PATTERN, name):
        raise ConfigError(
            f"run.device: {name!r} is no device: take auto, cpu, gpu, cuda, tpu, or one as gpu:1"
        )
    platform, _, index = name.partition(":")
    platform = ALIASES.get(platform, platform)
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    found = _local()
    if name == "auto":
        return next(iter(found.values()))
    wanted = f"{platform}:{int(index or 0)}"
    if wanted not in found:
        raise ConfigError(_absent(wanted, platform, found))
    return found[wanted]


def together(device: Handle, count: int) -> list[Handle]:
    """`count` devices of the platform of `device`, itself where it is one; 0 is all of them.

    Raises:
      ConfigError: there are not so many.
    """
    if count == 1:
        return [device]
    peers = [other for other in _local().values() if other.platform == device.platform]
    if count > len(peers):
        more = " (XLA_FLAGS=--xla_force_host_platform_device_count=N makes N of a CPU)"
        raise ConfigError(
            f"run.devices: {count} were asked for and there are {len(peers)} of platform {device.platform}"
            f"{more if device.platform == 'cpu' else ''}: take at most that many, or 0 for all"
        )
    return peers[:count] if count else peers


def describe(device: Handle) -> Device:
    """The record of a device that `choose` gave."""
    return next(_describe(name, other) for name, other in _local().items() if other == device)


def available_bytes(device: Handle) -> int | None:
    """What may still be allocated on `device` now, or None where that is not told."""
    if device.platform == "cpu":
        return host_memory().available
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def _local() -> dict[str, Handle]:
    """Devices by name, by priority; platforms that nobody ranks come last."""
    try:
        clients = {client.platform: client for client in backends().values()}
    except (RuntimeError, AssertionError) as error:  # the latter where JAX_PLATFORMS leaves no backend at all
        told = str(error).splitlines()[0] if str(error) else "there is no backend"
        raise ConfigError(
            f"JAX cannot set its devices up (JAX_PLATFORMS is {_allowed()!r}): {told}. "
            "Mend its plugin or the variable, or take run.device cpu"
        ) from None
    known = [platform for platform in PRIORITY if platform in clients]
    others = [platform for platform in clients if platform not in PRIORITY]
    return {
        f"{platform}:{index}": device
        for platform in known + others
        for index, device in enumerate(clients[platform].local_devices())
    }


def _allowed() -> str | None:
    """The platforms that JAX may set up, or None for all that it finds."""
    return jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]: made when jax is imported


def _absent(wanted: str, platform: str, found: dict[str, Handle]) -> str:
    there = ", ".join(f"{name} ({device.device_kind})" for name, device in found.items())
    why = ""
    if f"{platform}:0" not in found:
        if only := _allowed():
            why = f"; JAX was told to use {only} alone, by JAX_PLATFORMS or an earlier choice"
        else:
            why = "; it needs JAX's plugin for it beside its driver"
    return f"run.device: there is no {wanted} here{why}. There are: {there}. Take one of these, or auto"


def _describe(name: str, device: Handle) -> Device:
    platform, index = name.split(":")
    return Device(
        name=name,
        platform=platform,
        kind=device.device_kind,
        index=int(index),
        memory_bytes=_memory_bytes(device),
        native_bf16=_native_bf16(device),
        cores=_cores(device),
        backend=" ".join(device.client.platform_version.split()),
    )


def _memory_bytes(device: Handle) -> int | None:
    if device.platform == "cpu":
        return host_memory().total
    return (device.memory_stats() or {}).get("bytes_limit")


def _native_bf16(device: Handle) -> bool | None:
    if device.platform == "cpu":
        return _cpu_has_bf16(Path("/proc/cpuinfo"))
    if device.platform == "tpu":
        return True
    capability = getattr(device, "compute_capability", None)
    try:
        return None if capability is None else float(capability) >= AMPERE
    except ValueError:  # other makers' GPUs name an architecture, such as gfx942
        return None


def _cpu_has_bf16(info: Path) -> bool | None:
    try:
        lines = info.read_text().splitlines()
    except OSError:
        return None
    flags = {
        flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()
    }
    return bool(flags & BF16_FLAGS) if flags else None


def _cores(device: Handle) -> int | None:
    if device.platform == "cpu":
        return cores()
    return getattr(device, "core_count", None) or getattr(device, "num_cores", None)


def host_memory(proc: Path = Path("/proc"), control: Path = Path("/sys/fs/cgroup")) -> HostMemory:
    """Memory of the host, within the limits of control groups and of the address space.

    Args:
      proc: the kernel's files of processes.
      control: the tree of control groups, version 1 or 2.
    """
    total, available = _physical(proc)
    for limit, used in [*_control_groups(proc, control), *_address_space(proc)]:
        total, available = min(total, limit), min(available, limit - used)
    return HostMemory(total, max(available, 0))


def _physical(proc: Path) -> tuple[int, int]:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:  # no Linux: the kernel does not say what it could free
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return 1024 * kib["MemTotal"], 1024 * kib["MemAvailable"]


def _control_groups(proc: Path, control: Path) -> list[tuple[int, int]]:
    """(limit, used but for page cache that can be given back) of this process's group and those above it."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            root, names = control / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        elif controllers == "":
            root, names = control, ("memory.max", "memory.current")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            found += _limit_of(folder, names)
            if folder == root:
                break
    return found


def _limit_of(folder: Path, names: tuple[str, str]) -> list[tuple[int, int]]:
    try:
        limit, used = ((folder / name).read_text().strip() for name in names)
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:  # a root group has no limit, and a container may not show the groups above its own
        return []
    stat = {name: int(value) for name, value in (line.split() for line in lines)}
    cache = stat.get("total_inactive_file", stat.get("inactive_file", 0))
    return [] if limit == "max" else [(int(limit), int(used) - cache)]


def _address_space(proc: Path) -> list[tuple[int, int]]:
    """(limit, used) of the process's addresses, where `ulimit -v` bounds them."""
    try:
        import resource

        pages = int((proc / "self" / "statm").read_text().split()[0])
    except (ImportError, OSError):
        return []
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [] if limit == resource.RLIM_INFINITY else [(limit, pages * resource.getpagesize())]


def processor() -> str:
    """The processor's name with its vector instructions, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return system.processor() or system.machine()
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    vectors = [name for name in ("avx2", "avx512f") if name in fields.get("flags", "").split()]
    return " ".join([fields.get("model name", system.machine()), *vectors])


def cores() -> int | None:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
