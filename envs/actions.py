"""Action spaces: lists of levels, a continuous level, and grids of direction, size, order and bracket."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from envs.orders import LEVEL, LIMIT, MARKET, NOTHING
from envs.types import Actions, Order

NO_BRACKET = (math.inf, math.inf, math.inf)


def choose(index: jax.Array, values: Sequence[float]) -> jax.Array:
    """[...] float32 `values[index]` of `index` [...] int32."""
    # Selects beat a gather from a table of three by a factor of four on a CPU.
    chosen = jnp.full_like(index, values[0], dtype=jnp.float32)
    for position, value in enumerate(values[1:], start=1):
        chosen = jnp.where(index == position, jnp.float32(value), chosen)
    return chosen


def levels(
    values: Sequence[float] = (-1.0, 0.0, 1.0),
    *,
    stop_loss: float = math.inf,
    take_profit: float = math.inf,
    trail: float = math.inf,
) -> Actions:
    """One choice among target exposures, filled at the next open. Choosing the level one has holds the units.

    Args:
      values: distinct target exposures as fractions of equity.
      stop_loss: distance of a protective stop from every fill, as a fraction; infinity is none.
      take_profit: distance of a target.
      trail: distance of a trailing stop.

    Raises:
      ValueError: no level, a level twice, one that is not finite, or a distance that is not positive.
    """
    values, bracket = tuple(float(value) for value in values), (stop_loss, take_profit, trail)
    if len(set(values)) != len(values) or not values or not all(map(math.isfinite, values)):
        raise ValueError(f"levels must be finite, distinct and at least one, got {values}")
    _check((1.0,), (1.0,), ((MARKET, 0.0, 0.0),), (bracket,))
    protects, trails = bracket != NO_BRACKET, trail != math.inf

    def decode(action) -> Order:
        order = Order(level=choose(action, values))
        if not protects:
            return order
        stop, target, trailing = (jnp.full_like(order.level, distance) for distance in bracket)
        return order._replace(stop_loss=stop, take_profit=target, trail=trailing if trails else None)

    return Actions(decode=decode, sizes=(len(values),), levels=values, protects=protects, trails=trails)


def holding(space: Actions) -> Actions:
    """`space` with one more choice, the last, that asks for nothing.

    Choosing a level again sends an order, which `latency` brings to an account that may have changed; this
    leaves the account, what rests and what is on its way as they are.

    Raises:
      ValueError: the actions of `space` are not a list.
    """
    if not space.levels:
        raise ValueError("only a list of actions can be given one more: use levels, or a grid with flat=True")
    count = space.sizes[0]

    def decode(action) -> Order:
        holds = action == count
        order = space.decode(jnp.where(holds, 0, action))
        return order._replace(asks=jnp.where(holds, jnp.int32(NOTHING), jnp.int32(LEVEL)))

    return space._replace(decode=decode, sizes=(count + 1,), holds=True)


def continuous(*, low: float = -1.0, high: float = 1.0) -> Actions:
    """A target exposure of any value, clipped to [low, high]; filled at the next open.

    Asking for exactly the level one has holds the units; any other value trades, so give a `band`.

    Raises:
      ValueError: an empty range, or bounds that are not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low ({low}) must be below high ({high}), and both finite")
    return Actions(
        decode=lambda action: Order(level=jnp.clip(action, low, high)),
        low=low,
        high=high,
    )


def grid(
    *,
    directions: Sequence[float] = (-1.0, 0.0, 1.0),
    sizes: Sequence[float] = (1.0,),
    orders: Sequence[tuple[int, float, float]] = ((MARKET, 0.0, 0.0),),
    brackets: Sequence[tuple[float, float, float]] = (NO_BRACKET,),
    flat: bool = True,
) -> Actions:
    """Direction x size x order x bracket.

    Args:
      directions: signs of the exposure, usually -1, 0 and 1.
      sizes: exposures as fractions of equity.
      orders: (kind, limit, stop), kinds of `envs.orders`, distances as fractions of the last close; see
        `envs.types.Order`.
      brackets: (stop_loss, take_profit, trail) as fractions of the fill price, infinity for none.
      flat: one choice among all combinations that differ, for a categorical policy; else four components, one
        for each list that has more than one member.

    Raises:
      ValueError: an empty list, or a size or distance that is not positive where it must be.
    """
    parts = (tuple(directions), tuple(sizes), tuple(orders), tuple(brackets))
    _check(*parts)
    has: Any = {
        "protects": any(bracket != NO_BRACKET for bracket in brackets),
        "trails": any(bracket[2] != math.inf for bracket in brackets),
        "rests": any(order[0] != MARKET for order in orders),
    }
    if flat:
        rows = _distinct(parts)
        table = tuple(zip(*(_row(*row) for row in rows), strict=True))
        held = tuple(row[0] for row in zip(*table, strict=True))
        return Actions(
            decode=lambda action: _order(action, table, **has), sizes=(len(rows),), levels=held, **has
        )
    open_axes = [axis for axis, part in enumerate(parts) if len(part) > 1]
    counts = tuple(len(parts[axis]) for axis in open_axes)
    table = tuple(zip(*(_row(*row) for row in itertools.product(*parts)), strict=True))
    return Actions(
        decode=lambda action: _order(_index(action, counts), table, **has),
        sizes=counts,
        shape=(len(counts),),
        **has,
    )


def _check(directions, sizes, orders, brackets) -> None:
    findings = []
    if not (directions and sizes and orders and brackets):
        findings.append("directions, sizes, orders and brackets need at least one member each")
    findings += [f"size {size} is not positive and finite" for size in sizes if not 0 < size < math.inf]
    findings += [
        f"bracket {bracket} has a distance that is not positive"
        for bracket in brackets
        if not all(distance > 0 for distance in bracket)
    ]
    findings += [f"order {order} has an unknown kind" for order in orders if order[0] not in {0, 1, 2, 3}]
    findings += [
        f"order {order} has a limit beyond the close, which would fill at once and free of the costs of that"
        for order in orders
        if order[0] == LIMIT and order[1] < 0
    ]
    if findings:
        raise ValueError("; ".join(findings))


def _distinct(parts):
    """All combinations, with a direction of zero only once: to be flat has no size and no bracket."""
    rows, seen = [], set()
    for direction, size, order, bracket in itertools.product(*parts):
        key = (0.0, order) if direction == 0 else (direction * size, order, bracket)
        if key not in seen:
            seen.add(key)
            rows.append((direction, size, order, bracket))
    return rows


def _row(direction, size, order, bracket):
    return (float(direction * size), *map(float, order), *map(float, bracket))


def _index(action, counts):
    """[...] the row of the product that `action` [..., n] means."""
    index = jnp.zeros_like(action[..., 0])
    for position, count in enumerate(counts):
        index = index * count + action[..., position]
    return index


def _order(index, table, *, protects: bool, trails: bool, rests: bool) -> Order:
    level, kind, limit, stop, stop_loss, take_profit, trail = table

    def pick(values):
        return choose(index, values) if len(set(values)) > 1 else jnp.full_like(index, values[0], jnp.float32)

    order = Order(level=pick(level))
    if rests:
        order = order._replace(
            kind=pick(kind).astype(jnp.int32), limit=pick(limit), stop=pick(stop), label=index
        )
    if protects:
        order = order._replace(stop_loss=pick(stop_loss), take_profit=pick(take_profit))
    if trails:
        order = order._replace(trail=pick(trail))
    return order
