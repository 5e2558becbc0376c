"""The gates that settings ask for: none trips a healthy run, and a broken simulator is found out."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.execution import Venue, settle
from envs.ledger import Book
from envs.types import EnvParams, Market
from tests.ppo.cases import jit
from ztb_jax import build, gates, gating
from ztb_jax.config import Config, as_dict, flat, resolve
from ztb_jax.contradictions import GATES_UNREAD
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs
from ztb_jax.errors import ConfigError
from ztb_jax.features import recipe
from ztb_jax.presets import PRESETS
from ztb_jax.settings import EnvConfig, GateConfig

SMALL = {
    "features.recipe": "returns",
    "features.lookback": 4,
    "data.embargo_bars": 8,
    "env.episode_bars": 32,
    "policy.width": 8,
    "ppo.num_accounts": 32,
    "ppo.rollout_bars": 8,
    "ppo.sharing": 4,
}
WIDE = {
    "gates.least_turnover": 1e-6,
    "gates.most_turnover": 20.0,
    "gates.least_trades": 1e-6,
    "gates.most_trades": 2.0,
    "gates.falling_reward": 5.0,
    "gates.falling_after_steps": 0,
}
SMOOTH = {"learner": "apg", "policy.head": "squashed_gaussian"}
FRAME = synthetic.ar1(0, 500)
UPDATES = 12


@functools.cache
def compiled(flags):
    """The configuration, its slice and its first state and step, compiled."""
    config = resolve(environ={}, flags=SMALL | WIDE | dict(flags))
    prepared = build.prepare(config, FRAME, recipe.compute("returns", FRAME))
    made = build.make_learner(config, num_features=prepared.num_features, measured=prepared.measured)
    data = prepared.slices["train"]
    return config, data, jit(made.init)(jax.random.key(0), data), jit(made.step)


def verdicts_of(data, state, step):
    said = []
    for _ in range(UPDATES):
        state, metrics = step(state, data)
        said.append(int(metrics["verdict"]))
    return said, metrics


@pytest.mark.parametrize(
    "flags",
    [
        {"gates.least_entropy": 0.01},
        SMOOTH | {"gates.least_entropy": -10.0},
        {"learner": "random", "env.take_profit": 0.01, "env.volatility_slippage": 0.1},
    ],
    ids=["ppo", "apg", "random"],
)
def test_no_gate_trips_a_healthy_run(flags):
    config, data, state, step = compiled(tuple(flags.items()))
    said, metrics = verdicts_of(data, state, step)
    assert said == [gates.HEALTHY] * UPDATES
    told = {"kl", "entropy"} & set(metrics)
    assert told == {"kl", "entropy"} - {name.removeprefix("least_") for name in GATES_UNREAD[config.learner]}
    paid, (least, most) = float(metrics["cost"] / metrics["turnover"]), gating.cost_bounds(config.env)
    assert least * (1 - 1e-4) <= paid <= (np.inf if most is None else most * (1 + 1e-4))


@pytest.mark.parametrize(
    ("factor", "code"), [(0.0, gates.UNDERPAID), (0.9, gates.UNDERPAID), (1.1, gates.OVERPAID)]
)
def test_costs_that_are_not_those_of_the_settings_stop_the_run_at_once(factor, code):
    _, data, state, step = compiled((("gates.least_entropy", 0.01),))
    params = data.env_params
    costs = jax.tree.map(lambda cost: cost * jnp.float32(factor), params.costs)
    said, _ = verdicts_of(data.replace(env_params=params.replace(costs=costs)), state, step)
    assert said == [code] * UPDATES


RATES = st.floats(0.0, 0.5, exclude_max=True)


@functools.cache
def charged():
    def charge(delta, fee_rate, half_spread, slippage):
        market = Market(gap=jnp.float32(0), body=jnp.float32(0))
        costs = make_costs(fee_rate=0.0, half_spread=0.0, slippage=0.0).replace(
            fee_rate=fee_rate, half_spread=half_spread, slippage=slippage
        )
        nothing = jnp.float32(0)
        params = EnvParams(market, costs, nothing, jnp.int32(0), jnp.int32(1))
        return settle(Book(nothing, nothing, nothing), delta, Venue(market, params, None), price=None)[1].cost

    return jax.jit(charge)


@settings(max_examples=60, deadline=None)
@given(fee=RATES, spread=RATES, slip=RATES, delta=st.sampled_from([-2.0, -1e-3, 1e-3, 1.0]))
def test_every_fill_costs_what_the_bounds_say(fee, spread, slip, delta):
    least, most = gating.cost_bounds(EnvConfig(fee_rate=fee, half_spread=spread, slippage=slip))
    cost = float(charged()(*map(np.float32, (delta, fee, spread, slip)))) / abs(delta)
    assert least - 1e-6 <= cost <= most + 1e-6
    assert cost == pytest.approx(most if delta > 0 else least, rel=1e-5, abs=1e-12)


def test_what_widens_the_bounds():
    assert gating.cost_bounds(EnvConfig(take_profit=0.1))[0] == EnvConfig().fee_rate
    assert gating.cost_bounds(EnvConfig(volatility_slippage=0.1))[1] is None


def test_windows_are_judged_by_what_is_asked_for():
    flags = {
        "gates.resume_seconds": 30.0,
        "gates.baseline": 0.0,
        "gates.drawdown": 0.5,
        "gates.behind_buy_and_hold": 1e-3,
        "gates.gap": 1e-3,
        "gates.patience_windows": 2,
    }

    def said(config, *windows, **more):
        watch = gating.make_window_gates(config, **more)
        state, verdicts = watch.init(), []
        update = jax.jit(watch.update)
        for window in windows:
            state, verdict = update(state, gates.facts(**window))
            verdicts.append(int(verdict))
        assert update._cache_size() == 1, "facts that are unknown change no program"
        return verdicts

    config = resolve(environ={}, flags=flags)
    low, fine = {"validation": -1e-3}, {"validation": 1e-3}
    assert said(config, low, fine, low, {}, low, fine) == [0, 0, 0, 0, gates.BELOW_BASELINE, 0]
    assert said(config, {"resume_seconds": 30.5}) == [gates.SLOW_RESUME]
    assert said(config, *[fine | {"buy_and_hold": 3e-3}] * 2) == [0, gates.BEHIND_BUY_AND_HOLD]
    assert said(config, *[fine | {"train": 3e-3}] * 2) == [0, gates.OVERFIT]
    assert said(config, *[{"validation_drawdown": 0.6}] * 2) == [0, gates.DRAWDOWN]
    usual = Config()
    assert said(usual, low, {"resume_seconds": 99.0}, {"rss_gb": 99.0}, {"repeated_steps": 1}) == [
        *[gates.HEALTHY] * 3,
        gates.REPEATED_STEPS,
    ]
    assert said(usual, {"rss_gb": 4.0}, memory_gb=4.0) == [gates.MEMORY]
    held = resolve(environ={}, flags={"gates.memory_gb": 8.0})
    assert said(held, {"rss_gb": 6.0}, {"rss_gb": 8.5}, memory_gb=4.0) == [0, gates.MEMORY]


def test_by_default_only_what_no_healthy_run_can_do_stops_it():
    on = {name for name, value in dataclasses.asdict(GateConfig()).items() if value not in {None, False}}
    numbers = {"patience_updates", "patience_windows", "falling_after_steps"}
    assert on - numbers == {"kl", "fees"}
    assert not any(key.startswith("gates.") for preset in PRESETS.values() for key in preset)


def test_the_section_goes_through_files_and_flags_unchanged(tmp_path):
    asked = WIDE | {"gates.kl": None, "gates.fees": False, "gates.memory_gb": 6.0, "gates.gap": 0.0}
    config = resolve(environ={}, flags=asked)
    assert {key: flat(config)[key] for key in asked} == asked
    assert resolve(environ={}, flags=flat(config)) == config
    file = tmp_path / "run.yaml"
    file.write_text("gates: {kl: null, fees: false, drawdown: 0.3, baseline: -1e-4}\n")
    found = as_dict(resolve(file=file, environ={"ZTB_GATES__MEMORY_GB": "3"}))["gates"]
    assert found == dataclasses.asdict(
        GateConfig(kl=None, fees=False, drawdown=0.3, baseline=-1e-4, memory_gb=3.0)
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            {"gates.least_turnover": 0.5, "gates.most_turnover": 0.4},
            r"above gates\.most_turnover \(0\.4\): swap",
        ),
        ({"gates.falling_after_steps": 5}, r"read only with gates\.falling_reward"),
        ({"gates.patience_windows": 5}, r"read only with gates\.baseline, drawdown"),
        (
            {"learner": "random", "gates.least_entropy": 0.1},
            r"gates\.least_entropy is read only with another",
        ),
        (SMOOTH | {"gates.kl": 0.5}, r"gates\.kl is read only with another learner"),
        ({"gates.drawdown": 1.5}, r"flag --gates\.drawdown"),
        ({"gates.patience_updates": 0}, r"flag --gates\.patience_updates"),
    ],
)
def test_limits_that_nothing_reads_or_meets_are_refused(flags, words):
    with pytest.raises(ConfigError, match=words):
        resolve(environ={}, flags=flags)
