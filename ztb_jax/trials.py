"""Many trainings, each with its own market, seed and numbers, as one program.

Axes: D markets of equal shapes, N trainings ("trials"), C of them at a time (a chunk), W windows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ztb_jax.data.market import MarketData
from ztb_jax.evaluation.backtest import Trace
from ztb_jax.learner import Learner
from ztb_jax.population import with_hyper
from ztb_jax.runs.loop import planned_bytes, repeated

Backtest = Callable[[Any, MarketData], Trace]
# More side by side only push each other out of a CPU's caches; other devices want to be filled.
MOST_AT_ONCE = {"cpu": 8}
MOST_ELSEWHERE = 256


class NoRoomError(ValueError):
    """Not even one training fits into the memory that there is."""


class Trials(NamedTuple):
    """What is trained. Axes: N trials.

    Attributes:
      market: [N] int32, the one that each trains on.
      seed: [N] uint32; trial i begins as the single run with the key `jax.random.key(seed[i])` does.
      hyper: record of numbers [N, ...] in place of the learner's own, or None.
    """

    market: np.ndarray
    seed: np.ndarray
    hyper: Any = None


class Trained(NamedTuple):
    """What a chunk brought, on the host. Axes: n trials of it.

    Attributes:
      trials: [n] which.
      params: weights [n, ...] of the window that validation chose, or of the last one without validation.
      chosen: [n] that window's number; -1 where none passed its gate with a validation above ruin, and the
        weights are the first ones.
      validation: [n, W] mean log growth per bar of the policy without exploration; NaN where there is none.
      reward: [n, W] mean reward per bar in training.
      verdict: [n] code of the gate that stopped a trial, 0 for none.
    """

    trials: np.ndarray
    params: Any
    chosen: np.ndarray
    validation: np.ndarray
    reward: np.ndarray
    verdict: np.ndarray


class _Carry(struct.PyTreeNode):
    """A chunk between windows: states, and of each the weights to keep, their score and their window."""

    state: Any
    best: Any
    score: jax.Array
    window: jax.Array


class Program(NamedTuple):
    """`compile_trials` made it: the same compiled functions for every chunk.

    Attributes:
      run: (Trials, number of a chunk, asked) -> what it brought, or None where `asked()` said between two
        windows that it is to end.
      members: C.
      num_chunks: that N trials take.
      planned_bytes: what a window holds at the most; None if this backend does not tell.
    """

    run: Callable[..., Trained | None]
    members: int
    num_chunks: int
    planned_bytes: int | None


def compile_trials(
    learner: Learner,
    markets: MarketData,
    *,
    trials: int,
    num_windows: int,
    window_updates: int,
    backtest: Backtest | None = None,
    validation: MarketData | None = None,
    memory_bytes: int | None = None,
    members: int | None = None,
) -> Program:
    """One program for any trials of `learner` on `markets`.

    A trial is what the main job does: it trains on its own market, and after every window the policy without
    exploration plays the market's validation slice; the best window's weights are kept.

    Args:
      learner: of `ztb_jax.build.make_learner`, behind gates or not.
      markets: D of equal shapes, leaves [D, ...].
      trials: N, of which as many run at once as memory holds, `most_at_once` of its device at the most;
        chunks are equally large, and the last one is filled up with trials that were there before.
      num_windows: W.
      window_updates: updates between two validations.
      backtest: of `ztb_jax.evaluation.backtest.make_policy_backtest`; with `validation`.
      validation: D slices of equal shapes, each up to its own `stop`.
      memory_bytes: what may be held; None does not look.
      members: C, instead of planning it.

    Raises:
      ValueError: no trial, window or update.
      NoRoomError: not one training fits into `memory_bytes`.
    """
    if trials < 1 or num_windows < 1 or window_updates < 1:
        raise ValueError(
            f"trials ({trials}), num_windows ({num_windows}) and window_updates ({window_updates}) must be "
            "at least 1"
        )
    parts = _Parts(learner, backtest, validation is not None, window_updates)
    chunk = min(trials, members or most_at_once(markets))
    while True:
        chunk = evenly(trials, chunk)
        program, planned = _compiled(parts, markets, validation, chunk)
        if members or memory_bytes is None or planned is None or planned <= memory_bytes:
            break
        if chunk == 1:
            raise NoRoomError(
                f"one training needs {planned:,} bytes and there are {memory_bytes:,}: lower "
                "ppo.num_accounts or ppo.rollout_bars, or raise ppo.num_minibatches"
            )
        chunk = max(1, min(chunk - 1, int(chunk * memory_bytes / planned)))

    def run(wanted: Trials, number: int, asked: Callable[[], bool] = lambda: False) -> Trained | None:
        rows = np.arange(number * chunk, (number + 1) * chunk)
        brought = _run_chunk(
            program, wanted, rows % trials, (markets, validation), windows=num_windows, asked=asked
        )
        if brought is None:
            return None
        new = int((rows < trials).sum())
        return Trained(rows[:new], *jax.tree.map(lambda leaf: leaf[:new], brought))

    return Program(run, chunk, -(-trials // chunk), planned)


def most_at_once(markets: MarketData) -> int:
    """Trainings that are worth having side by side where `markets` lie."""
    (platform,) = {device.platform for device in markets.features.devices()}
    return MOST_AT_ONCE.get(platform, MOST_ELSEWHERE)


class _Parts(NamedTuple):
    learner: Learner
    backtest: Backtest | None
    validates: bool
    window_updates: int


class _Programs(NamedTuple):
    begin: Any
    window: Any


def evenly(trials: int, chunk: int) -> int:
    """The smallest chunk that needs no more of them than `chunk` does."""
    return -(-trials // -(-trials // chunk))


def _compiled(parts: _Parts, markets, validation, chunk: int) -> tuple[_Programs, int | None]:
    learner = parts.learner

    def begin(seed, market, hyper, data):
        train = _taken(data[0], market)
        state = jax.vmap(learner.init)(jax.vmap(jax.random.key)(seed), train)
        if hyper is not None:
            state = with_hyper(state, hyper)
        none = jnp.full(chunk, -1, jnp.int32)
        best = jax.tree.map(jnp.copy, learner.params(state))
        carry = _Carry(state, best, jnp.full(chunk, -jnp.inf, jnp.float32), none)
        return carry, train, None if data[1] is None else _taken(data[1], market)

    def window(carry: _Carry, number, train, validation):
        state, metrics = jax.vmap(repeated(learner, parts.window_updates))(carry.state, train)
        params = learner.params(state)
        verdict = metrics["verdict"][:, -1] if "verdict" in metrics else jnp.zeros(chunk, jnp.int32)
        healthy = verdict == 0
        growth = jnp.full(chunk, jnp.nan, jnp.float32)
        better = healthy
        if parts.validates:
            growth = jnp.where(healthy, jax.vmap(_growth(parts.backtest))(params, validation), jnp.nan)
            better &= growth > carry.score
        best = jax.tree.map(lambda new, old: jnp.where(_like(better, new), new, old), params, carry.best)
        carry = _Carry(
            state, best, jnp.where(better, growth, carry.score), jnp.where(better, number, carry.window)
        )
        return carry, (growth, metrics["reward"].mean(axis=1), verdict)

    begin = jax.jit(begin)
    rows = jax.ShapeDtypeStruct((chunk,), jnp.uint32), jax.ShapeDtypeStruct((chunk,), jnp.int32)
    shapes = jax.eval_shape(begin, *rows, None, (markets, validation))
    number = jax.ShapeDtypeStruct((), jnp.int32)
    compiled = jax.jit(window, donate_argnums=0).lower(shapes[0], number, *shapes[1:]).compile()
    return _Programs(begin, compiled), planned_bytes(compiled)


def _run_chunk(programs: _Programs, trials: Trials, rows: np.ndarray, data, *, windows: int, asked) -> Any:
    hyper = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], trials.hyper)
    seed, market = jnp.asarray(trials.seed[rows], jnp.uint32), jnp.asarray(trials.market[rows], jnp.int32)
    carry, train, validation = programs.begin(seed, market, hyper, data)
    told = []
    for number in range(windows):
        if asked():
            return None
        carry, metrics = programs.window(carry, jnp.int32(number), train, validation)
        told.append(jax.device_get(metrics))  # which waits, so that `asked` is heard before the next window
    best, chosen = jax.device_get((carry.best, carry.window))
    growth, reward, verdict = (np.stack(each, axis=1) for each in zip(*told, strict=True))
    return best, chosen, growth, reward, verdict[:, -1]


def _taken(markets: MarketData, market: jax.Array) -> MarketData:
    return jax.tree.map(lambda leaf: leaf[market], markets)


def _like(flags: jax.Array, leaf: jax.Array) -> jax.Array:
    return flags.reshape(flags.shape + (1,) * (leaf.ndim - 1))


def _growth(backtest: Backtest | None) -> Callable[[Any, MarketData], jax.Array]:
    """(params, data) -> [] mean log growth per bar up to the slice's stop."""
    assert backtest is not None

    def growth(params, data):
        gain = backtest(params, data).gain
        played = data.env_params.stop - 1 - data.env_params.first
        inside = jnp.arange(gain.shape[0]) < played
        return jnp.where(inside, jnp.log1p(gain), 0.0).sum() / played

    return growth
