"""How long a run is, in environment steps, updates and windows. Imports no jax.

Training is whole updates. Windows are whole updates, too, unless `run.window_env_steps` says how long they
are: then window w ends with the update that reaches environment step (w + 1) x `run.window_env_steps`, and
training with the one that reaches `run.total_env_steps`, which may be in the middle of a last window.
"""

import math

from ztb_jax.settings import Config


def update_env_steps(config: Config) -> int:
    """Environment steps of an update."""
    return config.ppo.num_accounts * config.ppo.rollout_bars


def window_env_steps(config: Config) -> int:
    """Environment steps in one window."""
    return config.run.window_env_steps or update_env_steps(config) * config.run.window_updates


def num_updates(config: Config) -> int:
    """Updates that train at least `run.total_env_steps`; whole windows of them where windows are updates."""
    if config.run.window_env_steps is None:
        return -(-config.run.total_env_steps // window_env_steps(config)) * config.run.window_updates
    return -(-config.run.total_env_steps // update_env_steps(config))


def num_windows(config: Config) -> int:
    """Windows that those updates reach into, the last of which may not be whole."""
    return -(-num_updates(config) * update_env_steps(config) // window_env_steps(config))


def target_env_steps(config: Config) -> int:
    """What a run sets out to train."""
    if config.run.window_env_steps is None:
        return num_updates(config) * update_env_steps(config)
    return config.run.total_env_steps


def updates_before(config: Config, window: int) -> int:
    """Updates that are done when `window` begins."""
    whole = -(-window * window_env_steps(config) // update_env_steps(config))
    return min(whole, num_updates(config))


def updates_in(config: Config, window: int) -> int:
    """Updates that are made in `window`; 0 where one update reaches over several windows."""
    return updates_before(config, window + 1) - updates_before(config, window)


def policy_every(config: Config) -> int | None:
    """Windows after which a policy is kept in a file of its own: every one where replays are asked for."""
    every = config.run.policy_every_windows
    return 1 if every is None and config.replays.episodes else every


def is_told(config: Config, window: int) -> bool:
    """Whether a window gets a row, and may have the best policy: it is whole, or partial ones are flushed."""
    whole = (window + 1) * window_env_steps(config) <= num_updates(config) * update_env_steps(config)
    return whole or config.run.flush_partial_window


def last_window(config: Config) -> int:
    """The last window that brings an update or is told of, and so is kept."""
    last = num_windows(config) - 1
    return last if is_told(config, last) or updates_in(config, last) else last - 1


def updates_at_once(config: Config) -> int:
    """Updates that one call of a program plays: the most of which every window is whole calls."""
    if window_env_steps(config) % update_env_steps(config):
        return 1  # some windows have an update more than others
    return math.gcd(updates_in(config, 0), updates_in(config, num_windows(config) - 1))


def calls_in(config: Config, window: int) -> int:
    """Calls of that program in `window`."""
    return updates_in(config, window) // updates_at_once(config)
