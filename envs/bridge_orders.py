"""An order as the environment reads it, with every part that its action space has."""

import math
from typing import Any

import numpy as np

from envs.bridge_bars import Rejected
from envs.orders import LEVEL, LIMIT, MARKET, NOTHING, STOP, STOP_LIMIT, WITHDRAWAL
from envs.types import Order


def complete(order: Order, parts: Order, *, label: Any) -> Order:
    """`order` with every part that `parts` has, as numpy scalars; distances that it lacks are infinite."""
    absent = {"kind": MARKET, "label": label, "asks": LEVEL}
    whole = {}
    for name in Order._fields:
        value, has = getattr(order, name), getattr(parts, name) is not None
        if value is not None and not has:
            raise Rejected(f"orders of this action space have no {name}")
        if has:
            value = absent.get(name, math.inf) if value is None else value
            whole[name] = np.asarray(value, np.int32 if name in absent else np.float32)
    return Order(**whole)


def checked(order: Order, parts: Order, *, label: int) -> Order:
    """`order`, complete.

    Raises:
      Rejected: every finding at once.
    """
    whole = complete(order, parts, label=label)
    numbers = {name: value for name, value in whole._asdict().items() if value is not None}
    wrong = [f"{name} has shape {value.shape}" for name, value in numbers.items() if value.shape]
    if wrong:
        raise Rejected(f"an order is a single one: {'; '.join(wrong)}")
    wrong = [f"{name} is nan" for name, value in numbers.items() if np.isnan(value)]
    if not np.isfinite(whole.level):
        wrong.append(f"level is {whole.level}")
    wrong += _out_of_range(numbers)
    needs = {MARKET: (), LIMIT: ("limit",), STOP: ("stop",), STOP_LIMIT: ("limit", "stop")}
    kind = int(numbers.get("kind", MARKET))
    if kind not in needs:
        wrong.append(f"kind is {kind}")
    wrong += [f"kind {kind} needs a {name}" for name in needs.get(kind, ()) if np.isinf(numbers[name])]
    if wrong:
        raise Rejected(f"this is no order: {'; '.join(dict.fromkeys(wrong))}")
    return whole


def _out_of_range(numbers: dict[str, Any]) -> list[str]:
    wrong = []
    for name in ("stop_loss", "take_profit", "trail"):
        if name in numbers and numbers[name] <= 0:
            wrong.append(f"{name} is {numbers[name]}: distances are above 0")
    if numbers.get("label", 0) < 0:
        wrong.append(f"label is {numbers['label']}: labels are from 0 on, or none")
    if numbers["asks"] not in (LEVEL, NOTHING, WITHDRAWAL):
        wrong.append(f"asks is {numbers['asks']}")
    return wrong
