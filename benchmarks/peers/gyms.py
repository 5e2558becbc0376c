"""One gymnasium trading environment, stepped with random actions.

`python -m benchmarks.peers.gyms NAME PRICES.csv EPISODE FEE` in the peers' environment; serves `play`.

Neither package vectorises. Each gets the least that its design asks for: the class itself instead of
`gymnasium.make` and its wrappers, closing prices, one feature or a window of one, no rendering and no log. A
SyncVectorEnv over them is slower than this loop, an AsyncVectorEnv slower still.
"""

import random
import sys
import time
from functools import partial
from importlib.metadata import version
from typing import Any

import pandas as pd

from benchmarks.peers.wire import serve


def gym_trading_env(bars: pd.DataFrame, *, episode: int, fee_rate: float):
    """Target positions short, flat and long, random starts, fees; trades at the close it observes."""
    from gym_trading_env.environments import TradingEnv  # pyright: ignore[reportMissingImports]

    return TradingEnv(
        df=bars[["close"]].assign(feature_return=bars["close"].pct_change().fillna(0.0)),
        positions=[-1, 0, 1],
        trading_fees=fee_rate,
        max_episode_duration=episode,
        verbose=0,
    )


def gym_anytrading(bars: pd.DataFrame, *, episode: int, fee_rate: float):
    """Long or short, from the first bar to the last; fees of its own, price differences as rewards."""
    del episode, fee_rate
    from gym_anytrading.envs import StocksEnv  # pyright: ignore[reportMissingImports]

    return StocksEnv(df=bars.rename(columns=str.capitalize), window_size=1, frame_bound=(1, len(bars)))


ENVIRONMENTS = {"gym-trading-env": gym_trading_env, "gym-anytrading": gym_anytrading}


def play(env: Any, *, steps: int, seed: int) -> dict[str, float]:
    """`steps` steps with actions drawn beforehand; the seconds of it all, and the mean reward."""
    started = time.perf_counter()
    actions = random.Random(seed).choices(range(int(env.action_space.n)), k=steps)
    step, total = env.step, 0.0
    env.reset(seed=seed)
    for action in actions:
        _, reward, terminated, truncated, _ = step(action)
        total += reward
        if terminated or truncated:
            env.reset()
    return {"seconds": time.perf_counter() - started, "reward": float(total) / steps}


def main(name: str, prices: str, episode: str, fee_rate: str) -> None:
    """Serve one environment until standard input closes."""
    bars = pd.read_csv(prices, index_col=0, parse_dates=True)
    env = ENVIRONMENTS[name](bars, episode=int(episode), fee_rate=float(fee_rate))
    serve({"about": lambda: {"version": version(name)}, "play": partial(play, env)})


if __name__ == "__main__":
    main(*sys.argv[1:])
