"""`ztb devices`: what a run can be trained on."""

import dataclasses
import json
import sys

import tyro


@dataclasses.dataclass(frozen=True)
class Devices:
    """List this machine's devices; `--run.device auto` takes the first."""

    json: bool = False
    """One JSON array instead of a table."""


def main(arguments: list[str]) -> int:
    """Print the report, the device that auto takes first."""
    command = tyro.cli(Devices, args=arguments, prog="ztb devices")
    from ztb_jax import devices

    found = devices.report()
    if command.json:
        sys.stdout.write(json.dumps([dataclasses.asdict(device) for device in found], indent=2) + "\n")
        return 0
    rows = [("device", "kind", "memory", "bfloat16", "cores", "backend")]
    for device in found:
        memory = "–" if device.memory_bytes is None else f"{device.memory_bytes / 2**30:,.1f} GiB"
        bf16 = {True: "native", False: "emulated", None: "–"}[device.native_bf16]
        rows.append((device.name, device.kind, memory, bf16, str(device.cores or "–"), device.backend))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    return 0
