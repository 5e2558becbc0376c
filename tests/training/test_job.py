"""The main job through its command: what it leaves, what it refuses, how it stops."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ztb_jax import build
from ztb_jax.cli.main import run
from ztb_jax.config import Config, as_dict, resolve
from ztb_jax.runs import checkpoint, directory
from ztb_jax.training import evaluate

TINY = """
seed: 3
data: {symbol: synthetic/ar1, timeframe: 1h, synthetic_bars: 1200, embargo_bars: 4}
features: {recipe: returns, lookback: 4}
env: {episode_bars: 32}
policy: {width: 8}
ppo: {num_accounts: 32, rollout_bars: 16, sharing: 4, learning_rate: 1e-3}
run: {total_env_steps: 4096, window_updates: 2, keep_checkpoints: 2}
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory) -> directory.RunDirectory:
    root = tmp_path_factory.mktemp("runs")
    assert train(tiny, root, "--run.id", "whole") == 0
    return directory.find(root / "whole")


def train(tiny, root, *flags) -> int:
    return run(["train", "--config", str(tiny), "--run.root", str(root), *flags], prog="ztb")


def metadata(run_directory) -> dict:
    return directory.read_json(run_directory.metadata)


def test_a_run_leaves_every_artifact(finished):
    facts = metadata(finished)
    assert facts["status"] == "completed"
    assert facts["error"] is None
    assert facts["env_steps_total"] == facts["target_env_steps"] == 4096
    assert facts["windows_emitted"] == facts["checkpoints_written"] == 4
    assert facts["fraction"] == 1.0
    rows = directory.read_lines(finished.windows)
    assert [row["window_id"] for row in rows] == [0, 1, 2, 3]
    assert [row["env_steps_end"] for row in rows] == [1024, 2048, 3072, 4096]
    result = directory.read_json(finished.evaluation)
    assert list(result["strategies"]) == [
        "policy", "buy_and_hold", "flat", "random", "moving_average_cross", "momentum", "mean_reversion",
        "inverse_volatility", "matched_random", "hindsight",
    ]  # fmt: skip
    assert result["strategies"]["flat"]["total_return"] == 0.0
    assert result["strategies"]["hindsight"]["total_return"] >= result["strategies"]["policy"]["total_return"]
    page = finished.report.read_text()
    assert "buy-and-hold" in page
    assert page.count("<svg") >= 3
    assert "All 4 windows were healthy." in page
    assert f"ztb verify {finished.path}" in page
    assert facts["data"]["content_hash"] in page
    best = str(facts["best_window"])
    assert {p.name for p in finished.checkpoints.iterdir()} == {"2", "3", best}
    assert [path.name for path in finished.path.iterdir() if path.name.startswith(".")] == [".lock"]


def test_the_printed_table_is_readable_in_a_terminal_of_100_columns(finished, capsys):
    result = directory.read_json(finished.evaluation)
    evaluate.print_result(result)
    lines = capsys.readouterr().out.split("\n")
    table = lines[2 : 3 + len(result["strategies"])]
    assert table[0].endswith(" costs")
    assert [row[:20].strip().replace(" ", "_") for row in table[1:]] == list(result["strategies"])
    assert {len(row) for row in table} == {len(table[0])}
    assert len(table[0]) <= 100


def test_the_timing_of_the_policy_is_told_beside_chance(finished):
    result = directory.read_json(finished.evaluation)
    told = [note for note in result["notes"] if note.startswith("In random orders")]
    assert len(told) == 1
    less, accounts, p_value = (float(number) for number in re.findall(r"\d+(?:\.\d+)?", told[0]))
    assert accounts == 101
    assert p_value == pytest.approx((1 + accounts - less) / (1 + accounts), abs=0.005)


def test_more_windows_compile_nothing_more(tiny, tmp_path):
    """Windows, validations, the best weights and checkpoints: each program is compiled once in a run."""
    seen: list[str] = []

    def listen(event: str, seconds: float, **_) -> None:
        if event.endswith("backend_compile_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        counts = []
        for windows in (1, 3, 6):  # the first run compiles what is compiled once in a process
            seen.clear()
            # In folders of their own, where no run before it plays beside.
            root = tmp_path / str(windows)
            assert train(tiny, root, "--run.total-env-steps", str(1024 * windows)) == 0
            counts.append(len(seen))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert counts[0] >= counts[1] == counts[2] >= 2


def test_the_configuration_of_a_run_resolves_to_itself(finished):
    saved = directory.read_json(finished.config)
    assert saved["ppo"]["num_accounts"] == 32
    assert saved["ppo"]["gamma"] == Config().ppo.gamma
    again = evaluate.saved_config(finished)
    assert json.loads(json.dumps(as_dict(again))) == saved


def test_the_policy_is_the_best_of_validation(finished):
    rows = directory.read_lines(finished.windows)
    best = int(np.argmax([row["validation_log_growth"] for row in rows]))
    assert metadata(finished)["best_window"] == best
    assert directory.read_json(finished.evaluation)["chosen_window"] == best


def test_the_last_line_printed_is_the_run_directory(tiny, tmp_path, capsys):
    assert train(tiny, tmp_path, "--run.total-env-steps", "1") == 0
    printed = capsys.readouterr()
    assert Path(printed.out.rstrip("\n").split("\n")[-1]).is_dir()
    for phase in ("loading", "indicators", "compile", "train", "evaluate"):
        assert phase in printed.err


def test_equal_seeds_give_equal_runs_and_others_do_not(tiny, finished, tmp_path):
    def rows(run_directory):
        skip = {"run_id", "seconds", "steps_per_second"}
        return [
            {key: value for key, value in row.items() if key not in skip}
            for row in directory.read_lines(run_directory.windows)
        ]

    assert train(tiny, tmp_path, "--run.id", "again") == 0
    assert rows(directory.find(tmp_path / "again")) == rows(finished)
    assert train(tiny, tmp_path, "--run.id", "other", "--seed", "4", "--run.total-env-steps", "1") == 0
    assert rows(directory.find(tmp_path / "other"))[0] != rows(finished)[0]


def test_evaluation_from_the_saved_policy_gives_the_same_result(finished):
    before = finished.evaluation.read_bytes()
    finished.evaluation.unlink()
    assert run(["evaluate", str(finished.path)], prog="ztb") == 0
    assert finished.evaluation.read_bytes() == before


def test_a_look_at_another_slice_goes_to_its_own_files_and_judges_nothing(finished):
    before = finished.evaluation.read_bytes(), finished.report.read_bytes(), finished.metadata.read_bytes()
    assert run(["evaluate", str(finished.path), "--slice", "train"], prog="ztb") == 0
    result_file, page_file = finished.results("train")
    assert directory.read_json(result_file)["verdict"].startswith("No judgement, the policy was trained on")
    assert "No judgement" in page_file.read_text()
    assert before == (
        finished.evaluation.read_bytes(),
        finished.report.read_bytes(),
        finished.metadata.read_bytes(),
    )


def test_a_number_that_is_not_finite_stops_the_run_at_its_last_good_state(tiny, tmp_path, capsys):
    assert train(tiny, tmp_path, "--run.id", "broken", "--ppo.learning-rate", "1e38") == 1
    broken = directory.find(tmp_path / "broken")
    facts = metadata(broken)
    assert facts["status"] == "failed"
    assert "window 0" in facts["error"]
    assert "last good state" in capsys.readouterr().err
    config = resolve(environ={}, file=tiny)
    like = jax.eval_shape(build.make_network(config, num_features=1).init, jax.random.key(0))
    restored, _ = checkpoint.restore(broken.checkpoints, {"best": like})
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(restored.trees["best"]))
    assert restored.plain["window"] == 0
    (row,) = directory.read_lines(broken.windows)
    assert row["window_complete"] is False
    assert facts["env_steps_total"] == row["env_steps_end"] < 1024


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--data.symbol", "NOSUCH"), "ztb data load NOSUCH 1h --from FILE"),
        (("--features.recipe", "defualt"), "Did you mean default"),
        (("--ppo.num-accounts", "0"), "flag --ppo.num_accounts"),
        (("--env.episode-bars", "960"), "lower env.episode_bars"),
        (("--data.start", "1970-13-01"), "is no date"),
        (("--run.id", "../escape"), "cannot name a directory"),
        (("--data.synthetic-bars", "3"), "bars"),
        (("--config", "/nonexistent.yaml"), "cannot read the configuration file"),
        (("--config", "/"), "cannot read the configuration file"),
    ],
)
def test_a_users_mistake_is_one_message_and_leaves_nothing(tiny, tmp_path, capsys, flags, words):
    root = tmp_path / "runs"
    assert train(tiny, root, *flags) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert "Traceback" not in told.err
    assert not root.exists()


def test_a_configuration_from_a_pipe_is_read_once(tiny, tmp_path):
    code = (
        "import sys\nfrom ztb_jax.cli.train import parse\n"
        "config = parse(sys.argv[1:])\nprint(config.seed, config.ppo.sharing, config.ppo.clip)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, "--config", "/dev/stdin", "--ppo.clip", "0.3"],
        input=tiny.read_text(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["3", "4", "0.3"]


def test_a_disk_that_fills_up_in_mid_run_is_recorded(tiny, tmp_path, monkeypatch, capsys):
    def full(path, row):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(directory, "append_line", full)
    assert train(tiny, tmp_path, "--run.id", "full") == 1
    told = capsys.readouterr().err
    assert "cannot be written any more" in told
    assert "Traceback" not in told
    facts = metadata(directory.find(tmp_path / "full"))
    assert facts["status"] == "failed"
    assert "No space left" in facts["error"]
    assert [path.name for path in (tmp_path / "full").glob(".*")] == [".lock"]


def test_a_disk_too_full_to_record_it_is_still_told(tiny, tmp_path, monkeypatch, capsys):
    write = directory.write_json

    def full(path, value):
        if path.name == "run_metadata.json" and value.get("windows_emitted"):
            raise OSError(28, "No space left on device", str(path))
        write(path, value)

    monkeypatch.setattr(directory, "write_json", full)
    assert train(tiny, tmp_path, "--run.id", "full") == 1
    assert "could not be brought up to date: No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"), [('"fee_rate": 0.0005', '"fee_rate": 0.0'), ('"seed": 3', '"seed": 5'), ("{", "null {")]
)
def test_edited_settings_of_a_run_are_refused(tmp_path, finished, capsys, old, new):
    copy = tmp_path / "copy"
    copy.mkdir()
    text = finished.config.read_text()
    assert old in text
    (copy / "config.json").write_text(text.replace(old, new, 1))
    (copy / "run_metadata.json").write_text(finished.metadata.read_text())
    assert run(["evaluate", str(copy)], prog="ztb") == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{}", "[]", "{", ""])
def test_damaged_metadata_are_refused(tmp_path, finished, capsys, text):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_bytes(finished.config.read_bytes())
    (copy / "run_metadata.json").write_text(text)
    assert run(["evaluate", str(copy)], prog="ztb") == 2
    assert "run_metadata.json" in capsys.readouterr().err


def test_a_run_id_that_exists_is_refused_and_its_run_untouched(tiny, finished, capsys):
    before = {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()}
    assert train(tiny, finished.path.parent, "--run.id", "whole") == 2
    assert "exists: choose another" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()} == before


def test_a_root_that_cannot_be_a_folder_is_refused(tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert train(tiny, tmp_path / "file") == 2
    assert "--run.root" in capsys.readouterr().err


def test_an_unknown_flag_exits_with_two(tiny, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        train(tiny, tmp_path, "--ppo.gama", "1")
    assert stopped.value.code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "nowhere"], "no directory"),
        (["nonsense"], "no command"),
        (["evaluate", "."], "config.json"),
    ],
)
def test_other_commands_refuse_with_two(arguments, words, capsys):
    assert run(arguments, prog="ztb") == 2
    assert words in capsys.readouterr().err


def test_changed_data_are_refused(finished, monkeypatch, capsys):
    frame = evaluate.load_frame(evaluate.saved_config(finished))
    frame.iloc[7, 0] *= 1.0001
    monkeypatch.setattr(evaluate, "load_frame", lambda config: frame)
    assert run(["evaluate", str(finished.path)], prog="ztb") == 2
    assert "not those that" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_with_a_checkpoint_and_a_status(tiny, tmp_path, number):
    flags = ["--run.root", str(tmp_path), "--run.id", "stopped", "--run.total-env-steps", "1000000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ztb_jax.training", "--config", str(tiny), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stopped = directory.RunDirectory(tmp_path / "stopped")
    deadline = time.monotonic() + 120
    while not directory.read_lines(stopped.windows):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    facts = metadata(stopped)
    assert facts["status"] == "cancelled"
    assert facts["halt_reason"] == f"stopped by {number.name}"
    assert 0.0 < facts["fraction"] < 1.0
    assert any("Training ended at" in note for note in directory.read_json(stopped.evaluation)["notes"])
    assert (stopped.path / facts["latest_checkpoint"]["path"]).is_dir()
    assert out.rstrip().split("\n")[-1] == str(stopped.path)
    assert run(["evaluate", str(stopped.path)], prog="ztb") == 0


@pytest.mark.parametrize("delay", [0.3, 1.0, 2.0])
def test_an_early_interrupt_is_no_traceback(tiny, tmp_path, delay):
    flags = ["--run.root", str(tmp_path), "--run.total-env-steps", "1000000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ztb_jax.training", "--config", str(tiny), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    process.stderr.readline()  # the first phase: the process is up
    time.sleep(delay)  # no event marks the inside of an import or of a compilation
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_a_second_signal_stops_at_once_also_where_the_first_was_to_be_ignored():
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from ztb_jax.training.interrupt import stop_requests\n"
        "with stop_requests() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert stop.signal == 'SIGINT'\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert "KeyboardInterrupt" in result.stderr


def test_patience_stops_a_run_that_no_longer_improves(tiny, tmp_path):
    flags = ("--run.patience-windows", "2", "--ppo.learning-rate", "1e-12", "--run.total-env-steps", "65536")
    assert train(tiny, tmp_path, "--run.id", "patient", *flags) == 0
    facts = metadata(directory.find(tmp_path / "patient"))
    assert "validation has not improved" in facts["halt_reason"]
    assert facts["windows_emitted"] < 64
