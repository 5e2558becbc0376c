"""Managers for the tests of `ztb_jax.utils`."""

import numpy as np
import pytest

from tests.utils.states import save
from ztb_jax.utils import CheckpointManager


@pytest.fixture
def manager(tmp_path):
    return CheckpointManager(base_path=tmp_path / "checkpoints", max_generations=3)


@pytest.fixture
def three(manager):
    """Generations 1 to 3 of one experiment."""
    save(manager, *(({"step": n, "w": np.full(4, n)}, "exp_001") for n in (1, 2, 3)))
    return manager
