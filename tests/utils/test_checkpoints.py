"""States of experiments are saved in order and come back to the bit; their generations are bounded."""

import asyncio
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.utils.states import a_state, everything, said, same, save, script
from ztb_jax import utils
from ztb_jax.runs import checkpoint
from ztb_jax.utils import CheckpointManager, ModelCheckpointingSystem, checkpoints


def test_what_was_saved_comes_back_to_the_bit(manager):
    assert save(manager, (a_state(1), "exp_001"), (a_state(2), "exp_001")) == [1, 2]
    assert same(manager.load("exp_001"), a_state(2))
    assert same(manager.load("exp_001", generation=1), a_state(1))
    other = CheckpointManager(manager.base_path)
    assert same(other.load(), a_state(2))


def test_without_an_id_it_is_the_newest_of_all_experiments(manager):
    save(manager, (1, "b"), (2, "a"), (3, "b"), (4, "a"), (5, "c"), (6, "b"))
    assert manager.load() == 6
    assert manager.restore() == (6, "b", 6, [])
    assert manager.load("a") == 4
    assert manager.load(generation=2) == 2
    assert manager.experiments() == ["a", "b", "c"]
    assert manager.generations("b") == [6, 3, 1]


def test_making_a_manager_touches_no_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manager = CheckpointManager()
    assert (manager.base_path, manager.max_generations) == (tmp_path / "checkpoints", 5)
    assert manager.cleanup_old_generations() == manager.experiments() == []
    with pytest.raises(FileNotFoundError):
        manager.load()
    done = script("os.chdir(sys.argv[1]); CheckpointManager(); print('made')", tmp_path)
    assert said(done) == "made\n"
    assert not list(tmp_path.iterdir())
    monkeypatch.chdir("/")
    save(manager, (1, "exp_001"))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


@pytest.mark.parametrize("most", [1, 2])
def test_generations_are_bounded(tmp_path, most):
    manager = CheckpointManager(tmp_path, max_generations=most)
    save(manager, *((n, "a") for n in range(4)), *((n, "b") for n in range(3)))
    assert manager.generations("a") == [4, 3][:most]
    assert manager.generations("b") == [7, 6][:most]


def test_saves_are_compressed(manager):
    save(manager, (np.zeros(1_000_000), "exp_001"))
    assert sum(map(len, everything(manager.base_path).values())) < 100_000


def test_where_there_is_none_it_says_what_there_is(manager, three):
    empty = CheckpointManager(manager.base_path / "elsewhere")
    for load in (empty.load, lambda: empty.load("exp_001"), lambda: empty.load(generation=1)):
        with pytest.raises(FileNotFoundError, match=r"No checkpoints found.*give the base_path"):
            load()
    with pytest.raises(FileNotFoundError, match=r"No checkpoints found for 'exp_002'.*it holds exp_001"):
        three.load("exp_002")
    for name in (None, "exp_001"):
        with pytest.raises(FileNotFoundError, match="No checkpoints found of generation 9"):
            three.load(name, generation=9)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/tmp", ".hidden", "a b", "a\n", "a" * 129, 7, None]
)
def test_an_id_that_cannot_name_a_folder_is_refused(manager, name):
    uses = [lambda: manager.save_async({}, name), lambda: manager.generations(name)]
    if name is not None:
        uses += [lambda: manager.load(name), lambda: manager.cleanup_old_generations(name)]
    for use in uses:
        with pytest.raises(ValueError, match="cannot name a folder"):
            use()
    assert not manager.base_path.exists()


def test_a_state_that_cannot_be_saved_is_refused_by_its_path_and_nothing_is_written(manager):
    with pytest.raises(TypeError, match="state/log/0 is of type"):
        save(manager, ({"w": jnp.ones(3), "log": [sys.stdout]}, "exp_001"))
    with pytest.raises(ValueError, match="state/w cannot be read"):
        jax.jit(lambda w: manager.save_async({"w": w}, "exp_001"))(jnp.ones(3))
    assert not manager.base_path.exists()


@pytest.mark.parametrize("most", [0, -1])
def test_no_generations_are_no_bound(most):
    with pytest.raises(ValueError, match="max_generations must be 1 or more"):
        CheckpointManager(max_generations=most)


def test_states_of_optax_need_an_example(manager):
    params = {"w": jnp.ones(3)}
    state = {"params": params, "optimizer": optax.adam(1e-3).init(params)}
    save(manager, (state, "exp_001"))
    with pytest.raises(ValueError, match=r"state/optimizer/0 is of type .*ScaleByAdamState.*`like=`"):
        manager.load()
    back = manager.load(like=state)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert all(map(same, jax.tree.leaves(back), jax.tree.leaves(state)))


def test_concurrent_saves_each_get_a_generation_in_their_order(tmp_path):
    manager = CheckpointManager(tmp_path, max_generations=20)

    async def saving() -> list[int]:
        return await asyncio.gather(
            *(manager.save_async({"n": n, "w": np.full(10, n)}, f"exp_{n % 3}") for n in range(12))
        )

    numbers = asyncio.run(saving())
    assert numbers == list(range(1, 13))
    for n, number in enumerate(numbers):
        assert same(manager.load(f"exp_{n % 3}", number), {"n": n, "w": np.full(10, n)})
    assert [len(manager.generations(f"exp_{n}")) for n in range(3)] == [4, 4, 4]


def test_the_loop_runs_while_a_save_is_written(manager, monkeypatch):
    go, commit = threading.Event(), checkpoint._commit
    monkeypatch.setattr(checkpoint, "_commit", lambda *rest: (go.wait(30), commit(*rest))[1])

    async def saving() -> int:
        task = asyncio.create_task(manager.save_async(1, "exp_001"))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not task.done()
        go.set()
        return await task

    assert asyncio.run(saving()) == 1


def test_the_state_may_be_donated_or_assigned_to_as_soon_as_the_call_returns(manager):
    state = {"w": jnp.arange(1000.0), "prices": np.zeros(3)}

    async def saving() -> None:
        task = asyncio.create_task(manager.save_async(state, "exp_001"))
        jax.jit(lambda w: w + 1.0, donate_argnums=0)(state["w"])
        state["prices"][:] = 1.0
        await task

    asyncio.run(saving())
    assert same(manager.load(), {"w": jnp.arange(1000.0), "prices": np.zeros(3)})


def test_a_save_whose_task_is_cancelled_is_completed(manager, monkeypatch):
    begun, commit = threading.Event(), checkpoint._commit
    monkeypatch.setattr(checkpoint, "_commit", lambda *rest: (begun.set(), commit(*rest))[1])

    async def saving() -> None:
        task = asyncio.create_task(manager.save_async(1, "exp_001"))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await manager.save_async(2, "exp_001") == 2

    asyncio.run(saving())
    assert manager.load(generation=1) == 1


def test_cleaning_up_enforces_the_bound_and_returns_what_went(three):
    save(three, *((n, "exp_002") for n in range(3)))
    three.max_generations = 2
    one, two = three.base_path / "exp_001", three.base_path / "exp_002"
    assert three.cleanup_old_generations("exp_001") == [one / "1"]
    assert three.cleanup_old_generations() == [two / "4"]
    assert three.cleanup_old_generations() == three.cleanup_old_generations("unknown") == []
    assert (three.generations("exp_001"), three.generations("exp_002")) == ([3, 2], [6, 5])


def test_files_beside_experiments_do_not_matter(three):
    (three.base_path / "ppo_trainer.json").write_text("{}")
    (three.base_path / "notes").mkdir()
    (three.base_path / "exp_001" / "5.txt").write_text("")
    assert three.load()["step"] == 3
    assert three.experiments() == ["exp_001"]


def test_the_names_of_the_package_are_those_it_has(manager):
    assert CheckpointManager is checkpoints.CheckpointManager
    assert ModelCheckpointingSystem.__module__.startswith("ztb_jax.utils")
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        getattr(utils, "Other")  # noqa: B009
