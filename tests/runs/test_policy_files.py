"""A policy in one file: what NumPy reads of it, and what is refused."""

import json
import zipfile

import numpy as np
import pytest

from ztb_jax.errors import FormatError, RunError
from ztb_jax.runs import directory, policy_files

HEADER = {
    "run_id": "r",
    "window_id": 3,
    "env_steps_total": 40,
    "trainer_backend": "ppo",
    "created_at": "now",
    "policy_arch": "mlp-8-tanh-v1",
    "obs_shape": [10],
    "n_actions": 3,
    "num_features": 2,
    "config": {},
}
WEIGHTS = {
    "params/actor/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "params/one": np.array(2.0, np.float32),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ckpt_000003.pt"


def test_what_is_written_is_read(path):
    policy_files.write(path, HEADER, WEIGHTS)
    header, weights = policy_files.read(path)
    assert header == {"checkpoint_format": "ppo_jax_v1", **HEADER}
    assert weights is not None
    assert weights.keys() == WEIGHTS.keys()
    for name, values in WEIGHTS.items():
        np.testing.assert_array_equal(weights[name], values)
        assert weights[name].shape == values.shape


def test_numpy_reads_it_alone(path):
    policy_files.write(path, HEADER, WEIGHTS)
    with np.load(path) as file:
        np.testing.assert_array_equal(file["weights/params/actor/kernel"], WEIGHTS["params/actor/kernel"])
        assert json.loads(file["header.json"])["window_id"] == 3


def test_equal_policies_are_equal_files(tmp_path):
    paths = [tmp_path / name for name in ("a.pt", "b.pt")]
    for each in paths:
        policy_files.write(each, HEADER, WEIGHTS)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_policy_without_weights_is_json(path):
    policy_files.write(path, HEADER, None)
    assert json.loads(path.read_text())["checkpoint_format"] == "json_v1"
    assert policy_files.read(path) == ({"checkpoint_format": "json_v1", **HEADER}, None)


def of_torch(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"pickled")


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", b"")


def header_of(weights, **changes):
    return lambda path: policy_files.write(path, HEADER | changes, weights)


def lacking(path):
    policy_files.write(path, {name: HEADER[name] for name in HEADER if name != "obs_shape"}, WEIGHTS)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (of_torch, "ppo_torch_v1.*train again"),
        (other_zip, "without header.json"),
        (header_of(None, checkpoint_format="ppo_torch_v1"), "says it is 'ppo_torch_v1'"),
        (header_of(WEIGHTS, checkpoint_format="ppo_jax_v2"), "says it is 'ppo_jax_v2'"),
        (lacking, "lacks obs_shape"),
        (lambda path: path.write_text("[]"), "not an object"),
    ],
)
def test_other_formats_are_refused(path, make, told):
    make(path)
    with pytest.raises(FormatError, match=told):
        policy_files.read(path)
    with pytest.raises(ValueError, match=told):
        policy_files.read(path)


@pytest.mark.parametrize("cut", [slice(0, 5), slice(0, -9), slice(0, 0)])
def test_damage_is_told(path, cut):
    policy_files.write(path, HEADER, WEIGHTS)
    path.write_bytes(path.read_bytes()[cut])
    with pytest.raises(RunError, match="damaged"):
        policy_files.read(path)


def test_a_changed_weight_is_told(path):
    policy_files.write(path, HEADER, WEIGHTS)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(np.float32(5.0).tobytes(), np.float32(6.0).tobytes()))
    with pytest.raises(RunError, match="damaged"):
        policy_files.read(path)


def test_policies_of_windows_that_are_made_again_are_forgotten(tmp_path):
    run = directory.RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    for window in (0, 7, 10, 1_000_000):
        policy_files.write(policy_files.path_of(run, window), HEADER, None)
    assert [path.name for path in policy_files.paths(run)][-1] == "ckpt_1000000.pt"
    (run.checkpoints / "ckpt_best.pt").write_text("somebody's own")
    policy_files.forget(run, after=7, every=1)
    assert [policy_files.window_of(path) for path in policy_files.paths(run)] == [0, 7]
    policy_files.forget(run, after=7, every=2)
    assert [policy_files.window_of(path) for path in policy_files.paths(run)] == [0]
    assert (run.checkpoints / "ckpt_best.pt").is_file()
