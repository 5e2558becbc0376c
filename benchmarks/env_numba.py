"""The plain environment's rules as a loop compiled for one thread, account by account: the peer of `env`."""

import numpy as np
from numba import njit


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
