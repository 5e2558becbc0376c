"""Portfolio steps a second: 1,024 accounts of 8 instruments, every limit of risk on, closed bars, restarts.

The weights asked for are drawn beforehand, as a policy would hand them over; they exceed the limits in nearly
every step, so nothing is measured that only looks at limits.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.portfolio import make_portfolio
from envs.portfolio_market import make_portfolio_market, make_portfolio_params
from envs.risk_limits import RiskLimits
from envs.transforms import autoreset, vectorise
from envs.types import EnvParams
from ztb_jax.data.market import make_costs

INSTRUMENTS, ACCOUNTS, EPISODE, EPISODES, BARS = 8, 1024, 256, 8, 5000
SECTORS = (0, 0, 0, 1, 1, 2, 2, 2)
CLOSED = 0.02  # share of the bars that an instrument lacks


def parameters(*, limits: RiskLimits | None = None, closed: bool = True) -> EnvParams:
    """Five thousand bars of three correlated sectors, and 7 bp a side."""
    rng = np.random.default_rng(0)
    shape = (BARS, INSTRUMENTS)
    common = rng.standard_normal((BARS, len(set(SECTORS))))[:, SECTORS]
    moves = 0.01 * (np.sqrt(0.8) * common + np.sqrt(0.2) * rng.standard_normal(shape))
    present = rng.uniform(size=shape) >= CLOSED
    close = 100.0 * np.exp(np.cumsum(np.where(present, moves, 0.0), axis=0))
    opened = np.concatenate([close[:1], close[:-1]])
    market = make_portfolio_market(
        opened,
        close,
        present=present if closed else None,
        groups=np.arange(3) == np.array(SECTORS)[:, None],
    )
    return make_portfolio_params(
        market, make_costs(fee_rate=5e-4, half_spread=1e-4, slippage=1e-4), limits=limits
    )


def measure(
    *, sharing: int = 1, limited: bool = True, closed: bool = True, spread: float = 1.0
) -> tuple[Callable[[], Any], int]:
    """A compiled run and its portfolio steps.

    Args:
      sharing: accounts on the same bars.
      limited: with `RiskLimits()`; else without any.
      closed: some instruments lack bars.
      spread: power that the sizes are raised to; 4 gives books of two or three instruments.
    """
    groups = ACCOUNTS // sharing
    params = parameters(limits=RiskLimits() if limited else None, closed=closed)
    env = autoreset(
        vectorise(
            make_portfolio(num_instruments=INSTRUMENTS, episode_bars=EPISODE),
            num_groups=groups,
            sharing=sharing,
        )
    )
    drawn = np.random.default_rng(1).uniform(-1.0, 1.0, (EPISODE, groups, sharing, INSTRUMENTS))
    weights = jnp.asarray(np.sign(drawn) * np.abs(drawn) ** spread, jnp.float32)

    def play(key, weights, params):
        state, _ = env.reset(key, params)

        def step(carry, now):
            state, total = carry
            asked, step_key = now
            state, out = env.step(step_key, state, asked, params)
            return (state, total + out.reward), None

        def episode(carry, episode_key):
            return jax.lax.scan(step, carry, (weights, jax.random.split(episode_key, EPISODE)))

        total = jnp.zeros((groups, sharing), jnp.float32)
        (state, total), _ = jax.lax.scan(episode, (state, total), jax.random.split(key, EPISODES))
        return total.mean() / (EPISODE * EPISODES), jnp.abs(state.account.exposure).sum(axis=-1).mean()

    run, key = jax.jit(play), jax.random.key(0)
    return lambda: run(key, weights, params), ACCOUNTS * EPISODE * EPISODES
