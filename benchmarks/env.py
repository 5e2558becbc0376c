"""Environment steps a second: 1,024 accounts, random actions, random restarts.

The plain environment beside a loop of the same rules compiled by numba for one thread, which keeps every
account in registers: as fast as a CPU core does this work by itself. Then the same with a window of features
consumed, with everything that the simulator has, a portfolio, and Python environments of others in processes
of their own.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import env_peers, env_sb3, portfolio
from benchmarks.env_numba import loop
from benchmarks.harness import Row, finish, interleave, matmul, rate_row
from envs import actions
from envs.observations import dense
from envs.single import make_single
from envs.transforms import autoreset, vectorise
from envs.types import Env, EnvParams, Financing, Margin
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market

ACCOUNTS, EPISODE, EPISODES, BARS = 1024, 256, 32, 5000
LOOKBACK, FEATURES = 32, 8
FEE, EDGE, RUIN = 5e-4, 2e-4, 0.1
REPEATS = 7
FRAME = synthetic.gbm(0, BARS)


def parameters() -> EnvParams:
    """Five thousand bars of geometric Brownian motion and 7 bp a side."""
    return EnvParams(
        market=make_market(FRAME),
        costs=make_costs(fee_rate=FEE, half_spread=EDGE / 2, slippage=EDGE / 2),
        ruin_equity=jnp.float32(RUIN),
        first=jnp.int32(LOOKBACK - 1),
        stop=jnp.int32(BARS),
    )


def full_parameters() -> EnvParams:
    """The same with margin calls inside the bar, and interest on loans, shorts and cash."""
    return parameters().replace(
        market=make_market(FRAME, inside=True),
        margin=Margin(jnp.float32(3.0), jnp.float32(0.25)),
        financing=Financing(jnp.float32(0.02), jnp.float32(0.05), jnp.float32(0.01)),
    )


def player(env: Env, *, sharing: int = 1, weights: jax.Array | None = None, accounts: int = ACCOUNTS):
    """(key, params, features) -> mean reward of `EPISODES` episodes of every account.

    With `weights` [LOOKBACK * FEATURES] every observation's window is gathered and multiplied by them.
    """
    batch = autoreset(vectorise(env, num_groups=accounts // sharing, sharing=sharing))
    shape = (EPISODE, accounts // sharing, sharing)
    nothing = jnp.zeros((0,), jnp.float32)

    def look(features, state):
        if weights is None:
            return 0.0
        windows = jax.vmap(lambda bar: dense(features, bar, nothing, lookback=LOOKBACK))(state.bar)
        return (windows @ weights)[:, None]

    def play(key, params, features):
        reset_key, play_key = jax.random.split(key)
        state, _ = batch.reset(reset_key, params)

        def step(carry, now):
            state, total = carry
            action, step_key = now
            seen = look(features, state)
            state, out = batch.step(step_key, state, action, params)
            # A trace of what was seen, so that no compiler can leave the window out.
            return (state, total + out.reward + 1e-12 * seen), None

        def episode(carry, episode_key):
            action_key, step_key = jax.random.split(episode_key)
            # One draw for the episode; a byte spread over the actions (of 3: 85, 85 and 86 of 256).
            drawn = jax.random.bits(action_key, shape, jnp.uint8).astype(jnp.int32)
            chosen = (drawn * env.num_actions) >> 8
            return jax.lax.scan(step, carry, (chosen, jax.random.split(step_key, EPISODE)))

        total = jnp.zeros(shape[1:], jnp.float32)
        (_, total), _ = jax.lax.scan(episode, (state, total), jax.random.split(play_key, EPISODES))
        return total.mean() / (EPISODE * EPISODES)

    return jax.jit(play)


def bytes_of(env: Env, params: EnvParams) -> int:
    """Bytes of one account's state, its share of the clock included."""
    state = jax.eval_shape(lambda: env.reset(jax.random.key(0), params)[0])
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def rollout_bytes(env: Env) -> int:
    """Bytes that a rollout keeps of a step: account view, action, log-probability, value, reward, end."""
    return 4 * env.account_size + 4 * 4 + 1


def run(json_file: Path | None) -> int:
    """Measure and report."""
    # One thread, as numba's loop has: a second one costs more than it brings on arrays of 1,024 accounts.
    os.environ.setdefault("NPROC", "1")
    plain = make_single(episode_bars=EPISODE)
    full = make_single(episode_bars=EPISODE, actions=actions.levels(stop_loss=0.02, take_profit=0.04))
    params, everything = parameters(), full_parameters()
    features = jax.random.normal(jax.random.key(7), (BARS, FEATURES))
    weights = jax.random.normal(jax.random.key(8), (LOOKBACK * FEATURES,))
    variants = {
        "ours": ("index only", player(plain), params),
        "shared": ("8 accounts on shared bars", player(plain, sharing=8), params),
        "window": ("a 32 × 8 window consumed", player(plain, weights=weights), params),
        "full": ("brackets, margin, financing", player(full), everything),
        "full shared": ("the same, 8 accounts on shared bars", player(full, sharing=8), everything),
    }
    key, steps = jax.random.key(0), EPISODE * EPISODES
    gap, body = np.asarray(params.market.gap), np.asarray(params.market.body)
    costs, log_ruin = (np.float32(FEE), np.float32(EDGE)), np.float32(np.log(RUIN))
    product, operations = matmul()
    book, book_steps = portfolio.measure()
    runs = {
        **{name: (lambda v=v: v[1](key, v[2], features)) for name, v in variants.items()},
        "numba": lambda: loop((gap, body), costs, log_ruin, (ACCOUNTS, EPISODE, steps), 1),
        "portfolio": book,
        "matmul": product,
    }
    work = ACCOUNTS * steps
    with env_peers.playing(FRAME, episode=EPISODE, fee_rate=FEE) as peers:
        seconds = interleave(runs | env_peers.runs(peers), repeats=REPEATS)
        rows = _our_rows(variants, seconds, runs, work=work)
        bars = {"gym-trading-env": 1000.0, "gym-anytrading": 80.0}
        rows += env_peers.rows(peers, seconds, ours="ours", work=work, bars=bars)
    rows += env_sb3.rows()
    rows.append(
        rate_row(
            "portfolio of 8, risk limits on",
            book_steps / 1e6,
            seconds["portfolio"],
            unit="M steps/s",
            bar=2.0,
        )
    )
    for name, env, known in (("plain", plain, params), ("full", full, everything)):
        rows.append(Row(f"state of an account, {name}", bytes_of(env, known), "bytes"))
        kept = rollout_bytes(env)
        rows.append(
            Row(f"a rollout step, {name}", kept, "bytes", note="at most 64" if kept <= 64 else "MORE THAN 64")
        )
    rows.append(rate_row("matmul, 2048 × 2048 float32", operations / 1e9, seconds["matmul"], unit="GFLOP/s"))
    return finish("Environment", rows, json_file=json_file)


def _our_rows(variants, seconds, runs, *, work: int) -> list[Row]:
    """A rate for each variant, then the ratios between them, turn by turn."""
    bars = {"ours": 55.0, "window": 14.0}
    rows = [
        rate_row(
            f"env, {ACCOUNTS:,} accounts, {what}",
            work / 1e6,
            seconds[name],
            unit="M steps/s",
            bar=bars.get(name),
            note=f"mean reward {1e4 * float(runs[name]()):.2f} bp",
        )
        for name, (what, _, _) in variants.items()
    ]
    rows.append(
        rate_row(
            "numba, one thread, plain rules",
            work / 1e6,
            seconds["numba"],
            unit="M steps/s",
            note=f"mean reward {1e4 * float(runs['numba']()):.2f} bp",
        )
    )
    rows.append(_ratio("ours / numba", seconds["numba"], seconds["ours"], bar=0.6))
    # At most 2.5 times slower is at least 0.4 of the speed.
    rows.append(_ratio("full / plain speed", seconds["ours"], seconds["full"], bar=0.4))
    rows.append(_ratio("the same on shared bars", seconds["shared"], seconds["full shared"], bar=0.4))
    return rows


def _ratio(name: str, theirs: list[float], ours: list[float], *, bar: float) -> Row:
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return Row(f"{name}, pair by pair", ratios[len(ratios) // 2], "×", ratios[0], ratios[-1], bar=bar)
