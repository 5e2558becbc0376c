"""The whole verdict as plain values: each number is its statistic's, and evidence lowers and never lifts."""

import json
import math

import numpy as np
import pytest
from pydantic import TypeAdapter

from ztb_jax.evaluation import judgement, resampling
from ztb_jax.evaluation import significance as sig
from ztb_jax.evaluation.edge import Evidence, judge_edge
from ztb_jax.runs.judged import Edge

YEAR, BARS = 252.0, 1000
MARKET = np.random.default_rng(0).normal(0.0004, 0.01, BARS)
RANDOM = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], BARS) * MARKET
BASELINES = {
    "buy_and_hold": MARKET,
    "flat": np.zeros(BARS),
    "random": RANDOM,
    "hindsight": np.abs(MARKET),
}


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    monkeypatch.setattr(judgement, "DRAWS", 200)


def earning(sharpe: float, *, beta: float = 0.0, seed: int = 3, bars: int = BARS) -> np.ndarray:
    """Returns of this annual Sharpe ratio, all of it apart from the market, of which beta is held, too."""
    noise = np.random.default_rng(seed).normal(0.0, 1.0, bars)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    return beta * MARKET[:bars] + 0.01 * (noise + sharpe / math.sqrt(YEAR))


def judged(returns, *, trials=1, ratios=(0.1,), baselines=BASELINES, **rest):
    cut = {name: series[: returns.size] for name, series in baselines.items()}
    return judgement.judge(returns, cut, trials=trials, trial_sharpes=ratios, bars_per_year=YEAR, **rest)


def test_an_edge_without_a_contradiction():
    edge = judged(earning(4.0))
    assert edge["label"] == "edge"
    assert edge["contradictions"] == {}
    assert edge["evidence"]["superior"] == ["policy"]
    assert set(edge["evidence"]["spa"]) == {"buy_and_hold", "flat", "random"}  # not hindsight
    assert edge["bars_needed"] == 0


def test_every_number_is_its_statistics():
    returns, ratios = earning(1.5, beta=0.3), [0.02, 0.05, -0.01, sig.moments(earning(1.5, beta=0.3)).sharpe]
    edge = judged(returns, trials=4, ratios=ratios)
    plain = judge_edge(returns, MARKET, trials=4, bars_per_year=YEAR)
    assert (edge["p_mean"], edge["p_alpha"], edge["sharpe"], edge["sharpe_upper"]) == plain[1:5]
    seen, evidence = sig.moments(returns), edge["evidence"]
    assert evidence["probabilistic_sharpe"] == sig.probabilistic_sharpe(seen)
    assert evidence["min_track_record_length"] == sig.min_track_record(seen)
    spread = math.sqrt(sum((ratio - sum(ratios) / 4) ** 2 for ratio in ratios) / 3)
    assert evidence["deflated_sharpe"] == pytest.approx(sig.deflated_sharpe(seen, trials=4, spread=spread))
    drawn = resampling.bootstrap(returns, YEAR, seed=0, draws=200, confidence=0.9)
    for name in ("mean", "sharpe", "total_return"):
        assert evidence["bootstrap"][name] == getattr(drawn, name)._asdict()
    slope = np.polyfit(MARKET, returns, 1)[0]
    spa = resampling.superior_ability(returns[None], slope * MARKET, seed=0, draws=200)
    assert evidence["spa"]["buy_and_hold"] == pytest.approx(spa.consistent, abs=0.002)
    flat = resampling.superior_ability(returns[None], np.zeros(BARS), seed=0, draws=200)
    assert evidence["spa"]["flat"] == flat.consistent


def test_more_trials_make_it_stricter():
    returns = earning(1.6)
    ratios = list(np.random.default_rng(0).normal(0.0, 0.03, 50))
    alone, among = judged(returns), judged(returns, trials=50, ratios=ratios)
    assert alone["label"] == "edge"
    assert among["label"] == "inconclusive"
    assert among["evidence"]["deflated_sharpe"] < 0.95 < alone["evidence"]["deflated_sharpe"]
    assert among["evidence"]["probabilistic_sharpe"] == alone["evidence"]["probabilistic_sharpe"]


def test_with_one_trial_the_deflated_ratio_is_the_plain_one():
    evidence = judged(earning(1.0))["evidence"]
    assert evidence["deflated_sharpe"] == evidence["probabilistic_sharpe"]


def test_the_spread_of_ratios_that_nobody_knows_is_not_guessed():
    edge = judged(earning(4.0), trials=3, ratios=(0.1,))
    assert edge["evidence"]["deflated_sharpe"] is None
    assert "fewer than two trials" in edge["evidence"]["missing"]["deflated_sharpe"]
    assert edge["label"] == "edge"


@pytest.mark.parametrize(
    ("further", "name"),
    [
        (Evidence(doubled_costs=-0.01), "doubled_costs"),
        (Evidence(latency=0.05), "latency"),
        (Evidence(controls=("shuffled",)), "controls"),
    ],
)
def test_what_was_measured_elsewhere_lowers_an_edge(further, name):
    edge = judged(earning(4.0), further=further)
    assert edge["label"] == "inconclusive"
    assert list(edge["contradictions"]) == [name]
    assert edge["reasons"][0] == edge["contradictions"][name]
    assert name not in edge["evidence"]["missing"]


def test_evidence_in_favour_lifts_nothing():
    kind = Evidence(doubled_costs=1.0, latency=1.0, controls=())
    for returns in (earning(0.8), earning(-2.0)):
        assert judged(returns, further=kind)["label"] == judged(returns)["label"] != "edge"


def test_a_policy_that_holds_little_is_not_punished_for_it():
    """Superior is more than the share of the baseline that it holds: the market alone earns more here."""
    rising = MARKET + 0.003
    small = 0.3 * rising + 0.2 * earning(4.0)
    assert small.mean() < rising.mean()
    edge = judged(small, baselines=BASELINES | {"buy_and_hold": rising})
    assert edge["evidence"]["spa"]["buy_and_hold"] < 0.05
    assert edge["label"] == "edge"


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_what_is_a_baseline_is_not_superior_to_it(share):
    rising = MARKET + 0.003
    edge = judged(share * rising, baselines={"buy_and_hold": rising})
    assert edge["evidence"]["spa"] == {"buy_and_hold": 1.0}
    assert edge["contradictions"]["spa_p_value"]
    assert edge["label"] != "edge"


@pytest.mark.parametrize("bars", [1, 2, 3, 29, 30, 99, 100])
def test_a_slice_too_short_for_a_statistic_leaves_it_out_and_says_why(bars):
    edge = judged(earning(3.0)[:bars], trials=2, ratios=(0.1, 0.2))
    evidence, missing = edge["evidence"], edge["evidence"]["missing"]
    assert (evidence["probabilistic_sharpe"] is None) == (bars < 3)
    assert (evidence["bootstrap"] is None) == (evidence["spa"] is None) == (bars < 30)
    for name, value in evidence.items():
        assert name == "missing" or (value is None) == (name in missing), name
    if bars < 100:
        assert edge["label"] == "inconclusive"
        assert "too few" in edge["reasons"][0]


def test_a_long_slice_is_compared_by_sums_of_bars(monkeypatch):
    returns = earning(2.0, beta=0.3)
    monkeypatch.setattr(judgement, "COMPARED_BARS", 300)
    spa = judged(returns)["evidence"]["spa"]
    fours = [series.reshape(250, 4).sum(axis=1) for series in (returns, BASELINES["flat"])]
    assert spa["flat"] == resampling.superior_ability(fours[0][None], fours[1], seed=0, draws=200).consistent
    monkeypatch.setattr(judgement, "COMPARED_BARS", 500)
    assert judged(returns[:999])["evidence"]["spa"]["flat"] < 0.05


@pytest.mark.parametrize("returns", [np.zeros(BARS), np.full(BARS, 0.001)])
def test_returns_that_do_not_vary(returns):
    edge = judged(returns, trials=2, ratios=(0.0, 0.1))
    assert edge["label"] != "edge"
    assert edge["evidence"]["missing"]["spa"] == "the returns do not vary"


def test_a_loser_has_no_length_of_a_track_record():
    edge = judged(earning(-1.0))
    assert edge["evidence"]["min_track_record_length"] is None
    assert "Sharpe ratio of 0 or less" in edge["evidence"]["missing"]["min_track_record_length"]


def test_growth_beyond_every_number_is_none_and_stays_json():
    huge = np.abs(earning(4.0)) * 200.0
    edge = judged(huge)
    assert edge["evidence"]["bootstrap"]["total_return"]["high"] is None
    json.dumps(edge, allow_nan=False)


def test_it_is_plain_the_same_every_time_and_of_its_schema():
    known = TypeAdapter(Edge)
    for returns in (earning(4.0), earning(0.5), np.zeros(BARS), earning(1.0)[:2]):
        edge = judged(returns, trials=2, ratios=(0.1, 0.0))
        assert edge == judged(returns, trials=2, ratios=(0.1, 0.0))
        told = edge | {"trials_at_first": 1, "ledger": None}
        assert json.loads(json.dumps(told, allow_nan=False)) == told
        known.validate_python(told, strict=True)
    known.validate_python(
        judgement.no_judgement("it was seen", trials=1) | {"trials_at_first": 1, "ledger": "x"}, strict=True
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"baselines": {"flat": np.zeros(BARS)}}, "needs buy_and_hold"),
        ({"trials": 0}, "trials is 0"),
        ({"alpha": 1.0}, "alpha"),
        ({"baselines": {"buy_and_hold": np.append(MARKET[1:], np.nan)}}, "not finite"),
    ],
)
def test_bad_input_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        judged(earning(1.0), **change)


def test_in_words():
    told = judged(earning(0.8), trials=3, ratios=(0.1, 0.0)) | {"trials_at_first": 2, "ledger": None}
    words = judgement.in_words(told)
    assert words[0] == "Verdict: inconclusive."
    assert words[1] == told["reasons"][0]
    assert words[2] == (
        "M = 3: 3 policies were ever scored on these bars, says scored.jsonl in the folder of runs; M was 2 "
        "when this one was first scored."
    )
    assert f"{told['bars_needed']:,} more bars" in words[3]
    alone = judged(earning(4.0)) | {"trials_at_first": 1, "ledger": "all.jsonl"}
    assert judgement.in_words(alone)[2:] == [
        "M = 1: nothing else was ever scored on these bars, says all.jsonl."
    ]
    capped = judged(earning(4.0), further=Evidence(latency=0.01)) | {"trials_at_first": 1, "ledger": None}
    assert len(judgement.in_words(capped)) == 3
    beta = judged(0.5 * MARKET + 0.002, baselines={"buy_and_hold": MARKET + 0.004})
    assert judgement.in_words(beta | {"trials_at_first": 1, "ledger": None})[3].startswith(
        "No number of further"
    )
    seen = judgement.no_judgement("the policy was trained on these bars", trials=2)
    assert judgement.in_words(seen | {"trials_at_first": 2, "ledger": None})[0] == (
        "There is no verdict on this slice: the policy was trained on these bars."
    )
