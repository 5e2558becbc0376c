"""A trace that is read back, and runs too large for their device: refused, or told when they break."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from ztb_jax import devices
from ztb_jax.cli.main import run
from ztb_jax.config import Config, resolve
from ztb_jax.runs import directory, profile
from ztb_jax.runs.loop import planned_bytes
from ztb_jax.training import memory

TINY = """
seed: 3
data: {symbol: synthetic/ar1, timeframe: 1h, synthetic_bars: 1200, embargo_bars: 4}
features: {recipe: returns, lookback: 4}
env: {episode_bars: 32}
policy: {width: 8}
ppo: {num_accounts: 32, rollout_bars: 16, sharing: 4, learning_rate: 1e-3}
run: {total_env_steps: 2048, window_updates: 2}
"""
# Tens of gigabytes: more than the memory of a machine that runs tests.
TOO_LARGE = ("--ppo.num-accounts", str(2**24), "--ppo.rollout-bars", "32")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path


def train(tiny, root, *flags) -> tuple[int, dict]:
    arguments = ["train", "--config", str(tiny), "--run.root", str(root), "--run.id", "one", *flags]
    status = run(arguments, prog="ztb")
    return status, directory.read_json(directory.RunDirectory(root / "one").metadata)


@pytest.fixture(scope="module")
def profiled(tiny, tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("runs")
    status, facts = train(tiny, root, "--profile", "--device", "cpu")
    assert status == 0
    return root / "one", facts


def test_the_metadata_tell_the_trace_and_the_device(profiled):
    path, facts = profiled
    assert facts["profile"] == {
        "window_id": 1,
        "path": "profile",
        "summary_path": "profile/summary.txt",
    }
    assert facts["environment"]["device"]["name"] == "cpu:0"
    assert facts["environment"]["device"] == facts["environment"]["device"] | {
        "platform": "cpu",
        "cores": devices.report()[-1].cores,
    }
    assert len(list(path.glob("profile/plugins/profile/*/*.trace.json.gz"))) == 1


def test_the_trace_names_the_programs_operations_and_their_time(profiled):
    path, _ = profiled
    found = profile.operations(path / "profile")
    (row,) = [
        row for row in directory.read_lines(path / "metrics" / "windows.jsonl") if row["window_id"] == 1
    ]
    assert all(operation.seconds >= -1e-9 for operation in found)
    # Threads run at once, and a window's wall time holds more than its operations.
    assert 0.0 < sum(operation.seconds for operation in found) < 64 * row["seconds"]
    # 2 updates of 4 passes over 4 minibatches: what an optimiser step does once is there 32 times.
    assert any(operation.runs == 32 for operation in found)
    assert [o.seconds for o in found] == sorted((o.seconds for o in found), reverse=True)
    lines = (path / "profile" / "summary.txt").read_text().splitlines()
    assert lines[2].split() == ["seconds", "share", "runs", "operation"]
    assert [line.split()[-1] for line in lines[3:]] == [operation.name for operation in found[:10]]


def test_a_run_of_one_window_has_that_one_traced_and_an_ordinary_run_none(tiny, tmp_path):
    status, facts = train(tiny, tmp_path / "a", "--run.profile", "--run.total-env-steps", "1")
    assert (status, facts["profile"]["window_id"]) == (0, 0)
    status, facts = train(tiny, tmp_path / "b", "--run.total-env-steps", "1")
    assert (status, facts["profile"]) == (0, None)
    assert not (tmp_path / "b" / "one" / "profile").exists()


def test_time_in_a_loop_counts_once():
    spans = [(0, 100, "while"), (10, 30, "a"), (30, 60, "a"), (35, 40, "b"), (120, 121, "c")]
    shuffled = [spans[i] for i in np.random.default_rng(0).permutation(len(spans))]
    totals: dict[str, float] = {}
    for name, own in profile.own_times(shuffled):
        totals[name] = totals.get(name, 0) + own
    assert totals == {"while": 50, "a": 45, "b": 5, "c": 1}
    # Against a count of each nanosecond's innermost span.
    cells = np.full(130, "", dtype=object)
    for start, end, name in sorted(spans, key=lambda span: span[0] - span[1]):
        cells[start:end] = name
    assert totals == {name: (cells == name).sum() for name in totals}


def test_a_folder_without_a_trace_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train with run\.profile"):
        profile.operations(tmp_path)
    assert "names no operations" in profile.table([])


def test_a_plan_counts_arguments_results_and_what_is_between():
    n = 1 << 16

    def two_sorts(x, y):  # the product of both sorted is needed whole before it can be sorted again
        return jax.numpy.sort(jax.numpy.sort(x) * jax.numpy.sort(y)[::-1])

    shape = jax.ShapeDtypeStruct((n,), np.float32)
    planned = planned_bytes(jax.jit(two_sorts).lower(shape, shape).compile())
    donated = planned_bytes(jax.jit(two_sorts, donate_argnums=0).lower(shape, shape).compile())
    assert planned is not None
    assert donated is not None
    assert 4 * 4 * n <= planned <= 6 * 4 * n  # two in, one out, at least one between
    assert planned - donated == 4 * n


def test_a_run_beyond_the_memory_is_refused_before_it_runs_and_its_advice_holds(tiny, tmp_path, capsys):
    status, facts = train(tiny, tmp_path, *TOO_LARGE)
    told = capsys.readouterr().err
    assert status == 1
    assert "Traceback" not in told
    assert facts["status"] == "failed"
    assert facts["windows_emitted"] == 0
    assert "lower ppo.num_accounts (16777216) to" in facts["error"]
    for words in (
        "bytes",
        "cpu:0 has",
        "ppo.rollout_bars (32)",
        "policy.width (8)",
        "ppo.num_minibatches (4)",
    ):
        assert words in told
    assert [path.name for path in (tmp_path / "one").glob(".*")] == [".lock"]
    words = facts["error"].split()
    needed, available = (
        int(words[i - 1].replace(",", "")) for i, word in enumerate(words) if word == "bytes"
    )
    assert needed > available
    accounts = int(words[words.index("to") + 1].rstrip(","))
    assert accounts == pytest.approx(0.9 * available / needed * 2**24, rel=1e-4)
    resolve(file=tiny, environ={}, flags={"ppo.num_accounts": accounts, "ppo.rollout_bars": 32})


def test_advice_names_no_number_of_accounts_that_cannot_be():
    assert "lower ppo.num_accounts (1024) to 448, or" in memory.smaller(Config(), 0.5)
    assert "lower ppo.num_accounts (1024), or" in memory.smaller(Config(), 1e-3)


UNCHECKED = """
import resource, sys
from pathlib import Path
import jax
from ztb_jax import devices
from ztb_jax.cli.main import run

devices.available_bytes = lambda device: None  # as of a device that does not tell
jax.devices()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 6 * 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(run(["train", *sys.argv[1:]], prog="ztb"))
"""


def test_memory_that_gives_out_while_a_window_runs_is_one_message(tiny, tmp_path):
    where = ("--config", str(tiny), "--run.root", str(tmp_path), "--run.id", "one")
    told = subprocess.run(
        [sys.executable, "-c", UNCHECKED, *where, *TOO_LARGE], capture_output=True, text=True, check=False
    )
    assert told.returncode == 1, told.stderr
    assert "the memory gave out: RESOURCE_EXHAUSTED: Out of memory allocating" in told.stderr
    assert "lower ppo.num_accounts (16777216) to" in told.stderr
    assert "Traceback" not in told.stderr
    facts = directory.read_json(tmp_path / "one" / "run_metadata.json")
    assert facts["status"] == "failed"
    assert facts["finished_at"] is not None
