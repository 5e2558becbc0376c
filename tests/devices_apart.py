"""Trains on several devices, for `test_parallel`: device counts are settled when a process starts.

    python -m tests.devices_apart devices FILE
    python -m tests.devices_apart process FILE ADDRESS NUMBER

Writes weights and metrics to FILE (.npz), as NAME/DEVICES/....
"""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
UPDATES = 3


def run(learner, mesh, spread, data):
    """Weights and metrics [UPDATES] of `learner`, spread over `mesh` or, without one, as it is."""
    import jax

    from ztb_jax import parallel

    if mesh is not None:
        learner, data = spread(learner, mesh), parallel.replicated(data, mesh)

    def window(state, data):
        return jax.lax.scan(lambda state, _: learner.step(state, data), state, length=UPDATES)

    state, metrics = jax.jit(window)(jax.jit(learner.init)(jax.random.key(0), data), data)
    return learner.params(state), metrics


def numbers(name, trained):
    """{name/...: array} of weights and metrics that are on this process's devices, whole or only its part."""
    import jax
    import numpy as np

    params, metrics = trained
    rows = {f"{name}/{key}": value for key, value in metrics.items()}
    rows |= {
        f"{name}/params{jax.tree_util.keystr(k)}": v for k, v in jax.tree_util.tree_leaves_with_path(params)
    }
    return {key: np.asarray(value) for key, value in rows.items()}


def cases():
    """(name, numbers of devices, axis -> learner, how it is spread)."""
    from tests.ppo.cases import network
    from tests.ppo.test_learner import POLICY, ROLLOUT, learner
    from ztb_jax import gates, parallel
    from ztb_jax.policies import transforms
    from ztb_jax.population import evolve, log_uniform, populate

    def scaled(axis):
        policy = transforms.popart_values(POLICY, axis_name=axis)
        policy = transforms.normalised(policy, num_features=1, account_size=2, axis_name=axis)
        learnt = learner(policy=policy, axis_name=axis, normalise_rewards=True, advantage="batch")
        return gates.gated(learnt, gates.finite("loss"))

    def remembering(axis):
        # Few enough groups that each encodes its own stretch of bars.
        return learner(policy=network(encoder="gru", grid=ROLLOUT), axis_name=axis, num_accounts=16)

    def members(axis):
        del axis
        return populate(learner(), 4, {"learning_rate": log_uniform(1e-4, 1e-2)})

    def evolving(members, mesh):
        return evolve(parallel.sharded_members(members, mesh), every=2)

    return [
        ("plain", (0, 2, 8), lambda axis: learner(axis_name=axis), parallel.sharded),
        ("scaled", (0, 2), scaled, parallel.sharded),
        ("gru", (0, 2), remembering, parallel.sharded),
        ("segments", (2,), lambda axis: learner(axis_name=axis, shuffle="segments"), parallel.sharded),
        ("members", (1, 2), members, evolving),
    ]


def devices(file):
    """Every case on each of its numbers of devices, 0 being the plain learner without a mesh."""
    import jax
    import numpy as np

    from tests.ppo.test_learner import DATA
    from ztb_jax import parallel

    found = {}
    for name, counts, make, spread in cases():
        for count in counts:
            mesh = parallel.make_mesh(jax.devices()[:count]) if count else None
            learner = make(parallel.AXIS if count else None)
            found |= numbers(f"{name}/{count}", run(learner, mesh, spread, DATA))
    np.savez(file, **found)  # pyright: ignore[reportArgumentType]


def process(file, address, number):
    """The plain case on the two devices of two processes, of which this is one."""
    import jax

    jax.distributed.initialize(address, num_processes=2, process_id=int(number))
    import numpy as np

    from tests.ppo.test_learner import DATA
    from ztb_jax import parallel

    assert (jax.process_count(), len(jax.devices()), len(jax.local_devices())) == (2, 2, 1)
    _, _, make, spread = cases()[0]
    np.savez(file, **numbers("plain/2", run(make(parallel.AXIS), parallel.make_mesh(), spread, DATA)))


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    # Programs run three updates: compiling is all of the time.
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={8 if kind == 'devices' else 1} "
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    )
    {"devices": devices, "process": process}[kind](*arguments)
