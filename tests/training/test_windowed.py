"""The windowed trainer through its command: rows 280 to 320 of the requirements, one after the other."""

import gzip
import json

import jax
import jsonschema
import numpy as np
import pytest

from tests.training.resuming import metadata, resume, stop_after
from ztb_jax.cli.main import run
from ztb_jax.errors import FormatError
from ztb_jax.evaluation.episodes import make_episodes
from ztb_jax.evaluation.frames import summary_of
from ztb_jax.runs import artifacts, directory, policy_files, replays
from ztb_jax.training import saved_policy

# A market that is ready in no time; all else is the trainer's own.
MARKET = (
    "--data.symbol", "synthetic/ar1", "--data.timeframe", "1h", "--data.synthetic-bars", "1200",
    "--data.embargo-bars", "4", "--features.recipe", "returns", "--features.lookback", "4",
)  # fmt: skip
SMALL_PPO = (
    "--ppo-num-envs",
    "4",
    "--ppo-num-workers",
    "2",
    "--ppo-rollout-steps",
    "16",
    "--policy.width",
    "8",
)


def windowed(root, *flags: str) -> int:
    return run(["windowed", "--run-root", str(root), *flags, *MARKET], prog="ztb")


def trained(root, name: str, *flags: str) -> directory.RunDirectory:
    assert windowed(root, "--run-id", name, *flags) == 0
    return directory.find(root / name)


@pytest.fixture(scope="module")
def random(tmp_path_factory):
    """The run of 120 units in windows of 40 that the acceptance cases are about."""
    root = tmp_path_factory.mktemp("random")
    flags = ("--total-env-steps", "120", "--window-env-steps", "40", "--eval-replays-per-window", "3")
    return trained(root, "random", *flags, "--eval-max-steps-per-episode", "50")


@pytest.fixture(scope="module")
def puffer(tmp_path_factory):
    """Windows that end in the middle of updates of 64 steps."""
    root = tmp_path_factory.mktemp("puffer")
    flags = ("--trainer-backend", "puffer_ppo", "--total-env-steps", "250", "--window-env-steps", "100")
    more = ("--eval-replays-per-window", "2", "--no-eval-include-info", "--flush-partial-window")
    return trained(root, "puffer", *flags, *more, "--eval-max-steps-per-episode", "40", *SMALL_PPO)


def entries_of(found):
    return replays.read_index(found)


def test_random_run_has_three_windows_checkpoints_and_replays(random):
    rows, facts = directory.read_lines(random.windows), metadata(random)
    spans = [(row["env_steps_start"], row["env_steps_end"], row["env_steps_total"]) for row in rows]
    assert spans == [(0, 40, 40), (40, 80, 80), (80, 120, 120)]
    assert [row["window_id"] for row in rows] == [0, 1, 2]
    assert all(row["window_complete"] and row["env_steps_in_window"] == 40 for row in rows)
    assert all(row["invalid_action_rate"] == 0.0 for row in rows)
    assert facts["status"] == "completed"
    assert facts["trainer_backend"] == "random"
    assert facts["env_steps_total"] == facts["target_env_steps"] == 120
    assert facts["windows_emitted"] == facts["checkpoints_written"] == facts["replays_written"] == 3
    assert facts["episodes_total"] == sum(row["episodes_completed"] for row in rows)
    assert facts["latest_window"] == {
        "window_id": 2,
        "window_complete": True,
        "env_steps_start": 80,
        "env_steps_end": 120,
        "metrics_row_path": "metrics/windows.jsonl",
    }
    assert facts["latest_checkpoint"]["path"] == "checkpoints/ckpt_000002.pt"
    assert facts["latest_replay"]["window_id"] == 2
    assert facts["replay_index_path"] == "replay_index.json"
    assert facts["wandb_run_url"] is facts["constellation_url"] is None
    assert facts["troubles"] == []


def test_random_checkpoints_are_json(random):
    for window in range(3):
        told = json.loads(policy_files.path_of(random, window).read_text())
        assert told["checkpoint_format"] == "json_v1"
        assert (told["window_id"], told["env_steps_total"]) == (window, 40 * (window + 1))
        assert told["run_id"] == "random"
        assert told["trainer_backend"] == "random"


def test_every_replay_is_in_the_index_and_tagged(random):
    entries = entries_of(random)
    assert [entry["window_id"] for entry in entries] == [0, 1, 2]
    best = -np.inf
    for entry in entries:
        assert entry["tags"][0] == "every_window"
        assert ("best_so_far" in entry["tags"]) == (entry["return_total"] > best)
        best = max(best, entry["return_total"])
        assert entry["checkpoint_path"] == f"checkpoints/ckpt_{entry['window_id']:06d}.pt"
        assert entry["replay_path"] == f"replays/{entry['replay_id']}.jsonl.gz"
        assert entry["replay_id"].startswith(f"replay-{entry['window_id']:06d}-")
        frames = list(replays.read_frames(random.path / entry["replay_path"]))
        assert len(frames) == entry["steps"] == 50
        assert sum(frame["reward"] for frame in frames) == pytest.approx(entry["return_total"])
        assert frames[-1]["render_state"]["net_profit"] == pytest.approx(entry["profit"], abs=1e-3)
        assert entry["return_percent"] == pytest.approx(entry["profit"] / 100.0)  # of 10,000
        assert frames[-1]["truncated"]
        assert all("info" in frame for frame in frames)


def validators():
    made = {
        name: json.loads((artifacts.SCHEMAS / f"{name}.schema.json").read_text())
        for name in artifacts.ARTIFACTS
    }
    for each in made.values():
        jsonschema.Draft202012Validator.check_schema(each)
    return {name: jsonschema.Draft202012Validator(each) for name, each in made.items()}


def records_of(found):
    """(schema, record) of every JSON file of a run."""
    for name, path in (
        ("config", found.config),
        ("run_metadata", found.metadata),
        ("replay_index", found.replay_index),
        ("evaluation", found.evaluation),
        ("seal", found.seal),
    ):
        yield name, directory.read_json(path)
    scored = found.path.parent / "scored.jsonl"
    for name, path in (("window_row", found.windows), ("window_digests", found.digests), ("scored", scored)):
        yield from ((name, row) for row in directory.read_lines(path))
    yield from (("policy_checkpoint", policy_files.read(path)[0]) for path in policy_files.paths(found))
    for path in found.replays.iterdir():
        with gzip.open(path, "rt") as lines:
            yield from (("replay_frame", json.loads(line)) for line in lines)


def test_every_artifact_is_of_its_schema(random, puffer):
    known, seen = validators(), set()
    for found in (random, puffer):
        for name, record in records_of(found):
            known[name].validate(record)
            seen.add(name)
    assert seen == set(artifacts.ARTIFACTS) - {"study", "study_result", "trial"}  # those of no single run


def test_a_schema_sees_what_is_wrong(random):
    known = validators()
    for name, record in records_of(random):
        less = dict(record)
        required = artifacts.schema(name).get("required", [])
        if required:
            del less[required[0]]
            assert not known[name].is_valid(less)
            assert not known[name].is_valid({**record, required[-1]: object()})


def test_the_shipped_schemas_are_those_of_the_records(tmp_path):
    artifacts.write_schemas(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    shipped = {path.name: path.read_text() for path in artifacts.SCHEMAS.iterdir()}
    assert made == shipped, "run `python -m ztb_jax.runs.artifacts`"


def test_updates_are_split_among_windows_and_the_rest_is_flushed(puffer):
    rows, facts = directory.read_lines(puffer.windows), metadata(puffer)
    spans = [(row["env_steps_start"], row["env_steps_end"], row["window_complete"]) for row in rows]
    assert spans == [(0, 100, True), (100, 200, True), (200, 256, False)]
    assert facts["target_env_steps"] == 250
    assert facts["env_steps_total"] == 256
    assert facts["ppo_policy_updates"] == 4
    assert facts["trainer_backend"] == "puffer_ppo"
    assert facts["ppo_num_envs"] == 4
    assert facts["ppo_num_workers"] == 2
    assert facts["ppo_rollout_steps"] == 16
    assert facts["ppo_vector_backend"] == "multiprocessing"
    assert facts["ppo_policy_arch"] == "mlp-8x8-tanh-v1"
    assert sum(row["episodes_completed"] for row in rows) == facts["episodes_total"]


def test_ppo_checkpoints_are_whole_policies_and_replays_are_played_from_them(puffer):
    """The replay again, from nothing but the file and the market."""
    config = directory.read_json(puffer.config)
    for entry in entries_of(puffer):
        saved = saved_policy.load(puffer.path / entry["checkpoint_path"])
        assert saved.header["checkpoint_format"] == "ppo_jax_v1"
        assert saved.header["obs_shape"] == [4 * 1 + 2]
        assert saved.header["n_actions"] == 3
        data = prepared_again(config).slices["validation"]
        seed = config["seed"] + 100_000 + 1000 * entry["window_id"]
        keys = jax.vmap(jax.random.key)(np.array([seed, seed + 1], np.uint32))
        played = make_episodes(saved.policy, saved.env, steps=40)(saved.params, data, keys)
        each = [summary_of(jax.tree.map(lambda leaf, n=n: np.asarray(leaf)[n], played)) for n in range(2)]
        assert entry["return_total"] == max(told.return_total for told in each)
        frames = list(replays.read_frames(puffer.path / entry["replay_path"]))
        assert all("info" not in frame for frame in frames)
        bars = [frame["render_state"]["bar"]["close"] for frame in frames]
        closes = prepared_again(config).frame["close"].to_list()
        assert any(closes[n : n + len(bars)] == bars for n in range(len(closes)))


def prepared_again(config):
    from ztb_jax.config import flattened, layered
    from ztb_jax.training.job import prepared_market
    from ztb_jax.training.progress import Reporter

    return prepared_market(layered(environ={}, flags=flattened(config)), Reporter())


def test_a_checkpoint_of_another_architecture_is_refused(puffer, tmp_path):
    header, weights = policy_files.read(policy_files.path_of(puffer, 0))
    assert weights is not None
    path = tmp_path / "ckpt_000000.pt"
    policy_files.write(path, header | {"policy_arch": "mlp-9x9-tanh-v1"}, weights)
    with pytest.raises(ValueError, match="policy_arch 'mlp-9x9-tanh-v1' is not what its configuration makes"):
        saved_policy.load(path)
    name = next(iter(weights))
    policy_files.write(path, header, weights | {name: np.zeros(3, np.float32), "more": np.zeros(2)})
    with pytest.raises(FormatError, match=rf"{name} is float32\[3\].*more is unknown"):
        saved_policy.load(path)
    policy_files.write(path, {key: value for key, value in header.items() if key != "measured"}, weights)
    with pytest.raises(FormatError, match="lacks measured"):
        saved_policy.load(path)


def test_the_last_update_is_in_the_last_checkpoint(tmp_path):
    """Also when the last window is not told."""
    flags = ("--trainer-backend", "puffer_ppo", "--total-env-steps", "250", "--window-env-steps", "100")
    found = trained(tmp_path, "short", *flags, "--checkpoint-every-windows", "5", *SMALL_PPO)
    assert [row["window_id"] for row in directory.read_lines(found.windows)] == [0, 1]
    assert [policy_files.window_of(path) for path in policy_files.paths(found)] == [0, 1]
    facts = metadata(found)
    assert (facts["windows_emitted"], facts["env_steps_total"]) == (2, 256)
    assert facts["ppo_policy_updates"] == 4
    assert facts["best_window"] in {0, 1}  # a window that is not told of is not judged either
    assert facts["replays_dir"] is facts["replay_index_path"] is facts["latest_replay"] is None
    assert not found.replays.exists()
    _, kept = policy_files.read(policy_files.path_of(found, 1))
    _, before = policy_files.read(policy_files.path_of(found, 0))
    assert kept is not None
    assert before is not None
    assert any((kept[name] != before[name]).any() for name in kept)


def test_a_partial_window_is_told_only_when_asked(tmp_path):
    flags = ("--total-env-steps", "50", "--window-env-steps", "20")
    plain, flushed = (
        trained(tmp_path, "plain", *flags),
        trained(tmp_path, "f", *flags, "--flush-partial-window"),
    )
    assert [row["env_steps_end"] for row in directory.read_lines(plain.windows)] == [20, 40]
    rows = directory.read_lines(flushed.windows)
    assert [(row["env_steps_end"], row["window_complete"]) for row in rows] == [
        (20, True),
        (40, True),
        (50, False),
    ]
    assert metadata(plain)["env_steps_total"] == 50


def test_apg_and_ppo_run_in_windows_too(tmp_path):
    flags = ("--total-env-steps", "128", "--window-env-steps", "64", "--ppo-num-envs", "4")
    more = ("--ppo-rollout-steps", "16", "--policy.width", "8", "--eval-replays-per-window", "1")
    for backend in ("ppo", "apg"):
        found = trained(
            tmp_path, backend, "--trainer-backend", backend, *flags, *more, "--eval-policy-stochastic"
        )
        assert metadata(found)["trainer_backend"] == backend
        assert len(entries_of(found)) == 2


def test_a_used_run_id_is_refused(random, capsys):
    assert windowed(random.path.parent, "--run-id", "random") == 2
    assert "exists: choose another" in capsys.readouterr().err
    assert len(directory.read_lines(random.windows)) == 3


def test_a_stopped_run_goes_on_to_the_same_replays(puffer, tmp_path, monkeypatch):
    """Stopped in the middle of an update; replays that were not recorded by then are made up for."""
    flags = ("--trainer-backend", "puffer_ppo", "--total-env-steps", "250", "--window-env-steps", "100")
    more = ("--eval-replays-per-window", "2", "--no-eval-include-info", "--flush-partial-window")
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        assert windowed(tmp_path, "--run-id", "puffer", *flags, *more, "--eval-max-steps-per-episode", "40",
                        *SMALL_PPO) == 130  # fmt: skip
    found = directory.find(tmp_path / "puffer")
    for path in found.replays.iterdir():
        path.unlink()
    replays.write_index(found, [])
    assert resume(found) == 0
    assert directory.read_lines(found.digests) == directory.read_lines(puffer.digests)

    def told(entries):
        return [{name: value for name, value in entry.items() if name != "created_at"} for entry in entries]

    assert told(entries_of(found)) == told(entries_of(puffer))
    for path in puffer.replays.iterdir():
        assert (found.replays / path.name).read_bytes() == path.read_bytes()
    skip = {"seconds", "steps_per_second"}
    rows = [
        [
            {name: value for name, value in row.items() if name not in skip}
            for row in directory.read_lines(each.windows)
        ]
        for each in (found, puffer)
    ]
    assert rows[0] == rows[1]


def test_a_replay_that_fails_is_told_and_stops_nothing(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise OSError("the disk is on fire")

    monkeypatch.setattr(replays, "write_frames", broken)
    flags = ("--total-env-steps", "40", "--window-env-steps", "20", "--eval-replays-per-window", "1")
    facts = metadata(trained(tmp_path, "broken", *flags))
    assert facts["status"] == "completed"
    assert len(facts["troubles"]) == 2
    assert "no replay of checkpoints/ckpt_000000.pt: OSError: the disk is on fire" in facts["troubles"][0]


def test_every_sink_is_told_by_a_run(tmp_path, monkeypatch):
    """TensorBoard and the log of a real run; the trackers' own tests are in tests/runs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    flags = ("--total-env-steps", "60", "--window-env-steps", "20", "--eval-replays-per-window", "1")
    trained(tmp_path, "told", *flags, "--sinks.tensorboard")
    seen = EventAccumulator(str(tmp_path / "logs" / "told"))
    seen.Reload()
    points = seen.Scalars("performance/validation_log_growth")
    assert [point.step for point in points] == [20, 40, 60]
    log = (tmp_path / "logs" / "told" / "training.log").read_text()
    assert "ckpt_000002.pt" in log
    assert "replay-000002" in log
    assert "evaluate" in log
