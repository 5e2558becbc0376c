"""The five gates against NumPy and against the cases of their document; the session that they halt."""

import json
import math
import time

import numpy as np
import pytest

from ztb_jax.errors import ConfigError, RunError
from ztb_jax.training.eval_gates import GIB, EvalGates, GateResult, GateStatus, Trend, reward_trend
from ztb_jax.training.limits import resolve_limits
from ztb_jax.training.ppo_trainer import KEPT, PPOTrainer

PASS, FAIL, SKIP = GateStatus
ROOMY = 1_000.0


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Sessions save into the working directory and read `trade-config.json` there."""
    monkeypatch.chdir(tmp_path)
    for name in ("CHECKPOINT_INTERVAL", "MAX_MEMORY_GB", "MAX_CONSECUTIVE_FAILURES"):
        monkeypatch.delenv(f"ZTB_{name}", raising=False)


def gates() -> EvalGates:
    return EvalGates(max_memory_gb=ROOMY)


def test_the_documents_example_does_not_halt():
    judged = gates()
    results = judged.evaluate_all(
        rewards=[0.1, 0.15, 0.12], steps=[100_000, 200_000, 300_000], final_eval_reward=0.14
    )
    assert {name: each.status for name, each in results.items()} == {
        "memory_rss": PASS,
        "no_dup_steps": PASS,
        "reward_trend_300k": SKIP,
        "eval_above_baseline": PASS,
    }
    assert results["reward_trend_300k"].value is None
    assert judged.should_halt_training(results) == (False, "")
    summary = judged.get_acceptance_summary(results)
    assert summary["pass"] is False
    assert summary["reasons"] == ["reward_trend_300k: 1 rewards from step 300,000 on, and a trend needs 2"]


def test_gates_that_are_off_pass_everything():
    off = EvalGates(enabled=False)
    assert off.evaluate_all(rewards=[math.nan], steps=[1]) == {}
    assert off.get_acceptance_summary({}) == {
        "pass": True,
        "reasons": [],
        "gate_results": {},
        "gates_disabled": True,
    }


@pytest.mark.parametrize(
    ("given", "name", "status"),
    [
        ({"resume_start": -29.0}, "resume_time", PASS),
        ({"resume_start": -31.0}, "resume_time", FAIL),
        ({"resume_start": 60.0}, "resume_time", FAIL),  # the clock went backwards
        ({"steps": [1, 2, 2]}, "no_dup_steps", FAIL),
        ({"steps": [1, 1], "global_steps": [1, 2]}, "no_dup_steps", PASS),
        ({"rewards": [1.0, 1.0], "steps": [300_000, 300_001]}, "reward_trend_300k", PASS),
        ({"rewards": [1.0, 0.9], "steps": [300_000, 300_001]}, "reward_trend_300k", FAIL),
        ({"rewards": [9.0, 1.0, 2.0], "steps": [5, 300_000, 300_001]}, "reward_trend_300k", PASS),
        ({"rewards": [1.0, 0.5], "steps": [7, 8], "threshold_steps": 7}, "reward_trend_300k", FAIL),
        ({"rewards": [1.0, math.nan], "steps": [300_000, 300_001]}, "reward_trend_300k", FAIL),
        ({"final_eval_reward": 0.0}, "eval_above_baseline", FAIL),
        ({"final_eval_reward": 0.2, "baseline": 0.1}, "eval_above_baseline", PASS),
        ({"final_eval_reward": math.nan}, "eval_above_baseline", FAIL),
        ({"final_eval_reward": math.inf}, "eval_above_baseline", FAIL),
    ],
)
def test_each_gate_at_its_threshold(given, name, status):
    if "resume_start" in given:
        given = {"resume_start": time.time() + given["resume_start"]}
    result = gates().evaluate_all(**given)[name]
    assert result.status is status
    assert result.name == name


def test_rewards_without_as_many_steps_are_refused():
    with pytest.raises(ValueError, match="there are 2 rewards and 1 steps"):
        gates().evaluate_all(rewards=[1.0, 2.0], steps=[1])


@pytest.mark.parametrize(("count", "offset"), [(2, 0.0), (1_000, 1e6), (300_000, -1e3)])
def test_a_slope_is_that_of_numpy(count, offset):
    values = offset + np.random.default_rng(count).normal(size=count)
    expected = np.polyfit(np.arange(count) - (count - 1) / 2, values - offset, 1)[0]
    result = reward_trend(values, np.arange(count) + 300_000)
    assert result.value == pytest.approx(expected, rel=1e-6, abs=1e-9 / count)
    assert result.status is (PASS if expected >= 0 else FAIL)


def test_a_slope_is_right_after_ten_million_values():
    """What index sums in float32 get wrong: a fall of 1e-9 a sample among numbers near one."""
    count = 10_000_000.0
    trend = Trend(count, first=1.0, total=-1e-9 * count * (count - 1) / 2)
    trend.moment = -1e-9 * (count - 1) * count * (2 * count - 1) / 6
    trend.add(1.0 - 1e-9 * count)
    assert trend.slope() == pytest.approx(-1e-9, rel=1e-6)


def results_of(*failed: str) -> dict[str, GateResult]:
    names = ("memory_rss", "no_dup_steps", "reward_trend_300k", "eval_above_baseline")
    return {name: GateResult(name, FAIL if name in failed else PASS, "said") for name in names}


@pytest.mark.parametrize(
    ("failed", "failures", "reason"),
    [
        ((), 9, ""),
        (("memory_rss",), 0, "Critical gate failure: memory_rss: said"),
        (("no_dup_steps", "eval_above_baseline"), 9, "Critical gate failure: no_dup_steps"),
        (("eval_above_baseline",), 2, ""),
        (("eval_above_baseline",), 3, "Too many consecutive failures (3): eval_above_baseline"),
        (("reward_trend_300k",), 1, ""),
        (("reward_trend_300k",), 2, "Persistent negative reward trend: reward_trend_300k"),
        (("reward_trend_300k",), 3, "Too many consecutive failures (3)"),
    ],
)
def test_the_order_of_the_reasons_to_halt(failed, failures, reason):
    halt, said = gates().should_halt_training(results_of(*failed), failures, 3)
    assert halt is bool(reason)
    assert said.startswith(reason)


def test_nothing_judged_halts_nothing():
    assert gates().should_halt_training({}, 99) == (False, "")


def test_the_default_limit_leaves_room_above_what_is_held_and_says_so(monkeypatch, caplog):
    def holding(gib):
        class Process:
            def memory_info(self):
                return type("Memory", (), {"rss": int(gib * GIB)})()

        monkeypatch.setattr("psutil.Process", Process)

    holding(0.5)
    assert EvalGates().max_memory == 2.0 * GIB
    assert not caplog.messages
    holding(3.0)
    roomy = EvalGates()
    assert roomy.max_memory == 5.0 * GIB
    assert caplog.messages == ["the process holds 3.00 GiB already: the memory gate is at 5.00 GiB"]
    assert EvalGates(max_memory_gb=2.0).evaluate_all()["memory_rss"].status is FAIL
    holding(4.9)
    assert roomy.evaluate_all()["memory_rss"].status is PASS
    holding(5.1)
    assert roomy.evaluate_all()["memory_rss"].status is FAIL


def session(**changes) -> PPOTrainer:
    trainer = PPOTrainer(**{"eval_gates": gates(), "checkpoint_interval": 10, **changes})
    trainer.start_training()
    return trainer


def test_a_healthy_session_goes_on_and_saves_by_itself(tmp_path):
    trainer = session()
    for step in range(1, 101):
        trainer.update_progress(step, 0.1)
    assert trainer.is_training
    assert trainer.get_training_status()["gate_results"]["eval_above_baseline"].value == pytest.approx(0.1)
    saved = json.loads((tmp_path / "checkpoints" / "ppo_trainer.json").read_text())
    assert saved["current_step"] == 100


def test_one_bad_reward_at_a_check_does_not_halt_and_a_losing_session_does():
    """The evaluation is a trailing mean: a single reward once ended healthy runs."""
    told = []
    trainer = session(halt_callback=told.append)
    for step in range(1, 101):
        trainer.update_progress(step, -0.5 if step % 10 == 0 else 0.1)
    assert trainer.is_training
    for step in range(101, 1_000):
        trainer.update_progress(step, -1.0)
    assert not trainer.is_training
    assert told == [trainer.halt_reason]
    assert told[0].startswith("Too many consecutive failures (3): eval_above_baseline: ")
    assert trainer.current_step < 400


@pytest.mark.parametrize("again", [50, 49, 1])
def test_a_repeated_step_halts(again):
    trainer = session()
    for step in (*range(1, 51), again, *range(51, 70)):
        trainer.update_progress(step, 1.0)
    assert not trainer.is_training
    assert trainer.halt_reason is not None
    assert trainer.halt_reason.startswith("Critical gate failure: no_dup_steps")


def test_steps_out_of_order_are_not_repeated():
    trainer = session()
    for step in (1, 3, 2, 5, 4, *range(6, 40)):
        trainer.update_progress(step, 1.0)
    assert trainer.is_training


def test_a_falling_reward_after_300k_steps_halts():
    trainer = session(checkpoint_interval=1_000)
    for step in range(295_000, 310_000):
        trainer.update_progress(step, 400_000.0 - step)
    assert not trainer.is_training
    assert trainer.halt_reason is not None
    assert trainer.halt_reason.startswith("Persistent negative reward trend")
    assert 300_000 < trainer.current_step < 304_000


def test_a_session_goes_on_from_its_file_as_if_it_had_not_stopped(tmp_path):
    rewards = np.random.default_rng(0).normal(0.1, 1.0, 3 * KEPT).tolist()
    rewards[7] = math.nan
    whole, first = session(autosave=None), session(autosave=None)
    first.save_checkpoint(tmp_path / "new folder" / "empty.json")
    for step, reward in enumerate(rewards, start=299_000):
        whole.update_progress(step, reward)
    for step, reward in enumerate(rewards[:KEPT], start=299_000):
        first.update_progress(step, reward)
    first.save_checkpoint(tmp_path / "saved.json")
    second = session(autosave=None)
    second.load_checkpoint(tmp_path / "saved.json")
    for step, reward in enumerate(rewards[KEPT:], start=299_000 + KEPT):
        second.update_progress(step, reward)
    second.save_checkpoint(tmp_path / "second.json")
    whole.save_checkpoint(tmp_path / "whole.json")
    assert (tmp_path / "second.json").read_text() == (tmp_path / "whole.json").read_text()
    assert len(whole.rewards_history) <= KEPT


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 99}', '{"version": 1, "rewards_history": ["x"]}', "null"]
)
def test_a_damaged_file_is_refused_and_changes_nothing(tmp_path, text):
    trainer = session()
    trainer.update_progress(3, 0.5)
    trainer.save_checkpoint("before.json")
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(RunError, match=r"bad.json is not a checkpoint of a training session"):
        trainer.load_checkpoint("bad.json")
    trainer.save_checkpoint("after.json")
    assert (tmp_path / "before.json").read_text() == (tmp_path / "after.json").read_text()


def test_a_file_that_is_not_there_is_said():
    trainer = session()
    with pytest.warns(UserWarning, match=r"none.json is not there: the session begins anew"):
        trainer.load_checkpoint("none.json")


def test_progress_is_ignored_while_not_training_and_a_start_forgets_failures():
    told = []
    trainer = session(halt_callback=told.append)
    trainer.update_progress(1, 1.0)
    trainer.stop_training()
    trainer.update_progress(2, 1.0)
    assert (trainer.current_step, trainer.halt_reason, told) == (1, "Manual stop", ["Manual stop"])
    trainer.start_training()
    trainer.update_progress(2, 1.0)
    assert (trainer.current_step, trainer.halt_reason) == (2, None)
    assert list(trainer.rewards_history) == [1.0, 1.0]


def test_limits_come_from_the_call_then_the_environment_then_the_file(tmp_path):
    assert resolve_limits().checkpoint_interval == 10_000
    assert resolve_limits().max_memory_gb is None
    file = {"training": {"checkpoint_interval": 1_000, "max_memory_gb": 16.0, "note": "not ours"}}
    (tmp_path / "trade-config.json").write_text(json.dumps(file))
    environ = {"ZTB_CHECKPOINT_INTERVAL": "500", "ZTB_MAX_CONSECUTIVE_FAILURES": "7"}
    limits = resolve_limits(environ=environ)
    assert (limits.checkpoint_interval, limits.max_memory_gb, limits.max_consecutive_failures) == (500, 16, 7)
    assert resolve_limits(environ=environ, checkpoint_interval=50).checkpoint_interval == 50
    assert PPOTrainer().eval_gates.max_memory == 16.0 * GIB


def test_gates_made_by_the_user_know_the_limit_of_the_environment_too(monkeypatch):
    monkeypatch.setenv("ZTB_MAX_MEMORY_GB", "7")
    assert PPOTrainer(eval_gates=EvalGates(enabled=True)).eval_gates.max_memory == 7.0 * GIB
    assert EvalGates(max_memory_gb=5.0).max_memory == 5.0 * GIB
    with pytest.raises(ConfigError, match=r"max_memory_gb is -1\.0"):
        EvalGates(max_memory_gb=-1.0)


def test_limits_that_cannot_be_used_are_told_at_once(tmp_path, monkeypatch):
    (tmp_path / "trade-config.json").write_text('{"training": {"checkpoint_interval": 0}}')
    monkeypatch.setenv("ZTB_MAX_MEMORY_GB", "much")
    with pytest.raises(ConfigError) as refused:
        PPOTrainer(max_consecutive_failures=0)
    first, second, third = refused.value.findings
    assert first.startswith(f"{tmp_path / 'trade-config.json'}: training.checkpoint_interval is 0: ")
    assert second.startswith("ZTB_MAX_MEMORY_GB is 'much': ")
    assert third.startswith("max_consecutive_failures is 0: ")


@pytest.mark.parametrize("text", ["{", "[]", '{"training": 3}'])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text):
    (tmp_path / "trade-config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"trade-config.json"):
        resolve_limits()
