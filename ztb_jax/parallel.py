"""One learner, or a population, on several devices: of this process or of many.

Accounts, or members, are spread over the axis of a mesh; weights, numbers, keys and the market are on every
device.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ztb_jax.learner import Learner
from ztb_jax.policies.play import Play
from ztb_jax.ppo.learner import RewardScale

AXIS = "devices"


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of one axis, `AXIS`, over `devices`; None is all devices of all processes."""
    chosen = np.array(jax.devices() if devices is None else devices)
    return Mesh(chosen, (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def sharded(learner: Learner, mesh: Mesh) -> Learner:
    """`learner` with its accounts spread over the devices of `mesh`.

    All devices together play and learn what one device would, up to the rounding of sums: the state begins as
    on one device, and randomness is drawn for all accounts. Minibatches are the same, too, when both ask
    for `shuffle="accounts"`; the other shuffles deal each device's own groups, so that nothing travels but
    gradients, moments and metrics.

    Args:
      learner: PPO with `Options(axis_name=parallel.AXIS)`, behind a gate or not. Its sizes are of all devices
        together.
      mesh: from `make_mesh`.

    Raises:
      ValueError: from `step`, when the devices do not divide the groups of accounts, or minibatches their
        part.
    """
    return _spread(learner, mesh, _accounts, metrics=P())


def sharded_members(learner: Learner, mesh: Mesh) -> Learner:
    """A population whose members are spread over the devices of `mesh`; nothing travels between them.

    `evolve` goes around it: `evolve(sharded_members(populate(...), mesh), ...)`.

    Args:
      learner: from `ztb_jax.population.populate`, of a multiple of the devices.
      mesh: from `make_mesh`.

    Raises:
      ValueError: from `step`, when the devices do not divide the members.
    """
    return _spread(learner, mesh, _members, metrics=P(AXIS))


def _spread(learner: Learner, mesh: Mesh, specs: Callable[[Any], Any], *, metrics: P) -> Learner:
    def init(key, data):
        state = learner.init(key, data)
        return jax.lax.with_sharding_constraint(state, _on(mesh, specs(state)))

    def step(state, data):
        over = specs(state)
        return jax.shard_map(
            learner.step,
            mesh=mesh,
            in_specs=(over, P()),
            out_specs=(over, metrics),
            # Members give nothing that should be equal everywhere, and the check trips over a batched `cond`.
            check_vma=metrics == P(),
        )(state, data)

    return learner._replace(init=init, step=step)


def replicated(tree: Any, mesh: Mesh) -> Any:
    """`tree`, such as the market, on every device of `mesh`, so that no call has to send it there.

    With several processes each gives the same values.
    """
    return jax.device_put(tree, NamedSharding(mesh, P()))


def shapes_on(mesh: Mesh, state: Any) -> Any:
    """The shapes of the state of a learner from `sharded`, each with its place, as `compile_window` wants."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state,
        _on(mesh, _accounts(state)),
    )


def _accounts(state: Any) -> Any:
    """For every leaf of a state: accounts are spread by their group, the first axis; nothing else is."""

    def spec(node):
        if isinstance(node, Play):
            return jax.tree.map(lambda leaf: P(AXIS), node)
        if isinstance(node, RewardScale):
            return node.replace(running=P(AXIS), moments=jax.tree.map(lambda leaf: P(), node.moments))
        return P()

    return jax.tree.map(spec, state, is_leaf=lambda node: isinstance(node, Play | RewardScale))


def _members(state: Any) -> Any:
    return jax.tree.map(lambda leaf: P(AXIS), state)


def _on(mesh: Mesh, specs: Any) -> Any:
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda node: isinstance(node, P)
    )
