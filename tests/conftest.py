"""Suite-wide strictness: CPU only, ranks never promoted silently, and the real files beside the checkout."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Compiling is most of the suite's time; workers and later runs share what was compiled for the same sizes.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "programs")
)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real price files; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real price files are not beside this checkout")
    return REAL_DATA


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """Every test has its own data cache, so none reads or writes the user's."""
    monkeypatch.setenv("ZTB_DATA__CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
