"""Defaults of the source documents, by dotted key: what `preset:` lays under everything else that is set.

Sizes are theirs as far as rollouts of equal length allow: an episode is a whole number of rollouts, and a
rollout a whole number of minibatches.
"""

from typing import Any

_COMMON: dict[str, Any] = {
    "ppo.sharing": 1,
    "ppo.shuffle": "full",
    "ppo.learning_rate": 3e-4,
    "ppo.learning_rate_schedule": (1.0,),
    "ppo.gamma": 0.99,
    "ppo.lam": 0.95,
    "ppo.clip": 0.2,
    "ppo.value_weight": 0.5,
    "ppo.entropy_schedule": (1.0,),
}

PRESETS: dict[Any, dict[str, Any]] = {
    # The trading trainer: one environment, 2,048 steps in minibatches of 64.
    "ztb": _COMMON
    | {
        "seed": 42,
        "env.episode_bars": 2048,
        "env.fee_rate": 0.001,
        "env.half_spread": 0.0,
        "env.slippage": 0.0,
        "policy.shared_torso": False,
        "ppo.num_accounts": 1,
        "ppo.rollout_bars": 2048,
        "ppo.num_minibatches": 32,
        "ppo.epochs": 10,
        "ppo.entropy_weight": 0.01,
        "ppo.max_grad_norm": 0.5,
        "run.total_env_steps": 200_000,
        "run.window_updates": 2,
    },
    # The hierarchical trainer: 8 environments, minibatches of 256; its episodes of 1,000 bars become 1,024.
    "mtquant": _COMMON
    | {
        "env.episode_bars": 1024,
        "env.fee_rate": 0.003,
        "env.half_spread": 0.0,
        "env.slippage": 0.0,
        "env.max_position": 0.1,
        "env.stop_loss": 0.02,
        "policy.shared_torso": False,
        "ppo.num_accounts": 8,
        "ppo.rollout_bars": 256,
        "ppo.num_minibatches": 8,
        "ppo.epochs": 10,
        "ppo.entropy_weight": 0.01,
        "ppo.max_grad_norm": 1.0,
    },
    # The windowed trainer: 8 environments of 128 steps, four epochs of four minibatches, 256-256 tanh.
    "asteroid": _COMMON
    | {
        "policy.width": 256,
        "ppo.num_accounts": 8,
        "ppo.rollout_bars": 128,
        "ppo.num_minibatches": 4,
        "ppo.epochs": 4,
        "ppo.value_clip": 0.2,
        "ppo.entropy_weight": 0.01,
        "ppo.max_grad_norm": 0.5,
    },
}
