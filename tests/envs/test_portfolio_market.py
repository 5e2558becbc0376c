"""What a portfolio's market holds: returns, risk as it was known, slices that begin late enough."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import portfolio_market
from envs.portfolio_market import make_portfolio_market, make_portfolio_params, rolling_risk
from envs.risk_limits import RiskLimits
from tests.envs.test_portfolio import GROUPS, made_up
from ztb_jax.data.market import make_costs

BARS = made_up(300)
FREE = make_costs(fee_rate=0.0, half_spread=0.0, slippage=0.0)


def returns_of(bars):
    return bars.closed[1:] / bars.closed[:-1] - 1.0


def market_of(bars, **rest):
    return make_portfolio_market(bars.opened, bars.closed, present=bars.present, groups=GROUPS, **rest)


def test_returns_make_up_the_price_and_a_closed_instrument_has_none():
    market = market_of(BARS)
    gap, body = np.asarray(market.gap, np.float64), np.asarray(market.body, np.float64)
    np.testing.assert_allclose((1 + gap[1:]) * (1 + body[1:]) - 1, returns_of(BARS), atol=1e-6)
    assert not gap[~BARS.present].any()
    assert not body[~BARS.present].any()
    np.testing.assert_array_equal(market.tradable, BARS.present)
    assert not np.asarray(market.gap[0]).any()


def test_the_factor_squared_is_the_covariance_as_it_was_known():
    factor, correlation = rolling_risk(np.concatenate([np.zeros((1, 8)), returns_of(BARS)]), window=40)
    first, second = np.triu_indices(8, 1)
    for bar in (40, 77, 299):
        past = returns_of(BARS)[bar - 40 : bar]
        np.testing.assert_allclose(factor[bar].T @ factor[bar], np.cov(past, rowvar=False), rtol=1e-9)
        expected = np.abs(np.corrcoef(past, rowvar=False))[first, second]
        np.testing.assert_allclose(correlation[bar], expected, rtol=1e-9)
    assert not factor[:40].any()


def test_chunks_of_windows_are_the_same_as_one(monkeypatch):
    returns = np.random.default_rng(0).standard_normal((120, 3))
    whole = rolling_risk(returns, window=10)
    monkeypatch.setattr(portfolio_market, "_CHUNK", 7)
    jax.tree.map(np.testing.assert_array_equal, whole, rolling_risk(returns, window=10))


def test_fewer_returns_than_instruments_and_a_price_that_stands_still():
    returns = np.random.default_rng(0).standard_normal((20, 6))
    returns[:, 2] = 0.0
    factor, correlation = rolling_risk(returns, window=4)
    np.testing.assert_allclose(factor[9].T @ factor[9], np.cov(returns[6:10], rowvar=False), atol=1e-12)
    assert np.isfinite(correlation).all()
    assert not factor[:, :, 2].any()


def test_a_pair_of_which_neither_trades_in_the_next_bar_does_not_count():
    market = market_of(BARS)
    first, second = np.triu_indices(8, 1)
    counts = (BARS.present[1:, first] | BARS.present[1:, second])[100:]
    known = np.asarray(market.correlation)[100:-1]
    assert not known[~counts].any()
    assert (~counts).any()
    assert (known[counts] > 0).all()


def test_later_prices_change_no_earlier_row():
    market = market_of(BARS)
    factor = np.random.default_rng(0).uniform(0.5, 2.0, (2, *BARS.closed.shape))
    factor[:, :201] = 1.0
    other = market_of(BARS._replace(opened=BARS.opened * factor[0], closed=BARS.closed * factor[1]))
    for name in ("gap", "body", "factor", "correlation"):
        mine, theirs = np.asarray(getattr(market, name)), np.asarray(getattr(other, name))
        np.testing.assert_array_equal(mine[:201], theirs[:201])
        assert (mine[201] != theirs[201]).any()


def test_parameters_begin_where_the_risk_is_known():
    limits = RiskLimits()
    params = make_portfolio_params(market_of(BARS), FREE, limits=limits)
    assert (int(params.first), int(params.stop)) == (100, 300)
    with pytest.raises(ValueError, match=r"first \(99\) must be at least 100"):
        make_portfolio_params(market_of(BARS), FREE, limits=limits, first=99)
    with pytest.raises(ValueError, match="slice of the 300 bars"):
        make_portfolio_params(market_of(BARS), FREE, first=200, stop=301)
    assert int(make_portfolio_params(market_of(BARS, window=None), FREE).first) == 0


def test_every_number_is_strongly_typed():
    params = make_portfolio_params(market_of(BARS), FREE, limits=RiskLimits(), band=0.1)
    for leaf in jax.tree.leaves(params):
        assert not jnp.asarray(leaf).weak_type


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"opened": BARS.opened[:, :3]}, "give \\[T, A\\]"),
        ({"closed": -BARS.closed}, "positive and finite"),
        ({"closed": np.full_like(BARS.closed, np.nan)}, "drop leading gaps"),
        ({"years": np.zeros(3)}, "years must be \\[300\\]"),
        ({"groups": np.eye(3)}, "groups must be \\[8, sectors\\]"),
        ({"groups": np.zeros((8, 0))}, "groups must be \\[8, sectors\\]"),
        ({"window": 300}, "more bars than the 300"),
    ],
)
def test_refuses_arrays_that_do_not_fit(change, message):
    good = {"opened": BARS.opened, "closed": BARS.closed, "present": BARS.present}
    arrays = good | change
    with pytest.raises(ValueError, match=message):
        make_portfolio_market(arrays.pop("opened"), arrays.pop("closed"), **arrays)
