"""The two programs of a run, traced once for good: what JAX makes of them is kept beside what XLA does.

Tracing takes longer than loading what XLA has kept, so a second run of the same sizes does not trace.
"""

import hashlib
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax import export

from ztb_jax.learner import Learner
from ztb_jax.runs import directory
from ztb_jax.runs.loop import lower_window, planned_bytes, repeated

PACKAGES = ("envs", "ztb_jax")
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "chex", "numpy")
ELSEWHERE = ("cache", "dump", "log", "traceback")  # settings that change no program


class Programs(NamedTuple):
    """What a run executes, compiled.

    Attributes:
      init: (key, data) -> state.
      window: (state, data) -> (state, metrics [num_updates] by name); the state passed in is donated.
      planned: bytes that a call of `window` holds at the most, its arguments included; None if not told.
    """

    init: Callable[[jax.Array, Any], Any]
    window: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]
    planned: int | None


class Traced(NamedTuple):
    """The same before they are compiled. They take and return leaves, for trees cannot be written down.

    Attributes:
      shapes: of the learner's state.
      init: (key, leaves of the data) -> leaves of the state.
      window: (leaves of the state, leaves of the data) -> (leaves of the state, metrics).
    """

    shapes: Any
    init: export.Exported
    window: export.Exported


def compiled(learner: Learner, data: Any, *, num_updates: int, described: str | None = None) -> Programs:
    """The programs of `learner` on one device, traced only where the cache does not hold them.

    Args:
      learner: what is run.
      data: the market; its device is where they run.
      num_updates: steps in a window.
      described: all that `learner` was made from; None looks up and keeps nothing.
    """
    path = None if described is None else _place(described, data, num_updates)
    kept = None if path is None else _read(path)
    with ThreadPoolExecutor(1) as aside:
        # The first program is compiled on another core while the second is traced.
        begun: list[Future] = []

        def begin(init: export.Exported) -> None:
            lowered = jax.jit(init.call).lower(jax.random.key(0), jax.tree.leaves(data))
            begun.append(aside.submit(lowered.compile))

        traced = trace(learner, data, num_updates=num_updates, begin=begin) if kept is None else kept
        if kept is not None:
            begin(kept.init)
        programs = _loaded(traced, begun[0], data)
    if path is not None and kept is None:
        _write(path, traced)
    return programs


def compiled_on_mesh(learner: Learner, shapes: Any, data: Any, *, num_updates: int) -> Programs:
    """The programs of a learner from `ztb_jax.parallel.sharded`.

    Args:
      learner: what is run.
      shapes: of its state, each leaf with its place.
      data: the market, on every device of the mesh.
      num_updates: steps in a window.
    """
    first = jax.jit(learner.init).lower(jax.random.key(0), data)
    second = lower_window(learner, shapes, data, num_updates)
    with ThreadPoolExecutor(2) as pool:
        init, window = pool.map(lambda program: program.compile(), (first, second))
    return Programs(init, window, planned_bytes(window))


def trace(
    learner: Learner,
    data: Any,
    *,
    num_updates: int,
    begin: Callable[[export.Exported], None] = lambda init: None,
) -> Traced:
    """Both programs of `learner`, where `data` are.

    Args:
      learner: what is run.
      data: the market.
      num_updates: steps in a window.
      begin: called with the first program before the second is traced.
    """
    leaves, structure = jax.tree.flatten(data)
    states = []

    def init(key, leaves):
        state = learner.init(key, structure.unflatten(leaves))
        states.append(jax.tree.structure(state))
        return jax.tree.leaves(state)

    def window(state, leaves):
        play = repeated(learner, num_updates)
        state, metrics = play(states[0].unflatten(state), structure.unflatten(leaves))
        return jax.tree.leaves(state), metrics

    platforms = [export_platform(_device(data))]
    first = export.export(jax.jit(init), platforms=platforms)(jax.random.key(0), leaves)
    begin(first)
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in first.out_avals]
    loop = export.export(jax.jit(window, donate_argnums=0), platforms=platforms)(shapes, leaves)
    return Traced(states[0].unflatten(shapes), first, loop)


def _loaded(traced: Traced, begun: Future, data: Any) -> Programs:
    leaves, (shapes, structure) = jax.tree.leaves(data), jax.tree.flatten(traced.shapes)
    loop = jax.jit(traced.window.call, donate_argnums=0).lower(shapes, leaves).compile()
    first = begun.result()

    def init(key, data):
        return structure.unflatten(first(key, jax.tree.leaves(data)))

    def window(state, data):
        state, metrics = loop(structure.flatten_up_to(state), jax.tree.leaves(data))
        return structure.unflatten(state), metrics

    return Programs(init, window, planned_bytes(loop))


def _device(data: Any) -> Any:
    """The device of the first leaf."""
    (device,) = jax.tree.leaves(data)[0].devices()
    return device


def export_platform(device: Any) -> str:
    """What `jax.export` calls the platform of `device`: it tells apart whose GPU it is."""
    if device.platform != "gpu":
        return device.platform
    return "rocm" if "rocm" in device.client.platform_version.lower() else "cuda"


def _place(described: str, data: Any, num_updates: int) -> Path | None:
    """The file of these programs; None where nothing is kept."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    if not folder:
        return None
    leaves, structure = jax.tree.flatten(data)
    device = _device(data)
    facts = (
        described,
        num_updates,
        str(structure),
        [(leaf.shape, str(leaf.dtype), leaf.weak_type) for leaf in leaves],
        (device.platform, device.device_kind),
        [(name, version(name)) for name in LIBRARIES],
        sorted(settings().items()),
        sources(),
    )
    return Path(folder) / f"traced-{hashlib.sha256(repr(facts).encode()).hexdigest()}"


def settings() -> dict[str, str]:
    """JAX's settings that change what programs compute."""
    values = jax.config.values.items()
    return {name: str(value) for name, value in values if not any(word in name for word in ELSEWHERE)}


@cache
def sources() -> str:
    """Of every line that a program is traced from."""
    digest, root = hashlib.sha256(), Path(__file__).parents[2]
    for file in sorted(file for package in PACKAGES for file in (root / package).rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _write(path: Path, traced: Traced) -> None:
    """Keep `traced`, whole or not at all; without room for it the next run traces again, as is said."""
    kept = pickle.dumps((traced.shapes, bytes(traced.init.serialize()), bytes(traced.window.serialize())))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        directory.write_bytes(path, hashlib.sha256(kept).digest() + kept)
    except OSError as error:
        warnings.warn(f"{path.parent} cannot keep programs, the next run traces anew: {error}", stacklevel=2)


def _read(path: Path) -> Traced | None:
    """What was kept; None where nothing is, or something else, as is said."""
    if not path.is_file():
        return None
    whole = path.read_bytes()
    digest, kept = whole[:32], whole[32:]
    if hashlib.sha256(kept).digest() != digest:
        warnings.warn(f"{path} is damaged: its programs are traced anew, and it is replaced", stacklevel=2)
        return None
    shapes, *programs = pickle.loads(kept)
    return Traced(shapes, *(export.deserialize(bytearray(program)) for program in programs))
