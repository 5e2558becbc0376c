import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztb_jax.data.frame import content_hash
from ztb_jax.data.synthetic import (
    GENERATORS,
    ar1,
    correlated,
    factors,
    from_returns,
    gbm,
    regimes,
    shuffled,
    sine,
)
from ztb_jax.data.validate import check
from ztb_jax.errors import DataError

EVERY = pytest.mark.parametrize("generate", GENERATORS.values(), ids=GENERATORS)


def returns(frame: pd.DataFrame) -> np.ndarray:
    return (frame["close"] / frame["open"] - 1).to_numpy()


def autocorrelation(x: np.ndarray, lag: int = 1) -> float:
    x = x - x.mean()
    return float((x[lag:] * x[:-lag]).mean() / (x * x).mean())


@EVERY
def test_equal_seeds_give_equal_bars(generate):
    assert content_hash(generate(3, 500)) == content_hash(generate(3, 500))
    assert content_hash(generate(3, 500)) != content_hash(generate(4, 500))


@EVERY
def test_a_position_earns_close_to_close(generate):
    frame = generate(0, 1_000)
    np.testing.assert_array_equal(frame["open"].to_numpy()[1:], frame["close"].to_numpy()[:-1])
    assert frame["open"].iloc[0] == 100
    assert (frame["high"] >= frame[["open", "close"]].max(axis=1)).all()
    assert (frame["low"] <= frame[["open", "close"]].min(axis=1)).all()
    assert check(frame, timeframe="1h") == []


@EVERY
@pytest.mark.parametrize("timeframe", ["1m", "4h", "1d"])
def test_stamps_follow_the_timeframe(generate, timeframe):
    frame = generate(0, 800, timeframe=timeframe)
    assert str(frame.index[0]) == "2000-01-03 00:00:00"
    assert (np.diff(frame.index) == pd.Timedelta(timeframe.upper() if timeframe == "1d" else timeframe)).all()
    assert check(frame, timeframe=timeframe) == []


def test_a_million_hours_fit_and_a_million_days_do_not():
    assert gbm(0, 1_000_000).index[-1].year == 2114
    with pytest.raises(
        DataError, match=r"1000000 bars of 1d .* end after 2200. Take fewer bars, or a shorter"
    ):
        gbm(0, 1_000_000, timeframe="D1")


def test_gbm_is_a_martingale_in_simple_returns():
    sample = np.concatenate([returns(gbm(seed, 25_000, volatility=0.05)) for seed in range(40)])
    assert abs(sample.mean()) < 3 * 0.05 / 1_000
    assert np.log1p(sample).mean() == pytest.approx(-(0.05**2) / 2, abs=3 * 0.05 / 1_000)
    assert np.log1p(sample).std() == pytest.approx(0.05, rel=0.005)
    assert abs(autocorrelation(sample)) < 0.004


def test_gbm_drift_is_the_mean_return():
    sample = np.concatenate([returns(gbm(seed, 20_000, drift=0.002)) for seed in range(50)])
    assert sample.mean() == pytest.approx(0.002, abs=3e-5)
    np.testing.assert_allclose(returns(gbm(1, 100, drift=0.002, volatility=0.0)), 0.002, rtol=1e-9)


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.3, 0.9])
def test_ar1_has_its_moments(phi):
    sample = returns(ar1(0, 200_000, phi=phi, sigma=0.01))
    for lag in (1, 2, 3):
        assert autocorrelation(sample, lag) == pytest.approx(phi**lag, abs=0.015)
    assert (sample[1:] - phi * sample[:-1]).std() == pytest.approx(0.01, rel=0.01)
    assert sample.std() == pytest.approx(0.01 / np.sqrt(1 - phi**2), rel=0.02)


def test_ar1_begins_in_its_stationary_distribution():
    first = [returns(ar1(seed, 1, phi=0.9))[0] for seed in range(400)]
    assert np.std(first) == pytest.approx(0.01 / np.sqrt(1 - 0.81), rel=0.15)


def test_sine_is_its_formula():
    frame = sine(5, 240, period=60, amplitude=0.02)
    wave = np.log(frame["close"].to_numpy())
    np.testing.assert_allclose(wave[60:], wave[:-60], atol=1e-12)
    assert np.ptp(wave[:60]) == pytest.approx(0.04, rel=0.005)
    np.testing.assert_allclose(
        wave[:-2] + wave[2:] - 2 * np.cos(np.pi / 30) * wave[1:-1],
        (2 - 2 * np.cos(np.pi / 30)) * wave[:60].mean(),
        atol=1e-12,
    )


def test_sine_seeds_begin_at_their_own_phase():
    starts = [returns(sine(seed, 2))[0] for seed in range(50)]
    assert len(set(starts)) == 50
    assert min(starts) < -0.001
    assert max(starts) > 0.001


def test_sine_noise_adds_no_drift():
    noisy, clean = returns(sine(0, 100_000, noise=0.01)), returns(sine(0, 100_000))
    excess = (1 + noisy) / (1 + clean) - 1
    assert abs(excess.mean()) < 3 * 0.01 / np.sqrt(100_000)
    assert excess.std() == pytest.approx(0.01, rel=0.01)
    assert abs(autocorrelation(excess)) < 0.01


def test_regimes_persist():
    side = np.sign(returns(regimes(0, 200_000, volatility=0.0)))
    np.testing.assert_allclose(np.abs(returns(regimes(0, 1_000, volatility=0.0))), 0.003, rtol=1e-9)
    assert (side[1:] == side[:-1]).mean() == pytest.approx(0.98, abs=0.002)
    assert abs(side.mean()) < 0.1
    assert {np.sign(returns(regimes(seed, 1, volatility=0.0)))[0] for seed in range(20)} == {-1.0, 1.0}


def test_regimes_cluster_and_keep_their_variance():
    sample = returns(regimes(0, 400_000, drift=0.0))
    assert sample.std() == pytest.approx(0.01, rel=0.03)
    assert autocorrelation(sample**2) > 0.1
    assert autocorrelation(sample**2, 20) > 0.05
    assert abs(autocorrelation(sample)) < 0.02
    kurtosis = ((sample - sample.mean()) ** 4).mean() / sample.var() ** 2
    assert kurtosis > 3.5
    plain = returns(regimes(0, 400_000, drift=0.0, arch=0.0, garch=0.0))
    assert abs(autocorrelation(plain**2)) < 0.01


@pytest.mark.parametrize("jumps", [0.0, 0.05])
def test_regimes_earn_their_drift_with_and_without_jumps(jumps):
    earned = []
    for seed in range(8):
        side = np.sign(returns(regimes(seed, 50_000, volatility=0.0)))
        market = regimes(seed, 50_000, volatility=0.02, jump_probability=jumps, jump_volatility=0.05)
        earned.append(returns(market) - 0.003 * side)
    assert abs(np.mean(earned)) < 1e-4
    assert np.std(earned) == pytest.approx(np.hypot(0.02, 0.05 * jumps**0.5), rel=0.03)


@given(st.floats(-0.95, 0.95))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_two_assets_correlate_as_asked(correlation):
    frames = correlated(0, 50_000, correlation=correlation)
    assert list(frames) == ["asset0", "asset1"]
    first, second = (np.log1p(returns(frame)) for frame in frames.values())
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(correlation, abs=0.02)


def test_many_assets_share_one_calendar():
    matrix = np.array([[1.0, 0.8, -0.2], [0.8, 1.0, 0.1], [-0.2, 0.1, 1.0]])
    frames = list(correlated(1, 100_000, correlation=matrix, volatility=0.02).values())
    assert all(frame.index.equals(frames[0].index) for frame in frames)
    logs = np.log1p([returns(frame) for frame in frames])
    np.testing.assert_allclose(np.corrcoef(logs), matrix, atol=0.02)
    np.testing.assert_allclose(logs.std(axis=1), 0.02, rtol=0.02)
    assert not np.array_equal(frames[0]["volume"], frames[1]["volume"])


@pytest.mark.parametrize(
    "matrix",
    [
        1.5,
        [[1.0, 0.5]],
        [[1.0, 0.5], [0.4, 1.0]],
        [[2.0, 0.5], [0.5, 2.0]],
        [1.0, 0.5],
        [[1.0, -1.1], [-1.1, 1.0]],
    ],
)
def test_what_is_no_correlation_matrix_is_refused(matrix):
    with pytest.raises(DataError, match=r"is not a correlation matrix. Give a square, symmetric"):
        correlated(0, 10, correlation=matrix)


@pytest.mark.parametrize(
    ("generate", "options", "message"),
    [
        (gbm, {"volatility": -0.1}, "volatility is -0.1"),
        (gbm, {"volatility": float("nan")}, "volatility is nan"),
        (gbm, {"drift": -1.0}, "drift -1.0 a bar loses everything"),
        (ar1, {"phi": 1.0}, "phi 1.0 makes returns without"),
        (ar1, {"sigma": 5.0}, "would lose all of its price"),
        (sine, {"period": 1}, "period 1 is shorter than two bars"),
        (regimes, {"persistence": 1.5}, "persistence is 1.5, not a probability"),
        (regimes, {"arch": 0.5, "garch": 0.5}, "arch \\+ garch is 1"),
    ],
)
def test_impossible_markets_are_refused(generate, options, message):
    with pytest.raises(DataError, match=message):
        generate(0, 1_000, **options)


@pytest.mark.parametrize("options", [{"drift": 0.01}, {"drift": -0.01}, {"volatility": 0.5}])
def test_prices_stay_within_single_precision(options):
    with pytest.raises(DataError, match=r"leaves the range of single precision at bar \d+\. Take fewer bars"):
        gbm(0, 100_000, **options)


def test_factors_forecast_as_much_as_they_should():
    frame, features = factors(0, 400_000, num_signals=2, num_noise=1, persistence=0.8, strength=0.004)
    assert features.shape == (400_000, 3)
    np.testing.assert_allclose(features.std(axis=0), 1.0, atol=0.02)
    np.testing.assert_allclose([autocorrelation(column) for column in features.T], 0.8, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(features.T), np.eye(3), atol=0.02)
    coming = returns(frame)[1:]
    slopes = np.linalg.lstsq(features[:-1], coming)[0]
    np.testing.assert_allclose(slopes, [0.004 / 2**0.5, 0.004 / 2**0.5, 0.0], atol=6e-5)
    assert (coming - features[:-1] @ slopes).std() == pytest.approx(0.01, rel=0.01)
    np.testing.assert_allclose(features[:, :2].sum(axis=1).std() * 0.004 / 2**0.5, 0.004, rtol=0.02)


def test_factors_are_seeded_and_those_of_the_same_bar_and_later_forecast_nothing():
    frame, features = factors(1, 200_000, persistence=0.0, strength=0.005)
    again, same = factors(1, 200_000, persistence=0.0, strength=0.005)
    np.testing.assert_array_equal(features, same)
    assert content_hash(frame) == content_hash(again)
    signal = features[:, :4].sum(axis=1) / 2
    moved = returns(frame)
    assert np.corrcoef(signal[:-1], moved[1:])[0, 1] == pytest.approx(0.005 / 0.0125**0.5 / 0.1, abs=0.01)
    assert abs(np.corrcoef(signal, moved)[0, 1]) < 0.01
    assert abs(np.corrcoef(signal[1:], moved[:-1])[0, 1]) < 0.01


def test_shuffled_returns_keep_all_but_their_order():
    frame = ar1(0, 100_000)
    mixed = shuffled(7, frame)
    np.testing.assert_allclose(np.sort(returns(mixed)), np.sort(returns(frame)), rtol=1e-9)
    assert abs(autocorrelation(returns(mixed))) < 0.01 < 0.29 < autocorrelation(returns(frame))
    assert content_hash(mixed) == content_hash(shuffled(7, frame)) != content_hash(shuffled(8, frame))
    gapped = frame.assign(open=100.0)
    np.testing.assert_allclose(returns(shuffled(7, gapped)), returns(mixed), rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_signals": 0}, "num_signals is 0"),
        ({"num_noise": -1}, "num_noise is -1"),
        ({"persistence": 1.0}, "persistence is 1.0"),
        ({"strength": -1.0, "volatility": float("nan")}, "strength is -1.0.*\n?.*volatility is nan"),
    ],
)
def test_impossible_factors_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        factors(0, 100, **options)


@EVERY
def test_sizes_are_positive(generate):
    for num_bars in (0, -5):
        with pytest.raises(DataError, match="Choose 1 or more"):
            generate(0, num_bars)
    assert len(generate(0, 1)) == 1


def test_bars_do_not_tell_of_later_ones():
    known = np.random.default_rng(0).normal(0, 0.01, 300)
    changed = known.copy()
    changed[200:] *= 3
    before, after = from_returns(0, known, timeframe="1h"), from_returns(0, changed, timeframe="1h")
    pd.testing.assert_frame_equal(before.iloc[:200], after.iloc[:200])
