"""`python -m benchmarks NAME [--json FILE]`: measure, print a table, fail when a bar is missed."""

import argparse
import importlib
import sys
from pathlib import Path

NAMES = (
    "env",
    "train",
    "learn",
    "encoders",
    "shuffles",
    "compile",
    "faults",
    "overhead",
    "gpu",
    "edge",
    "calibration",
    "walkforward",
    "pages",
    "screenshots",
)


def main() -> int:
    """Run one benchmark; exit status 0 when every bar was reached, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    for name in NAMES:
        command = commands.add_parser(name)
        command.add_argument(
            "--json", dest="json_file", type=Path, metavar="FILE", help="write the figures to FILE, too"
        )
        if name == "train":
            command.add_argument("--against", nargs="+", default=(), metavar="NAME", help="other trainers")
        if name == "encoders":
            parts = ("speed", "carry", "learning", "sharing")
            command.add_argument("--parts", nargs="+", choices=parts, help="of these alone")
        if name == "overhead":
            parts = ("trust", "watching", "blocking")
            command.add_argument("--parts", nargs="+", choices=parts, help="of these alone")
        if name == "calibration":
            command.add_argument("--kinds", nargs="+", metavar="KIND", help="of these markets alone")
        if name == "faults":
            command.add_argument("--runs", type=int, default=100, help="so many runs are killed")
            command.add_argument("--corruptions", type=int, default=1_000, help="so much damage")
        if name == "learn":
            command.add_argument("--markets", nargs="+", metavar="NAME", help="of these markets alone")
            command.add_argument("--seeds", type=int, metavar="N", help="so many seeds of each market")
            command.add_argument("--beside-sb3", action="store_true", help="Stable-Baselines3 and ours")
    options = vars(parser.parse_args())
    return importlib.import_module(f"benchmarks.{options.pop('name')}").run(**options)


if __name__ == "__main__":
    sys.exit(main())
