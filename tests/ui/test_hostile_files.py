"""Files that somebody damaged: the pages and the terminal say so, in a sentence, and go on with the rest."""

import gzip
import json

import httpx
import pytest

from tests.ui import samples, serving
from ztb_jax.cli.main import run as command
from ztb_jax.runs import directory

REPLAY = "/replays/window_000003"
HUGE = int("9" * 400)
ESCAPE = "\x1b]0;owned\x07"


def metadata_with(**facts):
    def change(run):
        text = json.dumps(directory.read_json(run.metadata) | facts)
        run.metadata.write_text(text)

    return change


def index_with(**facts):
    def change(run):
        index = json.loads(run.replay_index.read_text())
        index["entries"][0] |= facts
        run.replay_index.write_text(json.dumps(index))

    return change


def looped(run):
    run.seal.unlink()
    run.seal.symlink_to(run.seal.name)


def frames_with(text):
    def change(run):
        entry = json.loads(run.replay_index.read_text())["entries"][0]
        (run.path / entry["replay_path"]).write_bytes(gzip.compress(text.encode()))

    return change


CHANGES = {
    "huge number": metadata_with(env_steps_total=HUGE),
    "half a character": metadata_with(error="\ud800"),
    "number for a time": metadata_with(started_at=5),
    "no object": lambda run: run.metadata.write_text("[]"),
    "unknown status": metadata_with(status="napping"),
    "deep": lambda run: run.metadata.write_text("[" * 100_000),
    "circle of links": looped,
    "huge number in the index": index_with(profit=HUGE),
    "no steps": index_with(steps=0),
    "file outside": index_with(replay_path="../good/run_metadata.json"),
    "absolute file": index_with(replay_path="/etc/passwd"),
    "no entries": lambda run: run.replay_index.write_text(
        '{"schema_version":1,"run_id":"bad","updated_at":""}'
    ),
    "frame that is none": frames_with('{"frame_index":0}\n'),
    "not finite": frames_with('{"frame_index":0,"reward":NaN}\n'),
    "deep frame": frames_with("[" * 100_000 + "\n"),
    "line without end": frames_with(" " * (1 << 23)),
}


@pytest.fixture(params=CHANGES.values(), ids=list(CHANGES))
def root(request, tmp_path):
    samples.make_run(tmp_path, "good", windows=3, replay_steps=(40,))
    request.param(samples.make_run(tmp_path, "bad", windows=3, replay_steps=(40,)))
    return tmp_path


def test_the_server_shows_the_rest(root):
    with serving.serving(root) as address, httpx.Client(base_url=address, timeout=20) as client:
        for path in ("/", "/api/runs", "/runs/good", "/api/runs/good/replays"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert "good" in answer.text
        for path in (
            "",
            "/replays",
            REPLAY,
            f"{REPLAY}/frames",
            "/metrics/windows",
        ):
            for place in (f"/runs/bad{path}", f"/api/runs/bad{path}"):
                assert client.get(place).status_code in {200, 404, 409}, place


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs", "--root", "."],
        ["runs", "show", "bad"],
        ["runs", "show", "bad", "--follow"],
        ["runs", "compare", "bad", "good"],
        ["replay", "bad"],
        ["replay", "bad", "--list"],
    ],
)
def test_the_terminal_is_told_in_a_sentence(root, monkeypatch, capsys, arguments):
    monkeypatch.chdir(root)
    assert command(arguments, prog="ztb") in {0, 1, 2}
    assert "Traceback" not in capsys.readouterr().err


def test_no_control_character_of_a_file_reaches_the_terminal(tmp_path, monkeypatch, capsys):
    run = samples.make_run(tmp_path, "run", windows=3, replay_steps=(40,))
    metadata_with(status="failed", error=f"bad{ESCAPE}", verdict=f"odd{ESCAPE}")(run)
    index_with(replay_id=f"id{ESCAPE}", tags=[ESCAPE])(run)
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["runs", "--root", "."],
        ["runs", "show", "run", "--follow"],
        ["replay", "run", "--list"],
        ["replay", "run", "nosuch"],
        ["replay", "run"],
    ):
        command(arguments, prog="ztb")
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "\x07" not in told.out + told.err


def test_a_run_that_was_renamed_is_shown(tmp_path):
    run = samples.make_run(tmp_path, "before", windows=3, replay_steps=(40,))
    run.path.rename(tmp_path / "after")
    with serving.serving(tmp_path) as address:
        answer = httpx.get(f"{address}/runs/after", timeout=10)
    assert answer.status_code == 200
    assert "of run &#39;before&#39;, not &#39;after&#39;" in answer.text
