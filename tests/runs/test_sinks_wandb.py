"""A real offline run of Weights & Biases, in a process of its own, read back from what it leaves."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ztb_jax.runs.sinks.wandb import _short, alias

ROOT = Path(__file__).resolve().parents[2]
HOMES = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "HOME", "NETRC")

PROGRAM = """
import json, signal, sys
from pathlib import Path
from tests.runs.sinking import Settings, begun, ended, make_run, story, window
from ztb_jax.runs import directory
from ztb_jax.runs.sinks import Sinks, make_sinks
from ztb_jax.runs.sinks.wandb import WandB

def state():
    return [sys.stdout, sys.stderr, *(signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM))]

place, resume = Path(sys.argv[1]), sys.argv[2] == "resume"
run = directory.RunDirectory(place / "runs" / "r-1") if resume else make_run(place)
before, reported, learnt = state(), [], []
other_run = directory.create(place / "others", f"other-{sys.argv[2]}", {})
other = WandB("project", mode="offline")
other(begun(other_run))
sinks = make_sinks(Settings(wandb="offline", wandb_project="project"), run)
with Sinks(sinks, report=reported.append, learnt=learnt.append, patience=60.0) as each:
    for event in [begun(run, 2048), window(run, 2), ended(run, 2, "failed")] if resume else story(run):
        each.tell(event)
other(ended(other_run, 0))
told = {"reported": reported, "learnt": learnt, "untouched": state() == before}
(place / "told.json").write_text(json.dumps(told))
"""


def records(path: Path) -> list:
    """Every record of a `.wandb` file, which is a LevelDB log: 32 KiB blocks of (CRC, length, kind, data)."""
    from wandb.proto import wandb_internal_pb2

    whole, at, parts, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(whole):
        _, length, kind = struct.unpack_from("<IHB", whole, at)
        parts += whole[at + 7 : at + 7 + length]
        at += 7 + length
        at += -at % 32768 if -at % 32768 < 7 else 0
        if kind in {1, 4}:  # a whole record, or the last part of one
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


def play(place: Path, how: str) -> list:
    environ = os.environ | {name: str(place / name.lower()) for name in HOMES}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(place), how],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    told = json.loads((place / "told.json").read_text())
    assert told == {"reported": [], "learnt": [{"wandb_run_url": None}], "untouched": True}
    files = sorted((place / "runs/r-1/wandb").glob("offline-run-*/run-r-1.wandb"))
    return records(files[-1])


def history(found: list) -> list[dict]:
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.WhichOneof("record_type") == "history"
    ]


def only(found: list, kind: str) -> list:
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]


def test_an_offline_run_holds_windows_artifacts_and_the_end(tmp_path):
    found = play(tmp_path, "new")
    (begun,) = only(found, "run")
    assert (begun.run_id, begun.display_name, begun.project) == ("r-1", "r-1", "project")
    assert list(begun.tags) == ["m3", "windowed-training"]
    config = {item.key: json.loads(item.value_json) for item in begun.config.update}
    assert config["data"]["symbol"] == "SP500"

    rows = history(found)
    assert [(row["_step"], row["return_mean"], row["verdict"]) for row in rows] == [
        (1024, 0.25, 0),
        (2048, 1.25, 13),
    ]
    assert not {"profit_mean", "validation_log_growth", "run_id", "window_complete"} & set(rows[0])

    artifacts = [request.log_artifact.artifact for request in only(found, "request")] + only(
        found, "artifact"
    )
    assert [
        (item.name, item.type, set(item.aliases), [entry.path for entry in item.manifest.contents])
        for item in artifacts
        if item.name
    ] == [
        ("model-r-1", "model", {"latest", "window-1"}, ["ckpt_000001.pt"]),
        (
            "replay-r-1-000001-best",
            "replay",
            {"latest", "window-1", "best", "return-100-"},
            ["best.jsonl.gz"],
        ),
    ]
    assert [end.exit_code for end in only(found, "exit")] == [0]
    summary = {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
        for record in only(found, "summary")
        for item in record.update
    }
    assert summary["evaluation/policy/sharpe"] == 1.5

    again = play(tmp_path, "resume")
    assert [row["_step"] for row in history(again)] == [3072]
    assert [end.exit_code for end in only(again, "exit")] == [1]


def test_an_alias_has_no_character_that_is_refused():
    assert alias("return:100%/a b_C.d-e") == "return-100--a-b_C.d-e"


@pytest.mark.parametrize(("key", "cause"), [("", "there is no login"), ("short", "API key")])
def test_online_without_a_login_is_refused_and_nobody_is_asked(tmp_path, key, cause):
    code = """
from tests.runs.sinking import Settings
from ztb_jax.runs.sinks import check_sinks
check_sinks(Settings(wandb="online"))
"""
    homes = {name: str(tmp_path / name.lower()) for name in HOMES}
    address = {"WANDB_API_KEY": key, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=os.environ | homes | address,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = done.stderr.splitlines()[-1]
    assert "ConfigError: sinks.wandb online cannot be used (" in told
    assert cause in told
    assert "): run `wandb login`, or set WANDB_API_KEY, or take --sinks.wandb offline" in told


def test_an_artifact_of_a_long_name_keeps_a_name_of_its_own():
    names = {_short(f"replay-{'r' * 120}-{window:06d}") for window in range(20)}
    assert len(names) == 20
    assert {len(name) for name in names} == {128}
    assert _short("model-r") == "model-r"
