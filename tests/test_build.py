"""Slices as they are cut for a run: nothing later reaches them, and every setting does."""

import functools

import jax
import numpy as np
import pytest

from ztb_jax import build
from ztb_jax.config import resolve
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market_data
from ztb_jax.errors import DataError
from ztb_jax.features import recipe

FLAGS = {
    "features.recipe": "returns",
    "features.lookback": 4,
    "data.embargo_bars": 8,
    "env.episode_bars": 64,
    "env.fee_rate": 0.003,
    "env.ruin_equity": 0.2,
    "policy.width": 8,
}
CONFIG = resolve(environ={}, flags=FLAGS)
FRAME = synthetic.ar1(0, 1200)


def prepare(frame):
    return build.prepare(CONFIG, frame, recipe.compute("returns", frame))


def from_bar(frame, bar):
    """The frame with other prices from `bar` on."""
    other = frame.copy()
    other.iloc[bar:] *= np.random.default_rng(0).uniform(0.5, 2.0, (len(frame) - bar, 1))
    return other


@functools.cache
def prepared():
    return prepare(FRAME)


@pytest.mark.parametrize("name", ["train", "validation"])
def test_later_bars_do_not_reach_a_slice(name):
    stop = getattr(prepared().split, name)[1]
    other = prepare(from_bar(FRAME, stop))
    jax.tree.map(np.testing.assert_array_equal, prepared().slices[name], other.slices[name])
    assert not np.array_equal(prepared().slices["test"].features, other.slices["test"].features)


def test_the_scaling_follows_the_train_slice():
    start, stop = prepared().split.train
    rows = np.asarray(prepared().slices["train"].features, np.float64)
    assert rows.shape == (stop - start + CONFIG.features.lookback - 1, 1)
    np.testing.assert_allclose(rows.std(), 1.0, atol=0.01)  # clipping takes a little off
    np.testing.assert_allclose(rows.mean(), 0.0, atol=0.01)


def test_embargo_costs_and_ruin_are_the_configuration_s():
    cut = prepared().split
    assert cut.validation[0] - cut.train[1] == cut.test[0] - cut.validation[1] == 8
    for name, (start, stop) in cut._asdict().items():
        data = prepared().slices[name]
        params = data.env_params
        costs = [params.costs.fee_rate, params.costs.half_spread, params.costs.slippage, params.ruin_equity]
        np.testing.assert_allclose(costs, [0.003, 1e-4, 1e-4, 0.2], rtol=1e-6)
        assert int(params.stop) - int(params.first) == stop - start
        assert data.num_steps == stop - 1 - start


def test_the_reward_scale_is_of_the_slice_alone():
    costs = make_costs(fee_rate=0.0, half_spread=0.0, slippage=0.0)
    one, other = (
        make_market_data(frame, np.zeros((1200, 1)), costs=costs, stop=150)
        for frame in (FRAME, from_bar(FRAME, 150))
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)
    spread = np.diff(np.log(FRAME["close"].to_numpy()[:150])).std()
    np.testing.assert_allclose(one.reward_scale, 1.0 / spread, rtol=1e-6)


@pytest.mark.parametrize("name", ["loss", "reward", "grad_norm", "param_norm"])
def test_the_gate_watches_every_number_that_can_go_bad(name, monkeypatch):
    ppo = build.make_ppo

    def poisoned(*arguments, **sizes):
        learner = ppo(*arguments, **sizes)

        def step(state, data):
            state, metrics = learner.step(state, data)
            return state, metrics | {name: metrics[name] * np.nan}

        return learner._replace(step=step)

    monkeypatch.setattr(build, "make_ppo", poisoned)
    small = resolve(
        environ={}, flags=FLAGS | {"ppo.num_accounts": 32, "ppo.rollout_bars": 16, "ppo.sharing": 4}
    )
    learner = build.make_learner(small, num_features=1)
    data = prepared().slices["train"]
    _, metrics = jax.jit(learner.step)(jax.jit(learner.init)(jax.random.key(0), data), data)
    assert int(metrics["verdict"]) == 1


def test_too_few_bars_are_told_with_the_setting_to_change():
    with pytest.raises(DataError, match=r"the train slice has .* lower env\.episode_bars"):
        prepare(synthetic.ar1(0, 120))
    with pytest.raises(DataError, match=r"the validation slice has .*: raise data\.validation"):
        prepare(synthetic.ar1(0, 150))
    short = synthetic.ar1(0, 120)
    long = resolve(environ={}, flags=FLAGS | {"features.lookback": 5000})
    with pytest.raises(DataError, match=r"features\.lookback \(5000\)"):
        build.prepare(long, short, recipe.compute("returns", short))


def test_a_hole_in_the_features_is_told_with_its_row():
    features = recipe.compute("returns", FRAME)
    values, valid = features.values.copy(), features.valid.copy()
    values[700], valid[700] = np.nan, False
    features = features._replace(values=values, valid=valid)
    with pytest.raises(DataError, match="first at row 700"):
        build.prepare(CONFIG, FRAME, features)


def test_how_bars_are_encoded_follows_from_the_sizes():
    def told(num_bars, **flags):
        config = resolve(environ={}, flags=FLAGS | flags)
        network = build.make_network(config, num_features=1)
        return {name: how.kind for name, how in build.encodings(config, network, num_bars=num_bars).items()}

    assert told(1_000) == {"rollout": "slice", "minibatch": "slice"}
    assert told(100_000) == {"rollout": "stretches", "minibatch": "stretches"}
    single = {"ppo.shuffle": "full", "ppo.num_minibatches": 64}
    assert told(100_000, **single) == {"rollout": "stretches", "minibatch": "windows"}
    assert told(100_000, **single, **{"policy.encoder": "attention", "features.lookback": 64})[
        "minibatch"
    ] == ("stretches")
    random = {"learner": "random"}
    assert told(1_000, **random) == {"rollout": "slice"}
