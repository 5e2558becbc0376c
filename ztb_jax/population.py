"""Many learners as one program: sweeps, population-based training, and as many at once as memory holds.

Axes: P members. The market is shared; keys and hyperparameters are each member's own.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ztb_jax.learner import Learner
from ztb_jax.policies.play import Play
from ztb_jax.runs.loop import compile_window, planned_bytes

Draw = Callable[[jax.Array, int], jax.Array]
Vary = Mapping[str, Draw | Any]


def uniform(low: float, high: float) -> Draw:
    """(key, P) -> [P] float32 between `low` and `high`."""
    return lambda key, size: jax.random.uniform(key, (size,), jnp.float32, low, high)


def log_uniform(low: float, high: float) -> Draw:
    """(key, P) -> [P] float32 whose logarithm is uniform between those of `low` and `high`, both above 0."""
    if not 0.0 < low <= high:
        raise ValueError(f"log_uniform needs 0 < low <= high, got {low} and {high}")
    inner = uniform(float(np.log(low)), float(np.log(high)))
    return lambda key, size: jnp.exp(inner(key, size))


def choice(values: Any) -> Draw:
    """(key, P) -> [P, ...] float32, each member one of `values` [K, ...], such as a list of schedules."""

    def draw(key, size):
        options = jnp.asarray(values, jnp.float32)
        return options[jax.random.randint(key, (size,), 0, options.shape[0])]

    return draw


def populate(learner: Learner, size: int, vary: Vary | None = None) -> Learner:
    """`size` members of `learner` in one program; state and metrics gain a leading [P].

    Member i begins as the single run with the key `fold_in(key, i)` does, but for what is varied.

    Args:
      learner: whose state has `hyper`, a record of numbers, behind a gate or not.
      size: P.
      vary: by name of a hyperparameter or schedule, [P, ...] values or a draw of them, such as
        `log_uniform(1e-4, 1e-2)`.

    Raises:
      ValueError: no member. From `init`: a name that is no number of this learner, or values of another
        shape, all findings at once.
    """
    if size < 1:
        raise ValueError(f"a population needs at least one member, got {size}")
    return Learner(
        init=lambda key, data: _begin(learner, vary or {}, size, (key, jnp.arange(size)), data),
        step=jax.vmap(learner.step, in_axes=(0, None)),
        params=learner.params,
        env_steps=size * learner.env_steps,
    )


def member(state: Any, index: int) -> Any:
    """The state of one member, as the single learner has it."""
    return jax.tree.map(lambda leaf: leaf[index], state)


def hyper_of(state: Any) -> Any:
    """The record of numbers in a learner's state, behind gates or not.

    Raises:
      ValueError: there is none.
    """
    if hasattr(state, "hyper"):
        return state.hyper
    if hasattr(state, "learner"):
        return hyper_of(state.learner)
    raise ValueError(f"a state of type {type(state).__name__} has no `hyper` that members could differ in")


def with_hyper(state: Any, hyper: Any) -> Any:
    """`state` with another record of numbers, behind gates or not."""
    if hasattr(state, "hyper"):
        return state.replace(hyper=hyper)
    return state.replace(learner=with_hyper(state.learner, hyper))


def _begin(learner: Learner, vary: Vary, size: int, drawn: tuple[jax.Array, jax.Array], data: Any) -> Any:
    """The first states of the members `drawn[1]`, of `size` in all, by the key `drawn[0]`."""
    key, members = drawn
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, members)
    state = jax.vmap(learner.init, in_axes=(0, None))(keys, data)
    if not vary:
        return state
    # Beyond the members' keys; a hash of the name, so that one draw does not depend on the others.
    key = jax.random.fold_in(key, size)
    values: dict[str, Any] = {
        name: wanted(jax.random.fold_in(key, zlib.crc32(name.encode())), size)
        if callable(wanted)
        else jnp.asarray(wanted, jnp.float32)
        for name, wanted in vary.items()
    }
    hyper = hyper_of(state)
    _check_values(hyper, values, size)
    mine = {name: value[members] for name, value in values.items()}
    return with_hyper(state, hyper.replace(**mine))


def _check_values(hyper: Any, values: Mapping[str, Any], size: int) -> None:
    findings = []
    for name, value in values.items():
        now = getattr(hyper, name, None)
        if now is None:
            there = [known for known in hyper.__dataclass_fields__ if getattr(hyper, known) is not None]
            findings.append(f"{name} is no number of this learner; its numbers are {', '.join(there)}")
        elif value.shape != (size, *now.shape[1:]):
            findings.append(f"{name} must be {(size, *now.shape[1:])}, got {value.shape}")
    if findings:
        raise ValueError("; ".join(findings))


class Evolving(struct.PyTreeNode):
    """A population under selection.

    Attributes:
      population: the members' states.
      key: [] typed key.
      fitness: [P] float32, mean of the metric since the last selection.
      count: [] int32, updates since then.
    """

    population: Any
    key: jax.Array
    fitness: jax.Array
    count: jax.Array


# What explores by default. A factor on a decay moves what it forgets: 1 - gamma is one over the horizon.
EXPLORED = ("learning_rate", "entropy_weight", "clip", "gamma")
DECAYS = ("gamma", "lam", "beta1", "beta2")


def evolve(
    learner: Learner,
    *,
    every: int,
    fitness: str = "reward",
    share: float = 0.25,
    perturb: tuple[float, float] = (0.8, 1.25),
    explored: Sequence[str] = EXPLORED,
) -> Learner:
    """Population-based training of a population, in the same program.

    After `every` updates the worst `share` of the members take over weights, moments and numbers of the
    best, rank by rank, and multiply some of the numbers by either factor of `perturb`, drawn for each; of a
    decay 1 - gamma is multiplied. Accounts and keys stay each member's own. A member whose fitness is not
    finite, or that a gate has frozen, is the worst.

    Metrics gain `fitness` [P] and `source` [P] int32: whose state each member went on from, its own number in
    all but updates of selection.

    Args:
      learner: from `populate`.
      every: updates between selections.
      fitness: metric whose mean ranks the members, high is good.
      share: of the members, at most a half; at least one member is replaced.
      perturb: the two factors.
      explored: names of numbers that are perturbed.

    Raises:
      ValueError: numbers out of range. From `init` and `step`: less than two members, or a name that is no
        number or metric.

    Source: Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846; its truncation selection, with the pairs
    made by rank instead of by chance.
    """
    if every < 1 or not 0.0 < share <= 0.5 or min(perturb) <= 0.0:
        raise ValueError(
            f"every ({every}) must be at least 1, share ({share}) within (0, 0.5] and the factors of perturb "
            f"({perturb}) above 0"
        )

    def init(key, data):
        state = learner.init(key, data)
        hyper = hyper_of(state)
        unknown = [name for name in explored if getattr(hyper, name, None) is None]
        size = jax.tree.leaves(hyper)[0].shape[0]
        if unknown or size < 2:
            raise ValueError(f"{size} members, of which two are needed; no numbers: {unknown}")
        mine = jax.random.fold_in(key, zlib.crc32(b"evolve"))
        return Evolving(state, mine, jnp.zeros(size, jnp.float32), jnp.int32(0))

    def step(state, data):
        population, metrics = learner.step(state.population, data)
        if fitness not in metrics:
            raise ValueError(f"there is no metric {fitness!r} to rank by: take one of {', '.join(metrics)}")
        count = state.count + 1
        mean = state.fitness + (metrics[fitness] - state.fitness) / count.astype(jnp.float32)
        key, mine = jax.random.split(state.key)
        due = count == every
        itself = jnp.arange(mean.shape[0])
        source = jnp.where(due, selected(_ranked(mean, metrics), share=share), itself)

        def select(population):
            return _perturbed(mine, _copied(population, source), source != itself, perturb, explored)

        population = jax.lax.cond(due, select, lambda population: population, population)
        after = Evolving(
            population, key, jnp.where(due, 0.0, mean), jnp.where(due, 0, count).astype(jnp.int32)
        )
        return after, metrics | {"fitness": mean, "source": source}

    return Learner(init, step, lambda state: learner.params(state.population), learner.env_steps)


def selected(fitness: jax.Array, *, share: float) -> jax.Array:
    """[P] int32 whom each member copies: the worst `share` the best, rank by rank; all others themselves."""
    size = fitness.shape[0]
    count = max(1, int(share * size))
    best_first = jnp.argsort(-fitness, stable=True)
    return jnp.arange(size).at[best_first[size - count :]].set(best_first[:count])


def _ranked(fitness: jax.Array, metrics: Mapping[str, jax.Array]) -> jax.Array:
    alive = jnp.isfinite(fitness)
    if "verdict" in metrics:
        alive = alive & (metrics["verdict"] == 0)
    return jnp.where(alive, fitness, -jnp.inf)


def _copied(population: Any, source: jax.Array) -> Any:
    """Everything of the sources but their accounts and keys."""

    def own(node):
        return isinstance(node, Play)

    def copy(node):
        if own(node) or jnp.issubdtype(node.dtype, jax.dtypes.prng_key):
            return node
        return node[source]

    return jax.tree.map(copy, population, is_leaf=own)


def _perturbed(key: jax.Array, population: Any, moved: jax.Array, factors: Any, names: Sequence[str]) -> Any:
    hyper = hyper_of(population)
    for name, name_key in zip(names, jax.random.split(key, len(names)), strict=True):
        value = getattr(hyper, name)
        factor = jnp.where(jax.random.bernoulli(name_key, shape=moved.shape), *map(jnp.float32, factors))
        new = 1.0 - jnp.minimum((1.0 - value) * factor, 1.0) if name in DECAYS else value * factor
        hyper = hyper.replace(**{name: jnp.where(moved, new, value)})
    return with_hyper(population, hyper)


class Plan(NamedTuple):
    """How many members run at once.

    Attributes:
      fixed_bytes: of the program whatever it holds, the market above all.
      member_bytes: of each member.
      members: at once.
    """

    fixed_bytes: int
    member_bytes: int
    members: int


def plan(learner: Learner, data: Any, size: int, memory_bytes: int) -> Plan:
    """How many of `size` members of `learner` fit into `memory_bytes` at once.

    Programs of two and of four members are compiled, not run, and what they hold is drawn out in a line; one
    member is compiled otherwise, without the batch axis. `devices.available_bytes` tells what a device has.

    Raises:
      ValueError: not one member fits, or this backend does not tell what a program holds.
    """
    two, four = (_bytes_of(learner, data, members) for members in (2, 4))
    each = max((four - two) // 2, 1)
    fixed = max(two - 2 * each, 0)
    fitting = (memory_bytes - fixed) // each
    if fitting < 1:
        raise ValueError(
            f"one member needs {fixed + each:,} bytes and there are {memory_bytes:,}: lower num_accounts or "
            "rollout_bars"
        )
    return Plan(fixed, each, min(size, fitting))


def _bytes_of(learner: Learner, data: Any, members: int) -> int:
    population = populate(learner, members)
    shapes = jax.eval_shape(population.init, jax.random.key(0), data)
    told = planned_bytes(compile_window(population, shapes, data, num_updates=1))
    if told is None:
        raise ValueError("this backend does not tell what a program holds: choose the members by hand")
    return told


class Sweep(NamedTuple):
    """What `train_in_chunks` brought, on the host.

    Attributes:
      params: weights [P, ...].
      hyper: the record of numbers [P, ...].
      metrics: [updates, P] by name.
    """

    params: Any
    hyper: Any
    metrics: dict[str, np.ndarray]


def train_in_chunks(
    learner: Learner,
    data: Any,
    *,
    key: jax.Array,
    size: int,
    members: int,
    num_updates: int,
    vary: Vary | None = None,
) -> Sweep:
    """Train `populate(learner, size, vary)` for `num_updates`, `members` of it at a time.

    Chunks have the same size, so that they share one program: the last one is filled up with members that
    were there before. Members do not see each other, so chunks do not change what becomes of them.
    """

    def init(members, data):
        return _begin(learner, vary or {}, size, (key, members), data)

    chunk = populate(learner, members)
    every = np.arange(-(-size // members) * members, dtype=np.int32) % size
    init = jax.jit(init)
    shapes = jax.eval_shape(init, jnp.asarray(every[:members]), data)
    window = compile_window(chunk, shapes, data, num_updates=num_updates)
    brought = []
    for part in every.reshape(-1, members):
        state, metrics = window(init(jnp.asarray(part), data), data)
        brought.append(jax.device_get((learner.params(state), hyper_of(state), metrics)))
    params, hyper, metrics = zip(*brought, strict=True)
    return Sweep(_joined(params, 0, size), _joined(hyper, 0, size), _joined(metrics, 1, size))


def _joined(parts: Sequence[Any], axis: int, size: int) -> Any:
    return jax.tree.map(
        lambda *leaves: np.take(np.concatenate(leaves, axis), np.arange(size), axis=axis), *parts
    )
