"""The account of the simulator's oracle: float64 cash and units, and its comparisons.

The implementation counts in float32, so where two numbers that a rule compares are nearly equal it may come
to the other answer. Every comparison of the oracle therefore goes through `at_most`, which numbers those
near-ties in the order they appear and turns round the answers that `Play.knife` names.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

MARKET, LIMIT, STOP, STOP_LIMIT = 0, 1, 2, 3
ASKS_LEVEL, ASKS_NOTHING, WITHDRAWS = 0, 1, 2
NONE, BY_STOP, BY_TARGET, BY_TRAIL, BY_LIQUIDATION = 0, 1, 2, 3, 4
NEAR = 3e-6
MAX_EDGE = 0.99
MAX_FLIPS = 8

# What is told of a bar. A fill and an exit are four columns: side and size, cost, fee, price.
EQUITY, EXPOSURE, LEVEL, REASON, TERMINATED, LOCKED, PROFIT, FILL, EXIT = 0, 1, 2, 3, 4, 5, 6, 7, 11
# For coverage alone: 0 no fill, 1 at the open, 2 inside the bar, 3 nothing was traded; the kind of the order.
FILLED, KIND = 15, 16
COLUMNS = 17

# A part that an environment lacks is a number that does nothing.
NEUTRAL = {
    "fee_rate": 0.0,
    "maker_rate": 0.0,
    "half_spread": 0.0,
    "slippage": 0.0,
    "fee_per_lot": 0.0,
    "fee_minimum": 0.0,
    "volatility_slippage": 0.0,
    "impact": 0.0,
    "volume_cap": math.inf,
    "lot": 0.0,
    "tick": 0.0,
    "max_leverage": math.inf,
    "maintenance": math.nan,
    "penalty": 0.0,
    "borrow_rate": 0.0,
    "loan_rate": 0.0,
    "cash_rate": 0.0,
    "daily_loss": 1.0,
    "drawdown": 1.0,
    "latency": 0.0,
    "holds": 0.0,
    "order_bars": 1.0,
    "band": 0.0,
    "ruin_equity": 0.0,
    "capital": 1.0,
}
RULES = np.dtype([(name, np.float64) for name in NEUTRAL])
ASKED = ("level", "kind", "limit", "stop", "stop_loss", "take_profit", "trail", "label", "asks")
PRICED = ("bare", "side", "limit_price", "stop_price", "bars")
ORDER = np.dtype([(name, np.float64) for name in ASKED + PRICED])
HELD = ("cash", "units", "price", "rate", "level", "cut", "last", "profit", "closed")
PROTECTED = ("stop", "target", "trail", "best")
LIMITED = ("peak", "day_equity", "day_lock", "locked")
PRICES = ("open", "high", "low", "close", "half_spread", "volatility", "depth", "tradable", "new_day")
OTHER = ("years", "funding", "scale", "cap", "rate_open", "rate_close")
BAR = np.dtype([(name, np.float64) for name in PRICES + OTHER])
ACCOUNT = np.dtype([(name, np.float64) for name in HELD + PROTECTED + LIMITED])


class Play(NamedTuple):
    """One sequence: what it is given, and what its steps write to.

    Attributes:
      bars: [T].
      orders: [N + 2], what is asked for in N bars, then the initial level and the flat order of a lock.
      working: [1], the order that works; `bars` counts down the bars it is still good for.
      knife: [1 + MAX_FLIPS], how many near-ties were seen, and which of them (from 1) are turned round.
    """

    bars: np.ndarray
    rules: np.void
    orders: np.ndarray
    start: int
    account: np.void
    working: np.ndarray
    knife: np.ndarray
    out: np.ndarray


@njit
def at_most(a, b, scale, knife):
    """Whether a <= b, where numbers within NEAR x `scale` of one another are a near-tie."""
    answer = a <= b
    if abs(a - b) <= NEAR * scale:
        knife[0] += 1
        for i in range(1, len(knife)):
            if knife[i] == knife[0]:
                answer = not answer
    return answer


@njit
def on_tick(price, tick, knife):
    """The nearest tick, half to even."""
    if tick == 0.0 or not math.isfinite(price):
        return price
    below = math.floor(price / tick)
    part = price / tick - below
    if below % 2 == 0:
        down = at_most(part, 0.5, 0.1 * price / tick, knife)
    else:
        down = not at_most(0.5, part, 0.1 * price / tick, knife)
    return tick * (below if down else below + 1)


@njit
def whole(lots, knife):
    """Cut toward zero."""
    nearest = math.floor(abs(lots) + 0.5)
    if not at_most(nearest, abs(lots), max(1.0, abs(lots)), knife):
        nearest -= 1
    return math.copysign(max(nearest, 0.0), lots)


@njit
def value(account):
    return account.units * account.price * account.rate


@njit
def equity(account):
    return account.cash + value(account)


@njit
def sign(x):
    return 1.0 if x > 0 else -1.0 if x < 0 else 0.0


@njit
def mark(account, price, rate):
    """The price moves, then the rate: what was earned in quote currency is converted at the new rate."""
    account.profit += account.units * (price - account.price) * rate
    # The quote currency that the holding was bought with is owed, and moves with the rate as the value does.
    account.cash -= account.units * account.price * (rate - account.rate)
    account.price, account.rate = price, rate


@njit
def pay(account, amount):
    account.cash -= amount
    account.profit -= amount


@njit
def sized(play, level, t):
    """The exposure that a level asks for, with what close[t] knows."""
    asked = level * play.bars[t].scale
    most = min(play.bars[t].cap, play.rules.max_leverage)
    return min(max(asked, -most), most)


@njit
def execute(play, b, units, resting, column):
    """Buy `units` at the marked price, as a limit or target if `resting`; tell it from `column` on."""
    account, rules, bars, row = play.account, play.rules, play.bars, play.out[b - play.start - 1]
    size, middle = abs(units), account.price
    traded = size * middle * account.rate
    worse, rate = 0.0, rules.maker_rate
    if not resting:
        worse = rules.half_spread + bars[b].half_spread + rules.slippage
        worse += rules.volatility_slippage * bars[b].volatility
        impact = rules.impact * bars[b].volatility
        if impact > 0:
            worse += impact * math.sqrt(traded / bars[b].depth if bars[b].depth > 0 else 1.0)
        worse = min(worse, MAX_EDGE)
        rate = rules.fee_rate
    paid = middle * (1.0 + sign(units) * worse)
    fee = rate * size * paid * account.rate
    if rules.lot > 0:
        fee += rules.fee_per_lot * size / rules.lot
    fee = max(fee, rules.fee_minimum)
    account.units += units
    if rules.lot > 0 and abs(account.units) < 1e-9 * rules.lot:
        account.units = 0.0  # what float64 left over
    account.cash -= units * middle * account.rate
    pay(account, size * abs(paid - middle) * account.rate + fee)
    row[column] = sign(units) * traded / account.last
    row[column + 1] = (size * abs(paid - middle) * account.rate + fee) / account.last
    row[column + 2] = fee / account.last
    row[column + 3] = paid / bars[b].open


@njit
def liquidation_price(account, maintenance):
    """Where cash + units x price x rate = maintenance x |units| x price x rate."""
    side = sign(account.units)
    if math.isnan(maintenance):
        return -side * math.inf
    return -account.cash / (account.rate * account.units * (1.0 - side * maintenance))


@njit
def effective_stop(play):
    """The nearest of the three, and why."""
    account, knife = play.account, play.knife
    side = sign(account.units)
    level, reason = liquidation_price(account, play.rules.maintenance), BY_LIQUIDATION
    trail = account.best * (1.0 - side * account.trail)
    if not at_most(side * account.stop, side * level, account.price, knife):
        level, reason = account.stop, BY_STOP
    if not at_most(side * trail, side * level, account.price, knife):
        level, reason = trail, BY_TRAIL
    return level, reason


@njit
def wanted_units(play, b):
    """What a trade to the working order's level has to buy at the price that is marked."""
    account, rules, knife = play.account, play.rules, play.knife
    unit = account.price * account.rate
    target = sized(play, play.working[0].level, b - 1) * equity(account) / unit
    if rules.lot > 0:
        target = rules.lot * whole(target / rules.lot, knife)
    units = target - account.units
    scale = max(abs(target), abs(account.units))
    if rules.lot > 0 and not at_most(0.5 * rules.lot, abs(units), scale, knife):
        return 0.0
    least = rules.band * equity(account) / unit
    if not at_most(least, abs(units), max(scale, least), knife):
        return 0.0
    return units


@njit
def affordable_units(play, b, wanted):
    """What the volume cap leaves of it."""
    account, rules = play.account, play.rules
    most = rules.volume_cap * play.bars[b].depth / (account.price * account.rate)
    if at_most(abs(wanted), most, abs(wanted), play.knife):
        return wanted
    if not rules.lot > 0:
        return sign(wanted) * most
    most, trace = rules.lot * whole(most / rules.lot, play.knife), 1e-3 * rules.lot
    if abs(wanted) <= most + trace:
        return wanted
    units = sign(wanted) * most
    # Less than a thousandth of a lot does not stay behind.
    return -account.units if units != 0 and abs(account.units + units) < trace else units
