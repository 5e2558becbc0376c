"""The stream of what is new in a run: each thing once, in order, to the end, from where the listener was."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.ui import samples, serving
from ztb_jax.runs import directory


def told(lines: Iterator[str]) -> Iterator[tuple[str, dict, str | None]]:
    """The events of a stream: name, data, id."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        elif fields:
            if "event" in fields:
                yield fields["event"], json.loads(fields["data"]), fields.get("id")
            fields = {}


@pytest.fixture
def run(tmp_path):
    return samples.make_run(tmp_path, "live", windows=3, status="running", finished_at=None)


def test_a_run_is_told_as_it_grows_and_to_its_end(run):
    with (
        serving.serving(run.path.parent) as address,
        directory.locked(run),
        httpx.stream("GET", f"{address}/api/runs/live/events", timeout=10) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = told(answer.iter_lines())
        assert next(events)[:2] == ("metadata", directory.read_json(run.metadata))
        assert [next(events)[2] for _ in range(3)] == ["0", "1", "2"]
        samples.grow(run)
        found = {name: data for name, data, _ in (next(events), next(events))}
        assert found["window"]["window_id"] == 3
        assert found["metadata"]["windows_emitted"] == 4
        samples.finish(run)
        assert next(events)[1]["status"] == "completed"
        assert next(events)[:2] == ("end", {"status": "completed"})
        assert next(events, None) is None


@pytest.mark.parametrize(
    ("query", "headers", "first"), [("?after=1", {}, "2"), ("?after=0", {"Last-Event-ID": "1"}, "2")]
)
def test_a_listener_goes_on_where_it_was(run, query, headers, first):
    with serving.serving(run.path.parent) as address:
        answer = httpx.get(f"{address}/api/runs/live/events{query}", headers=headers, timeout=10)
        events = list(told(iter(answer.text.split("\n"))))
        assert [number for name, _, number in events if name == "window"] == ["2"]
        assert events[-1][:2] == ("end", {"status": "killed"})


def test_damage_is_told_and_ends_it(run):
    run.windows.write_text('{"window_id": 0}\n[]\n')
    with serving.serving(run.path.parent) as address:
        answer = httpx.get(f"{address}/api/runs/live/events", timeout=10)
        assert list(told(iter(answer.text.split("\n"))))[-1][0] == "problem"


def test_a_stopping_server_waits_for_no_listener(run):
    with directory.locked(run), serving.serving(run.path.parent) as address:
        stream = httpx.stream("GET", f"{address}/api/runs/live/events", timeout=10)
        answer = stream.__enter__()
        next(told(answer.iter_lines()))
    stream.__exit__(None, None, None)
