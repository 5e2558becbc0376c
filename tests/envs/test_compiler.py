"""Sums on a CPU are right however the packages are imported; a late import is told."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from envs import compiler
from envs.compiler import NO_YNN

USE = "import jax.numpy as jnp; jnp.ones(1).block_until_ready(); "
TELL = "import os; print(os.environ.get('XLA_FLAGS', ''))"


def run(code: str, **flags: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-W", "always", "-c", code]
    return subprocess.run(command, env=kept | flags, capture_output=True, text=True, check=True, timeout=120)


def test_a_sum_of_products_of_many_rows_is_right():
    """The case of https://github.com/jax-ml/jax/issues/39103."""
    count = jnp.arange(32_769, dtype=jnp.float32)
    rows = jnp.stack((count, jnp.zeros_like(count), jnp.zeros_like(count)), axis=1)
    squares = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))(rows)
    assert float(squares[-1]) == 32_768.0**2


@pytest.mark.parametrize("package", ["envs", "ztb_jax"])
def test_importing_either_package_sets_it(package):
    done = run(f"import {package}; {TELL}")
    assert done.stdout.strip() == NO_YNN
    assert not done.stderr


def test_it_is_added_to_other_flags():
    done = run(
        f"import jax, ztb_jax; {TELL}; print(len(jax.devices()))",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
    )
    assert done.stdout.split() == ["--xla_force_host_platform_device_count=2", NO_YNN, "2"]


def test_a_choice_of_ones_own_stays():
    own = f"{NO_YNN}LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    assert run(f"import ztb_jax; {TELL}", XLA_FLAGS=own).stdout.strip() == own


def test_too_late_is_told():
    done = run(f"{USE} import ztb_jax; {TELL}")
    assert done.stdout.strip() == ""
    assert "RuntimeWarning: jax was used before" in done.stderr
    assert f"XLA_FLAGS={NO_YNN}" in done.stderr


def test_a_file_of_flags_is_left_alone_and_told():
    done = run(f"import ztb_jax; {TELL}", XLA_FLAGS="flags.txt")
    assert done.stdout.strip() == "flags.txt"
    assert "names a file" in done.stderr


def test_a_compiler_that_may_not_know_it_is_not_told(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(compiler.metadata, "version", lambda name: "0.12.0")
    compiler.keep_results_right()
    assert not os.environ["XLA_FLAGS"]
