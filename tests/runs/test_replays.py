"""Replays stream in and out, hop to any frame, and say what is wrong with them."""

import gzip
import itertools
import json
import tracemalloc

import pytest

from ztb_jax.errors import FormatError, RunError
from ztb_jax.runs import directory, replays


def frame(index: int, **more) -> dict:
    return {
        "schema_version": 1,
        "frame_index": index,
        "t": index + 1,
        "dt": 1,
        "action": index % 3,
        "reward": 0.001 * index,
        "terminated": False,
        "truncated": False,
        "render_state": {
            "time": "2020-01-01",
            "bar": {"open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5},
            "observation": [float(index)] * 8,
            "position": 0.0,
            "equity": 10_000.0,
            "net_profit": 0.0,
            "drawdown": 0.0,
            "survival": 1.0,
            "time_remaining": 0,
        },
        "events": [],
    } | more


def indices(path, **window) -> list[int]:
    return [each["frame_index"] for each in replays.read_frames(path, **window)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "replay.jsonl.gz"


@pytest.mark.parametrize("count", [1, 511, 512, 513, 1500])
def test_what_is_written_is_read(path, count):
    written = replays.write_frames(path, map(frame, range(count)))
    assert written.frames == count
    assert list(replays.read_frames(path)) == [frame(index) for index in range(count)]
    with gzip.open(path, "rt") as lines:  # any reader of gzip can
        assert [json.loads(line)["frame_index"] for line in lines] == list(range(count))


def test_equal_frames_are_equal_files(tmp_path):
    paths = [tmp_path / name for name in ("a", "b")]
    digests = {replays.write_frames(each, map(frame, range(700))).digest for each in paths}
    assert len(digests) == 1
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_any_part_is_read(path):
    replays.write_frames(path, map(frame, range(1500)))
    for offset, limit in itertools.product(
        (0, 1, 511, 512, 513, 1024, 1499, 1500, 9999), (0, 1, 7, 600, None)
    ):
        wanted = list(range(1500))[offset:][:limit]
        assert indices(path, offset=offset, limit=limit) == wanted, (offset, limit)


def test_a_hop_unpacks_nothing_before(path, monkeypatch):
    replays.write_frames(path, map(frame, range(5 * replays.BLOCK)))
    unpacked = []
    read = gzip.GzipFile.read1
    monkeypatch.setattr(
        gzip.GzipFile, "read1", lambda self, size=-1: unpacked.append(part := read(self, size)) or part
    )
    assert indices(path, offset=4 * replays.BLOCK + 3, limit=2) == [
        4 * replays.BLOCK + 3,
        4 * replays.BLOCK + 4,
    ]
    text = b"".join(unpacked)
    assert json.loads(text.split(b"\n")[0])["frame_index"] == 4 * replays.BLOCK


def test_a_file_of_another_writer_is_read_too(path):
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(frame(index)) + "\n" for index in range(30))
    assert indices(path, offset=7, limit=3) == [7, 8, 9]


def test_memory_does_not_grow_with_the_replay(path):
    tracemalloc.start()
    try:
        replays.write_frames(path, map(frame, range(60_000)))
        assert sum(1 for _ in replays.read_frames(path)) == 60_000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_frames_that_lack_keys_or_time_are_refused_and_leave_nothing(path):
    broken = frame(1)
    del broken["reward"], broken["events"]
    with pytest.raises(ValueError, match="missing keys: reward, events"):
        replays.write_frames(path, [frame(0), broken])
    with pytest.raises(ValueError, match="dt must be positive"):
        replays.write_frames(path, [frame(0, dt=0)])
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-30], lambda b: b[:40] + b"\0\0\0\0" + b[44:], lambda b: b"no"]
)
def test_damage_is_told(path, damage):
    replays.write_frames(path, map(frame, range(1500)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match=r"damaged|cannot read"):
        list(replays.read_frames(path))


def test_a_file_that_is_not_there_is_told(path):
    with pytest.raises(RunError, match="there is no file"):
        list(replays.read_frames(path))


def entry(total, **more) -> dict:
    return {
        "run_id": "r",
        "window_id": 0,
        "replay_id": "replay-000000-0123abcd",
        "replay_path": "replays/replay-000000-0123abcd.jsonl.gz",
        "checkpoint_path": "checkpoints/ckpt_000000.pt",
        "tags": [],
        "trainer_backend": "ppo",
        "return_total": total,
        "return_percent": 0.0,
        "steps": 3,
        "profit": 0.0,
        "survival": 0.5,
        "terminated": False,
        "truncated": True,
        "checkpoint_env_steps_total": 40,
        "episodes": 1,
        "slice": "validation",
        "first_time": "2020-01-01",
        "last_time": "2020-01-03",
        "created_at": "now",
    } | more


def test_tags_in_their_order():
    good = entry(2.0, profit=500.0, return_percent=10.0, survival=1.0)
    tags = replays.tags_of(
        good, [entry(1.0)], profit=(100.0, 500.0, 1000.0), returns=(10.0, 25.0), survival=(1.0,)
    )
    assert tags == [
        "every_window",
        "best_so_far",
        "milestone:profit:100",
        "milestone:profit:500",
        "milestone:return:10",
        "milestone:survival:1",
    ]


@pytest.mark.parametrize(("total", "best"), [(1.0, False), (0.9, False), (1.0 + 1e-12, True)])
def test_best_so_far_is_strict(total, best):
    assert ("best_so_far" in replays.tags_of(entry(total), [entry(0.5), entry(1.0)])) == best


def test_the_first_replay_is_the_best_so_far():
    assert replays.tags_of(entry(-1.0), []) == ["every_window", "best_so_far"]


def test_fractional_thresholds_lose_their_zeros_only():
    assert replays.tags_of(entry(0.0), [entry(1.0)], survival=(0.25, 0.5)) == [
        "every_window",
        "milestone:survival:0.25",
        "milestone:survival:0.5",
    ]


@pytest.mark.parametrize(
    ("change", "told"), [({"schema_version": 2}, "schema_version 1"), ({"run_id": "other"}, "'other', not")]
)
def test_an_index_of_another_schema_or_run_is_refused(tmp_path, change, told):
    run = directory.RunDirectory(tmp_path)
    replays.write_index(run, [])
    assert replays.read_index(run) == []
    directory.write_json(run.replay_index, directory.read_json(run.replay_index) | change)
    with pytest.raises(FormatError, match=told):
        replays.read_index(run)
    with pytest.raises(ValueError, match=told):
        replays.read_index(run)


def test_an_entry_is_found_by_its_id_or_as_the_best(tmp_path):
    run = directory.RunDirectory(tmp_path)
    with pytest.raises(RunError, match="no replays"):
        replays.entry_of(run, None)
    names = [("a", ["every_window", "best_so_far"]), ("b", ["every_window"])]
    replays.write_index(run, [entry(1.0, replay_id=name, tags=tags) for name, tags in names])
    assert replays.entry_of(run, None)["replay_id"] == "a"
    assert replays.entry_of(run, "b")["replay_id"] == "b"
    with pytest.raises(RunError, match="no replay 'c'; the newest are a, b"):
        replays.entry_of(run, "c")
    replays.write_index(run, [entry(1.0, replay_id=name) for name in ("x-1", "x-12")])
    assert replays.entry_of(run, "x-1")["replay_id"] == "x-1"
    assert replays.entry_of(run, "12")["replay_id"] == "x-12"
    with pytest.raises(RunError, match="2 replays of 'x'"):
        replays.entry_of(run, "x")


def test_a_cut_is_told_wherever_one_begins_to_read(path):
    replays.write_frames(path, map(frame, range(3000)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for offset in (2100, 2600, 2999):
        with pytest.raises(RunError, match="damaged"):
            list(replays.read_frames(path, offset=offset))


def test_a_block_that_lies_about_its_frames_is_told(path):
    replays.write_frames(path, map(frame, range(3000)))
    whole = bytearray(path.read_bytes())
    whole[20:24] = (100).to_bytes(4, "little")  # of 512
    path.write_bytes(whole)
    assert indices(path, limit=3) == [0, 1, 2]
    with pytest.raises(RunError, match="frame 1012 stands where frame 600 should"):
        list(replays.read_frames(path, offset=600, limit=1))


def test_a_file_outside_the_run_is_no_replay_of_it(tmp_path):
    run = directory.RunDirectory(tmp_path / "run")
    run.replays.mkdir(parents=True)
    inside = run.replays / "mine.jsonl.gz"
    inside.write_bytes(b"")
    assert replays.path_of(run, {"replay_path": "replays/mine.jsonl.gz"}) == inside
    (tmp_path / "other").write_bytes(b"")
    (run.replays / "link").symlink_to(tmp_path / "other")
    for name in ("../other", str(tmp_path / "other"), "replays/link", "replays/none", "a\0b"):
        with pytest.raises(RunError, match="of its own"):
            replays.path_of(run, {"replay_path": name})
