"""Trained environment steps a second of the main job's learner, beside the matmul peak of the same minute.

1,024 accounts × 64 bars, 4 epochs × 4 minibatches, a 64×64 net with a shared torso over 32 bars of 8 features
and 2 account numbers (258 inputs), on the train slice of the embedded S&P 500.
"""

import time
from pathlib import Path

import jax

from benchmarks.harness import Row, finish, interleave, matmul, rate_row
from ztb_jax import build
from ztb_jax.config import Config
from ztb_jax.features import recipe
from ztb_jax.runs import loop
from ztb_jax.training import evaluate

REPEATS, UPDATES = 9, 4


def flops_of_a_trained_step(inputs: int, width: int, outputs: int, epochs: int) -> float:
    """Floating-point operations of one step as every dense-observation PPO does them.

    One forward pass in the rollout; in each epoch a forward pass and a backward pass without the gradient of
    the input: 2 (forward) and 4 (backward; 2 for the first layer) operations a weight.
    """
    first, rest = inputs * width, width * width + width * outputs
    forward = 2.0 * (first + rest)
    backward = 2.0 * first + 4.0 * rest
    return forward + epochs * (forward + backward)


def flops_done(config: Config, num_bars: int) -> float:
    """Operations of a trained step as we do them: the first layer's market part once a bar and minibatch."""
    ppo, width = config.ppo, config.policy.width
    batch = ppo.num_accounts * ppo.rollout_bars
    market = 2.0 * 8 * config.features.lookback * width * num_bars
    encoding = market * (1 + 2 * ppo.epochs * ppo.num_minibatches) / batch
    return encoding + flops_of_a_trained_step(2, width, 4, ppo.epochs)


def run(json_file: Path | None) -> int:
    """Measure and report."""
    config = Config()
    frame = evaluate.load_frame(config)
    prepared = build.prepare(config, frame, recipe.compute(config.features.recipe, frame))
    data = prepared.slices["train"]
    learner = build.make_learner(config, num_features=prepared.num_features)
    started = time.perf_counter()
    state = jax.block_until_ready(loop.initialise(learner, 0, data))
    window = loop.compile_window(learner, state, data, num_updates=UPDATES)
    compiled = time.perf_counter() - started
    holder = {"state": state, "reward": 0.0}

    def train():
        holder["state"], metrics = window(holder["state"], data)
        holder["reward"] = metrics["reward"][-1]
        return metrics

    product, operations = matmul()
    seconds = interleave({"train": train, "matmul": product}, repeats=REPEATS)
    steps = learner.env_steps * UPDATES
    trained = (REPEATS + 1) * steps
    peak = rate_row("matmul, 2048 × 2048 float32", operations / 1e9, seconds["matmul"], unit="GFLOP/s")
    speed = rate_row(
        "PPO, 1,024 × 64, 64×64 shared torso",
        steps / 1e3,
        seconds["train"],
        unit="k steps/s",
        bar=200.0,
        note=f"train reward {1e4 * float(holder['reward']):+.1f} bp/bar after {trained / 1e6:.1f} M steps",
    )
    dense = flops_of_a_trained_step(258, config.policy.width, 4, config.ppo.epochs)
    done = flops_done(config, data.features.shape[0])
    rows = [
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
    ]
    return finish("Training", rows, json_file=json_file)
