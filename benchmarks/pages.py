"""What `ztb ui` takes: a folder of 1,000 runs, and a replay of a million frames.

The list is asked for as JSON by a program, and opened in Chromium without a window: from the request until
all rows stand in the page, after one uncounted turn unless it says the first time. The replay is written
frame by frame in a process of its own, and read through a server in another: pages at random places, as the
page of a replay asks for them, and the largest there are. Memory is the peak of the process above what it
held before the first frame.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from benchmarks.harness import Row, finish
from tests.ui import samples, serving
from ztb_jax.runs import directory

RUNS, REPEATS = 1_000, 9
FRAMES, PAGES = 1_000_000, 200
MOST_SECONDS, MOST_BYTES = 1.0, 200e6
WRITE = """
import sys
from tests.ui import samples
from ztb_jax.runs import directory
run = directory.find(sys.argv[1])
print("ready", flush=True)
samples.add_replay(run, 0, steps=int(sys.argv[2]), minutes=1)
"""
SERVE = "from ztb_jax.cli.main import main; main()"


@contextmanager
def serving_apart(root: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a server in a process of its own, and that process."""
    command = [sys.executable, "-c", SERVE, "ui", "--root", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip().rstrip("/"), psutil.Process(process.pid)
        finally:
            process.terminate()


def _seconds(name: str, seconds: list[float], note: str) -> list[Row]:
    typical = statistics.median(seconds)
    return [
        Row(name, 1e3 * typical, "ms", 1e3 * min(seconds), 1e3 * max(seconds), note=note),
        Row(f"1 s / {name}", MOST_SECONDS / typical, "×", bar=1.0),
    ]


def list_rows(root: Path) -> list[Row]:
    """The list of many runs, as JSON and in a browser."""
    for number in range(RUNS):
        samples.make_run(root, f"run-{number:04d}", windows=1, seed=number)
    asked, opened = [], []
    with serving_apart(root) as (address, _), httpx.Client(base_url=address, timeout=60) as client:
        for _ in range(1 + REPEATS):
            started = time.perf_counter()
            assert len(client.get("/api/runs").json()) == RUNS
            asked.append(time.perf_counter() - started)
        rows = _seconds("the list as JSON, the first time", asked[:1], f"{RUNS:,} runs")
        rows += _seconds("the list as JSON", asked[1:], f"{RUNS:,} runs, of which none changed")
        if not serving.CHROMIUM.is_file():
            return rows
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(serving.CHROMIUM), args=list(serving.ARGUMENTS)
            )
            for _ in range(1 + REPEATS):
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                started = time.perf_counter()
                page.goto(address)
                assert page.evaluate("document.getElementById('rows').rows.length") == RUNS
                opened.append(time.perf_counter() - started)
                page.close()
            browser.close()
    return rows + _seconds("the list in Chromium", opened[1:], f"{RUNS:,} runs")


def _written(path: Path) -> int:
    """Bytes that a process holds at the most while it writes the replay, above those before."""
    command = [sys.executable, "-c", WRITE, str(path), str(FRAMES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        watched = psutil.Process(process.pid)
        before = peak = watched.memory_info().rss
        while process.poll() is None:
            peak = max(peak, watched.memory_info().rss)
            time.sleep(0.01)
    assert process.returncode == 0
    return peak - before


def replay_rows(root: Path) -> list[Row]:
    """A long replay, written and read."""
    run = samples.make_run(root, "long", windows=1)
    started = time.perf_counter()
    written = _written(run.path)
    took = time.perf_counter() - started
    entry = directory.read_json(run.replay_index)["entries"][0]
    size = (run.path / entry["replay_path"]).stat().st_size
    with serving_apart(root) as (address, process), httpx.Client(base_url=address, timeout=60) as client:
        frames = f"/api/runs/long/replays/{entry['replay_id']}/frames"
        client.get("/runs/long")
        client.get(f"{frames}?limit=1")
        before, peak, seconds = process.memory_info().rss, 0, []
        draw = random.Random(0)
        for number in range(PAGES):
            limit = 5_000 if number % 20 == 0 else 400
            offset = draw.randrange(FRAMES - limit)
            started = time.perf_counter()
            got = client.get(f"{frames}?offset={offset}&limit={limit}")
            if limit == 400:
                seconds.append(time.perf_counter() - started)
            told = json.loads(got.text)
            assert [told["count"], told["frames"][0]["frame_index"]] == [limit, offset]
            peak = max(peak, process.memory_info().rss)
    note = f"{FRAMES:,} frames, {size / 1e6:,.0f} MB on the disk"
    return [
        Row("writing it adds", written / 1e6, "MB", note=f"{note}, made and written in {took:,.0f} s"),
        Row("200 MB / what writing adds", MOST_BYTES / max(written, 1), "×", bar=1.0),
        Row("reading pages of it adds", (peak - before) / 1e6, "MB", note=f"{PAGES} pages at random places"),
        Row("200 MB / what reading adds", MOST_BYTES / max(peak - before, 1), "×", bar=1.0),
        Row(
            "a page of 400 frames",
            1e3 * statistics.median(seconds),
            "ms",
            1e3 * min(seconds),
            1e3 * max(seconds),
        ),
    ]


def run(json_file: Path | None) -> int:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [*list_rows(Path(folder) / "many"), *replay_rows(Path(folder) / "long")]
    return finish("Pages", rows, json_file=json_file)
