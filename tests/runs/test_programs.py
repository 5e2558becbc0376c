"""A run's programs: equal to those made by hand, traced once, and traced again when anything has changed."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from ztb_jax.learner import Learner
from ztb_jax.runs import loop, programs

DATA = {"scale": jnp.float32(2)}


def key() -> jax.Array:
    """A fresh one for each state: a walk keeps it as it is, so that it is donated with the first state."""
    return jax.random.key(3)


@pytest.fixture
def cache(tmp_path):
    """A folder of programs of this test's own."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "programs"))
    yield tmp_path / "programs"
    jax.config.update("jax_compilation_cache_dir", before)


class Walker:
    """A learner that counts how often it is traced; `power` changes what it computes, not its shapes."""

    def __init__(self, power: int = 1):
        self.traced, self.power = 0, power

    def learner(self) -> Learner:
        def init(key, data):
            return {"total": jnp.float32(0), "key": key}

        def step(state, data):
            self.traced += 1
            key, draw = jax.random.split(state["key"])
            total = state["total"] + data["scale"] ** self.power * jax.random.normal(draw)
            return {"total": total, "key": key}, {"total": total}

        return Learner(init, step, lambda state: state["total"], 1)


def played(
    walker: Walker, *, described: str | None = "a walk", num_updates: int = 4, data=DATA
) -> np.ndarray:
    """[num_updates] totals by the programs of `walker`."""
    init, window, planned = programs.compiled(
        walker.learner(), data, num_updates=num_updates, described=described
    )
    assert planned is not None
    state, metrics = window(init(key(), data), data)
    assert float(state["total"]) == float(metrics["total"][-1])
    return np.asarray(metrics["total"])


def kept(cache) -> list:
    return sorted(cache.glob("traced-*"))


def test_both_programs_are_those_made_by_hand(cache):
    learner = Walker().learner()
    first = programs.compiled(learner, DATA, num_updates=4)
    begun = first.init(key(), DATA)
    assert jax.tree.structure(begun) == jax.tree.structure(learner.init(key(), DATA))
    np.testing.assert_array_equal(jax.random.key_data(begun["key"]), jax.random.key_data(key()))
    state = learner.init(key(), DATA)
    _, alone = loop.compile_window(learner, state, DATA, num_updates=4)(state, DATA)
    np.testing.assert_array_equal(first.window(begun, DATA)[1]["total"], alone["total"])
    assert not kept(cache)


def test_the_second_time_nothing_is_traced(cache):
    first, second = Walker(), Walker()
    np.testing.assert_array_equal(played(first), played(second))
    assert first.traced > 0
    assert second.traced == 0
    assert len(kept(cache)) == 1


def test_what_is_consumed_is_donated(cache):
    for _ in range(2):
        init, window, _ = programs.compiled(Walker().learner(), DATA, num_updates=4, described="a walk")
        state = init(key(), DATA)
        window(state, DATA)
        with pytest.raises(RuntimeError, match="deleted"):
            np.asarray(state["total"])


def test_anything_else_is_traced_anew(cache, monkeypatch):
    played(Walker())
    wider = {"scale": jnp.ones((1,), jnp.float32)}
    with pytest.raises(TypeError, match="carry"):
        played(Walker(), data=wider)  # looked up, it would have run
    others = [
        lambda walker: played(walker, described="another walk"),
        lambda walker: played(walker, num_updates=8),
        lambda walker: (monkeypatch.setattr(programs, "sources", lambda: "edited"), played(walker))[1],
        lambda walker: (monkeypatch.setattr(programs, "version", lambda name: "0"), played(walker))[1],
    ]
    for number, other in enumerate(others, start=2):
        walker = Walker(power=2)
        assert other(walker)[-1] != played(Walker(), described=None)[-1]
        assert walker.traced > 0
        assert len(kept(cache)) == number
    before = kept(cache)
    jax.config.update("jax_default_matmul_precision", "float32")
    try:
        played(Walker())
    finally:
        jax.config.update("jax_default_matmul_precision", None)
    assert len(kept(cache)) == len(before) + 1


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-9], lambda whole: b"\0" * len(whole), lambda _: b""]
)
def test_a_damaged_file_is_said_and_replaced(cache, damage):
    expected = played(Walker())
    (path,) = kept(cache)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.warns(UserWarning, match=f"{path} is damaged: .* traced anew"):
        np.testing.assert_array_equal(played(Walker()), expected)
    again = Walker()
    np.testing.assert_array_equal(played(again), expected)
    assert again.traced == 0


@pytest.mark.parametrize(
    ("platform", "version", "expected"),
    [("cpu", "cpu", "cpu"), ("gpu", "PJRT C API\ncuda 13000", "cuda"), ("gpu", "rocm 70000", "rocm")],
)
def test_the_maker_of_a_gpu_is_named_in_the_export(platform, version, expected):
    device = SimpleNamespace(platform=platform, client=SimpleNamespace(platform_version=version))
    assert programs.export_platform(device) == expected
    # An exported program runs where the name is that of its platform, and is refused as "gpu".
    exported = export.export(jax.jit(jnp.sin), platforms=[expected])(jnp.float32(1))
    assert exported.platforms == (expected,)


def test_a_folder_that_cannot_be_written_is_said(cache):
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot keep programs, the next run traces anew: .*exists"):
        played(Walker())


def test_the_sources_are_ours_whole():
    first = programs.sources()
    programs.sources.cache_clear()
    assert programs.sources() == first
    assert len(first) == 64
