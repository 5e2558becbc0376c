"""Environment steps a second: 1,024 accounts, random actions, random restarts, index-only observations.

The peer is a loop of the same rules compiled by numba for one thread, account by account, which keeps every
account in registers: as fast as a CPU core does this work by itself.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numba import njit

from benchmarks.harness import Row, finish, interleave, matmul, rate_row
from envs.single import make_single
from envs.transforms import autoreset, vectorise
from envs.types import EnvParams
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market

ACCOUNTS, EPISODE, EPISODES, BARS = 1024, 256, 32, 5000
FEE, EDGE, RUIN = 5e-4, 2e-4, 0.1
REPEATS = 7


def parameters() -> EnvParams:
    """Five thousand bars of geometric Brownian motion and 7 bp a side."""
    return EnvParams(
        market=make_market(synthetic.gbm(0, BARS)),
        costs=make_costs(fee_rate=FEE, half_spread=EDGE / 2, slippage=EDGE / 2),
        ruin_equity=jnp.float32(RUIN),
        first=jnp.int32(0),
        stop=jnp.int32(BARS),
    )


def ours(sharing: int):
    """(key, params) -> mean reward of `EPISODES` episodes of every account."""
    env = autoreset(
        vectorise(make_single(episode_bars=EPISODE), num_groups=ACCOUNTS // sharing, sharing=sharing)
    )
    shape = (EPISODE, ACCOUNTS // sharing, sharing)

    def play(key, params):
        reset_key, play_key = jax.random.split(key)
        state, _ = env.reset(reset_key, params)

        def step(carry, now):
            state, total = carry
            action, step_key = now
            state, out = env.step(step_key, state, action, params)
            return (state, total + out.reward), None

        def episode(carry, episode_key):
            action_key, step_key = jax.random.split(episode_key)
            # One draw for the episode; a byte spread over three actions (85, 85 and 86 of 256).
            actions = (jax.random.bits(action_key, shape, jnp.uint8).astype(jnp.int32) * 3) >> 8
            return jax.lax.scan(step, carry, (actions, jax.random.split(step_key, EPISODE)))

        total = jnp.zeros(shape[1:], jnp.float32)
        (_, total), _ = jax.lax.scan(episode, (state, total), jax.random.split(play_key, EPISODES))
        return total.mean() / (EPISODE * EPISODES)

    return jax.jit(play)


@njit(fastmath=True, error_model="numpy")
def advance(exposure, level, target, moves, costs):
    """One bar for one account: (exposure, gain)."""
    (gap, body), (fee, edge) = moves, costs
    one = np.float32(1.0)
    gain = exposure * gap
    value = exposure + gain
    if gain <= np.float32(-0.99):
        return np.float32(0.0), np.float32(-0.99)
    if target != level:
        delta = target * (one + gain) - value
        notional = abs(delta)
        gain -= notional * edge + fee * (notional + delta * edge)
        value += delta
    move = value * body
    gain += move
    if gain <= np.float32(-0.99):
        return np.float32(0.0), np.float32(-0.99)
    return (value + move) / (one + gain), gain


@njit(fastmath=True, error_model="numpy")
def loop(market, costs, log_ruin, sizes, seed):
    """The same rules for one thread, account by account; returns the mean reward."""
    gap, body = market
    accounts, episode, steps = sizes
    zero, cap = np.float32(0.0), np.float32(-0.99)
    starts, total = np.uint32(len(gap) - episode), 0.0
    for account in range(accounts):
        noise = np.uint32(seed * 7919 + account * 104729 + 1)
        level = exposure = log_equity = collected = zero
        bar = end = 0
        for _ in range(steps):
            noise ^= noise << np.uint32(13)
            noise ^= noise >> np.uint32(17)
            noise ^= noise << np.uint32(5)
            target = np.float32(np.int64((noise & np.uint32(255)) * np.uint32(3) >> np.uint32(8)) - 1)
            if bar == end:
                bar = np.int64((noise >> np.uint32(8)) % starts)
                end = bar + episode
                level, exposure, log_equity = target, target, zero
            bar += 1
            exposure, gain = advance(exposure, level, target, (gap[bar], body[bar]), costs)
            level = target
            reward = np.log1p(gain)
            log_equity += reward
            collected += reward
            if log_equity <= log_ruin or gain <= cap:
                level, exposure, log_equity = zero, zero, zero
        total += collected
    return total / (accounts * steps)


def run(json_file: Path | None) -> int:
    """Measure and report."""
    params = parameters()
    gap, body = np.asarray(params.market.gap), np.asarray(params.market.body)
    single, shared = ours(1), ours(8)
    steps = EPISODE * EPISODES
    costs, log_ruin = (np.float32(FEE), np.float32(EDGE)), np.float32(np.log(RUIN))
    product, operations = matmul()
    runs = {
        "ours": lambda: single(jax.random.key(0), params),
        "shared": lambda: shared(jax.random.key(0), params),
        "numba": lambda: loop((gap, body), costs, log_ruin, (ACCOUNTS, EPISODE, steps), 1),
        "matmul": product,
    }
    seconds = interleave(runs, repeats=REPEATS)
    work = ACCOUNTS * steps
    rewards = {name: 1e4 * float(runs[name]()) for name in ("ours", "shared", "numba")}
    rows = [
        rate_row(
            f"env, {ACCOUNTS:,} accounts, index only",
            work / 1e6,
            seconds["ours"],
            unit="M steps/s",
            note=f"mean reward {rewards['ours']:.2f} bp",
        ),
        rate_row(
            "env, the same, 8 accounts on shared bars",
            work / 1e6,
            seconds["shared"],
            unit="M steps/s",
            note=f"mean reward {rewards['shared']:.2f} bp",
        ),
        rate_row(
            "numba, one thread, same rules",
            work / 1e6,
            seconds["numba"],
            unit="M steps/s",
            note=f"mean reward {rewards['numba']:.2f} bp",
        ),
    ]
    ratios = sorted(b / a for a, b in zip(seconds["ours"], seconds["numba"], strict=True))
    rows.append(
        Row("ours / numba, pair by pair", ratios[len(ratios) // 2], "×", ratios[0], ratios[-1], bar=0.6)
    )
    rows.append(rate_row("matmul, 2048 × 2048 float32", operations / 1e9, seconds["matmul"], unit="GFLOP/s"))
    return finish("Environment", rows, json_file=json_file)
