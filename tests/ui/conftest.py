"""A folder of sample runs behind the real server, and a browser before it."""

from collections.abc import Iterator

import httpx
import pytest

from tests.ui import samples, serving
from ztb_jax.runs import directory

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="package")
def root(tmp_path_factory):
    """Runs that no test changes."""
    root = tmp_path_factory.mktemp("runs")
    samples.make_run(root, "done", replay_steps=(900, 1500), learning_rate=1e-3)
    samples.make_run(root, "other", seed=1, symbol=EVIL, verdict=EVIL)
    samples.make_run(
        root, "stopped", windows=9, status="failed", error=f"kl {EVIL}", gate=(8, 2), troubles=[EVIL]
    )
    samples.make_run(root, "killed", windows=4, status="running", finished_at=None)
    directory.create(root, "bare", {})
    return root


@pytest.fixture(scope="package")
def address(root) -> Iterator[str]:
    """Where they are served."""
    with serving.serving(root) as address:
        yield address


@pytest.fixture(scope="package")
def client(address) -> Iterator[httpx.Client]:
    """A program that asks."""
    with httpx.Client(base_url=address, timeout=20) as client:
        yield client


@pytest.fixture(scope="package")
def browser() -> Iterator:
    """Chromium without a window."""
    if not serving.CHROMIUM.is_file():
        pytest.skip(f"there is no {serving.CHROMIUM}: install chromium to test the pages in a browser")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(serving.CHROMIUM), args=list(serving.ARGUMENTS)
        )
        yield browser
        browser.close()
