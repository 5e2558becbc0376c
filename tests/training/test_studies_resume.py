"""Studies that were stopped or killed go on to the bits of one that nobody stopped."""

import os
import signal
import subprocess
import sys

import pytest

from tests.training import studying
from tests.training.studying import VARY, command, kept, study_in
from ztb_jax import trials
from ztb_jax.cli.main import run
from ztb_jax.runs import directory, ledger, studies
from ztb_jax.training.interrupt import StopRequest

ASKED = ("--folds", "3", "--seeds", "2", "--id", "wf", *VARY)
AT_ONCE = 5  # so that twelve trainings are three chunks of four

# A process that ends itself as `kill -9` would, at a moment of its own: the n-th call of a function.
DYING = """
import importlib, os, signal, sys
module, name, count, at_once, *arguments = sys.argv[1:]
import ztb_jax.trials
ztb_jax.trials.MOST_AT_ONCE["cpu"] = int(at_once)
left = int(count)
place = importlib.import_module(module)
real = getattr(place, name)
def dying(*parts, **rest):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*parts, **rest)
setattr(place, name, dying)
from ztb_jax.cli.main import run
sys.exit(run(arguments, prog="ztb"))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trials.MOST_AT_ONCE, "cpu", AT_ONCE)
        assert command(root, "walkforward", *ASKED) == 0
    return study_in(root, "wf")


def dying(place: str, count: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, killed when a function of a module is called for the `count`-th time."""
    return subprocess.run(
        [sys.executable, "-c", DYING, *place.rsplit(".", 1), str(count), str(AT_ONCE), *arguments],
        capture_output=True,
        text=True,
        check=False,
        # As in this process, or the seal would tell of a drift.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_NUMPY_RANK_PROMOTION": "raise"},
    )


def begun(root) -> list[str]:
    root.mkdir()
    (root / "tiny.yaml").write_text(studying.TINY)
    return ["walkforward", "--config", str(root / "tiny.yaml"), "--run.root", str(root), *ASKED]


def test_a_study_that_is_killed_again_and_again_ends_as_one_that_was_not(whole, tmp_path):
    """In the middle of writing its second chunk, then after it was recorded, before anybody was told."""
    root = tmp_path / "killed"
    first = dying("os.fsync", 6, *begun(root))
    assert first.returncode == -signal.SIGKILL, first.stderr
    store = study_in(root, "wf")
    chunks = sorted(path.name for path in store.chunks.glob("[0-9]*.npz"))
    assert chunks == ["000-000-00000.npz"]
    assert list(store.path.rglob(".*.tmp"))
    second = dying("ztb_jax.evaluation.judgement.judge", 1, "walkforward", "--resume", str(store.path))
    assert second.returncode == -signal.SIGKILL, second.stderr
    assert not store.result.exists()
    assert len(ledger.read(root / "scored.jsonl").rows) == 5
    assert run(["walkforward", "--resume", str(store.path)], prog="ztb") == 0
    assert kept(store) == kept(whole)
    assert not list(store.path.rglob(".*.tmp"))
    assert len({row["policy"] for row in ledger.read(root / "scored.jsonl").rows}) == 5


def test_a_study_that_was_killed_before_it_was_sealed_goes_on(whole, tmp_path):
    root = tmp_path / "killed"
    assert dying("ztb_jax.training.run_seal.write_seal", 1, *begun(root)).returncode == -signal.SIGKILL
    store = study_in(root, "wf")
    assert not store.seal.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trials.MOST_AT_ONCE, "cpu", AT_ONCE)
        assert run(["walkforward", "--resume", str(store.path)], prog="ztb") == 0
    assert kept(store) == kept(whole)


def test_a_request_to_stop_is_answered_between_windows_and_the_study_goes_on(
    whole, tmp_path, monkeypatch, capsys
):
    root, write = tmp_path / "stopped", studies.write_chunk
    with monkeypatch.context() as patch:
        patch.setitem(trials.MOST_AT_ONCE, "cpu", AT_ONCE)

        def note(*parts):
            write(*parts)
            patch.setattr(StopRequest, "signal", "SIGTERM")

        patch.setattr(studies, "write_chunk", note)
        assert command(root, "walkforward", *ASKED) == 130
    store = study_in(root, "wf")
    assert len(list(store.chunks.iterdir())) == 1
    told = capsys.readouterr()
    assert f"go on with: ztb walkforward --resume {store.path}" in told.err
    assert told.out.rstrip() == str(store.path)
    assert run(["walkforward", "--resume", str(store.path)], prog="ztb") == 0
    assert kept(store) == kept(whole)
    trained = directory.read_json(store.study)["trained"]
    assert trained["env_steps"] == directory.read_json(whole.study)["trained"]["env_steps"]


HOLDING = """
import sys
from ztb_jax.runs import directory, studies
with directory.locked(studies.find(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_write_one_study(whole, capsys):
    before = kept(whole)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(whole.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert run(["walkforward", "--resume", str(whole.path)], prog="ztb") == 2
    finally:
        other.kill()
        other.communicate()
    assert f"is being written by process {other.pid}" in capsys.readouterr().err
    assert kept(whole) == before
