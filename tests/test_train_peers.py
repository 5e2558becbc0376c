"""Other trainers are compared pair by pair, and asked for by names that exist."""

import pytest

from benchmarks import train_peers
from benchmarks.peers import wire
from benchmarks.train_peers import KINDS, Pairs, Peer


def done(steps: int, seconds: float) -> dict[str, float]:
    return {"steps": steps, "seconds": seconds, "reward": 1.0}


def test_each_of_our_runs_is_next_to_one_of_theirs():
    turns = []

    def runner(name):
        def run():
            turns.append(name)
            return done(len(turns), 1.0)

        return run

    others = {name: Peer({"package": "1"}, {}, runner(name)) for name in ("a", "b")}
    pairs = train_peers.interleave(runner("ours"), others, repeats=2)
    assert turns == ["ours", "a", "ours", "b"] * 2
    assert [one["steps"] for one in pairs["b"].ours] == [3, 7]
    assert [one["steps"] for one in pairs["b"].theirs] == [4, 8]


def test_ratios_are_taken_within_a_pair():
    peer = Peer({"package": "1"}, {"accounts": 8, "rollout_bars": 4, "num_minibatches": 2}, dict)
    ours, theirs = (
        [done(100, 1.0), done(50, 1.0), done(90, 1.0)],
        [done(10, 1.0), done(10, 2.0), done(30, 1.0)],
    )
    speed, ratio = train_peers.rows({"peer": peer}, {"peer": Pairs(ours, theirs)}, bars={"peer": 11.0})
    assert (speed.value, speed.low, speed.high) == (0.01, 0.005, 0.03)
    assert (ratio.value, ratio.low, ratio.high) == (10.0, 3.0, 10.0)
    assert not ratio.reached


def test_a_peer_that_is_not_there_is_named():
    with (
        pytest.raises(ValueError, match=f"no such peer: nobody; there are {', '.join(KINDS)}"),
        train_peers.peers(["nobody"], None, episode_bars=1, levels=(0.0,)),
    ):
        pass


def test_what_builds_their_environment_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(wire, "PYTHON", tmp_path / "python")
    with (
        pytest.raises(FileNotFoundError, match="`make peers` builds what sb3 need"),
        train_peers.peers(["sb3"], None, episode_bars=1, levels=(0.0,)),
    ):
        pass


def test_settings_are_varied_in_every_combination():
    kinds = train_peers.varied(KINDS["sb3-8"], accounts=[8, 16], threads=[1, 2])
    found = [(kind.settings["accounts"], kind.settings["threads"]) for kind in kinds]
    assert found == [(8, 1), (8, 2), (16, 1), (16, 2)]
    assert {kind.settings["rollout_bars"] for kind in kinds} == {256}
    assert train_peers.varied(KINDS["sb3"], accounts=None, threads=None) == [KINDS["sb3"]]
