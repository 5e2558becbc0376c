"""Trained environment steps a second of the main job's learner, beside the matmul peak of the same minute.

1,024 accounts × 64 bars, 4 epochs × 4 minibatches, a 64×64 net with a shared torso over 32 bars of 8 features
and 2 account numbers (258 inputs), on the train slice of the embedded S&P 500. With `--against`, the same
learner with separate 64×64 nets and other trainers, in turn: the same slice, inputs, epochs and
hyperparameters, each at the sizes at which it is fastest.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from benchmarks import train_peers
from benchmarks.harness import Row, finish, interleave, matmul, rate_row, timed
from envs.transforms import autoreset, vectorise
from ztb_jax import build
from ztb_jax.config import Config, resolve
from ztb_jax.data.market import MarketData
from ztb_jax.features import recipe
from ztb_jax.policies.play import begin
from ztb_jax.ppo.rollout import collect
from ztb_jax.runs import programs
from ztb_jax.training import evaluate

REPEATS, UPDATES = 9, 4
ACCOUNTS = (256, 1024, 4096, 16_384)
BARS = MappingProxyType({"sb3": 3.5, "sb3-8": 8.0, "rejax": 2.0, "brax": 2.5})
SEPARATE = MappingProxyType({"policy.shared_torso": False, "ppo.accumulate": 4})
# As Stable-Baselines3 at 8 environments: 256 bars of each, 8 minibatches, one environment in each.
SMALL = MappingProxyType(
    {
        "policy.shared_torso": False,
        "ppo.num_accounts": 8,
        "ppo.sharing": 1,
        "ppo.rollout_bars": 256,
        "ppo.num_minibatches": 8,
        "ppo.shuffle": "segments",
    }
)


def flops_of_a_trained_step(inputs: int, width: int, outputs: int, epochs: int, depth: int = 2) -> float:
    """Floating-point operations of one step as every dense-observation PPO does them.

    One forward pass in the rollout; in each epoch a forward pass and a backward pass without the gradient of
    the input: 2 (forward) and 4 (backward; 2 for the first layer) operations a weight.
    """
    first, rest = inputs * width, (depth - 1) * width * width + width * outputs
    forward = 2.0 * (first + rest)
    backward = 2.0 * first + 4.0 * rest
    return forward + epochs * (forward + backward)


def flops_done(config: Config, num_bars: int) -> float:
    """Operations of a trained step as we do them: the first layer's market part once a bar and minibatch."""
    ppo, width = config.ppo, config.policy.width
    batch = ppo.num_accounts * ppo.rollout_bars
    market = 2.0 * 8 * config.features.lookback * width * num_bars
    encoding = market * (1 + 2 * ppo.epochs * ppo.num_minibatches) / batch
    return encoding + flops_of_a_trained_step(2, width, 4, ppo.epochs, config.policy.depth)


def prepared(config: Config) -> build.Prepared:
    """The main job's market."""
    frame = evaluate.load_frame(config)
    return build.prepare(config, frame, recipe.compute(config.features.recipe, frame))


def trainer(
    data: MarketData, flags: Mapping[str, Any], *, steps: int = 262_144
) -> Callable[[], dict[str, float]]:
    """A compiled learner that goes on for about `steps` at every call, as the peers of `train_peers` do."""
    config = resolve(environ={}, flags=flags)
    learner = build.make_learner(config, num_features=data.features.shape[1])
    updates = max(1, steps // learner.env_steps)
    init, window, _ = programs.compiled(learner, data, num_updates=updates)
    holder = {"state": init(jax.random.key(0), data)}

    def go_on() -> dict[str, float]:
        def once():
            holder["state"], holder["metrics"] = window(holder["state"], data)
            return holder["metrics"]

        seconds = timed(once)
        reward = 1e4 * float(holder["metrics"]["reward"].mean())
        return {"steps": updates * learner.env_steps, "seconds": seconds, "reward": reward}

    return go_on


def bytes_of_a_step(config: Config, data: MarketData) -> float:
    """What a rollout keeps for each step, by the shapes of its arrays."""
    ppo = config.ppo
    env, policy = (
        build.make_environment(config),
        build.make_network(config, num_features=data.features.shape[1]),
    )
    shape = (ppo.num_accounts // ppo.sharing, ppo.sharing)
    batch = autoreset(vectorise(env, num_groups=shape[0], sharing=shape[1]))

    def rollout(key):
        env_state, _ = batch.reset(key, data.env_params)
        return collect(
            key,
            policy,
            batch,
            params=policy.init(key),
            play=begin(env_state, shape, policy),
            data=data,
            rollout_bars=ppo.rollout_bars,
        )[1]

    kept = jax.eval_shape(rollout, jax.random.key(0))
    total = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
    return total / (ppo.num_accounts * ppo.rollout_bars)


def own_rows(config: Config, data: MarketData) -> list[Row]:
    """The learner by itself: speed, share of the peak, memory, and the cost of a step at other sizes."""
    started = time.perf_counter()
    train = trainer(data, {}, steps=UPDATES * 65_536)
    compiled = time.perf_counter() - started
    product, operations = matmul()
    told: list[Mapping[str, float]] = []
    seconds = interleave({"train": lambda: told.append(train()), "matmul": product}, repeats=REPEATS)
    steps = told[0]["steps"]
    peak = rate_row("matmul, 2048 × 2048 float32", operations / 1e9, seconds["matmul"], unit="GFLOP/s")
    speed = rate_row(
        "PPO, 1,024 × 64, 64×64 shared torso",
        steps / 1e3,
        [one["seconds"] for one in told[1:]],
        unit="k steps/s",
        bar=200.0,
        note=f"train reward {told[-1]['reward']:+.1f} bp/bar after {len(told) * steps / 1e6:.1f} M steps",
    )
    dense = flops_of_a_trained_step(258, config.policy.width, 4, config.ppo.epochs)
    done = flops_done(config, data.features.shape[0])
    return [
        speed,
        peak,
        Row(
            "share of the peak, work of a dense-observation PPO",
            100.0 * speed.value * 1e3 * dense / (peak.value * 1e9),
            "%",
            bar=40.0,
            note=f"{dense / 1e3:.0f} kFLOP a trained step: what every peer computes for the same net",
        ),
        Row(
            "share of the peak, work really done",
            100.0 * speed.value * 1e3 * done / (peak.value * 1e9),
            "%",
            note=f"{done / 1e3:.0f} kFLOP a trained step: the market is encoded once per bar",
        ),
        Row("init and compile, once", compiled, "s"),
        Row("64 bytes / rollout bytes a step", 64.0 / bytes_of_a_step(config, data), "×", bar=1.0),
        *size_rows(data),
    ]


def size_rows(data: MarketData) -> list[Row]:
    """What a step costs with more accounts: the slowest size against the fastest."""
    runs = {count: trainer(data, {"ppo.num_accounts": count}) for count in ACCOUNTS}
    told: dict[int, list[float]] = {count: [] for count in ACCOUNTS}
    for turn in range(6):
        for count, run in runs.items():
            done = run()
            if turn:  # the first of each warms up
                told[count].append(done["seconds"] / done["steps"])
    rows = [
        rate_row(f"PPO, {count:,} × 64", 1e-3, seconds, unit="k steps/s") for count, seconds in told.items()
    ]
    rates = [row.value for row in rows]
    return [*rows, Row("slowest / fastest of these sizes", min(rates) / max(rates), "×", bar=0.85)]


def peer_rows(names: Sequence[str], config: Config, data: MarketData) -> list[Row]:
    """Others and ours, pair by pair, at the same net and epochs."""
    both = [*names, *["sb3-8"] * ("sb3" in names)]
    sizes = {name: SMALL if name == "sb3-8" else SEPARATE for name in both}
    rows = []
    with train_peers.peers(
        both, data, episode_bars=config.env.episode_bars, levels=config.env.levels
    ) as others:
        for name in both:
            ours = trainer(data, sizes[name])
            ours()
            pairs = train_peers.interleave(ours, {name: others[name]}, repeats=5)
            done = pairs[name].ours
            rows.append(
                rate_row(
                    f"PPO beside {name}, 64×64 each for actor and critic",
                    1e-3,
                    [one["seconds"] / one["steps"] for one in done],
                    unit="k steps/s",
                    note=f"train reward {done[0]['reward']:+.1f} to {done[-1]['reward']:+.1f} bp/bar",
                )
            )
            rows += train_peers.rows({name: others[name]}, pairs, bars=BARS)
    return rows


def run(json_file: Path | None, against: Sequence[str] = ()) -> int:
    """Measure and report."""
    config = Config()
    data = prepared(config).slices["train"]
    rows = peer_rows(against, config, data) if against else own_rows(config, data)
    return finish("Training", rows, json_file=json_file)
