"""The rules of docs/reference/simulator.md again, in float64 cash and units: the oracle of the fuzz tests.

The numbers in brackets are those of the page's rules.
"""

import hashlib
import math
from pathlib import Path

import numpy as np
from numba import njit
from numba.core import config

from tests.envs.simulator_ledger import (
    ACCOUNT,
    ASKS_LEVEL,
    ASKS_NOTHING,
    BY_LIQUIDATION,
    BY_TARGET,
    COLUMNS,
    EQUITY,
    EXIT,
    EXPOSURE,
    FILL,
    FILLED,
    KIND,
    LEVEL,
    LIMIT,
    LOCKED,
    MARKET,
    MAX_FLIPS,
    ORDER,
    PROFIT,
    REASON,
    STOP,
    STOP_LIMIT,
    TERMINATED,
    WITHDRAWS,
    Play,
    affordable_units,
    at_most,
    effective_stop,
    equity,
    execute,
    mark,
    on_tick,
    pay,
    sign,
    sized,
    value,
    wanted_units,
)

FLOOR = 0.01
HERE = Path(__file__).resolve()
SOURCES = b"".join((HERE.parent / f"simulator_{name}.py").read_bytes() for name in ("ledger", "reference"))
# Compiling takes ten seconds; what was compiled from these very sources is kept, and shared by the workers.
KEPT = HERE.parents[2] / ".pytest_cache" / "oracle" / hashlib.sha256(SOURCES).hexdigest()[:12]
config.CACHE_DIR = str(KEPT)  # pyright: ignore[reportAttributeAccessIssue]


@njit
def price_order(play, k):
    """(1) Side and prices of the order that was just decided."""
    t, order, knife = play.start + k, play.orders[k], play.knife
    held = value(play.account) / equity(play.account)
    sells = at_most(sized(play, order.level, t), held, max(1.0, abs(held)), knife)
    order.side = -1.0 if sells else 1.0
    closed = play.bars[t].close
    if order.kind in (LIMIT, STOP_LIMIT):
        order.limit_price = on_tick(closed * (1.0 - order.side * order.limit), play.rules.tick, knife)
    if order.kind in (STOP, STOP_LIMIT):
        order.stop_price = on_tick(closed * (1.0 + order.side * order.stop), play.rules.tick, knife)


@njit
def choose_order(play, k):
    """(2) (3) (4) What works in this bar."""
    account, working, asked = play.account, play.working, len(play.orders) - 2
    late = k - int(play.rules.latency)
    which = late if late >= 0 else asked
    locked = account.day_lock + account.locked > 0
    if locked:
        which = asked + 1
    order = play.orders[which]
    same_label = working[0].label == order.label and order.label >= 0
    if order.asks == WITHDRAWS and same_label:
        working[0].bars = 0.0
    if order.asks != ASKS_LEVEL:
        return
    if working[0].bars > 0 and same_label and not locked:
        return
    same = order.level == account.level
    if account.cut == 1.0:  # then the account's level is a number that was worked out
        apart = abs(order.level - account.level)
        same = at_most(apart, 0.0, max(1.0, abs(order.level)), play.knife)
    if same:
        working[0].bars = 0.0
        return
    working[0] = order
    working[0].bars = 1.0 if order.kind == MARKET else play.rules.order_bars


@njit
def finance(play, b):
    """(5)"""
    account, rules, bars = play.account, play.rules, play.bars
    x = value(account) / equity(account)
    idle = min(max(1.0 - x, 0.0), 1.0)
    rate = rules.borrow_rate * max(-x, 0.0) + rules.loan_rate * max(x - 1.0, 0.0) - rules.cash_rate * idle
    pay(account, equity(account) * (bars[b].years * rate + bars[b].funding * x))


@njit
def floored(play):
    """(7) (11)"""
    account = play.account
    least = FLOOR * account.last
    if not at_most(equity(account), least, account.last + abs(value(account)), play.knife):
        return False
    account.profit += least - equity(account)
    account.cash, account.units, account.level, account.closed = least, 0.0, 0.0, 1.0
    return True


@njit
def close_out(play, b, price, reason):
    """(8) (10) A closing trade; the agent's order is cancelled."""
    account, row = play.account, play.out[b - play.start - 1]
    mark(account, price, account.rate)
    traded = abs(value(account))
    execute(play, b, -account.units, reason == BY_TARGET, EXIT)
    if reason == BY_LIQUIDATION:
        penalty = play.rules.penalty * traded
        pay(account, penalty)
        row[EXIT + 1] += penalty / account.last
        row[EXIT + 2] += penalty / account.last
        account.closed = 1.0
    row[REASON] = reason
    account.level = account.cut = play.working[0].bars = 0.0


@njit
def protect_at_open(play, b):
    """(8) Whether the holding was closed."""
    account, knife, opened = play.account, play.knife, play.bars[b].open
    side = sign(account.units)
    if side == 0:
        return False
    level, reason = effective_stop(play)
    if at_most(side * opened, side * level, opened, knife):
        close_out(play, b, opened, reason)
        return True
    if at_most(side * account.target, side * opened, opened, knife):
        close_out(play, b, account.target, BY_TARGET)
        return True
    return False


@njit
def reach_limit(play, b):
    """Price at which the working order's limit is filled, NaN for not at all."""
    order, bars, knife = play.working[0], play.bars, play.knife
    side, level, opened = order.side, order.limit_price, bars[b].open
    if at_most(side * opened, side * level, opened, knife):
        return opened
    extreme = bars[b].low if side > 0 else bars[b].high
    return level if at_most(side * extreme, side * level, opened, knife) else math.nan


@njit
def reach_stop(play, b):
    """Price at which the working order's stop is filled or triggered, NaN for not at all."""
    order, bars, knife = play.working[0], play.bars, play.knife
    side, level, opened = order.side, order.stop_price, bars[b].open
    if at_most(side * level, side * opened, opened, knife):
        return opened
    extreme = bars[b].high if side > 0 else bars[b].low
    return level if at_most(side * level, side * extreme, opened, knife) else math.nan


@njit
def reach_stop_limit(play, b):
    order = play.working[0]
    trigger = reach_stop(play, b)
    if math.isnan(trigger):
        return trigger
    price = math.nan
    if trigger == play.bars[b].open:
        price = reach_limit(play, b)
    elif at_most(order.side * trigger, order.side * order.limit_price, trigger, play.knife):
        price = trigger
    if math.isnan(price):
        order.kind = LIMIT
    return price


@njit
def reach(play, b):
    """(9) Price at which the working order is filled, NaN for not at all."""
    order = play.working[0]
    if order.kind == LIMIT:
        return reach_limit(play, b)
    if order.kind == STOP:
        return reach_stop(play, b)
    if order.kind == STOP_LIMIT:
        return reach_stop_limit(play, b)
    return play.bars[b].open


@njit
def set_protection(play, side):
    """What protects a holding that a fill brought from sign `side` to where it is."""
    account, order = play.account, play.working[0]
    now, price = sign(account.units), account.price
    if order.level == 0.0:  # what a volume cap leaves keeps its own
        return
    if order.bare == 1.0:
        if now != side:
            account.stop, account.target, account.trail = -now * math.inf, now * math.inf, math.inf
        return
    account.best, account.trail = price, order.trail
    account.stop = on_tick(price * (1.0 - now * order.stop_loss), play.rules.tick, play.knife)
    account.target = on_tick(price * (1.0 + now * order.take_profit), play.rules.tick, play.knife)


@njit
def comes_too_late(play, b, price):
    """(9) Whether the holding is closed on the way from the open to the order's price; 10 says where."""
    account, knife, opened = play.account, play.knife, play.bars[b].open
    side, way = sign(account.units), sign(price - opened)
    if side * way < 0:
        return at_most(side * price, side * effective_stop(play)[0], opened, knife)
    return side * way > 0 and at_most(side * account.target, side * price, opened, knife)


@njit
def fill_order(play, b):
    """(9) Whether the order was filled inside the bar."""
    account, order, row = play.account, play.working[0], play.out[b - play.start - 1]
    if play.bars[b].tradable == 0.0 or order.bars == 0.0:
        return False
    row[KIND] = order.kind
    price = reach(play, b)
    if math.isnan(price) or comes_too_late(play, b, price):
        return False
    order.bars = 0.0
    mark(account, price, account.rate)
    wanted, side = wanted_units(play, b), sign(account.units)
    units = affordable_units(play, b, wanted)
    inside = price != play.bars[b].open
    row[FILLED] = 3.0 if units == 0.0 else 2.0 if inside else 1.0
    if units != 0.0:
        execute(play, b, units, order.kind in (LIMIT, STOP_LIMIT), FILL)
        set_protection(play, side)
    account.level, account.cut = order.level, 0.0
    if units != wanted:
        account.level, account.cut = value(account) / equity(account), 1.0
    if units == 0.0:  # then it was no fill
        mark(account, play.bars[b].open, account.rate)
    return inside and units != 0.0


@njit
def protect_inside(play, b):
    """(10) With the price at the fill, or at the open."""
    account, bars, knife = play.account, play.bars, play.knife
    side, opened, now = sign(account.units), bars[b].open, account.price
    if side == 0:
        return
    adverse, kind = (bars[b].low, bars[b].high) if side > 0 else (bars[b].high, bars[b].low)
    level, reason = effective_stop(play)
    if side * now > side * opened and at_most(side * opened, side * level, opened, knife):
        adverse = bars[b].close
    if side * now < side * opened:
        kind = bars[b].close
    if at_most(side * now, side * level, opened, knife):
        close_out(play, b, now, reason)
    elif at_most(side * adverse, side * level, opened, knife):
        close_out(play, b, level, reason)
    elif at_most(side * account.target, max(side * now, side * kind), opened, knife):
        close_out(play, b, account.target, BY_TARGET)


@njit
def follow_best(play, b, inside):
    """(12)"""
    account, bars = play.account, play.bars
    if account.units > 0:
        account.best = max(account.best, bars[b].close if inside else bars[b].high)
    if account.units < 0:
        account.best = min(account.best, bars[b].close if inside else bars[b].low)


@njit
def limit_losses(play, b):
    """(13)"""
    account, rules, knife = play.account, play.rules, play.knife
    now = equity(account)
    if play.bars[b].new_day == 1.0:
        account.day_equity, account.day_lock = account.last, 0.0
    account.peak = max(account.peak, now)
    if at_most(now, (1.0 - rules.daily_loss) * account.day_equity, now, knife):
        account.day_lock = 1.0
    if at_most(now, (1.0 - rules.drawdown) * account.peak, now, knife):
        account.locked = 1.0


@njit
def play_bar(play, b):
    """(6) to (13)"""
    account, bars = play.account, play.bars
    mark(account, bars[b].open, bars[b].rate_open)
    if floored(play):
        return
    inside = False
    if not protect_at_open(play, b):
        inside = fill_order(play, b)
        protect_inside(play, b)
    mark(account, bars[b].close, bars[b].rate_close)
    if floored(play):
        return
    follow_best(play, b, inside)
    limit_losses(play, b)
    play.working[0].bars = max(play.working[0].bars - 1.0, 0.0)


@njit
def step(play, k):
    account, rules, row, b = play.account, play.rules, play.out[k], play.start + 1 + k
    for column in range(COLUMNS):
        row[column] = 0.0
    account.last, account.profit = equity(account), 0.0
    price_order(play, k)
    choose_order(play, k)
    finance(play, b)
    play_bar(play, b)
    now = equity(account)
    if at_most(now, rules.ruin_equity * rules.capital, now, play.knife):
        account.closed = 1.0
    row[EQUITY] = now / rules.capital
    row[EXPOSURE] = value(account) / now
    row[LEVEL] = account.level
    row[TERMINATED] = account.closed
    row[LOCKED] = 1.0 if account.day_lock + account.locked > 0 else 0.0
    row[PROFIT] = account.profit / rules.capital


@njit
def begin(play, level):
    """The start: a holding of `level` as sized at the start bar, bought free of charge at its close."""
    account, rules, bars, t = play.account, play.rules, play.bars, play.start
    account.cash, account.level = rules.capital, level
    account.price, account.rate = bars[t].close, bars[t].rate_close
    account.units = sized(play, level, t) * rules.capital / (account.price * account.rate)
    account.cash -= value(account)
    side = sign(account.units)
    account.best, account.stop, account.target = account.price, -side * math.inf, side * math.inf
    account.trail = math.inf
    account.peak = account.day_equity = rules.capital
    for extra, asked in ((2, level), (1, 0.0)):
        order = play.orders[len(play.orders) - extra]
        order.level, order.kind, order.label, order.bare = asked, MARKET, -1.0, 1.0
    play.orders[len(play.orders) - 2].asks = ASKS_NOTHING if rules.holds == 1.0 else ASKS_LEVEL


@njit
def play_sequence(play, level):
    begin(play, level)
    play.knife[0] = 0
    for k in range(len(play.orders) - 2):
        step(play, k)
        if play.account.closed == 1.0:
            return


@njit(cache=True)
def play_each(tables, starts, levels, knives, out):
    bars, rules, orders, accounts, working = tables
    for s in range(len(starts)):
        play = Play(bars, rules[s], orders[s], starts[s], accounts[s], working[s], knives[s], out[s])
        play_sequence(play, levels[s])


def play_all(bars, rules, orders, start, flips=()):
    """Rows [S, N, COLUMNS], NaN after the end, and near-ties [S] of the sequences from (bars, levels)."""
    sequences, length = orders.shape
    out = np.full((sequences, length - 2, COLUMNS), np.nan)
    knives = np.zeros((sequences, 1 + MAX_FLIPS), np.int64)
    knives[:, 1 : 1 + len(flips)] = flips
    tables = bars, rules, orders, np.zeros(sequences, ACCOUNT), np.zeros((sequences, 1), ORDER)
    play_each(tables, start[0], start[1], knives, out)
    return out, knives[:, 0]
