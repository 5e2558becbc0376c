"""The JSON of `ztb ui`: what it tells, in which order, how much at once, and what it refuses."""

import gzip
import http.client
import json
import os
from contextlib import closing
from urllib.parse import urlsplit

import httpx
import pytest

from tests.ui import samples, serving
from tests.ui.conftest import EVIL
from ztb_jax.errors import RunError
from ztb_jax.runs import directory, listing, replays
from ztb_jax.ui import app
from ztb_jax.ui.page import replay_page


def test_health_and_the_list(client, root):
    assert client.get("/health").json() == {"status": "ok"}
    found = client.get("/api/runs").json()
    assert found == listing.list_runs(root)
    assert [run["run_id"] for run in client.get("/api/runs?status=killed").json()] == ["killed"]
    by_steps = client.get("/api/runs?sort=env_steps_total").json()
    steps = [run["env_steps_total"] for run in by_steps if run["env_steps_total"] is not None]
    assert steps == sorted(steps, reverse=True)
    assert client.get("/api/runs?sort=nothing").status_code == 422


def test_one_run_tells_all(client, root):
    told = client.get("/api/runs/done").json()
    run = directory.find(root / "done")
    assert told["metadata"] == directory.read_json(run.metadata)
    assert told["config"] == directory.read_json(run.config)
    assert told["evaluation"] == directory.read_json(run.evaluation)
    assert told["summary"]["status"] == "completed"
    assert client.get("/api/runs/stopped").json()["evaluation"] is None


def test_rows_come_in_either_order(client, root):
    rows = directory.read_windows(root / "done" / "metrics" / "windows.jsonl")
    newest = client.get("/api/runs/done/metrics/windows?limit=3").json()
    assert newest == {"run_id": "done", "count": 3, "rows": rows[::-1][:3]}
    assert client.get("/api/runs/done/metrics/windows?order=asc").json()["rows"] == rows
    for query in ("limit=0", "limit=100001", "order=up"):
        assert client.get(f"/api/runs/done/metrics/windows?{query}").status_code == 422


@pytest.mark.parametrize(
    ("query", "windows"),
    [
        ("", [7, 3]),
        ("limit=1", [7]),
        ("tag=every_window", [7, 3]),
        ("tag=nothing", []),
        ("tags_any=nothing,every_window", [7, 3]),
        ("tags_all=nothing,every_window", []),
        ("tags_all=every_window", [7, 3]),
        ("window_id=3", [3]),
    ],
)
def test_replays_are_found_by_their_tags(client, query, windows):
    told = client.get(f"/api/runs/done/replays?{query}").json()
    assert [entry["window_id"] for entry in told["replays"]] == windows
    assert told["count"] == len(windows)


def test_frames_come_in_pages(client):
    address = "/api/runs/done/replays/window_000003/frames"
    first = client.get(f"{address}?limit=400").json()
    assert (first["count"], first["has_more"], first["next_offset"]) == (400, True, 400)
    later = client.get(f"{address}?offset=800&limit=100").json()
    assert [frame["frame_index"] for frame in later["frames"]] == list(range(800, 900))
    assert (later["has_more"], later["next_offset"]) == (False, None)
    beyond = client.get(f"{address}?offset=900").json()
    assert (beyond["count"], beyond["frames"], beyond["has_more"]) == (0, [], False)
    for query in ("limit=5001", "limit=0", "offset=-1", "offset=x"):
        answer = client.get(f"{address}?{query}")
        assert answer.status_code == 422
        assert isinstance(answer.json()["detail"], str)


def test_a_comparison_holds_the_curves(client):
    told = client.get("/api/compare?run=done&run=other").json()
    assert told["runs"] == ["done", "other"]
    assert told["settings"]["ppo.learning_rate"] == [1e-3, 3e-4]
    assert told["metrics"]["total_return"] == [0.124, 0.124]
    for each in told["curves"]:
        assert len(each["columns"]["reward_mean"]) == len(each["columns"]["window_id"]) == 24
    for query in ("", "run=done", "run=done&run=done"):
        assert client.get(f"/api/compare?{query}").status_code == 422
    assert client.get("/api/compare?run=done&run=none").status_code == 404


OUTSIDE = [
    "/api/runs/..",
    "/api/runs/%2e%2e",
    "/api/runs/%2e%2e%2fsecret",
    "/api/runs/..%5csecret",
    "/api/runs/%2Fetc",
    "/api/runs/done%00",
    "/api/runs/.hidden",
    "/api/runs/nothing",
    "/api/runs/linked",
    "/api/runs/linked/events",
    "/runs/linked/report.html",
    "/runs/leaking/report.html",
    "/api/runs/leaking",
    "/runs/%2e%2e/report.html",
    "/api/runs/done/replays/%2e%2e%2f%2e%2e%2fsecret",
    "/api/runs/done/replays/nothing",
    "/api/runs/crooked/replays/up/frames",
    "/api/runs/crooked/replays/absolute/frames",
    "/api/runs/crooked/replays/link/frames",
    "/runs/crooked/replays/up",
    "/static/../app.py",
    "/static/%2e%2e/app.py",
    "/api/nothing",
    "/nothing",
]


@pytest.fixture(scope="module")
def crooked(tmp_path_factory):
    """A folder with links and names that lead out of it."""
    home = tmp_path_factory.mktemp("crooked")
    root = home / "runs"
    secret = samples.make_run(home, "secret", windows=1, replay_steps=(2,))
    samples.make_run(root, "done", windows=1, replay_steps=(2,))
    (root / ".hidden").mkdir()
    (root / ".hidden" / "config.json").write_text("{}")
    os.symlink(secret.path, root / "linked")
    leaking = samples.make_run(root, "leaking", windows=1)
    leaking.report.unlink()
    os.symlink(secret.report, leaking.report)
    run = samples.make_run(root, "crooked", windows=1, replay_steps=(2,))
    replay = next(secret.replays.iterdir())
    os.symlink(replay, run.replays / "link.jsonl.gz")
    index = directory.read_json(run.replay_index)
    names = {
        "up": f"../../secret/replays/{replay.name}",
        "absolute": str(replay),
        "link": "replays/link.jsonl.gz",
    }
    index["entries"] += [
        index["entries"][0] | {"replay_id": name, "replay_path": path} for name, path in names.items()
    ]
    directory.write_json(run.replay_index, index)
    with serving.serving(root) as address:
        yield address


def raw(address: str, target: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    """An answer to a target that no client tidied up."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    with closing(connection):
        connection.putrequest(method, target, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        with connection.getresponse() as answer:
            return answer.status, answer.read().decode()


@pytest.mark.parametrize("target", OUTSIDE)
def test_nothing_outside_is_read(crooked, target):
    status, text = raw(crooked, target)
    assert status == 404, text
    assert target.startswith("/api/") == ("detail" in text and text.startswith("{"))


def test_links_that_lead_out_are_not_listed(crooked):
    listed = [run["run_id"] for run in httpx.get(f"{crooked}/api/runs").json()]
    assert sorted(listed) == ["crooked", "done"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("target", ["/", "/api/runs", "/api/runs/done", "/runs/done", "/static/style.css"])
def test_it_is_read_alone(address, method, target):
    assert raw(address, target, method)[0] == 405


@pytest.mark.parametrize(
    "target", ["/", "/health", "/api/runs", "/api/runs/done/events", "/runs/done", "/static/plotly.min.js"]
)
def test_the_head_of_every_answer_can_be_asked_for(address, target):
    assert raw(address, target, "HEAD") == (200, "")


def test_other_names_of_this_machine_are_refused(address):
    assert raw(address, "/api/runs", Host="evil.example")[0] == 400
    assert raw(address, "/api/runs", Host="localhost:1")[0] == 200
    assert raw(address, "/api/runs", Host="[::1]:1")[0] == 200


def test_only_named_origins_may_read(tmp_path, monkeypatch, address):
    asked = {"Origin": "https://lab.example"}
    assert "access-control-allow-origin" not in httpx.get(f"{address}/api/runs", headers=asked).headers
    monkeypatch.setenv("ABP_CORS_ORIGINS", "https://a.example, https://lab.example")
    with serving.serving(tmp_path) as other:
        answer = httpx.get(f"{other}/api/runs", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://lab.example"
        answer = httpx.get(f"{other}/api/runs", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers


def test_every_answer_is_guarded_and_plotly_is_kept(client):
    for target in ("/", "/api/runs", "/nothing"):
        headers = client.get(target).headers
        assert headers["content-security-policy"] == app.POLICY
        assert headers["x-content-type-options"] == "nosniff"
    plotly = client.get("/static/plotly.min.js?1")
    assert "immutable" in plotly.headers["cache-control"]
    assert plotly.headers["etag"]
    page = client.get("/")
    assert client.get("/", headers={"If-None-Match": page.headers["etag"]}).status_code == 304


DAMAGED = [
    ("config.json", "{", "/runs/x"),
    ("config.json", "[]", "/runs/x"),
    ("config.json", "[" * 100_000, "/runs/x"),
    ("run_metadata.json", '{"status": "failed", "fraction": NaN}', "/runs/x"),
    ("run_metadata.json", '{"status": "failed", "troubles": 3}', "/runs/x"),
    ("evaluation.json", '{"strategies": [1]}', "/runs/x"),
    ("evaluation.json", '{"notes": 1}', "/api/runs/x"),
    ("evaluation.json", '{"edge": "edge"}', "/runs/x"),
    ("evaluation.json", '{"edge": {"reasons": 1}}', "/runs/x"),
    ("evaluation.json", "[]", "/compare?run=x&run=y"),
    ("metrics/windows.jsonl", "[]\n", "/api/runs/x/metrics/windows"),
    ("metrics/windows.jsonl", '{"window_id": 0, "reward_mean": NaN}\n', "/runs/x"),
    ("metrics/windows.jsonl", "\xff\n", "/api/compare?run=x&run=y"),
    ("replay_index.json", '{"schema_version": 9}', "/api/runs/x/replays"),
    ("replay_index.json", '{"schema_version": 1, "run_id": "x"}', "/api/runs/x/replays"),
    ("replay_index.json", '{"schema_version": 1, "run_id": "x", "entries": [1]}', "/api/runs/x/replays"),
    ("replays/window_000003.jsonl.gz", "no gzip", "/api/runs/x/replays/window_000003/frames"),
]


@pytest.mark.parametrize(("name", "text", "target"), DAMAGED)
def test_a_damaged_file_is_told_in_a_sentence(tmp_path, name, text, target):
    run = samples.make_run(tmp_path, "x", windows=1, replay_steps=(3,))
    samples.make_run(tmp_path, "y", windows=1)
    (run.path / name).write_text(text, encoding="latin-1")
    with serving.serving(tmp_path) as address:
        answer = httpx.get(address + target)
        assert answer.status_code == 409, answer.text
        assert "damaged" in answer.text or "schema_version" in answer.text
        assert httpx.get(f"{address}/").status_code == 200


def test_a_replay_with_a_torn_end_or_numbers_that_are_none_is_told(tmp_path):
    run = samples.make_run(tmp_path, "x", windows=1, replay_steps=(600,))
    path = next(run.replays.iterdir())
    whole = path.read_bytes()
    with serving.serving(tmp_path) as address:
        frames = f"{address}/api/runs/x/replays/window_000003/frames"
        path.write_bytes(whole[:-400])
        assert httpx.get(f"{frames}?offset=590").status_code == 409
        assert httpx.get(f"{frames}?limit=100").status_code == 200
        path.write_bytes(whole[:18] + bytes(8) + whole[26:])  # a member that says it has no size
        assert httpx.get(f"{frames}?offset=590").status_code == 200
        path.write_text('{"reward": NaN}\n')
        assert httpx.get(frames).status_code == 409


@pytest.mark.parametrize("text", ["[]", "{}", '{"render_state": {"equity": NaN}}', ""])
def test_no_page_is_made_of_a_damaged_replay(tmp_path, text):
    run = samples.make_run(tmp_path, "x", windows=1, replay_steps=(3,))
    next(run.replays.iterdir()).write_bytes(gzip.compress(f"{text}\n".encode() if text else b""))
    with pytest.raises(RunError):
        replay_page(run, replays.entry_of(run, None))


def test_what_files_hold_is_text_alone(client):
    for target in ("/", "/runs/other", "/runs/stopped", "/compare?run=done&run=other", f"/runs/{EVIL}"):
        assert EVIL not in client.get(target).text
    assert client.get("/api/runs/other").json()["summary"]["verdict"] == EVIL


def test_pages_show_what_they_can_without_scripts(client):
    page = client.get("/?status=failed").text
    assert 'href="/runs/stopped"' in page
    assert 'href="/runs/done"' not in page
    done = client.get("/runs/done").text
    assert "learning_rate" in done
    assert "Inconclusive. Beat buy-and-hold" in done
    assert "<h2>Verdict: inconclusive</h2>" in done
    assert "M = 3" in done
    stopped = client.get("/runs/stopped").text
    assert "moved the policy further than gates.kl" in stopped
    assert "kl_runaway" in stopped
    assert client.get("/runs/bare").status_code == 200
    assert client.get("/runs/done/report.html").text == samples.REPORT
    assert client.get("/runs/stopped/report.html").status_code == 404


def test_every_json_is_json(client):
    for target in ("/api/runs", "/api/nothing", "/api/runs/none", "/api/runs?sort=x"):
        json.loads(client.get(target).text)
