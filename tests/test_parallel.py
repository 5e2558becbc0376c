"""Runs on several devices, and of several processes, are the run on one: accounts, gradients and weights."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.ppo.test_learner import DATA, learner
from ztb_jax import devices, parallel
from ztb_jax.config import Config, resolve
from ztb_jax.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
# What sums in another order may differ by: a return, a gradient's norm, weights after 24 steps of Adam.
TOLERANCE = {"reward": 1e-7, "grad_norm": 1e-5, "params": 2e-5}


def start(*arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.devices_apart", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> None:
    told, _ = process.communicate(timeout=900)
    assert process.returncode == 0, told[-4000:]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, np.ndarray]:
    file = tmp_path_factory.mktemp("devices") / "found.npz"
    finish(start("devices", file))
    return dict(np.load(file))


def compare(one, other, *, found, others=None):
    """Every number of `one` against the same of `other`."""
    others = found if others is None else others
    names = [name.removeprefix(one) for name in found if name.startswith(f"{one}/")]
    assert any("params" in name for name in names)
    for name in names:
        kind = next((kind for kind in TOLERANCE if name.startswith(f"/{kind}")), None)
        # Metrics not named: mean losses and the like, of order one; sums count thousands of steps.
        rtol, atol = (1e-4, 1e-4) if kind is None else (0.0, TOLERANCE[kind])
        np.testing.assert_allclose(
            found[one + name], others[other + name], rtol=rtol, atol=atol, err_msg=name
        )


@pytest.mark.parametrize("count", [2, 8])
def test_accounts_spread_over_devices_learn_what_one_device_learns(found, count):
    compare(f"plain/{count}", "plain/0", found=found)
    assert len(set(found["plain/0/reward"].tolist())) > 1


def test_normalisers_of_rewards_values_and_features_are_of_all_devices(found):
    compare("scaled/2", "scaled/0", found=found)
    assert np.abs(found["scaled/0/value_loss"] - found["plain/0/value_loss"]).max() > 1e-3


def test_a_memory_of_the_bars_runs_on_every_device(found):
    compare("gru/2", "gru/0", found=found)


def test_groups_are_dealt_on_their_own_device(found):
    np.testing.assert_allclose(found["segments/2/reward"][0], found["plain/0/reward"][0], atol=1e-7)
    assert np.isfinite(found["segments/2/grad_norm"]).all()
    assert found["segments/2/param_norm"][-1] != found["plain/0/param_norm"][-1]


def test_members_spread_over_devices_evolve_as_on_one(found):
    assert found["members/2/reward"].shape == (3, 4)
    np.testing.assert_array_equal(found["members/2/source"], found["members/1/source"])
    assert (found["members/2/source"][1] != np.arange(4)).sum() == 1
    compare("members/2", "members/1", found=found)


def test_two_processes_end_with_the_weights_of_one(found, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    files = [tmp_path / f"{number}.npz" for number in range(2)]
    running = [start("process", file, address, number) for number, file in enumerate(files)]
    for process in running:
        finish(process)
    ours, theirs = (dict(np.load(file)) for file in files)
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    compare("plain/2", "plain/2", found=ours, others=found)


def test_a_mesh_that_does_not_divide_the_groups_is_refused():
    axis = jax.sharding.AbstractMesh((3,), (parallel.AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    spread = parallel.sharded(learner(axis_name=parallel.AXIS), axis)  # pyright: ignore[reportArgumentType]
    state = jax.eval_shape(learner().init, jax.random.key(0), DATA)
    with pytest.raises(ValueError, match=r"not evenly divisible|evenly over 3"):
        jax.eval_shape(spread.step, state, DATA)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"run.devices": 3}, "take 1032"),
        ({"run.devices": 2, "run.device": "cpu:1"}, "drop its number"),
        (
            {"run.devices": 2, "ppo.num_accounts": 48, "ppo.sharing": 3, "ppo.num_minibatches": 16},
            "with 24 accounts on each of run.devices .2., ppo.num_minibatches .16. divides neither",
        ),
        ({"run.devices": -1}, "run.devices"),
    ],
)
def test_devices_that_cannot_share_evenly_are_refused(flags, told):
    with pytest.raises(ConfigError, match=told):
        resolve(flags=flags, environ={})


def test_more_devices_than_there_are_is_refused():
    one = devices.choose("cpu")
    assert devices.together(one, Config().run.devices) == [one]
    assert devices.together(one, 0) == jax.devices("cpu")
    with pytest.raises(ConfigError, match=r"run\.devices: 4096 were asked for"):
        devices.together(one, 4096)
