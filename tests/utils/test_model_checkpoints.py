"""What is saved loads from the path that saving returned, and the best by a metric is never lost."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.utils.states import a_state, damage, everything, quietly, same, save
from ztb_jax.errors import RunError
from ztb_jax.utils import CheckpointManager, ModelCheckpointingSystem
from ztb_jax.utils.model_checkpoints import _ranked

METRIC = "portfolio_sharpe"


@pytest.fixture
def system(tmp_path):
    return ModelCheckpointingSystem(tmp_path / "models", max_checkpoints=3)


def saved(system: ModelCheckpointingSystem, *sharpes: float) -> list:
    return [
        system.save_checkpoint({"meta": np.full(3, n)}, {METRIC: sharpe}, step=10 * n)
        for n, sharpe in enumerate(sharpes)
    ]


def test_what_was_saved_comes_back_from_its_path(system):
    metrics = {METRIC: 1.25, "win_rate": np.float32(0.5), "drawdown": jnp.float32(0.25), "episodes": 3}
    path = system.save_checkpoint(a_state(1), metrics, 1000)
    system.save_checkpoint(a_state(2), {METRIC: float("nan")}, step=np.int64(2000))
    loaded = system.load_checkpoint(path)
    assert same(loaded.models, a_state(1))
    assert loaded.metrics == {METRIC: 1.25, "win_rate": 0.5, "drawdown": 0.25, "episodes": 3.0}
    assert (loaded.step, loaded.path) == (1000, path)
    other = ModelCheckpointingSystem("elsewhere").load_checkpoint(str(path.with_name("2")))
    assert same(other.models, a_state(2))
    assert (math.isnan(other.metrics[METRIC]), other.step) == (True, 2000)


def test_making_one_touches_no_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    system = ModelCheckpointingSystem()
    with pytest.raises(FileNotFoundError, match="No checkpoints found"):
        system.get_best_model()
    assert not list(tmp_path.iterdir())
    assert saved(system, 1.0) == [tmp_path / "models" / "checkpoints" / "1"]


def test_a_folder_that_was_moved_is_read(system, tmp_path):
    saved(system, 1.0, 2.0)
    system.checkpoint_dir.rename(tmp_path / "moved")
    assert ModelCheckpointingSystem(tmp_path / "moved").get_best_model().step == 10
    assert system.load_checkpoint(tmp_path / "moved" / "1").step == 0


def test_the_best_has_the_highest_metric_and_of_equals_is_the_newest(system):
    saved(system, -1.0, 2.0, 0.5, 2.0, float("nan"))
    best = system.get_best_model()
    assert (best.step, best.metrics, best.models["meta"].tolist()) == (30, {METRIC: 2.0}, [3, 3, 3])
    assert system.get_best_model(metric=METRIC).step == 30
    assert ModelCheckpointingSystem(system.checkpoint_dir).get_best_model().step == 30


def test_the_best_of_every_metric_stays_beside_the_newest(tmp_path):
    system = ModelCheckpointingSystem(tmp_path, max_checkpoints=1)
    for n, metrics in enumerate(
        [{"a": 3, "b": 0}, {"a": 1, "b": 5}, {"a": 2}, {"a": 0, "b": 1}, {"c": float("nan")}]
    ):
        ModelCheckpointingSystem(tmp_path, max_checkpoints=1).save_checkpoint(n, metrics, n)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["1", "2", "5"]
    assert (system.get_best_model("a").models, system.get_best_model("b").models) == (0, 1)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(), max_size=6))
def test_nan_is_never_best(values):
    ranked = _ranked({n: {METRIC: value} for n, value in enumerate(values)}, METRIC)
    numbers = [value for value in values if not math.isnan(value)]
    assert len(ranked) == len(numbers)
    assert not numbers or values[ranked[0]] == max(numbers)


def test_a_metric_that_is_nowhere_is_told_with_those_that_are(system):
    system.save_checkpoint(0, {"win_rate": 0.5, METRIC: float("nan")}, 0)
    with pytest.raises(KeyError, match=r"'sortino' is in none of .* which have .*portfolio_sharpe.*win_rate"):
        system.get_best_model("sortino")
    with pytest.raises(KeyError, match=r"'portfolio_sharpe' is NaN in"):
        system.get_best_model()
    assert system.get_best_model("win_rate").step == 0


def test_a_damaged_best_is_passed_over_and_told(system):
    paths = saved(system, 1.0, 3.0, 2.0)
    damage(paths[1])
    for reader in (system, ModelCheckpointingSystem(system.checkpoint_dir)):
        with pytest.warns(UserWarning, match=r"generation 2 is damaged.*Checkpoint 3 was loaded") as caught:
            assert reader.get_best_model().step == 20
        assert caught[0].filename == __file__
    with pytest.raises(RunError, match="generation 2 is damaged"):
        system.load_checkpoint(paths[1])
    damage(paths[0])
    damage(paths[2])
    for reader in (system, ModelCheckpointingSystem(system.checkpoint_dir)):
        with pytest.raises(RunError) as told:
            reader.get_best_model()
        assert len(told.value.findings) == 3


def test_what_cannot_be_saved_is_refused_and_nothing_is_written(system):
    for models, metrics, told in (
        ({"meta": open}, {}, "models/meta is of type"),
        ({}, {METRIC: "high"}, "metric 'portfolio_sharpe' is 'high', which is no number"),
        ({}, {METRIC: np.ones(2)}, "metric 'portfolio_sharpe'"),
        ({}, {3: 1.0}, "metrics has the key 3"),
    ):
        with pytest.raises(TypeError, match=told):
            system.save_checkpoint(models, metrics, 0)
    with pytest.raises(TypeError):
        system.save_checkpoint({}, {}, 1.5)
    with pytest.raises(ValueError, match="max_checkpoints must be 1 or more"):
        ModelCheckpointingSystem(max_checkpoints=0)
    assert not system.checkpoint_dir.exists()


def test_models_of_optax_need_an_example(system):
    state = optax.adam(1e-3).init({"w": jnp.ones(3)})
    path = system.save_checkpoint({"meta": state}, {METRIC: 1.0}, 0)
    for load in (system.get_best_model, lambda **named: system.load_checkpoint(path, **named)):
        with pytest.raises(ValueError, match=r"models/meta/0 is of type .*`like=`"):
            load()
        models = load(like={"meta": state}).models
        assert jax.tree.structure(models) == jax.tree.structure({"meta": state})


@pytest.mark.parametrize("name", ["7", "nothing", "1/state", ""])
def test_a_path_without_a_checkpoint_is_told(system, name):
    saved(system, 1.0)
    with pytest.raises(FileNotFoundError, match="No checkpoints found at"):
        system.load_checkpoint(system.checkpoint_dir / name)


def test_states_of_experiments_are_not_taken_for_models(tmp_path):
    manager = CheckpointManager(tmp_path)
    save(manager, (1, "exp_001"))
    system = ModelCheckpointingSystem(tmp_path / "exp_001")
    before = everything(tmp_path / "exp_001")
    for use in (
        lambda: saved(system, 1.0),
        system.get_best_model,
        lambda: system.load_checkpoint(tmp_path / "exp_001/1"),
    ):
        with pytest.raises(RunError, match="holds no models"):
            use()
    assert everything(tmp_path / "exp_001").items() >= before.items()
    assert quietly(manager.load) == (1, [])
