"""Whatever happens to a save, a process or a file: what was awaited is there, nothing half done is read."""

import shutil
import subprocess
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from tests.utils.states import damage, everything, quietly, said, same, save, script
from ztb_jax.errors import RunError
from ztb_jax.runs import checkpoint
from ztb_jax.utils import CheckpointManager


def test_what_was_awaited_outlives_the_process(tmp_path):
    code = (
        "m = CheckpointManager(sys.argv[1])\n"
        "async def main():\n"
        "    print(await m.save_async({'w': np.arange(5)}, 'exp_001'), flush=True)\n"
        "    os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    assert said(script(code, tmp_path), status=9) == "1\n"
    assert same(CheckpointManager(tmp_path).load(), {"w": np.arange(5)})


def test_a_crash_within_a_save_leaves_the_generation_before(three):
    code = (
        "from ztb_jax.runs import checkpoint\n"
        "checkpoint._commit = lambda *rest: os._exit(9)\n"
        "m = CheckpointManager(sys.argv[1], 3)\n"
        "asyncio.run(m.save_async({'w': np.arange(5)}, 'exp_001'))\n"
    )
    said(script(code, three.base_path), status=9)
    folder = three.base_path / "exp_001"
    assert (folder / "4").is_dir()
    loaded, told = quietly(three.restore)
    assert (loaded.generation, loaded.state["step"]) == (3, 3)
    assert loaded.passed_over == ["generation 4 was never completed"]
    assert "generation 4 was never completed. Generation 3 was loaded instead" in told[0]
    assert three.cleanup_old_generations() == [folder / "4"]
    assert three.generations("exp_001") == [3, 2, 1]


@pytest.mark.parametrize("most", [1, 3])
def test_a_save_that_fails_costs_none_that_was_there(three, monkeypatch, most):
    three.max_generations = most

    def full(*rest):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint, "_commit", full)
    with pytest.raises(OSError, match="no space left"):
        save(three, ({"step": 4}, "exp_001"))
    monkeypatch.undo()
    assert three.generations("exp_001") == checkpoint.generations(three.base_path / "exp_001") == [3, 2, 1]
    assert save(three, ({"step": 4}, "exp_001")) == [4]


FULL = """
m = CheckpointManager(sys.argv[1], 1)
async def main():
    await m.save_async({"w": np.arange(1000.0)}, "a")
    try:
        await m.save_async({"w": np.random.default_rng(0).random(1_000_000)}, "a")
    except OSError as error:
        print("told")
    print(m.restore().generation, await m.save_async({"w": 2}, "a"))
asyncio.run(main())
"""


def test_on_a_full_disk_the_only_generation_stands(tmp_path):
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        assert said(script(FULL, tmp_path / "c")) == "told\n1 2\n"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("name", ["_METADATA", "manifest.json", "manifest.ocdbt"])
def test_a_damaged_generation_is_passed_over_and_told(three, name):
    damage(three.base_path / "exp_001" / "3", name)
    with pytest.warns(
        UserWarning, match="generation 3 is damaged: .*Generation 2 was loaded instead"
    ) as caught:
        assert three.load("exp_001")["step"] == 2
    assert caught[0].filename == __file__
    loaded, _ = quietly(three.restore)
    assert loaded.generation == 2
    assert "generation 3 is damaged" in loaded.passed_over[0]
    assert three.load(generation=1)["step"] == 1
    with pytest.raises(RunError, match=r"generation 3 is damaged.*without `generation`"):
        three.load(generation=3)


def test_where_all_are_damaged_every_one_is_told(three):
    for number in (1, 2, 3):
        damage(three.base_path / "exp_001" / str(number))
    with pytest.raises(RunError) as told:
        three.load()
    assert len(told.value.findings) == 3


def test_processes_that_write_to_one_folder_wait_for_each_other(tmp_path):
    code = (
        "m = CheckpointManager(sys.argv[1], 100)\n"
        "for n in range(4):\n"
        "    name = 'exp_%d' % (n % 2)\n"
        "    print(asyncio.run(m.save_async({'by': sys.argv[2], 'n': n}, name)), name, n)\n"
    )
    writers = {name: script(code, tmp_path, name) for name in ("one", "two")}
    rows = [(name, *line.split()) for name, writer in writers.items() for line in said(writer).splitlines()]
    assert sorted(int(number) for _, number, _, _ in rows) == list(range(1, 9))
    manager = CheckpointManager(tmp_path)
    for name, number, experiment, n in rows:
        assert manager.load(experiment, int(number)) == {"by": name, "n": int(n)}


def test_a_reader_beside_a_writer_always_finds_a_whole_generation(tmp_path):
    manager, reader = (CheckpointManager(tmp_path, max_generations=1) for _ in range(2))
    save(manager, (np.full(1000, 0), "exp_001"))
    writing = threading.Thread(
        target=lambda: save(manager, *((np.full(1000, n), "exp_001") for n in range(1, 9)))
    )
    writing.start()
    seen = []
    while writing.is_alive():
        state = reader.load()
        assert (state == state[0]).all()
        seen.append(int(state[0]))
    writing.join()
    assert seen == sorted(seen)
    assert reader.load()[0] == 8


@pytest.mark.parametrize(("most", "stay"), [(1, [1]), (2, [3, 1]), (3, [3, 2, 1])])
def test_cleaning_up_never_removes_the_last_whole_generation(three, most, stay):
    damage(three.base_path / "exp_001" / "3")
    damage(three.base_path / "exp_001" / "2", "manifest.json")
    three.max_generations = most
    three.cleanup_old_generations()
    assert three.generations("exp_001") == stay
    assert quietly(three.load)[0]["step"] == 1


def test_checkpoints_of_other_programs_are_left_alone(manager):
    manager.base_path.mkdir()
    with checkpoint.Checkpoints(manager.base_path / "run", keep=9) as writer:
        for number in range(5):
            writer.save(number, {"carry": {"w": jnp.ones(3)}}, {"window": number})
    before = everything(manager.base_path)
    for use in (
        lambda: save(manager, (1, "run")),
        manager.cleanup_old_generations,
        lambda: manager.load("run"),
    ):
        with pytest.raises(RunError, match="is a checkpoint of another program"):
            use()
    assert everything(manager.base_path).items() >= before.items()
    assert checkpoint.generations(manager.base_path / "run") == [4, 3, 2, 1, 0]


def test_a_later_version_is_not_mistaken_for_damage(manager, monkeypatch):
    monkeypatch.setattr("ztb_jax.utils.generations.VERSION", 2)
    save(manager, (1, "exp_001"))
    monkeypatch.undo()
    with pytest.raises(RunError, match="later version"):
        manager.load()


def test_a_copy_without_the_lock_is_read(three, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(three.base_path, copied, ignore=shutil.ignore_patterns(".*"))
    assert CheckpointManager(copied).load()["step"] == 3
    assert not list(copied.glob(".*"))


def test_a_folder_of_somebody_else_is_left_alone_though_its_name_is_a_number(manager):
    mine = manager.base_path / "data" / "2024"
    (mine / "state").mkdir(parents=True)
    (mine / "bars.csv").write_text("open,close")
    (mine / "state" / "_METADATA").write_text("{}")  # as another program of orbax would
    assert save(manager, *((n, "data") for n in range(5))) == list(range(2025, 2030))
    manager.cleanup_old_generations()
    assert (mine / "bars.csv").read_text() == "open,close"
    assert manager.generations("data") == [2029, 2028, 2027]
    assert quietly(manager.load) == (4, [])
