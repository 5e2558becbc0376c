"""Trained steps a second on an accelerator: networks, precisions, numbers of accounts, beside the roofline.

The main job's learner with two layers of 64 and 256 units and three of 512, in float32 and in bfloat16, at
4,096 to 65,536 accounts; and the product of two matrices in both precisions, the peak that a network could
reach. Refused on a CPU, for which `train` has the rows.
"""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import jax
import jax.numpy as jnp

from benchmarks import env as env_benchmark
from benchmarks.harness import Row, finish, interleave, rate_row
from benchmarks.train import flops_done, prepared, trainer
from envs.single import make_single
from ztb_jax.config import Config, resolve
from ztb_jax.data.market import MarketData

# Width and depth, and the M steps/s that the fastest row of them must reach.
BARS = MappingProxyType({(64, 2): 60.0, (256, 2): 25.0, (512, 3): None})
PRECISIONS = ("float32", "bfloat16")
ACCOUNTS = (4_096, 16_384, 65_536)
PLAYED, SIZE, REPEATS = 262_144, 8_192, 5


def peaks() -> dict[str, Row]:
    """By precision, what the product of two matrices reaches."""
    runs = {}
    for name in PRECISIONS:
        product, matrix = jax.jit(lambda a: a @ a), jnp.ones((SIZE, SIZE), name)
        runs[name] = lambda product=product, matrix=matrix: product(matrix)
    seconds = interleave(runs, repeats=REPEATS)
    work = 2.0 * SIZE**3 / 1e12
    return {
        name: rate_row(f"matmul, {SIZE:,} × {SIZE:,} {name}", work, seconds[name], unit="TFLOP/s")
        for name in PRECISIONS
    }


def trained(data: MarketData, net: tuple[int, int], precision: str, peak: Row) -> list[Row]:
    """A row for each number of accounts."""
    rows = []
    for accounts in ACCOUNTS:
        flags = {
            "policy.width": net[0],
            "policy.depth": net[1],
            "policy.precision": precision,
            "ppo.num_accounts": accounts,
        }
        train = trainer(data, flags, steps=8 * 64 * accounts)
        train()
        done = [train() for _ in range(REPEATS)]
        flops = flops_done(resolve(environ={}, flags=flags), data.features.shape[0])
        row = rate_row(
            f"PPO, {'×'.join([str(net[0])] * net[1])} {precision}, {accounts:,} × 64",
            1e-6,
            [one["seconds"] / one["steps"] for one in done],
            unit="M steps/s",
        )
        share = 100.0 * row.value * 1e6 * flops / (peak.value * 1e12)
        note = f"{share:.1f} % of the matmul peak; train reward {done[-1]['reward']:+.1f} bp/bar"
        rows.append(replace(row, note=note))
    return rows


def environment() -> Row:
    """Steps a second of the plain environment under random actions."""
    env = make_single(episode_bars=env_benchmark.EPISODE)
    play = env_benchmark.player(env, sharing=8, accounts=PLAYED)
    params, key = env_benchmark.parameters(), jax.random.key(0)
    features = jnp.zeros((env_benchmark.BARS, 1))
    seconds = interleave({"env": lambda: play(key, params, features)}, repeats=REPEATS)["env"]
    steps = PLAYED * env_benchmark.EPISODE * env_benchmark.EPISODES
    return rate_row(f"env, {PLAYED:,} accounts", steps / 1e6, seconds, unit="M steps/s", bar=1_000.0)


def run(json_file: Path | None) -> int:
    """Measure and report."""
    if jax.devices()[0].platform == "cpu":
        raise SystemExit("there is no accelerator here: `python -m benchmarks train` has the rows of a CPU")
    data = prepared(Config()).slices["train"]
    peak = peaks()
    rows = [*peak.values(), environment()]
    for net, bar in BARS.items():
        of_net = [row for name in PRECISIONS for row in trained(data, net, name, peak[name])]
        best = max(of_net, key=lambda row: row.value)
        rows += [replace(row, bar=bar) if row is best else row for row in of_net]
    return finish("Accelerator", rows, json_file=json_file)
