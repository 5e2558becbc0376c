"""The verdict: each label by its rule, what can never be an edge, how often it errs, and what caps it."""

import json
import math

import numpy as np
import pytest

from ztb_jax.evaluation import significance as sig
from ztb_jax.evaluation.edge import EdgeVerdict, Evidence, capped, judge_edge

YEAR = 252.0
MARKET = np.random.default_rng(0).normal(0.0, 0.01, 1000)


def judged(returns, benchmark=MARKET, trials=1, **rest) -> EdgeVerdict:
    return judge_edge(returns, benchmark, trials=trials, bars_per_year=YEAR, **rest)


def earning(sharpe, seed=1, bars=1000):
    """Returns of exactly this annual Sharpe ratio, apart from the market's."""
    noise = np.random.default_rng(seed).normal(0.0, 1.0, bars)
    noise -= noise.mean()
    basis = np.stack([np.ones(bars), MARKET[:bars]])
    noise -= basis.T @ np.linalg.lstsq(basis.T, noise, rcond=None)[0]
    return 0.01 * (noise / noise.std(ddof=1) + sharpe / math.sqrt(YEAR))


def test_an_edge():
    verdict = judged(earning(3.0))
    assert verdict.label == "edge"
    assert verdict.bars_needed == 0
    assert verdict.sharpe == pytest.approx(3.0)
    assert verdict.p_mean == sig.mean_test(earning(3.0)).p_value
    assert verdict.p_alpha == sig.alpha_test(earning(3.0), MARKET).p_value
    assert "significantly above zero" in verdict.reasons[0]


def test_no_edge():
    verdict = judged(earning(-1.0))
    assert verdict.label == "no edge"
    assert verdict.sharpe_upper is not None
    assert verdict.sharpe_upper < 1.0
    assert "below 1" in verdict.reasons[-1]
    assert verdict.bars_needed == 0


def test_inconclusive():
    verdict = judged(earning(0.8))
    assert verdict.label == "inconclusive"
    assert verdict.sharpe_upper is not None
    assert verdict.sharpe_upper > 1.0
    assert "not below 1" in verdict.reasons[-1]


def test_both_p_values_must_be_small():
    rising = MARKET + 0.002
    held = np.where(np.random.default_rng(3).uniform(size=1000) < 0.7, rising, 0.0)
    verdict = judged(held, rising)
    assert verdict.p_mean < 0.001
    assert verdict.p_alpha > 0.05
    assert verdict.label == "inconclusive"
    # Short in a rising market: less of a loss than the beta makes is an alpha, but no profit.
    hedged = earning(2.0) - 0.5 * rising
    verdict = judged(hedged, rising)
    assert verdict.p_mean > 0.05
    assert verdict.p_alpha < 0.001
    assert verdict.label != "edge"


def test_the_level_is_divided_by_everything_ever_scored():
    returns = earning(1.2)
    p = max(judged(returns).p_mean, judged(returns).p_alpha)
    assert judged(returns).label == "edge"
    most = math.floor(0.05 / p)
    assert judged(returns, trials=most).label == "edge"
    assert judged(returns, trials=most + 1).label == "inconclusive"
    assert judged(returns, alpha=p * 0.99).label == "inconclusive"


def test_the_upper_bound():
    returns = earning(0.5)
    verdict = judged(returns, trials=50)
    error = sig.sharpe_error(returns) * math.sqrt(YEAR)
    assert verdict.sharpe_upper == pytest.approx(0.5 + 1.6448536 * error)
    assert judged(returns, trials=1).sharpe_upper == verdict.sharpe_upper


def test_no_trades_are_no_edge_however_few_the_bars():
    for bars in (1, 50, 1000):
        verdict = judged(np.zeros(bars), MARKET[:bars])
        assert verdict.label == "no edge"
        assert "no trades" in verdict.reasons[0]
        assert verdict.bars_needed == 0


@pytest.mark.parametrize("size", [1.0, 0.5, -1.0, 3.0])
def test_always_the_same_position_is_never_an_edge(size):
    rising = MARKET + 0.01 * np.sign(size)
    verdict = judged(size * rising, rising)
    assert verdict.p_mean < 1e-6
    assert verdict.p_alpha == 1.0
    assert verdict.label == "inconclusive"
    assert "no alpha to test" in verdict.reasons[0]
    assert verdict.bars_needed is None
    assert judged(size * rising, rising, alpha=0.999).label != "edge"


def test_too_few_bars():
    verdict = judged(earning(9.0, bars=99), MARKET[:99])
    assert verdict.label == "inconclusive"
    assert verdict.bars_needed == 1
    assert "99 bars are too few" in verdict.reasons[0]
    assert judged(earning(9.0, bars=100), MARKET[:100]).label == "edge"
    assert judged(np.zeros(0), np.zeros(0)).label == "inconclusive"


def test_returns_that_do_not_vary():
    verdict = judged(np.full(1000, 1e-4))
    assert verdict.label == "inconclusive"
    assert "do not vary" in verdict.reasons[0]


def test_as_many_bars_as_said_decide_in_nine_of_ten():
    first = judged(earning(0.8))
    assert first.bars_needed is not None
    bars, decided = 1000 + first.bars_needed, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        returns = rng.normal(0.8 / math.sqrt(YEAR), 1.0, bars)
        decided += judged(returns, rng.normal(0.0, 1.0, bars)).label != "inconclusive"
    assert first.bars_needed == pytest.approx(sig.bars_for_power(0.8, YEAR) - 1000, rel=0.2)
    assert decided / 300 >= 0.85


def test_the_weaker_of_mean_and_alpha_says_how_many_bars():
    """A Sharpe ratio far above 1 that the market nearly explains."""
    rising = MARKET + 0.002
    returns = 0.5 * rising + 0.2 * earning(1.0)
    verdict = judged(returns, rising, trials=100)
    t = sig.alpha_test(returns, rising).t
    assert 0.0 < t < sig.mean_test(returns).t
    assert verdict.label == "inconclusive"
    total = 1000 * ((sig.critical_value(0.05, 100) + 1.2815516) / t) ** 2
    assert verdict.bars_needed == math.ceil(total - 1000)
    assert judged(0.5 * rising - 0.2 * earning(1.0), rising).bars_needed is None


def test_more_trials_need_more_bars():
    needed = [judged(earning(1.0), trials=m).bars_needed for m in (2, 10, 100)]
    assert needed[0] < needed[1] < needed[2]


def test_near_nothing_the_bars_that_rule_it_out_are_fewer():
    """A Sharpe ratio of 0.2 is below 1 long before it is above 0."""
    returns = earning(0.2, bars=300)
    verdict = judged(returns, MARKET[:300], trials=10)
    assert verdict.label == "inconclusive"
    error = sig.sharpe_error(returns) * math.sqrt(YEAR)
    total = 300 * ((1.6448536 + 1.2815516) * error / 0.8) ** 2
    assert verdict.bars_needed == math.ceil(total - 300)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (Evidence(deflated_sharpe=0.94), "by luck (deflated 0.94)"),
        (Evidence(deflated_sharpe=math.nan), "by luck"),
        (Evidence(bootstrap_low=0.0), "resampled history"),
        (Evidence(spa_p_value=0.06), "SPA p = 0.06"),
        (Evidence(doubled_costs=-0.1), "doubled costs it does not earn: -10.0%"),
        (Evidence(latency=0.05), "one bar late"),
        (Evidence(latency=math.nan), "one bar late"),
        (Evidence(controls=("shuffled", "martingale")), "where there is none: shuffled, martingale"),
    ],
)
def test_a_contradiction_caps(evidence, words):
    edge = judged(earning(3.0))
    verdict = capped(edge, evidence)
    assert verdict.label == "inconclusive"
    assert words in verdict.reasons[0]
    assert verdict.reasons[1:] == edge.reasons
    assert verdict.bars_needed is None
    assert verdict[1:5] == edge[1:5]
    for other in (judged(earning(-1.0)), judged(earning(0.8))):
        assert capped(other, evidence) == other


def test_evidence_that_agrees_or_was_not_measured_changes_nothing():
    edge = judged(earning(3.0))
    assert capped(edge, Evidence()) == edge
    agreeing = Evidence(0.95, 1e-6, 0.05, 0.01, 0.06, ())
    assert capped(edge, agreeing) == edge
    assert capped(judged(earning(-1.0)), agreeing).label == "no edge"
    every = Evidence(0.1, -1.0, 0.9, -1.0, 0.05, ("shuffled",))
    assert len(capped(edge, every).reasons) == 6 + len(edge.reasons)


def test_false_edges_are_as_rare_as_said():
    """In a drifting market, where the mean is truly positive and only the alpha protects."""
    found = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        market = rng.normal(1.0 / math.sqrt(YEAR), 1.0, 1000)
        found += judged((rng.uniform(size=1000) < 0.5) * market, market).label == "edge"
    assert found / 400 <= 0.08


def test_a_verdict_is_json():
    for returns in (earning(3.0), np.zeros(1000), np.full(1000, 1e-4), MARKET):
        json.dumps(judged(returns)._asdict(), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trials": 0}, "trials is 0: count everything"),
        ({"trials": 1.5}, "whole number"),
        ({"trials": math.inf}, "trials is inf"),
        ({"trials": math.nan}, "trials is nan"),
        ({"alpha": 5}, "alpha is 5"),
        ({"bars_per_year": 0.0}, "bars_per_year is 0"),
        ({"benchmark": MARKET[:-1]}, "returns has 1000 bars and benchmark 999"),
        ({"returns": np.where(MARKET > 0.03, np.nan, MARKET)}, "returns has .* not finite"),
        ({"benchmark": np.full(1000, np.inf)}, "benchmark has 1000 values that are not finite"),
    ],
)
def test_refusals(change, words):
    given = {"returns": MARKET, "benchmark": MARKET, "trials": 1, "bars_per_year": YEAR} | change
    with pytest.raises(ValueError, match=words):
        judge_edge(given.pop("returns"), given.pop("benchmark"), **given)
