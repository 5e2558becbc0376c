"""Nothing that happens after a bar can be seen, or acted on, at that bar: bit for bit, end to end."""

import operator

import jax
import numpy as np
import pytest
from arch.data import sp500

from ztb_jax import build
from ztb_jax.config import resolve
from ztb_jax.data.frame import as_frame
from ztb_jax.data.market import make_costs, make_market_data
from ztb_jax.evaluation.backtest import make_policy_backtest
from ztb_jax.features import recipe, scaling

CONFIG = resolve(environ={}, flags={"policy.width": 16})
SOURCE = sp500.load().iloc[:1500]
FRAME = as_frame(
    SOURCE.index, {name: SOURCE[name.capitalize()] for name in ("open", "high", "low", "close", "volume")}
)
TRAIN_STOP = 600


def overwritten(bar: int, seed: int):
    """The frame with every bar after `bar` replaced by others."""
    rng = np.random.default_rng(seed)
    later = FRAME.copy()
    moved = rng.uniform(0.3, 3.0, (len(FRAME) - bar - 1, 1)) * FRAME.iloc[bar + 1 :].to_numpy()
    later.iloc[bar + 1 :] = moved
    return later


NETWORK = build.make_network(CONFIG, num_features=8)
BACKTEST = make_policy_backtest(NETWORK, build.make_environment(CONFIG))


def decide(frame):
    """Features and the deterministic policy's trace over bars 600 to 1,499."""
    features = recipe.compute("default", frame)
    scaler = scaling.fit(features.values, features.valid, 100, TRAIN_STOP)
    lookback = CONFIG.features.lookback
    data = make_market_data(
        frame,
        scaler.apply(features.values),
        costs=make_costs(fee_rate=5e-4, half_spread=1e-4, slippage=1e-4),
        lookback=lookback,
        start=TRAIN_STOP,
    )
    # Large weights make a policy that changes its mind often.
    params = jax.tree.map(lambda x: 3 * x, NETWORK.init(jax.random.key(0)))
    return features.values, jax.device_get(BACKTEST(params, data))


@pytest.fixture(scope="module")
def original():
    return decide(FRAME)


def test_overwriting_the_future_leaves_features_actions_and_fills(original):
    """At many bars, for a look-ahead of one bar shows in nothing but the very last decision before each."""
    features, trace = original
    assert len(set(trace.level.tolist())) > 1, "a policy that never acts would pass for causal"
    for seed, bar in enumerate(range(620, 1480, 20)):
        other_features, other = decide(overwritten(bar, seed))
        np.testing.assert_array_equal(other_features[: bar + 1], features[: bar + 1])
        assert (other_features[bar + 1 :] != features[bar + 1 :]).any()
        decided = bar - TRAIN_STOP + 1  # the action at `bar` itself is decided on what is known
        np.testing.assert_array_equal(other.level[:decided], trace.level[:decided], err_msg=f"bar {bar}")
        filled = bar - TRAIN_STOP  # the fill of the action at `bar` is at the next open, already another
        mine, theirs = (
            jax.tree.map(operator.itemgetter(slice(filled)), (told.fill, told.gain, told.exposure))
            for told in (trace, other)
        )
        jax.tree.map(np.testing.assert_array_equal, theirs, mine)
        assert (other.level[decided:] != trace.level[decided:]).any()
