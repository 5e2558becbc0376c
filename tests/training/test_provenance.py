"""What the report says of gates and of the seal is what the settings, the windows and the seal say."""

import dataclasses

import jax
import pytest

from ztb_jax import gating
from ztb_jax.config import as_dict, resolve
from ztb_jax.runs import directory
from ztb_jax.training import provenance, run_seal
from ztb_jax.verdicts import VERDICTS

ALL = {
    "gates.least_entropy": 0.1, "gates.least_turnover": 0.01, "gates.most_trades": 0.5,
    "gates.falling_reward": 5.0, "gates.memory_gb": 3.0, "gates.resume_seconds": 30.0,
    "gates.baseline": 0.001, "gates.drawdown": 0.25, "gates.behind_buy_and_hold": 0.002, "gates.gap": 0.003,
    "gates.patience_windows": 2,
}  # fmt: skip


def configured(**flags):
    return resolve(environ={}, flags=flags)


def test_the_gates_that_watch_by_default_are_told():
    assert list(provenance.asked_of(configured())) == [
        "not_finite", "kl_runaway", "underpaid", "overpaid", "memory", "repeated_steps",
    ]  # fmt: skip
    asked = provenance.asked_of(configured())
    assert (
        asked["kl_runaway"] == "the policy moves from the one that played by a KL above 1, 8 updates running"
    )
    assert asked["memory"].startswith("the process holds more than 2 GiB")


def test_every_gate_that_is_asked_for_is_told_with_its_limit():
    asked = provenance.asked_of(configured(**ALL))
    assert set(asked) == {verdict.name for verdict in VERDICTS.values()}
    expected = {
        "entropy_collapse": "under 0.1 nats", "hold_collapse": "less than 0.01 of turnover",
        "overtrading": "more than 0.5 trades", "memory": "holds 3 GiB", "slow_resume": "takes 30 s",
        "falling_reward": "5 standard errors below 0 after 300,000 steps",
        "below_baseline": "no more than 0.001 a bar, 2 windows", "drawdown": "more than 25% from",
        "behind_buy_and_hold": "0.002 a bar behind", "overfit": "0.003 a bar ahead",
    }  # fmt: skip
    assert [name for name, words in expected.items() if words not in asked[name]] == []


def test_gates_that_are_off_or_unread_are_not_told():
    assert not {"underpaid", "overpaid"} & set(provenance.asked_of(configured(**{"gates.fees": False})))
    assert "overpaid" not in provenance.asked_of(configured(**{"env.volatility_slippage": 0.1}))
    assert "kl_runaway" not in provenance.asked_of(configured(learner="random"))
    assert "kl_runaway" not in provenance.asked_of(configured(**{"gates.kl": None}))


@pytest.mark.parametrize("flags", [{}, ALL, {"learner": "random"}, {"env.volatility_slippage": 0.1}])
def test_as_many_are_told_as_watch(flags):
    """Each gate has one code, but turnover and trades, which share theirs, and fees, which has two."""
    config = configured(**flags)
    watching = len(gating.make_update_gates(config).init()) + len(
        gating.make_window_gates(config, memory_gb=2.0).init()
    )
    told = provenance.asked_of(config)
    assert len(told) - ("overpaid" in told) == watching


@pytest.fixture
def run(tmp_path):
    config = configured(**{"run.root": str(tmp_path / "my runs"), "run.id": "sealed"})
    made = directory.create(config.run.root, "sealed", as_dict(config))
    seal = run_seal.make_seal("sealed", 7, as_dict(config), {"data": "ab"})
    run_seal.write_seal(made.seal, seal)
    return made, config, seal


def metadata():
    return {
        "config_sha256": "cd" * 32, "data": {"content_hash": "ef" * 32},
        "environment": {"device": {"name": "cpu:0"}, "jax": jax.__version__, "commit": "abc"},
    }  # fmt: skip


def test_the_seal_is_told_and_how_to_verify(run):
    made, config, seal = run
    told = provenance.seal_of(made, config, metadata())
    assert told is not None
    assert told.verify == f"ztb verify '{made.path}'"
    assert told.facts["Seed"] == 7
    assert told.facts["Key"] == "threefry2x32 0 7"
    assert told.facts["Prices, SHA-256"] == "ef" * 32
    assert told.facts["config.json, SHA-256"] == "cd" * 32
    assert told.facts["Sources, SHA-256"] == seal.environment.sources_hash
    assert told.resumes == []


def test_resumes_are_told_with_what_had_changed(run):
    made, config, seal = run
    resumed = {
        "at": "2026",
        "from_window": 3,
        "passed_over": ["one"],
        "changed": ["two"],
        "environment": None,
    }
    run_seal.write_seal(made.seal, dataclasses.replace(seal, metadata={"resumed": [resumed]}))
    told = provenance.seal_of(made, config, metadata())
    assert told is not None
    assert told.resumes == [("2026", 3, ["two"], ["one"])]


def test_a_run_without_a_seal_has_none_to_tell_of(run):
    made, config, _ = run
    made.seal.unlink()
    assert provenance.seal_of(made, config, metadata()) is None


def test_verdicts_are_those_of_the_windows(run):
    made, config, _ = run
    directory.write_lines(made.windows, [{"window_id": 0, "verdict": 0}, {"window_id": 1, "verdict": 13}])
    assert provenance.gates_of(made, config).verdicts == [(0, 0), (1, 13)]
