"""Other trainers beside ours: the same slice, net, epochs and hyperparameters, each in a process of its own.

    with train_peers.peers(("sb3", "rejax"), data, episode_bars=256, levels=(-1.0, 0.0, 1.0)) as others:
        pairs = train_peers.interleave(ours, others, repeats=5)
    rows += train_peers.rows(others, pairs)

`ours` does some training and returns {"steps", "seconds", "reward"}, as every peer does. Alone,
`python -m benchmarks.train_peers [NAME …]` prints each peer's speed and what it learns; with `--accounts` and
`--threads` at other sizes, to find its best on your machine.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.harness import Row, finish
from benchmarks.peers import task, wire

Train = Callable[[], Mapping[str, float]]


class Kind(NamedTuple):
    """How a peer is run.

    Attributes:
      module: of `benchmarks.peers`, with its first arguments.
      settings: of `task.Settings` that differ, the fastest of the sweep below.
      steps: of one run, a few seconds' work.
    """

    module: tuple[str, ...]
    settings: dict[str, Any]
    steps: int


class Peer(NamedTuple):
    """A peer that is ready to be timed; everything has been compiled.

    Attributes:
      versions: of its packages.
      settings: of `task.Settings` that differ.
      run: () -> steps done, their seconds, and the mean reward in bp a bar.
    """

    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    run: Train


def _sizes(accounts: int, rollout_bars: int, num_minibatches: int, **rest: Any) -> dict[str, Any]:
    return {"accounts": accounts, "rollout_bars": rollout_bars, "num_minibatches": num_minibatches, **rest}


# Thousand steps a second of one core's time, medians of 3 runs of about 2 s, by environments: 8 × 256 bars
# with 8 minibatches, the others × 64 bars with 4.
#
#                8    64   256  1,024  2,048
#   sb3        3.3  14.4  25.7   25.8   25.0
#   sbx          –     –  31.7   39.8   33.0
#   rejax     44.0  51.2  47.0   45.5   43.4
#   brax         –     –  39.5   38.8   39.2
#   recurrent  0.4   6.5  11.3   21.9   18.4
#   ppo_rnn      –  25.0  32.8   37.7   37.6
#
# One thread each, by the time of the processor, because others were using the machine (AMD EPYC, avx2, 2
# cores): runs of one size differed by a tenth and more. So rejax has 256, not 64: the two are as fast on one
# core, and larger batches leave more for a second. On a quiet machine SB3 has 31 with one thread of torch and
# 37 with two; beside other work two came to 1.3 where one had 28.
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "sb3": Kind(("sb3", "sb3"), _sizes(256, 64, 4, threads=2), 100_000),
        "sb3-8": Kind(("sb3", "sb3"), _sizes(8, 256, 8, threads=2), 30_000),
        "sbx": Kind(("sb3", "sbx"), _sizes(1024, 64, 4), 130_000),
        "rejax": Kind(("rejax_ppo",), _sizes(256, 64, 4), 250_000),
        "brax": Kind(("brax_ppo",), _sizes(256, 64, 4), 250_000),
        "recurrent": Kind(("sb3", "recurrent"), _sizes(1024, 64, 4, recurrent=True), 65_000),
        "ppo_rnn": Kind(("ppo_rnn",), _sizes(1024, 64, 4), 250_000),
    }
)


@contextmanager
def peers(
    names: Sequence[str],
    data: Any,
    *,
    episode_bars: int,
    levels: tuple[float, ...],
    kinds: Mapping[str, Kind] = KINDS,
) -> Iterator[dict[str, Peer]]:
    """The peers by name, warm and waiting, for as long as the block lasts.

    Args:
      names: of `kinds`.
      data: the `MarketData` to train on.
      episode_bars: steps of an episode.
      levels: target exposure of each action.
      kinds: how each is run.

    Raises:
      ValueError: a name that is none of `kinds`.
      FileNotFoundError: the peers' environment has not been built.
    """
    unknown = [name for name in names if name not in kinds]
    if unknown:
        raise ValueError(f"no such peer: {', '.join(unknown)}; there are {', '.join(kinds)}")
    if not wire.PYTHON.is_file():
        raise FileNotFoundError(
            f"{wire.PYTHON} is not there: `make peers` builds what {', '.join(names)} need"
        )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        path = Path(folder) / "task.npz"
        task.save(path, data, episode_bars=episode_bars, levels=levels)
        yield {name: _started(processes, kinds[name], path) for name in names}


def _started(processes: ExitStack, kind: Kind, path: Path) -> Peer:
    """The peer after it has compiled everything: brax compiles its second epoch anew."""
    module, *first = kind.module
    arguments = (*first, str(path), json.dumps(kind.settings))
    ask = processes.enter_context(wire.worker(f"benchmarks.peers.{module}", *arguments))
    for _ in range(2):
        ask("train", steps=1)
    return Peer(ask("about"), kind.settings, partial(ask, "train", steps=kind.steps))


class Pairs(NamedTuple):
    """What was measured turn by turn: for every peer, ours and its runs next to each other."""

    ours: list[Mapping[str, float]]
    theirs: list[Mapping[str, float]]


def interleave(ours: Train, others: Mapping[str, Peer], *, repeats: int) -> dict[str, Pairs]:
    """A B A B … against each peer in turn, so that a pair shares its minute; `ours` has been compiled."""
    pairs = {name: Pairs([], []) for name in others}
    for _ in range(repeats):
        for name, peer in others.items():
            pairs[name].ours.append(ours())
            pairs[name].theirs.append(peer.run())
    return pairs


def rows(
    others: Mapping[str, Peer], pairs: Mapping[str, Pairs], *, bars: Mapping[str, float] | None = None
) -> list[Row]:
    """Two rows a peer: its steps a second, and ours over its pair by pair, with a bar from `bars`."""
    told = []
    for name, (ours, theirs) in pairs.items():
        told.append(speed_row(name, others[name], theirs))
        ratios = [_rate(mine) / _rate(its) for mine, its in zip(ours, theirs, strict=True)]
        bar = None if bars is None else bars.get(name)
        told.append(
            Row(
                f"ours / {name}, pair by pair",
                statistics.median(ratios),
                "×",
                min(ratios),
                max(ratios),
                bar=bar,
            )
        )
    return told


def speed_row(name: str, peer: Peer, done: Sequence[Mapping[str, float]]) -> Row:
    """A peer's steps a second over its runs, with what it learnt."""
    rates = [_rate(one) / 1e3 for one in done]
    package, release = next(iter(peer.versions.items()))
    sizes = "{accounts:,} × {rollout_bars}, {num_minibatches} minibatches".format(**peer.settings)
    if "threads" in peer.settings:
        sizes += f", {peer.settings['threads']} threads"
    learnt = f"{done[0]['reward']:+.1f} to {done[-1]['reward']:+.1f} bp/bar"
    total = sum(one["steps"] for one in done) / 1e6
    return Row(
        f"{name}: {package} {release}",
        statistics.median(rates),
        "k steps/s",
        min(rates),
        max(rates),
        note=f"{sizes}; train reward {learnt} over {total:.2f} M steps",
    )


def varied(kind: Kind, **values: Sequence[Any] | None) -> list[Kind]:
    """`kind` with every combination of `values` of its settings; None leaves a setting as it is."""
    given = {name: tried for name, tried in values.items() if tried}
    return [
        kind._replace(settings=kind.settings | dict(zip(given, chosen, strict=True)))
        for chosen in itertools.product(*given.values())
    ]


def _rate(done: Mapping[str, float]) -> float:
    return done["steps"] / done["seconds"]


def main() -> int:
    """Each peer alone, one after the other, on the main job's train slice."""
    from ztb_jax import build
    from ztb_jax.config import Config
    from ztb_jax.features import recipe
    from ztb_jax.training import evaluate

    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_peers", description=__doc__)
    parser.add_argument("names", nargs="*", choices=list(KINDS), metavar="NAME", help=", ".join(KINDS))
    parser.add_argument("--accounts", type=int, nargs="+", help="numbers of environments to try")
    parser.add_argument("--threads", type=int, nargs="+", help="numbers of threads of torch to try")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    config = Config()
    frame = evaluate.load_frame(config)
    data = build.prepare(config, frame, recipe.compute(config.features.recipe, frame)).slices["train"]
    given = {"episode_bars": config.env.episode_bars, "levels": config.env.levels}
    rows = []
    for name in arguments.names or list(KINDS):
        for kind in varied(KINDS[name], accounts=arguments.accounts, threads=arguments.threads):
            with peers([name], data, kinds={name: kind}, **given) as ready:
                runs = [ready[name].run() for _ in range(arguments.repeats)]
                rows.append(speed_row(name, ready[name], runs))
    return finish("Training by others", rows, json_file=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
