"""Python trading environments beside ours: the same bars, random actions, each in a process of its own.

    with env_peers.playing(bars, episode=256, fee_rate=5e-4) as peers:
        seconds = interleave(runs | env_peers.runs(peers), repeats=7)
    rows += env_peers.rows(peers, seconds, ours="ours", work=work)

`ours` names the run of ours in `seconds`, and `work` is the number of steps that it does.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from benchmarks.harness import Row, rate_row
from benchmarks.peers import wire

STEPS = {"gym-trading-env": 20_000, "gym-anytrading": 200_000}


class Peer(NamedTuple):
    """A peer that is ready to be timed.

    Attributes:
      version: of its package.
      steps: that one run does.
      run: () -> its reply, seconds and mean reward.
    """

    version: str
    steps: int
    run: Callable[[], dict[str, Any]]


@contextmanager
def playing(bars: pd.DataFrame, *, episode: int, fee_rate: float) -> Iterator[dict[str, Peer]]:
    """The peers by name, waiting, for as long as the block lasts; none where their environment is absent."""
    if not wire.PYTHON.is_file():
        print(f"{', '.join(STEPS)}: not measured; `make peers` builds what they need")
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        prices = Path(folder) / "prices.csv"
        bars.to_csv(prices)
        peers = {}
        for name, steps in STEPS.items():
            arguments = (name, str(prices), str(episode), str(fee_rate))
            ask = processes.enter_context(wire.worker("benchmarks.peers.gyms", *arguments))
            peers[name] = Peer(ask("about")["version"], steps, partial(ask, "play", steps=steps, seed=0))
        yield peers


def runs(peers: Mapping[str, Peer]) -> dict[str, Callable[[], Any]]:
    """What to hand to `interleave`."""
    return {name: peer.run for name, peer in peers.items()}


def rows(
    peers: Mapping[str, Peer],
    seconds: Mapping[str, list[float]],
    *,
    ours: str,
    work: int,
    bars: Mapping[str, float] | None = None,
) -> list[Row]:
    """Two rows a peer: its steps a second, and ours over its turn by turn, with a bar from `bars`."""
    told = []
    for name, peer in peers.items():
        told.append(
            rate_row(
                f"{name} {peer.version}, one process",
                peer.steps / 1e6,
                seconds[name],
                unit="M steps/s",
                note=f"{peer.steps:,} steps, random actions, its own rules",
            )
        )
        ratios = [
            (work / mine) / (peer.steps / theirs)
            for mine, theirs in zip(seconds[ours], seconds[name], strict=True)
        ]
        told.append(
            Row(
                f"ours / {name}, pair by pair",
                statistics.median(ratios),
                "×",
                min(ratios),
                max(ratios),
                bar=None if bars is None else bars.get(name),
            )
        )
    return told
