"""A run that really trains, watched in the browser from its first window to the replay that it leaves."""

import subprocess
import sys
import time

from tests.training.resuming import TINY
from tests.ui import serving
from tests.ui.test_pages import is_wide, opened, until
from ztb_jax.runs import directory, replays

POINTS = "(document.getElementById('chart-validation')?.data?.[0]?.y ?? []).length"


def test_a_run_is_watched_while_it_trains(browser, tmp_path):
    settings = tmp_path / "tiny.yaml"
    settings.write_text(TINY)
    root = tmp_path / "runs"
    flags = ["--run.total-env-steps", "204800", "--run.policy-every-windows", "50"]
    where = ["--config", str(settings), "--run.root", str(root), "--run.id", "real"]
    trains = subprocess.Popen(
        [sys.executable, "-m", "ztb_jax.training", *where, *flags, "--replays.episodes", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not (root / "real" / "metrics" / "windows.jsonl").is_file():
            assert trains.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with serving.serving(root) as address, opened(browser, address) as page:
            page.goto(f"{address}/runs/real")
            until(page, f"{POINTS} > 2")
            first = page.evaluate(POINTS)
            assert "running" in page.inner_text("main")
            until(page, f"{POINTS} > {first} + 3")
            assert trains.wait(120) == 0
            page.wait_for_function("document.querySelector('main').innerText.includes('completed')")
            found = directory.find(root / "real")
            until(page, f"{POINTS} === {len(directory.read_lines(found.windows))}")
            entry = replays.read_index(found)[-1]
            page.goto(f"{address}/runs/real/replays/{entry['replay_id']}")
            page.get_by_role("button", name="Play").wait_for()
            assert not is_wide(page)
    finally:
        trains.kill()
        trains.wait()
