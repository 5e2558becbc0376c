"""The whole report: plain numbers, each of the part that it names."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.single import make_single
from tests.ppo.cases import LOOKBACK, network, unsettled
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market_data
from ztb_jax.evaluation import controls, regimes, stress
from ztb_jax.evaluation.backtest import make_path_backtest, make_policy_backtest
from ztb_jax.evaluation.robustness import evidence_of, stress_report, warnings_of

FRAME = synthetic.ar1(0, 400)
CLOSED = FRAME["close"].to_numpy()
POLICY = network()
WEIGHTS = unsettled(POLICY)
LATE = make_single(episode_bars=32, max_latency=2)
TOLD = {"bars_per_year": 365.25, "trials": 3, "seed": 5}


def slice_from(start):
    returns = FRAME["close"].pct_change().fillna(0.0).to_numpy()
    costs = make_costs(fee_rate=5e-4, half_spread=0.0, slippage=0.0)
    features = (returns / returns.std())[:, None]
    return make_market_data(FRAME, features, costs=costs, lookback=LOOKBACK, start=start)


@functools.cache
def report(start):
    return stress_report(POLICY, LATE, WEIGHTS, slice_from(start), closed=CLOSED, **TOLD)


def test_every_part_is_what_its_module_says():
    data, told = slice_from(150), report(150)
    env = make_single(episode_bars=32)
    trace = jax.device_get(make_policy_backtest(POLICY, env)(WEIGHTS, data))
    gain = trace.gain.astype(np.float64)
    variants = told["variants"]
    np.testing.assert_allclose(variants["costs_x1"]["total_return"], np.prod(1 + gain) - 1, rtol=1e-4)
    assert len(variants) == 16
    earned = {m: variants[f"costs_x{m}"]["total_return"] for m in (0, 1, 2, 5)}
    assert told["breakeven_costs"] == stress.breakeven_cost(earned)
    found = controls.shuffled(trace.level, data, env, bars_per_year=365.25, seed=5)
    shares = {**found._asdict(), "share": found.share}
    assert told["shuffled"] == pytest.approx(shares, rel=1e-4)
    leak = controls.leak(data, env, trials=3, bars_per_year=365.25)
    assert told["leak"]["label"] == leak.label == "edge"
    assert told["leak"]["p_alpha"] == pytest.approx(leak.p_alpha, rel=1e-3)
    held = make_path_backtest()(jnp.ones(gain.size), data.env_params).gain
    labels = regimes.label_regimes(CLOSED)[150:-1]  # of the bars at which the steps were decided
    expected = regimes.by_regime(gain, np.asarray(held), labels, 365.25)
    assert sum(regime["bars"] for regime in told["regimes"].values()) == gain.size
    for name, regime in expected.items():
        ours = [np.nan if number is None else number for number in told["regimes"][name].values()]
        np.testing.assert_allclose(ours, regime, rtol=2e-3, atol=1e-5)


def test_it_is_json_and_the_same_again():
    told = report(150)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    again = stress_report(POLICY, LATE, WEIGHTS, slice_from(150), closed=CLOSED, **TOLD)
    assert again == told


def test_the_leak_is_judged_with_everything_ever_scored():
    stricter = stress_report(
        POLICY, LATE, WEIGHTS, slice_from(150), closed=CLOSED, **TOLD | {"trials": 10**300}
    )
    assert stricter["leak"]["label"] == "inconclusive"


def test_a_slice_that_nobody_can_judge_has_no_shuffles():
    told = report(350)
    assert told["shuffled"] is None
    assert told["leak"]["label"] == "inconclusive"
    json.dumps(told, allow_nan=False)


def test_closes_of_another_slice_are_refused():
    with pytest.raises(ValueError, match="249 closes are fewer than the 250 bars"):
        stress_report(POLICY, LATE, WEIGHTS, slice_from(150), closed=CLOSED[-249:], **TOLD)


def test_what_speaks_against_an_edge_is_taken_from_the_report():
    told = report(150)
    found = evidence_of(told)
    assert found.doubled_costs == told["variants"]["costs_x2"]["total_return"]
    assert found.latency == told["variants"]["latency_plus_1"]["p_loss"]
    assert found.controls == ()
    wild = told | {"shuffled": told["shuffled"] | {"contradicts": True}}
    assert evidence_of(wild).controls == ("shuffled bars",)
    assert evidence_of(told | {"shuffled": None}).controls is None


def test_a_slice_that_could_show_no_edge_is_told():
    told = report(150)
    shown = told | {"leak": {"label": "edge", "reason": "It could."}}
    hidden = told | {"leak": {"label": "inconclusive", "reason": "Too few bars."}}
    assert warnings_of(shown) == []
    assert warnings_of(hidden) == ["Too few bars."]
