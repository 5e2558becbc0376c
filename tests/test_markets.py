"""The markets that learning is graded on test what they say: fractions of the reference policies."""

import numpy as np
import pytest

from benchmarks import learn
from benchmarks.markets import LEVELS, LOOKBACK, MARKETS, data_of, returns_of
from ztb_jax.evaluation import oracle

# (myopic, cost-blind) of the optimum, and how far a draw of 100,000 bars may lie from them.
FRACTIONS = {
    "ar1": (0.992, 0.683, 0.015),
    "sine": (0.005, 0.999, 0.006),
    "leak": (1.0, 0.743, 0.015),
    "regime": (0.0, 0.759, 0.025),
}


@pytest.mark.parametrize("name", FRACTIONS)
def test_reference_policies_reach_what_was_measured_of_the_prototype(name):
    market = MARKETS[name]
    judged = learn.slice_of(market, 7, 100_000, 1.0)
    best = learn.score(market, judged, judged.best)
    assert best > 0.0
    myopic = oracle.myopic(judged.mean, market.cost, sigma=market.sigma, levels=LEVELS)
    blind = oracle.cost_blind(judged.mean, levels=LEVELS)
    reached = [learn.score(market, judged, path) / best for path in (myopic, blind)]
    *expected, tolerance = FRACTIONS[name]
    assert reached == pytest.approx(expected, abs=tolerance)
    assert max(reached) <= 1.001


@pytest.mark.parametrize("name", MARKETS)
def test_the_mean_is_that_of_the_next_return_and_the_optimum_earns_its_score(name):
    market = MARKETS[name]
    drawn = market.draw(3, 50_000)
    coming, mean = returns_of(drawn.frame)[1:], drawn.mean[:-1]
    surprise = coming - mean
    sigma = 1e-7 if not market.sigma else market.sigma
    assert surprise.std() == pytest.approx(market.sigma or 0.0, rel=0.08, abs=1e-9)
    assert abs(surprise.mean()) < 4 * sigma / coming.size**0.5
    assert abs((surprise * mean).mean()) < 4 * sigma * mean.std() / coming.size**0.5 + 1e-15


def test_a_policy_sees_the_return_and_what_the_market_adds_and_decides_on_the_bar_that_is_scored():
    market = MARKETS["leak"]
    drawn = market.draw(3, 200)
    data = data_of(market, drawn, 0.02)
    returns = returns_of(drawn.frame)
    np.testing.assert_allclose(data.features[:, 0], returns / 0.02, rtol=1e-5)
    np.testing.assert_allclose(data.features[:-1, 1] * 0.01, returns[1:], rtol=1e-5)
    judged = learn.slice_of(market, 3, 200, 0.02)
    assert judged.mean.size == judged.best.size == data.num_steps == 200 - LOOKBACK
    np.testing.assert_allclose(judged.mean, returns[LOOKBACK:], rtol=1e-9)


def test_nothing_can_be_earned_on_shuffled_returns():
    judged = learn.slice_of(MARKETS["shuffled"], 1, 1_000, 1.0)
    assert not judged.best.any()
    assert not judged.mean.any()


@pytest.mark.parametrize("options", [{"markets": ["ar2"]}, {"seeds": 0}])
def test_unknown_markets_and_no_seeds_are_refused(options):
    with pytest.raises(SystemExit, match="take of ar1, sine"):
        learn.run(None, **options)
