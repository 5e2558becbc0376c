"""A gate changes nothing while healthy, trips when it should, and freezes the state before the bad update."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ppo.cases import jit
from tests.ppo.test_learner import DATA, learner
from tests.test_population import plain
from ztb_jax import gates, verdicts
from ztb_jax.gates import Gate
from ztb_jax.learner import Learner
from ztb_jax.population import member, populate

LENGTH = 40
# Around the limit of 0.5 that the cases have: on it, beyond it either way, and unknown.
NUMBERS = st.sampled_from([0.0, 0.25, 0.5, float(np.nextafter(np.float32(0.5), 1)), 0.75, 2.0, -1.0, np.nan])
SEQUENCES = st.lists(NUMBERS, min_size=LENGTH, max_size=LENGTH)


def walker(bad_at: int) -> Learner:
    """Adds a draw to its state every step; its metric is NaN at step `bad_at`."""

    def step(state, data):
        total, count, key = state
        key, draw = jax.random.split(key)
        total = total + jax.random.normal(draw) * data
        loss = jnp.where(count == bad_at, jnp.nan, total)
        return (total, count + 1, key), {"loss": loss}

    return Learner(
        init=lambda key, data: (jnp.float32(0), jnp.int32(0), key),
        step=step,
        params=lambda state: state[0],
        env_steps=1,
    )


def counter(metrics) -> Learner:
    """Counts its updates; `metrics` [N] by name are what it tells in each."""

    def step(state, data):
        del data
        return state + 1, {name: jnp.asarray(told, jnp.float32)[state] for name, told in metrics.items()}

    return Learner(lambda key, data: jnp.int32(0), step, lambda state: state, 1)


def play(learner, steps):
    state = learner.init(jax.random.key(0), jnp.float32(1))
    return jax.lax.scan(lambda state, _: learner.step(state, jnp.float32(1)), state, length=steps)


def test_a_healthy_gate_changes_no_bit():
    plain, _ = play(walker(99), 7)
    guarded, metrics = play(gates.gated(walker(99), gates.finite("loss")), 7)
    assert float(plain[0]) == float(guarded.learner[0])
    np.testing.assert_array_equal(jax.random.key_data(plain[2]), jax.random.key_data(guarded.learner[2]))
    assert not np.asarray(metrics["verdict"]).any()


def test_a_verdict_stays_though_later_metrics_are_fine():
    told = {"loss": [0.0, 0.0, np.inf, 0.0, 0.0]}
    state, metrics = play(gates.gated(counter(told), gates.finite("loss")), 5)
    assert np.asarray(metrics["verdict"]).tolist() == [0, 0] + [gates.NOT_FINITE] * 3
    assert int(state.learner) == 2


def test_a_tripped_gate_freezes_the_last_good_state_for_good():
    before, _ = play(walker(99), 4)
    guarded, metrics = play(gates.gated(walker(4), gates.finite("loss")), 9)
    assert float(guarded.learner[0]) == float(before[0])
    assert int(guarded.learner[1]) == 4
    assert np.asarray(metrics["verdict"]).tolist() == [0] * 4 + [gates.NOT_FINITE] * 5


def test_the_gate_s_own_state_freezes_with_the_learner_s():
    told = {"kl": [2.0, 0.0, 2.0, 2.0, 2.0, 0.0, 0.0]}
    state, metrics = play(gates.gated(counter(told), gates.kl(1.0, patience=3)), 7)
    assert np.asarray(metrics["verdict"]).tolist() == [0] * 4 + [gates.KL_RUNAWAY] * 3
    assert (int(state.learner), int(state.gate)) == (4, 2)


# Gate, the number it reads or two whose difference it judges, when that fails, and how often it must.
CASES = {
    gates.KL_RUNAWAY: (gates.kl(0.5, patience=3), ("kl",), lambda v: v > 0.5, 3),
    gates.ENTROPY_COLLAPSE: (gates.entropy(0.5, patience=3), ("entropy",), lambda v: v < 0.5, 3),
    gates.HOLD_COLLAPSE: (gates.turnover(least=0.5, patience=3), ("turnover",), lambda v: v < 0.5, 3),
    gates.OVERTRADING: (gates.trades(most=0.5, patience=2), ("trades",), lambda v: v > 0.5, 2),
    gates.MEMORY: (gates.memory(0.5), ("rss_gb",), lambda v: v >= 0.5, 1),
    gates.SLOW_RESUME: (gates.resume_time(0.5), ("resume_seconds",), lambda v: not 0.0 <= v < 0.5, 1),
    gates.REPEATED_STEPS: (gates.no_repeated_steps(), ("repeated_steps",), lambda v: v > 0, 1),
    gates.BELOW_BASELINE: (
        gates.above_baseline(0.5, patience=3),
        ("validation",),
        lambda v: not v > 0.5,
        3,
    ),
    gates.DRAWDOWN: (gates.drawdown(0.5), ("validation_drawdown",), lambda v: v > 0.5, 1),
    gates.BEHIND_BUY_AND_HOLD: (
        gates.behind_buy_and_hold(0.5, patience=2),
        ("buy_and_hold", "validation"),
        lambda v: v > 0.5,
        2,
    ),
    gates.OVERFIT: (gates.gap(0.5, patience=3), ("train", "validation"), lambda v: v > 0.5, 3),
}


def judged(gate: Gate):
    """(metrics [N] by name) -> verdicts [N], of one program for every call."""

    @jax.jit
    def run(metrics):
        return jax.lax.scan(gate.update, gate.init(), metrics)[1]

    return lambda **told: np.asarray(run({k: np.asarray(v, np.float32) for k, v in told.items()})).tolist()


@functools.cache
def judges():
    return {code: judged(gate) for code, (gate, *_) in CASES.items()}


def expected(values, fails, patience, code):
    """The rule in plain Python: `patience` failures running, a NaN being passed over."""
    found, count = [], 0
    for value in values:
        failed = not np.isnan(value) and fails(value)
        count = count + failed if failed or np.isnan(value) else 0
        found.append(code if failed and count >= patience else gates.HEALTHY)
    return found


@pytest.mark.parametrize("code", CASES)
@settings(max_examples=40, deadline=None)
@given(one=SEQUENCES, other=SEQUENCES)
def test_a_gate_trips_exactly_when_its_rule_says(code, one, other):
    _, names, fails, patience = CASES[code]
    told = dict(zip(names, (one, other), strict=False))
    values = np.asarray(one, np.float64)
    if len(names) == 2:
        values = values - np.asarray(other, np.float64)
    assert judges()[code](**told) == expected(values, fails, patience, code)


@functools.cache
def between():
    return judged(gates.turnover(0.25, 0.5, patience=2))


@settings(max_examples=40, deadline=None)
@given(values=SEQUENCES)
def test_bounds_on_either_side_count_by_themselves(values):
    few = expected(values, lambda v: v < 0.25, 2, gates.HOLD_COLLAPSE)
    many = expected(values, lambda v: v > 0.5, 2, gates.OVERTRADING)
    assert between()(turnover=values) == [one or other for one, other in zip(few, many, strict=True)]


LEAST, MOST = 7e-4, 8e-4


@functools.cache
def paid():
    return judged(gates.fees(LEAST, MOST)), judged(gates.fees(LEAST))


@settings(max_examples=60, deadline=None)
@given(
    traded=st.lists(st.floats(2.0**-12, 3.0, width=32), min_size=8, max_size=8),
    rate=st.sampled_from([0.0, LEAST / 2, LEAST * 0.98, LEAST, MOST, MOST * 1.02, MOST * 2]),
)
def test_what_is_paid_lies_between_the_cheapest_and_the_dearest_fill(traded, rate):
    traded = np.asarray(traded, np.float32)
    cost = (np.asarray(traded, np.float64) * rate).astype(np.float32)
    code = gates.HEALTHY
    if rate < LEAST:
        code = gates.UNDERPAID
    elif rate > MOST:
        code = gates.OVERPAID
    both, cheapest = paid()
    assert both(cost=cost, turnover=traded) == [code] * 8
    assert set(cheapest(cost=cost, turnover=traded)) <= {gates.HEALTHY, gates.UNDERPAID}


def test_no_trade_costs_nothing_and_what_is_unknown_is_not_judged():
    both, _ = paid()
    assert both(cost=[0.0, np.nan, 1e-3], turnover=[0.0, 1.0, np.nan]) == [0, 0, 0]
    assert both(cost=[1e-3], turnover=[0.0]) == [gates.OVERPAID]


def test_of_several_gates_the_first_tells_its_code():
    gate = gates.all_of(gates.finite("loss"), gates.kl(1.0, patience=1), gates.memory(1.0))
    told = {
        "loss": [0.0, np.inf, 0.0, 0.0, np.nan],
        "kl": [0.0, 2.0, 2.0, 0.0, 0.0],
        "rss_gb": [0.0, 0.0, 2.0, 2.0, 2.0],
    }
    assert judged(gate)(**told) == [0, gates.NOT_FINITE, gates.KL_RUNAWAY, gates.MEMORY, gates.NOT_FINITE]
    assert judged(gates.all_of())(loss=[1.0]) == [gates.HEALTHY]


EVERY = gates.all_of(
    gates.finite("loss", "reward", "grad_norm", "param_norm"),
    gates.fees(1e-9, 1.0),
    gates.kl(1.0),
    gates.entropy(0.01),
    gates.turnover(1e-6, 10.0),
    gates.trades(1e-6, 2.0),
    gates.falling_reward(env_steps=512, after_steps=0),
)


def trained(many, updates):
    """States [updates + 1] and metrics [updates] of as many calls of one program."""
    init, step = jit(many.init), jit(many.step)
    states, told = [init(jax.random.key(7), DATA)], []
    for _ in range(updates):
        state, metrics = step(states[-1], DATA)
        states.append(state)
        told.append(metrics)
    return states, told


def assert_same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(plain(a), plain(b)), one, other)


def test_ppo_behind_healthy_gates_is_ppo_bit_for_bit():
    (free, told), (guarded, metrics) = trained(learner(), 9), trained(gates.gated(learner(), EVERY), 9)
    assert_same(free, [state.learner for state in guarded])
    assert not any(int(each.pop("verdict")) for each in metrics)
    assert_same(told, metrics)


def test_one_member_trips_and_the_others_go_on_bit_for_bit():
    vary = {"learning_rate": np.array([1e-3, 1.0, 3e-3], np.float32)}
    free, told = trained(populate(learner(), 3, vary), 6)
    gate = gates.all_of(EVERY, gates.kl(0.05, patience=2))
    guarded, metrics = trained(populate(gates.gated(learner(), gate), 3, vary), 6)
    divergence = np.array([each["kl"] for each in told])
    assert divergence[:, [0, 2]].max() < 0.05, "the others are healthy"
    for index in (0, 2):
        assert_same(member(free, index), member([state.learner for state in guarded], index))
    said = np.array([each["verdict"] for each in metrics])
    assert not said[:, [0, 2]].any()
    beyond = divergence[:, 1] > 0.05
    trips = int(np.flatnonzero(beyond[1:] & beyond[:-1])[0]) + 1
    assert said[:, 1].tolist() == [0] * trips + [gates.KL_RUNAWAY] * (6 - trips)
    # The state that stays is that before the update that tripped.
    assert_same(member(free[trips], 1), member(guarded[-1].learner, 1))


def test_every_failure_has_a_name_a_sentence_and_a_remedy():
    constants = {
        name: code for name, code in vars(verdicts).items() if name.isupper() and isinstance(code, int)
    }
    assert constants.pop("HEALTHY") == gates.HEALTHY == 0
    assert {name.lower(): code for name, code in constants.items()} == {
        verdict.name: code for code, verdict in gates.VERDICTS.items()
    }
    tripped = {*CASES, gates.NOT_FINITE, gates.UNDERPAID, gates.OVERPAID, gates.FALLING_REWARD}
    assert tripped == set(gates.VERDICTS), "each is tripped by a test of this file"
    for code, verdict in gates.VERDICTS.items():
        assert gates.reason(code) == verdict.sentence
        assert gates.remedy(code) == verdict.remedy
        assert verdict.sentence[0].islower()
        assert len(verdict.remedy) > 20


def test_facts_that_are_not_told_are_unknown():
    told = gates.facts(rss_gb=1.5, train=None)
    assert set(told) == set(gates.FACTS)
    assert told.pop("rss_gb") == np.float32(1.5)
    assert np.isnan(list(told.values())).all()
    with pytest.raises(ValueError, match="rss is no fact"):
        gates.facts(rss=1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gates.kl(1.0, patience=0),
        lambda: gates.turnover(0.5, 0.4),
        lambda: gates.falling_reward(env_steps=0),
        lambda: gates.falling_reward(env_steps=1, z=-1.0),
    ],
)
def test_limits_that_make_no_sense_are_refused(make):
    with pytest.raises(ValueError, match=r"must be at least|cannot be|needs z"):
        make()
