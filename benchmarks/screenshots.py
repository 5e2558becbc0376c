"""Pictures of `ztb ui` over sample runs: list, run, replay and comparison, wide and narrow, light and dark.

They go to `docs/images/ui-<page>-<width>-<scheme>.png`. Those that the documentation shows are committed; the
rest is for looking at. It fails when one is too large to be committed.
"""

import tempfile
from contextlib import ExitStack, chdir
from datetime import timedelta
from pathlib import Path

from benchmarks.harness import Row, finish
from tests.ui import samples, serving
from ztb_jax.runs import directory

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MOST_BYTES = 200e3
TRADED = next(
    frame["frame_index"]
    for frame in samples.frames(700, seed=2)
    if frame["frame_index"] > 300 and any(event["type"] == "fill" for event in frame["events"])
)
SIZES = ((1440, 900), (360, 780))
PAGES = {
    "list": "/",
    "run": "/runs/eurusd-gru",
    "replay": "/runs/sp500-fast/replays/window_000011",
    "compare": "/compare?run=sp500-fast&run=sp500-base&run=eurusd-gru",
}
FAILED = (
    "kl_runaway in window 17: update after update moved the policy further than gates.kl; "
    "lower ppo.learning_rate or ppo.epochs, or set ppo.target_kl"
)


def make_runs(root: Path) -> list[directory.RunDirectory]:
    """Runs of every kind; those that are under way."""

    def make(name: str, hours: float, **options) -> directory.RunDirectory:
        target = options.pop("target_windows", 60)
        begun = samples.metadata(
            name, windows=0, target_windows=target, started=samples.START - timedelta(hours=hours)
        )
        return samples.make_run(root, name, target_windows=target, started_at=begun["started_at"], **options)

    under_way = {"status": "running", "finished_at": None}
    running = [
        make("eurusd-gru", 0.1, symbol="EURUSD", windows=31, seed=5, replay_steps=(500, 800), **under_way),
        make("nasdaq-night", 0.4, symbol="NASDAQ", windows=12, seed=9, **under_way),
    ]
    make("sp500-fast", 1, windows=60, replay_steps=(900, 1400, 700), learning_rate=1e-3)
    make(
        "sp500-base",
        2,
        windows=60,
        seed=3,
        replay_steps=(500,),
        growth=0.031,
        verdict=("Did not beat buy-and-hold on the test slice: +3.1 % against +7.1 % net of costs."),
    )
    make("nasdaq-wide", 5, symbol="NASDAQ", windows=18, seed=8, gate=(17, 2), status="failed", error=FAILED)
    make(
        "btcusd-4h",
        9,
        symbol="BTCUSD",
        windows=12,
        seed=4,
        status="cancelled",
        halt_reason="stopped by Ctrl-C",
    )
    make("gold-first", 26, symbol="XAUUSD", windows=7, seed=6, status="running", finished_at=None)
    return running


def shoot(address: str) -> dict[str, int]:
    """Bytes of every picture, by its name."""
    from playwright.sync_api import sync_playwright

    sizes = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(serving.CHROMIUM), args=list(serving.ARGUMENTS)
        )
        for width, height in SIZES:
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
                page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                for name, path in PAGES.items():
                    page.goto(address + path)
                    page.wait_for_timeout(1_500)
                    if name == "replay":
                        page.locator("#number").fill(str(TRADED))
                        page.keyboard.press("Enter")
                        page.wait_for_timeout(1_500)
                        page.locator("#number").blur()
                    file = IMAGES / f"ui-{name}-{width}-{scheme}.png"
                    page.screenshot(path=file)
                    sizes[file.name] = file.stat().st_size
                page.close()
        browser.close()
    return sizes


def run(json_file: Path | None) -> int:
    """Take the pictures."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stack.enter_context(chdir(folder))
        root = Path("runs")  # as the pages tell it
        for running in make_runs(root):
            stack.enter_context(directory.locked(running))
        sizes = shoot(stack.enter_context(serving.serving(root)))
    rows = [
        Row(f"200 kB / {name}", MOST_BYTES / size, "×", bar=1.0, note=f"{size / 1e3:,.0f} kB")
        for name, size in sizes.items()
    ]
    return finish("Screenshots", rows, json_file=json_file)
