"""The pages in a real browser: live, usable with keys, and quiet: no error, no request elsewhere."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.ui import samples, serving
from tests.ui.conftest import EVIL
from ztb_jax.cli.main import run as command
from ztb_jax.runs import directory, replays
from ztb_jax.ui import page as pages

PATHS = (
    "/",
    "/runs/done",
    "/runs/other",
    "/runs/stopped",
    "/runs/killed",
    "/runs/bare",
    "/runs/done/report.html",
    "/runs/done/replays/window_000003",
    "/compare?run=done&run=other&run=bare",
)

CHOSEN = "document.getElementById('chart-chosen')"


@contextmanager
def opened(browser, home: str, **options) -> Iterator:
    """A page that may say nothing on the console, and ask nobody but its own server."""
    page = browser.new_page(**options)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda answer: answer.status >= 400 and complaints.append(answer.url))

    def failed(request) -> None:
        if request.failure != "net::ERR_ABORTED":  # what a page still asks when it is left is broken off
            complaints.append(request.url)

    page.on("requestfailed", failed)

    def asked(request) -> None:
        told = urlsplit(request.url)
        if told.scheme not in {"data", "blob"} and not request.url.startswith(home):
            complaints.append(f"foreign: {request.url}")

    page.on("request", asked)
    yield page
    page.close()
    assert complaints == []


def until(page, expression: str) -> None:
    """Wait until an expression is true; our policy lets no page evaluate a text, so it is asked from here."""
    ends = time.monotonic() + 10
    while not page.evaluate(expression):
        assert time.monotonic() < ends, f"never: {expression}"
        page.wait_for_timeout(20)


def is_wide(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > innerWidth")


def unlabelled(page) -> list[str]:
    """Controls that a screen reader could not name."""
    return page.evaluate(
        """[...document.querySelectorAll('button, input, select, a')]
            .filter((one) => !one.ariaLabel && !one.labels?.length && !one.textContent.trim())
            .map((one) => one.outerHTML)"""
    )


@pytest.mark.parametrize("width", [360, 1440])
def test_every_page_is_quiet_and_fits(browser, address, width):
    with opened(browser, address, viewport={"width": width, "height": 800}) as page:
        for path in PATHS:
            page.goto(address + path)
            page.wait_for_timeout(250)
            assert not is_wide(page), path
            assert unlabelled(page) == []


def test_what_files_hold_is_shown_as_text(browser, address):
    with opened(browser, address) as page:
        page.goto(f"{address}/runs/other")
        assert page.locator("h1").inner_text() == f"Inconclusive. {EVIL}"
        page.goto(f"{address}/runs/stopped")
        assert page.locator(".trouble").inner_text() == EVIL


def test_the_list_is_filtered_sorted_and_compared(browser, address):
    with opened(browser, address) as page:
        page.goto(address)

        def names() -> list[str]:
            rows = page.locator("#rows tr:visible th").all_text_contents()  # laid out or not
            return [name.strip() for name in rows]

        assert len(names()) == 5
        page.get_by_label("Filter by text").fill("beat buy")
        assert names() == ["done"]
        page.get_by_label("Filter by text").fill("")
        page.get_by_label("Status").select_option("failed")
        assert names() == ["stopped"]
        page.get_by_label("Status").select_option("")
        page.get_by_role("link", name="Run", exact=True).click()
        assert names() == ["stopped", "other", "killed", "done", "bare"]
        page.get_by_role("link", name="Run", exact=True).click()
        assert names() == ["bare", "done", "killed", "other", "stopped"]
        assert page.get_by_role("columnheader", name="Run").get_attribute("aria-sort") == "ascending"
        assert page.get_by_role("button", name="Compare").is_disabled()
        page.get_by_label("Compare done").check()
        page.get_by_label("Compare other").check()
        page.get_by_role("button", name="Compare 2").click()
        page.wait_for_url("**/compare?run=done&run=other")
        assert page.get_by_role("row", name=re.compile("ppo.learning_rate")).inner_text().split() == [
            "ppo.learning_rate",
            "0.001",
            "0.0003",
        ]
        assert page.evaluate("document.getElementById('chart-chosen').data.map((one) => one.y.length)") == [
            24,
            24,
        ]
        page.get_by_label("Column that is drawn").select_option("kl_mean")
        until(page, f"{CHOSEN}.data[0].y[0] > 0.003")


def test_runs_are_followed_while_they_grow(browser, tmp_path):
    run = samples.make_run(tmp_path, "live", windows=3, status="running", finished_at=None)
    with (
        serving.serving(tmp_path) as address,
        opened(browser, address) as page,
        opened(browser, address) as listed,
    ):
        with directory.locked(run):
            listed.goto(address)
            page.goto(f"{address}/runs/live")
            points = "document.getElementById('chart-reward').data?.[0].x.length"
            until(page, f"{points} === 3")
            for _ in range(2):
                samples.grow(run)
            until(page, f"{points} === 5")
            until(page, "document.getElementById('tiles').innerText.includes('2.62 M')")
            assert "21 %" in page.locator("#head").inner_text()
            until(listed, "document.getElementById('rows').textContent.includes('21 %')")
            samples.make_run(tmp_path, "new", windows=1)
            until(listed, "document.getElementById('count').innerText === '2 runs, 1 running'")
            samples.add_replay(run, 4, steps=20)
            samples.finish(run)
        until(page, "document.getElementById('head').innerText.includes('Beat buy-and-hold')")
        until(page, "document.getElementById('replays').innerText.includes('window_000004')")


def frame(page) -> int:
    return int(page.locator("#replay").get_attribute("data-shown") or -1)


def goes_to(page, number: int) -> None:
    until(page, f"document.getElementById('replay').dataset.shown === '{number}'")


def scrub(page, number: int) -> None:
    page.evaluate(
        """(number) => {
            const slider = document.getElementById('slider');
            slider.value = number;
            slider.dispatchEvent(new Event('input'));
        }""",
        number,
    )
    goes_to(page, number)


def test_a_replay_is_scrubbed_stepped_and_played(browser, address, root):
    frames = list(replays.read_frames(root / "done" / "replays" / "window_000007.jsonl.gz"))
    with opened(browser, address) as page:
        asked: list[str] = []
        page.on("request", lambda request: "/frames" in request.url and asked.append(request.url))
        page.goto(f"{address}/runs/done/replays/window_000007")
        goes_to(page, 0)
        assert len(asked) == 1  # of the four pages
        scrub(page, 1100)
        state = frames[1100]["render_state"]
        assert page.locator("[data-of=close]").inner_text() == f"{state['bar']['close']:.4f}"
        assert page.locator("[data-of=equity]").inner_text() == f"{state['equity']:,.2f}"
        page.locator("#slider").focus()
        for key, number in (
            ("ArrowRight", 1101),
            ("ArrowLeft", 1100),
            ("ArrowUp", 1110),
            ("PageDown", 1010),
            ("Home", 0),
            ("ArrowLeft", 0),
            ("End", 1499),
        ):
            page.keyboard.press(key)
            goes_to(page, number)
        assert "cut off here" in page.locator("#events").inner_text()
        traded = next(one for one in frames if any(each["type"] == "fill" for each in one["events"]))
        page.get_by_label("Frame", exact=True).and_(page.locator("#number")).fill(str(traded["frame_index"]))
        page.keyboard.press("Enter")
        goes_to(page, traded["frame_index"])
        assert re.search(
            r"Filled: (bought|sold) \d+\.\d\d % of equity at", page.locator("#events").inner_text()
        )
        before = frame(page)
        page.get_by_label("Speed").select_option("100")
        page.get_by_role("button", name="Play").click()
        until(page, f"document.getElementById('replay').dataset.shown > {before + 20}")
        page.get_by_role("button", name="Pause").click()
        stopped = frame(page)
        page.wait_for_timeout(120)
        assert frame(page) <= stopped + 5
        page.locator("h1").click()
        page.keyboard.press(" ")
        page.get_by_role("button", name="Pause").wait_for()


def test_fills_stand_where_they_happened(browser, address, root):
    frames = list(replays.read_frames(root / "done" / "replays" / "window_000003.jsonl.gz", limit=120))
    wanted = [
        [one["frame_index"], each["price"]]
        for one in frames
        for each in one["events"]
        if each["type"] == "fill" and each["side"] == "buy"
    ]
    with opened(browser, address) as page:
        page.goto(f"{address}/runs/done/replays/window_000003")
        goes_to(page, 0)
        traces = page.evaluate(
            "document.getElementById('chart').data.map(({ type, x, y }) => ({ type, x, y }))"
        )
        assert traces[0]["type"] == "candlestick"
        assert len(traces[0]["x"]) == 120
        buys = traces[3]
        assert wanted
        assert [[x, y] for x, y in zip(buys["x"], buys["y"], strict=True)] == wanted


def test_a_page_without_a_server_holds_the_same_view(browser, root, tmp_path):
    run = directory.find(root / "done")
    entry = replays.entry_of(run, "window_000007")
    whole, part = tmp_path / "whole.html", tmp_path / "part.html"
    whole.write_text(pages.replay_page(run, entry))
    part.write_text(pages.replay_page(run, entry, first=500, limit=300))
    with opened(browser, "file://") as page:
        page.goto(whole.as_uri())
        goes_to(page, 0)
        scrub(page, 1499)
        assert not is_wide(page)
        page.goto(part.as_uri())
        goes_to(page, 500)
        assert "1,200 of 1,500 are left out" in page.locator(".heading").inner_text()
        page.locator("#slider").focus()
        page.keyboard.press("End")
        goes_to(page, 799)


def test_a_comparison_without_a_server(browser, root, tmp_path, capsys):
    file = tmp_path / "compare.html"
    names = [str(root / name) for name in ("done", "other")]
    assert command(["runs", "compare", *names, "--page", str(file)], prog="ztb") == 0
    assert capsys.readouterr().out == f"{file}\n"
    with opened(browser, "file://", viewport={"width": 360, "height": 700}) as page:
        page.goto(file.as_uri())
        until(page, f"{CHOSEN}.data?.length === 2")
        assert not is_wide(page)


@pytest.mark.parametrize("path", ["/", "/runs/done", "/compare?run=done&run=other"])
def test_pages_print_and_read_without_scripts(browser, address, path):
    page = browser.new_page(java_script_enabled=False)
    page.goto(address + path)
    page.emulate_media(media="print")
    assert page.locator("table").first.is_visible()
    assert page.locator(".controls").count() == 0
    page.close()
