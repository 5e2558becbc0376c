"""A trace of what a device does, and a table of where the time goes."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax

MOST = 10
SUMMARY = "summary.txt"


class Operation(NamedTuple):
    """What one operation of the compiled program took in all.

    Attributes:
      name: as the compiler calls it.
      runs: how often it ran.
      seconds: spent in it and in nothing inside it, summed over the threads or streams that ran it.
    """

    name: str
    runs: int
    seconds: float


@contextmanager
def traced(folder: Path) -> Iterator[None]:
    """Inside, everything that the devices do is traced; what is waited for inside is what is complete.

    Leaves `plugins/profile/<time>/` in `folder`, as TensorBoard and Perfetto read it, and `summary.txt`.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # calls of Python would crowd out the operations
    with jax.profiler.trace(folder, profiler_options=options):
        yield
    (folder / SUMMARY).write_text(table(operations(folder)))


def operations(folder: Path) -> list[Operation]:
    """Every operation of the traces in `folder`, the one that took the most time first.

    Raises:
      FileNotFoundError: `folder` holds no trace.
    """
    files = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no trace: train with run.profile")
    runs: dict[str, int] = defaultdict(int)
    nanoseconds: dict[str, float] = defaultdict(float)
    for file in files:
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                spans = [span for span in map(_span, line.events) if span is not None]
                for name, own in own_times(spans):
                    runs[name] += 1
                    nanoseconds[name] += own
    found = [Operation(name, runs[name], 1e-9 * nanoseconds[name]) for name in runs]
    return sorted(found, key=lambda operation: -operation.seconds)


def own_times(spans: Iterable[tuple[float, float, str]]) -> Iterator[tuple[str, float]]:
    """(name, time in it and in no span inside it) of the spans (start, end, name) of one thread.

    A loop's span holds its body's: counted whole, the body would count twice.
    """
    open_spans: list[list] = []  # end, name, own time; each lies inside the one before
    for start, end, name in sorted(spans, key=lambda span: (span[0], -span[1])):
        while open_spans and open_spans[-1][0] <= start:
            yield tuple(open_spans.pop()[1:])
        if open_spans:
            open_spans[-1][2] -= min(end, open_spans[-1][0]) - start
        open_spans.append([end, name, end - start])
    for _, name, own in reversed(open_spans):
        yield name, own


def table(found: list[Operation]) -> str:
    """The ten operations that took the most time, for a person; shares are of all operations' time."""
    if not found:
        return "The trace names no operations of the program; look at it in TensorBoard or Perfetto.\n"
    total = sum(operation.seconds for operation in found)
    lines = [
        f"{total:.3f} s in {sum(operation.runs for operation in found):,} runs of {len(found)} operations, "
        "summed over threads or streams",
        "",
        f"{'seconds':>10}{'share':>8}{'runs':>10}  operation",
    ]
    for name, runs, seconds in found[:MOST]:
        lines.append(f"{seconds:>10.4f}{seconds / max(total, 1e-12):>8.1%}{runs:>10,}  {name}")
    return "\n".join(lines) + "\n"


def _span(event) -> tuple[float, float, str] | None:
    """(start, end, name) of an event that is an operation of a compiled program."""
    name = next((value for key, value in event.stats if key == "hlo_op"), None)
    return None if name is None else (event.start_ns, event.start_ns + event.duration_ns, str(name))
