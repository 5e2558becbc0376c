"""The structure is a promise: who imports whom, what an import may touch, how large a file may grow.

Each guard is also shown to fail on a planted offence.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import envs
import ztb_jax

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("envs", "ztb_jax")

# Level of each room: imports point strictly down, or stay within the room.
LEVELS = {
    "envs": 0,
    "ztb_jax.errors": 1,
    "ztb_jax.settings": 1,
    "ztb_jax.presets": 1,
    "ztb_jax.verdicts": 1,
    "ztb_jax.contradictions": 2,
    "ztb_jax.config": 3,
    "ztb_jax.schedule": 3,
    "ztb_jax.keys": 2,
    "ztb_jax.learner": 2,
    "ztb_jax.devices": 2,
    "ztb_jax.optimizers": 3,
    "ztb_jax.gates": 3,
    "ztb_jax.features": 3,
    "ztb_jax.data": 3,
    "ztb_jax.policies": 3,
    "ztb_jax.ppo": 4,
    "ztb_jax.apg": 4,
    "ztb_jax.baseline": 4,
    "ztb_jax.gating": 4,
    "ztb_jax.slices": 4,
    "ztb_jax.evaluation": 4,
    "ztb_jax.runs": 4,
    "ztb_jax.parallel": 5,
    "ztb_jax.population": 5,
    "ztb_jax.numbers": 5,
    "ztb_jax.trials": 6,
    "ztb_jax.space": 4,
    "ztb_jax.ui": 5,
    "ztb_jax.utils": 5,
    "ztb_jax.build": 6,
    "ztb_jax.training": 7,
    "ztb_jax.cli": 7,
}
# The command line and the jobs call each other by design: `python -m ztb_jax.training` is `ztb train`.
PEERS = {"ztb_jax.training", "ztb_jax.cli"}
CONTROL_PLANE = (
    "ztb_jax.config",
    "ztb_jax.settings",
    "ztb_jax.contradictions",
    "ztb_jax.schedule",
    "ztb_jax.runs.windowing",
    "ztb_jax.runs.artifacts",
    "ztb_jax.runs.ledger",
    "ztb_jax.evaluation.judgement",
    "ztb_jax.runs.replays",
    "ztb_jax.presets",
    "ztb_jax.verdicts",
    "ztb_jax.errors",
    "ztb_jax.runs.directory",
    "ztb_jax.runs.sinks",
    "ztb_jax.runs.playback",
    "ztb_jax.training.progress",
    "ztb_jax.cli.main",
    "ztb_jax.cli.train",
    "ztb_jax.cli.evaluate",
    "ztb_jax.cli.data",
    "ztb_jax.cli.devices",
    "ztb_jax.cli.runs",
    "ztb_jax.cli.replay",
    "ztb_jax.cli.ui",
    "ztb_jax.ui.page",
    "ztb_jax.ui.server",
    "ztb_jax.data.load",
    "ztb_jax.evaluation.report",
)
CONTRACT = {"CheckpointManager", "RunSealManager"}  # names that the source documents promise
FORBIDDEN_SUFFIXES = (
    "Manager",
    "Handler",
    "Service",
    "Helper",
    "Utils",
    "Processor",
    "Factory",
    "Wrapper",
    "Base",
    "Impl",
)


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path
    return found


def room_of(module: str) -> str | None:
    return max(
        (room for room in LEVELS if module == room or module.startswith(room + ".")), key=len, default=None
    )


def imports_of(source: str) -> set[str]:
    """Our own modules that a source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def upward_imports(module: str, source: str) -> list[str]:
    room = room_of(module)
    if room is None:
        return []
    offences = []
    for name in imports_of(source):
        other = room_of(name)
        peers = {room, other} <= PEERS
        if other is not None and other != room and not peers and LEVELS[other] >= LEVELS[room]:
            offences.append(f"{module} (level {LEVELS[room]}) imports {name} (level {LEVELS[other]})")
    return offences


def test_imports_point_down():
    offences = [line for name, path in modules().items() for line in upward_imports(name, path.read_text())]
    assert not offences, "\n".join(offences)


def test_every_module_has_a_room():
    homeless = [name for name in modules() if room_of(name) is None and name != "ztb_jax"]
    assert not homeless


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("envs.single", "from ztb_jax import keys"),
        ("ztb_jax.ppo.gae", "from ztb_jax.runs import loop"),
        ("ztb_jax.data.load", "import ztb_jax.evaluation.metrics"),
        ("ztb_jax.runs.loop", "def f():\n    from ztb_jax.training import job"),
    ],
)
def test_the_import_guard_sees_a_planted_offence(module, line):
    assert upward_imports(module, line)


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **variables},
    )


def importable() -> list[str]:
    return [name for name in modules() if not name.endswith("__main__")]


def touches_a_device(imports: list[str], extra: str = "") -> bool:
    code = "".join(f"import {name}\n" for name in imports) + extra
    result = python(code, JAX_PLATFORMS="no_such_platform")
    if result.returncode and "no_such_platform" not in result.stderr:
        raise AssertionError(result.stderr)
    return result.returncode != 0


def test_importing_touches_no_device():
    assert not touches_a_device(importable())


def test_the_device_guard_sees_a_planted_array():
    assert touches_a_device([], "import jax.numpy as jnp\nZERO = jnp.zeros(())\n")


def loads_jax(imports: tuple[str, ...], extra: str = "") -> bool:
    code = "".join(f"import {name}\n" for name in imports) + extra
    result = python(f"{code}\nimport sys\nsys.exit(3 if 'jax' in sys.modules else 0)")
    assert result.returncode in {0, 3}, result.stderr
    return result.returncode == 3


def test_the_control_plane_is_free_of_jax():
    assert not loads_jax(CONTROL_PLANE)


def test_the_control_plane_guard_sees_a_planted_import():
    assert loads_jax(CONTROL_PLANE, "import ztb_jax.learner\n")


def long_files(sizes: dict[str, int]) -> list[str]:
    return [name for name, size in sizes.items() if size > 400]


def test_no_file_is_longer_than_400_lines():
    paths = [p for folder in (*PACKAGES, "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    assert not long_files({str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in paths})
    assert long_files({"planted.py": 401})


def soupy_classes(source: str) -> list[str]:
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and node.name.endswith(FORBIDDEN_SUFFIXES)
    ]


def test_no_class_is_named_for_a_job_it_does_not_have():
    found = {name for path in modules().values() for name in soupy_classes(path.read_text())}
    assert found <= CONTRACT
    assert soupy_classes("class RunManager: ...")


def test_our_packages_are_the_ones_that_are_imported():
    # A package of the same import name as our `envs` is published by others.
    for package in (envs, ztb_jax):
        assert Path(str(package.__file__)).resolve().is_relative_to(ROOT)
