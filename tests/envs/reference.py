"""The rules of `envs.single` again, from the page, in float64 cash and units: the oracle of its tests."""

from dataclasses import dataclass

import numpy as np


@dataclass
class ReferenceAccount:
    """Cash and units of one account; equity starts at 1."""

    cash: float
    units: float
    level: float

    def equity(self, price: float) -> float:
        return self.cash + self.units * price


@dataclass(frozen=True)
class Rules:
    fee_rate: float
    half_spread: float
    slippage: float
    ruin_equity: float


def play(opened, closed, levels, *, start: int, initial_level: float, rules: Rules) -> dict[str, np.ndarray]:
    """Follow `levels` from bar `start`: order after close[t], fill at open[t+1], mark at close[t+1]."""
    price = closed[start]
    account = ReferenceAccount(cash=1.0 - initial_level, units=initial_level / price, level=initial_level)
    rows = []
    equity = 1.0
    for step, level in enumerate(levels):
        bar = start + 1 + step
        quantity = fee = paid = fill = 0.0
        gapped = account.equity(opened[bar]) <= 0.01 * equity
        if gapped:  # liquidated at the open: nothing is left to hold or to trade with
            account.cash, account.units = 0.01 * equity, 0.0
        elif level != account.level:
            target_units = level * account.equity(opened[bar]) / opened[bar]
            quantity = target_units - account.units
            worse = rules.half_spread + rules.slippage
            fill = opened[bar] * (1 + worse if quantity > 0 else 1 - worse)
            fee = rules.fee_rate * abs(quantity) * fill
            account.cash -= quantity * fill + fee
            account.units = target_units
            account.level = level
            paid = abs(quantity) * abs(fill - opened[bar]) + fee
        after = account.equity(closed[bar])
        broke = gapped or after <= 0.01 * equity
        if broke:
            after, account.units = 0.01 * equity, 0.0
        rows.append(
            {
                "equity": after,
                "reward": np.log(after / equity),
                "exposure": account.units * closed[bar] / after,
                "traded": quantity * opened[bar] / equity,
                "cost": paid / equity,
                "fee": fee / equity,
                "terminated": broke or after <= rules.ruin_equity,
            }
        )
        equity = after
        if rows[-1]["terminated"]:
            break
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
