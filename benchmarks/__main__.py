"""`python -m benchmarks env|train|learn [--json FILE]`: measure, print a table, fail when a bar is missed."""

import argparse
import importlib
import sys
from pathlib import Path

NAMES = ("env", "train", "learn")


def main() -> int:
    """Run one benchmark; exit status 0 when every bar was reached, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE, too")
    arguments = parser.parse_args()
    return importlib.import_module(f"benchmarks.{arguments.name}").run(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
