"""Generations are committed by their manifest: what is not as it was written is never restored."""

import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ztb_jax.errors import RunError
from ztb_jax.runs import checkpoint, packing


def a_state(number: int) -> dict:
    key = jax.random.key(number)
    return {
        "weights": [jax.random.normal(key, (3, 4)), jnp.ones((2,), jnp.bfloat16) * number],
        "key": key,
        "keys": jax.random.split(key, 3),
        "count": jnp.int32(number),
        "flag": jnp.array([True, False]),
    }


@pytest.fixture
def folder(tmp_path):
    with checkpoint.Checkpoints(tmp_path / "c", keep=3) as writer:
        for number in range(3):
            writer.save(number, {"state": a_state(number)}, {"number": number, "score": 0.1})
    return tmp_path / "c"


def equal(tree, other) -> bool:
    return packing.digests({"": tree}) == packing.digests({"": other})


def damage(folder, number: int, name: str = "_METADATA") -> None:
    path = next((folder / str(number)).rglob(name))
    path.write_bytes(path.read_bytes() + b"!")


def test_what_was_saved_comes_back_to_the_bit(folder):
    restored, passed_over = checkpoint.restore(folder, {"state": a_state(0)})
    assert (restored.generation, restored.plain, passed_over) == (2, {"number": 2, "score": 0.1}, [])
    assert equal(restored.trees["state"], a_state(2))
    assert jnp.issubdtype(restored.trees["state"]["key"].dtype, jax.dtypes.prng_key)
    older, _ = checkpoint.restore(folder, {"state": a_state(0)}, generation=1)
    assert equal(older.trees["state"], a_state(1))


def test_a_save_in_flight_survives_the_donation_of_its_buffers(tmp_path):
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 2 + 1, state), donate_argnums=0)
    state, wanted = {"w": jnp.arange(1 << 20, dtype=jnp.float32), "n": jnp.int32(0)}, []
    with checkpoint.Checkpoints(tmp_path, keep=6) as writer:
        for number in range(5):
            state = step(state)
            wanted.append({name: np.array(leaf) for name, leaf in state.items()})
            writer.save(number, {"state": state}, {})
            state = step(step(state))
    for number, wants in enumerate(wanted):
        restored, _ = checkpoint.restore(tmp_path, {"state": state}, generation=number)
        assert equal(restored.trees["state"], wants)


def test_the_newest_every_so_many_and_the_best_are_kept(tmp_path):
    with checkpoint.Checkpoints(tmp_path, keep=2, every=4) as writer:
        for number in range(8):
            writer.save(number, {"state": {"n": jnp.int32(number)}}, {}, best=min(number, 3))
    assert checkpoint.generations(tmp_path) == [7, 6, 4, 3, 0]


def test_of_one_generation_a_failed_save_would_leave_none(tmp_path):
    with pytest.raises(ValueError, match="keep"):
        checkpoint.Checkpoints(tmp_path, keep=1)


@pytest.mark.parametrize("name", ["_METADATA", "manifest.json", "manifest.ocdbt"])
def test_a_damaged_generation_is_passed_over_and_told(folder, name):
    damage(folder, 2, name)
    restored, passed_over = checkpoint.restore(folder, {"state": a_state(0)})
    assert restored.generation == 1
    assert equal(restored.trees["state"], a_state(1))
    assert len(passed_over) == 1
    assert "generation 2 is damaged" in passed_over[0]


def test_every_file_that_is_wrong_is_named(folder):
    files = [path for path in (folder / "2").rglob("*") if path.is_file() and path.name != "manifest.json"]
    files[0].unlink()
    files[1].write_bytes(b"")
    (folder / "2" / "state" / "foreign").write_text("?")
    told = checkpoint.read_manifest(folder, 2)
    assert isinstance(told, str)
    for path in (*files[:2], folder / "2" / "state" / "foreign"):
        assert path.relative_to(folder / "2").as_posix() in told


def test_a_generation_without_a_manifest_was_never_completed(folder):
    (folder / "2" / "manifest.json").unlink()
    restored, passed_over = checkpoint.restore(folder, {"state": a_state(0)})
    assert restored.generation == 1
    assert "never completed" in passed_over[0]


def test_another_generations_files_under_this_name_are_found(folder):
    shutil.rmtree(folder / "2")
    shutil.copytree(folder / "1", folder / "2")
    assert "is generation 1 under another name" in str(checkpoint.read_manifest(folder, 2))


def test_a_later_version_is_not_mistaken_for_damage(folder):
    path = folder / "2" / "manifest.json"
    body = json.dumps(json.loads(path.read_text().rsplit("\n", 2)[0]) | {"format": 2})
    path.write_text(f"{body}\n{checkpoint.hashlib.sha256(body.encode()).hexdigest()}\n")
    with pytest.raises(RunError, match="later version"):
        checkpoint.newest(folder, {"state": a_state(0)})


def test_without_a_whole_generation_every_reason_is_told(folder, tmp_path):
    for number in range(3):
        damage(folder, number)
    assert checkpoint.newest(folder, {"state": a_state(0)})[0] is None
    with pytest.raises(RunError) as told:
        checkpoint.restore(folder, {"state": a_state(0)})
    assert len(told.value.findings) == 3
    with pytest.raises(RunError, match="no checkpoint"):
        checkpoint.restore(tmp_path / "nowhere", {"state": a_state(0)})


@pytest.mark.parametrize(
    "like", [{"weights": jnp.ones(3)}, a_state(0) | {"count": jnp.zeros((2,))}, a_state(0) | {"more": 0.0}]
)
def test_a_state_of_other_settings_does_not_fit(folder, like):
    with pytest.raises(RunError, match=r"does not fit.* state/(count|more|flag)"):
        checkpoint.restore(folder, {"state": like})


def test_room_is_made_and_what_is_damaged_is_kept_aside(folder):
    damage(folder, 2)
    (folder / "3").mkdir()
    checkpoint.put_aside(folder, 1)
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1", "damaged-2-1"]
    with checkpoint.Checkpoints(folder, keep=3) as writer:
        writer.save(2, {"state": a_state(2)}, {})
    assert equal(checkpoint.restore(folder, {"state": a_state(0)})[0].trees["state"], a_state(2))


def test_chains_tell_any_difference_before_them():
    rows = [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    chain = packing.chained(packing.chained("", rows[0]), rows[1])
    other = packing.chained(packing.chained("", rows[0] | {"b": "0"}), rows[1])
    assert chain != other
    assert chain == packing.chained(packing.chained("", dict(reversed(rows[0].items()))), rows[1])


FULL = """
import sys, jax.numpy as jnp
from pathlib import Path
from ztb_jax.runs import checkpoint, packing
folder = Path(sys.argv[1])
small, large = jnp.arange(1000.0), {str(n): jnp.arange(n, n + 400_000.0) ** 0.5 for n in range(8)}
with checkpoint.Checkpoints(folder, keep=2) as writer:
    writer.save(0, {"state": {"w": small}}, {})
    writer.wait()
    try:
        writer.save(1, {"state": large}, {})
        writer.wait()
    except OSError as error:
        print("told:", error)
restored, passed_over = checkpoint.restore(folder, {"state": {"w": small}})
print("restored", restored.generation)
"""


def test_on_a_full_disk_the_save_fails_aloud_and_the_last_generation_stands(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        done = subprocess.run(
            [sys.executable, "-c", FULL, str(disk / "c")],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert "told:" in done.stdout, done.stderr[-2000:]
    assert "restored 0" in done.stdout, done.stderr[-2000:]


def test_a_generation_that_is_removed_while_it_is_read_is_passed_over(folder, monkeypatch):
    """The writer of a run keeps only so many, and `ztb evaluate` may read meanwhile."""
    real = checkpoint.read_manifest

    def late(place, number):
        if number == 2:
            shutil.rmtree(folder / "2")
            raise FileNotFoundError(folder / "2")
        return real(place, number)

    monkeypatch.setattr(checkpoint, "read_manifest", late)
    restored, passed_over = checkpoint.restore(folder, {"state": a_state(0)})
    assert restored.generation == 1
    assert passed_over == ["generation 2 was removed while it was read"]
