"""The rules of `docs/reference/hierarchy.md` again, in float64, over the portfolio's reference."""

import numpy as np

from tests.envs.portfolio_reference import Bars, Rules, play

LOOKBACK, FREQ, TEMPERATURE, THRESHOLD = 20, 10, 0.2, 0.1


def clipped(values, low, high):
    return np.minimum(np.maximum(np.asarray(values, np.float64), low), high)


def softmax(logits):
    powers = np.exp(logits - max(logits))
    return powers / powers.sum()


def share(owner, allocation, risk):
    """Capital of each instrument: its specialist's, in equal parts."""
    return np.array([risk * allocation[who] / list(owner).count(who) for who in owner])


def statistics(earnings):
    """Sharpe ratio, win rate and largest drawdown of the last bars, missing ones being 0."""
    padded = ([0.0] * LOOKBACK + list(earnings))[-LOOKBACK:]
    mean = sum(padded) / LOOKBACK
    deviation = np.sqrt(sum((x - mean) ** 2 for x in padded) / LOOKBACK)
    total = highest = deepest = 0.0
    for x in padded:
        total += x
        highest = max(highest, total)
        deepest = max(deepest, highest - total)
    sharpe = mean / deviation if deviation > 1e-8 else 0.0
    return sharpe, sum(x > 0 for x in padded) / LOOKBACK, deepest


def team_reward(sharpes, allocation, held, owner, *, var, correlation, limits):
    entropy = -sum(a * np.log(a) for a in allocation if a > 0) / np.log(max(len(allocation), 2))
    sizes = [sum(abs(held[i]) for i in range(len(held)) if owner[i] == s) for s in range(len(allocation))]
    gross = sum(sizes)
    balance = 1 - (max(sizes) - min(sizes)) / gross if gross > 0 else 0.0
    compliance = min(1.0, limits.var / var) if var > 0 else 1.0
    individual = np.mean(clipped(sharpes, -1, 1))
    together = 0.3 * entropy + 0.2 * balance + 0.3 * compliance + 0.2 * (limits.correlation - correlation)
    return 0.5 * individual + 0.5 * together


def follow(bars: Bars, actions, *, start: int, initial, rules: Rules, owner, signals=None):
    """Play `actions` from bar `start`: the meta environment with `signals` [T, A], the joint one without."""
    owner, team = list(owner), max(owner) + 1
    allocation, risk, wait = np.full(team, 1 / team), 0.0, 0
    level, weights_of_all = np.array(initial, np.float64), []
    earned, returns, growth, rows = [[] for _ in range(team)], [], [0.0], []
    for step, action in enumerate(np.asarray(actions, np.float64)):
        bar = start + step
        told = clipped(action[: team + 1], 0, 1)
        if signals is None:
            told = (clipped(action[: team + 1], -1, 1) + 1) / 2
        if wait == 0:
            allocation, risk, wait = softmax(told[:team] / TEMPERATURE), told[team], FREQ
        wait -= 1
        capital = share(owner, allocation, risk)
        if signals is not None:
            weights = capital * signals[bar]
        else:
            wanted = clipped(action[team + 1 :], -1, 1)
            size = (np.abs(wanted) - THRESHOLD) / (1 - THRESHOLD)
            weights = np.where(np.abs(wanted) > THRESHOLD, capital * np.sign(wanted) * size, level)
        weights_of_all.append(weights)
        # The whole prefix is played again: slow, and free of state that could go wrong.
        played = play(bars, np.array(weights_of_all), start=start, initial=initial, rules=rules)
        now = {name: column[-1] for name, column in played.items()}
        held = np.array(initial) if step == 0 else played["exposure"][-2]
        level = now["level"]
        at_open, at_close = bars.opened[bar + 1], bars.closed[bar + 1]
        before = bars.closed[bar]
        after_gap = held * at_open / before
        each = after_gap - held + (after_gap + now["traded"]) * (at_close / at_open - 1) - now["cost"]
        for who in range(team):
            earned[who].append(sum(each[i] for i in range(len(owner)) if owner[i] == who))
        returns.append(np.exp(now["reward"]) - 1)
        growth.append(growth[-1] + now["reward"])
        told_of = np.array([statistics(earned[who]) for who in range(team)]).T
        last = np.array(([0.0] * LOOKBACK + returns)[-LOOKBACK:])
        view = [last, [last.std()], [1 - np.exp(growth[-1] - max(growth))], *told_of, allocation, [risk]]
        view += [[wait / FREQ], level, now["exposure"]]
        row = {"view": np.concatenate(view), "exposure": now["exposure"], "log_return": now["reward"]}
        row |= {"weights": weights, "earned": np.array([parts[-1] for parts in earned])}
        row["gain"] = returns[-1]
        if rules.limits is not None:
            row["reward"] = team_reward(
                told_of[0],
                allocation,
                now["exposure"],
                owner,
                var=now["var"],
                correlation=now["correlation"],
                limits=rules.limits,
            )
        rows.append(row)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
