"""Where the contexts of a batch come from: the whole slice, each group's stretch of bars, or single windows.

All three are the same function of the market, computed over different sets of rows, so which one is taken is
a question of speed alone. It is settled by sizes, when the program is traced.

Axes: T bars of the slice, G groups, M samples, L lookback, F features, D context.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ztb_jax.policies.policy import Policy


class Encoding(NamedTuple):
    """How the bars of a batch are encoded.

    Attributes:
      kind: "slice", "stretches" or "windows".
      rows: rows that the encoder works on, a window counting `window_cost` of them.
    """

    kind: str
    rows: int

    def __str__(self) -> str:
        told = {
            "slice": "the whole slice once",
            "stretches": "each group's stretch of bars once",
            "windows": "every bar's own window",
        }
        return f"{told[self.kind]} ({self.rows:,} rows)"


class Contexts(NamedTuple):
    """Encoded bars and where to find them.

    Gathering rows by a full index beats broadcasting them to the accounts that share them: the gradient of a
    broadcast is a reduction that XLA fuses badly on a CPU (twice the time of the whole update).

    Attributes:
      rows: [R, D].
      at: [bars, G] int32, or [M] where samples were named: the row of each.
    """

    rows: jax.Array
    at: jax.Array


def choose_encoding(
    policy: Policy, *, num_bars: int, num_groups: int, bars: int, samples: int | None = None
) -> Encoding:
    """The cheapest way to encode `bars` consecutive bars of each of `num_groups` groups.

    The slice costs its T rows, or those of a grid's cells, each with L - 1 before it; stretches cost
    G (bars + L - 1), since a memory warms up in each; windows cost what the encoder needs for one, times the
    bars that are asked for. They win only for few samples of many bars.

    Args:
      policy: whose `window_cost` says what one window costs in rows of a stretch.
      num_bars: T.
      num_groups: G.
      bars: consecutive bars of a group.
      samples: M, where fewer than all those bars are asked for.
    """
    asked = num_groups * bars if samples is None else min(samples, num_groups * bars)
    warm_up = policy.lookback - 1 if policy.window_cost > 1.0 else 0
    slice_rows = num_bars
    if policy.grid:
        slice_rows = max(-(-(num_bars - warm_up) // policy.grid), 1) * (policy.grid + warm_up)
    costs = {
        "slice": float(slice_rows),
        "stretches": float(num_groups * (bars + warm_up)),
        "windows": policy.window_cost * asked,
    }
    kind = min(costs, key=lambda name: costs[name])
    return Encoding(kind, round(costs[kind]))


def encode_slice(policy: Policy, params: Any, features: jax.Array) -> jax.Array:
    """[T, D] contexts of every bar of features [T, F]; rows before L - 1 mean nothing."""
    return policy.encode(params, features)


def encode_chunk(
    policy: Policy, params: Any, features: jax.Array, first: jax.Array, *, bars: int
) -> jax.Array:
    """[bars, D] contexts of the bars from `first` [] on; with a grid, `first` lies on it."""
    before = policy.lookback - 1
    rows = jax.lax.dynamic_slice_in_dim(features, first - before, bars + before)
    return policy.encode(params, rows, before)


def encode_window(policy: Policy, params: Any, features: jax.Array, bar: jax.Array) -> jax.Array:
    """[D] context of one bar [], from the rows that it depends on alone."""
    if not policy.grid:
        return encode_chunk(policy, params, features, bar, bars=1)[0]
    phase = (bar - (policy.lookback - 1)) % policy.grid
    # The last cell may be cut short by the end of the slice: rows beyond it are never read.
    padded = jnp.pad(features, ((0, policy.grid - 1), (0, 0)))
    return encode_chunk(policy, params, padded, bar - phase, bars=policy.grid)[phase]


def encode_bars(
    policy: Policy,
    params: Any,
    features: jax.Array,
    start: jax.Array,
    *,
    bars: int,
    samples: jax.Array | None = None,
) -> Contexts:
    """Contexts of each group's `bars` consecutive bars from `start` [G] on, in the cheapest way.

    Args:
      policy: the network.
      params: its weights.
      features: [T, F].
      start: [G] int32.
      bars: consecutive bars.
      samples: [M] int32, positions t * G + g of the bars that are asked for; None is all of them.
    """
    num_groups = start.shape[0]
    kind = choose_encoding(
        policy,
        num_bars=features.shape[0],
        num_groups=num_groups,
        bars=bars,
        samples=None if samples is None else samples.shape[0],
    ).kind
    step = jnp.arange(bars)[:, None]
    bar = start[None, :] + step
    if kind == "slice":
        return Contexts(policy.encode(params, features), _of(bar, samples))
    if kind == "stretches":
        rows = jax.vmap(lambda first: encode_chunk(policy, params, features, first, bars=bars))(start)
        at = jnp.arange(num_groups)[None, :] * bars + step
        return Contexts(rows.reshape(-1, rows.shape[-1]), _of(at, samples))
    every = samples is None or samples.shape[0] >= bar.size
    asked = bar.reshape(-1) if every else bar.reshape(-1)[samples]
    rows = jax.vmap(lambda one: encode_window(policy, params, features, one))(asked)
    at = jnp.arange(bar.size).reshape(bar.shape) if every else jnp.arange(asked.shape[0])
    return Contexts(rows, _of(at, samples) if every else at)


@jax.custom_vjp
def looked_up(rows: jax.Array, at: jax.Array) -> jax.Array:
    """[..., D] `rows` [R, D] at `at` [...] int32, whose gradient is `gathered_back`."""
    return rows[at]


def _look_up(rows, at):
    return rows[at], (rows, at)


def _look_back(kept, grads):
    rows, at = kept
    total = gathered_back(jnp.zeros(rows.shape, jnp.float32), grads, at)
    return total.astype(rows.dtype), None


looked_up.defvjp(_look_up, _look_back)


def gathered_back(total: jax.Array, grads: jax.Array, at: jax.Array) -> jax.Array:
    """`total` [R, D] float32 and the gradient of gathering rows: `grads` [..., D] added to rows `at` [...].

    In float32 whatever `grads` are: hundreds of steps add up in a row, and bfloat16 would stop counting. GPUs
    add in whatever order their threads come, so there the sum is one of whole numbers, which has no order.
    """
    return jax.lax.platform_dependent(total, grads, at, cuda=whole_sums, rocm=whole_sums, default=plain_sums)


def plain_sums(total: jax.Array, grads: jax.Array, at: jax.Array) -> jax.Array:
    """`gathered_back`, added up in the order that the platform takes."""
    return total.at[at].add(grads.astype(jnp.float32))


def whole_sums(total: jax.Array, grads: jax.Array, at: jax.Array) -> jax.Array:
    """`gathered_back` in whole multiples of a step so small that no sum can leave 31 bits.

    A number is rounded to some 2^-30 of the largest one times the most numbers that meet in a row; where that
    is not finite, no sum is.
    """
    count = jnp.zeros(total.shape[:1], jnp.int32).at[at].add(1)
    largest = count.max().astype(jnp.float32) * jnp.abs(grads).max().astype(jnp.float32)
    # A power of two, so that numbers are rounded once: no sum reaches 2 to the exponent.
    _, exponent = jnp.frexp(jnp.where(largest > 0.0, largest, 1.0))
    scale = jnp.where(
        jnp.isfinite(largest), jnp.ldexp(jnp.float32(1.0), 30 - jnp.maximum(exponent, -90)), jnp.nan
    )
    steps = jnp.round(grads.astype(jnp.float32) * scale).astype(jnp.int32)
    sums = jnp.zeros(total.shape, jnp.int32).at[at].add(steps)
    return total + sums.astype(jnp.float32) / scale


def _of(at: jax.Array, samples: jax.Array | None) -> jax.Array:
    return at if samples is None else at.reshape(-1)[samples]
