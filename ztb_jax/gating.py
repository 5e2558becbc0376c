"""The gates that a configuration asks for: around its learner, and between its windows.

Their limits are structure: a population cannot differ in them.
"""

from ztb_jax import gates
from ztb_jax.config import Config
from ztb_jax.contradictions import GATES_UNREAD
from ztb_jax.gates import Gate
from ztb_jax.settings import EnvConfig

MAX_EDGE = 0.99  # `envs.ledger.MAX_LOSS`: no fill is further from its price


def make_update_gates(config: Config) -> Gate:
    """What `ztb_jax.gates.gated` puts around the learner of `config`, to judge the metrics of each update.

    Gates on what this learner does not tell are left out.
    """
    wanted, running = config.gates, {"patience": config.gates.patience_updates}
    unread = GATES_UNREAD.get(config.learner, ())
    found = [gates.finite("loss", "reward", "grad_norm", "param_norm")]
    if wanted.fees:
        found.append(gates.fees(*cost_bounds(config.env)))
    if wanted.kl is not None and "kl" not in unread:
        found.append(gates.kl(wanted.kl, **running))
    if wanted.least_entropy is not None and "least_entropy" not in unread:
        found.append(gates.entropy(wanted.least_entropy, **running))
    found += [
        gate(least, most, **running)
        for gate, least, most in (
            (gates.turnover, wanted.least_turnover, wanted.most_turnover),
            (gates.trades, wanted.least_trades, wanted.most_trades),
        )
        if (least, most) != (None, None)
    ]
    if wanted.falling_reward is not None:
        env_steps = config.ppo.num_accounts * config.ppo.rollout_bars
        found.append(
            gates.falling_reward(
                env_steps=env_steps, after_steps=wanted.falling_after_steps, z=wanted.falling_reward
            )
        )
    return gates.all_of(*found)


def make_window_gates(config: Config, *, memory_gb: float | None = None) -> Gate:
    """What judges `ztb_jax.gates.facts` after each window; the host jits its `update` once.

    Args:
      config: resolved.
      memory_gb: GiB that the process may hold where `gates.memory_gb` is None; None is no limit.
    """
    wanted, running = config.gates, {"patience": config.gates.patience_windows}
    limit = memory_gb if wanted.memory_gb is None else wanted.memory_gb
    asked = (
        (limit, gates.memory, {}),
        (wanted.resume_seconds, gates.resume_time, {}),
        (wanted.baseline, gates.above_baseline, running),
        (wanted.drawdown, gates.drawdown, running),
        (wanted.behind_buy_and_hold, gates.behind_buy_and_hold, running),
        (wanted.gap, gates.gap, running),
    )
    found = [gate(most, **more) for most, gate, more in asked if most is not None]
    return gates.all_of(gates.no_repeated_steps(), *found)


def cost_bounds(env: EnvConfig) -> tuple[float, float | None]:
    """Cost of the cheapest and of the dearest fill of a notional of 1; None where volatility adds to it.

    A fill is `edge` worse than its price and pays `fee_rate` of what it comes to, so a sale, which comes to
    less, costs edge + fee_rate (1 - edge), and a purchase edge + fee_rate (1 + edge). A profit target fills
    at its price.
    """
    edge = min(env.half_spread + env.slippage, MAX_EDGE)
    least = env.fee_rate if env.take_profit is not None else edge + env.fee_rate * (1.0 - edge)
    return least, None if env.volatility_slippage else edge + env.fee_rate * (1.0 + edge)
