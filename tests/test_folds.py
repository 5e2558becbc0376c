"""Prepared folds: each knows its own bars alone, no window crosses a seam, and stacked they are as alone."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ztb_jax import build
from ztb_jax.config import resolve
from ztb_jax.data import synthetic
from ztb_jax.data.folds import Fold, combinatorial_purged, walk_forward
from ztb_jax.data.stretches import join, stack_folds
from ztb_jax.errors import DataError
from ztb_jax.evaluation import backtest
from ztb_jax.features import recipe
from ztb_jax.policies.play import batch_of, open_play

EPISODE, LOOKBACK, BEFORE = 64, 4, 3
FLAGS = {
    "features.recipe": "returns",
    "features.lookback": LOOKBACK,
    "env.episode_bars": EPISODE,
    "env.fee_rate": 0.003,
    "policy.width": 8,
    "ppo.num_accounts": 32,
    "ppo.rollout_bars": 16,
    "ppo.sharing": 4,
}
CONFIG = resolve(environ={}, flags=FLAGS)
FRAME = synthetic.ar1(0, 1_500)
FEATURES = recipe.compute("returns", FRAME)
FIRST = build.first_playable(CONFIG, FEATURES)
SHARED = {"first": FIRST, "embargo": 6, "purge": 2}
WALK = walk_forward(len(FRAME), folds=3, anchored=True, validation=0.2, **SHARED)
ROLLED = walk_forward(len(FRAME), folds=3, train_bars=500, anchored=False, validation=0.0, **SHARED)
COMBINED = combinatorial_purged(len(FRAME), groups=6, held_out=2, validation=0.2, **SHARED)
THREE = combinatorial_purged(len(FRAME), groups=6, held_out=2, validation=0.0, **SHARED)[7]
SOME = (*WALK, ROLLED[1], *COMBINED[5:9], THREE)


@functools.cache
def prepared(fold):
    return build.prepare_fold(CONFIG, FRAME, FEATURES, fold)


def rows_of(fold):
    """The bars of the frame that training data hold, range by range."""
    return [np.arange(start - BEFORE, stop) for start, stop in fold.train]


def disturbed(kept):
    """Frame and features with other numbers in all bars but those that are `kept`."""
    noise, lost = np.random.default_rng(0), np.setdiff1d(np.arange(len(FRAME)), kept)
    frame, values = FRAME.copy(), FEATURES.values.copy()
    frame.iloc[lost] *= noise.uniform(0.5, 2.0, (len(lost), 1))
    values[lost] = noise.normal(size=values[lost].shape)
    return frame, FEATURES._replace(values=values)


@pytest.mark.parametrize("fold", SOME)
def test_what_is_fitted_is_of_the_training_bars(fold):
    data = prepared(fold)
    rows = np.concatenate([FEATURES.values[each] for each in rows_of(fold)]).astype(np.float64)
    np.testing.assert_allclose(data.scaler.mean, rows.mean(0), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(data.scaler.scale, rows.std(0), rtol=1e-9)
    logs = np.log(FRAME["close"].to_numpy())
    moves = np.concatenate([np.diff(logs[start:stop]) for start, stop in fold.train])
    np.testing.assert_allclose(data.measured.deviation, moves.std(), rtol=1e-9)
    stamps = FRAME.index.to_numpy().astype("datetime64[s]").astype(np.int64)
    seconds = sum(stamps[stop - 1] - stamps[start] for start, stop in fold.train)
    bars = sum(stop - 1 - start for start, stop in fold.train)
    np.testing.assert_allclose(data.measured.bars_per_year, bars / seconds * 365.25 * 86_400, rtol=1e-12)
    moves = np.concatenate([np.diff(logs[each]) for each in rows_of(fold)])
    np.testing.assert_allclose(data.train.reward_scale, 1 / moves.std(), rtol=1e-6)


@pytest.mark.parametrize("fold", SOME)
def test_arrays_hold_the_ranges_in_a_row(fold):
    data = prepared(fold)
    rows = np.concatenate(rows_of(fold))
    opened, closed = FRAME["open"].to_numpy(), FRAME["close"].to_numpy()
    market = data.train.env_params.market
    scaled = (FEATURES.values - data.scaler.mean) / data.scaler.scale
    expected = np.clip(scaled, -5.0, 5.0)[rows]
    np.testing.assert_allclose(data.train.features, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(market.body, closed[rows] / opened[rows] - 1, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(market.gap, opened[rows] / closed[rows - 1] - 1, rtol=1e-4, atol=1e-7)
    assert int(data.train.env_params.stop) == len(rows)
    for (start, stop), one in zip(fold.test, data.tests, strict=True):
        assert one.features.shape[0] == stop - start + BEFORE
        assert one.env_params.starts is None
    assert (data.validation is None) == (fold.validation is None)
    assert (data.train.env_params.starts is None) == (len(fold.train) == 1)


@pytest.mark.parametrize("fold", SOME)
def test_bars_outside_training_do_not_reach_it(fold):
    """The close before the first row is in the gap of that row, which nobody plays: it is kept here."""
    kept = np.concatenate([np.arange(each[0] - 1, each[-1] + 1) for each in rows_of(fold)])
    data, other = prepared(fold), build.prepare_fold(CONFIG, *disturbed(kept), fold)
    for name in ("train", "scaler", "measured"):
        jax.tree.map(np.testing.assert_array_equal, getattr(data, name), getattr(other, name))
    assert not np.array_equal(data.tests[0].features, other.tests[0].features)


@pytest.mark.parametrize("fold", [*WALK, *ROLLED])
def test_later_bars_do_not_reach_a_walk(fold):
    stop = fold.train[0][1]
    frame = disturbed(np.arange(stop))[0]
    other = build.prepare_fold(CONFIG, frame, recipe.compute("returns", frame), fold)
    jax.tree.map(np.testing.assert_array_equal, prepared(fold).train, other.train)


def test_a_fold_of_the_split_is_what_is_prepared_for_a_run():
    whole = build.prepare(CONFIG, FRAME, FEATURES)
    fold = prepared(Fold((whole.split.train,), whole.split.validation, (whole.split.test,)))
    jax.tree.map(
        np.testing.assert_array_equal,
        whole.slices,
        {"train": fold.train, "validation": fold.validation, "test": fold.tests[0]},
    )
    jax.tree.map(np.testing.assert_array_equal, whole.scaler, fold.scaler)


@pytest.mark.parametrize("encoder", ["window", "gru"])
def test_no_window_crosses_a_seam(encoder):
    """Played from random starts, every bar that is seen and the rows before it are of one range."""
    config = resolve(environ={}, flags=FLAGS | {"policy.encoder": encoder})
    fold = THREE
    assert len(fold.train) == 3
    data = build.prepare_fold(config, FRAME, FEATURES, fold).train
    network = build.make_network(config, num_features=1)
    assert bool(network.grid) == (encoder == "gru")
    lengths = [stop - start + BEFORE for start, stop in fold.train]
    if network.grid:
        lengths = [-(-length // 16) * 16 for length in lengths[:-1]] + lengths[-1:]
    begins = np.cumsum([0, *lengths])
    whose = np.searchsorted(begins, np.arange(begins[-1]), side="right") - 1
    env = batch_of(build.make_environment(config), network, (256, 1))
    keys = {"env": jax.random.key(0), "phase": jax.random.key(1)}
    state = open_play(keys, env, network, data.env_params, shape=(256, 1), bars=16).env_state

    def step(state, key):
        moved, _ = env.step(key, state, jnp.ones((256, 1), jnp.int32), data.env_params)
        return moved, (moved.bar, moved.end)

    bar, end = jax.jit(lambda: jax.lax.scan(step, state, jax.random.split(jax.random.key(2), 300)))()[1]
    bar, end = (np.asarray(x).ravel() for x in (bar, end))
    assert set(whose[bar]) == {0, 1, 2}
    cell = bar - (bar - BEFORE) % (network.grid or 1)  # where a memory of this bar begins
    for one in (bar - BEFORE, cell - BEFORE, end):
        np.testing.assert_array_equal(whose[one], whose[bar])
    stops = begins[:-1] + [stop - start + BEFORE for start, stop in fold.train]
    assert (end < stops[whose[bar]]).all()
    if encoder == "window":  # every window that fits is drawn, and no other
        possible = [stop - EPISODE - (begin + BEFORE) for begin, stop in zip(begins[:-1], stops, strict=True)]
        assert len(data.env_params.starts) == sum(possible)


def test_a_memory_of_the_last_range_in_a_row_is_what_it_is_alone():
    config = resolve(environ={}, flags=FLAGS | {"policy.encoder": "gru"})
    network = build.make_network(config, num_features=1)
    features = build.prepare_fold(config, FRAME, FEATURES, THREE).train.features
    params, encode = network.init(jax.random.key(0)), jax.jit(network.encode)
    rows = THREE.train[-1][1] - THREE.train[-1][0] + BEFORE
    together, alone = encode(params, features), encode(params, features[-rows:])
    np.testing.assert_allclose(together[-rows + BEFORE :], alone[BEFORE:], rtol=1e-5, atol=1e-6)


def poisoned(stacked, datas):
    """`stacked` with numbers that would spoil everything in the rows that fill it up."""
    rows = np.arange(stacked.features.shape[1])
    beyond = jnp.asarray(rows >= np.array([[len(data.features)] for data in datas]))
    market = jax.tree.map(lambda leaf: jnp.where(beyond, jnp.nan, leaf), stacked.env_params.market)
    features = jnp.where(beyond[..., None], 1e3, stacked.features)
    return stacked.replace(features=features, env_params=stacked.env_params.replace(market=market))


def test_a_stacked_fold_is_trained_as_it_is_alone():
    """The shorter one, which needs no starts alone; what fills it up is never played or learnt."""
    datas = [prepared(fold).train for fold in (THREE, WALK[0])]
    assert len(datas[0].features) > len(datas[1].features)
    stacked = stack_folds(datas, episode_bars=EPISODE)
    learner = build.make_learner(CONFIG, num_features=1)

    def trained(data, init, step):
        state = init(jax.random.key(0), data)
        for _ in range(2):
            state, metrics = step(state, data)
        return learner.params(state), state.learner.play, metrics

    each = jax.jit(jax.vmap(learner.init, in_axes=(None, 0))), jax.jit(jax.vmap(learner.step))
    together = trained(stacked, *each)
    jax.tree.map(np.testing.assert_array_equal, together, trained(poisoned(stacked, datas), *each))
    alone = trained(datas[1], jax.jit(learner.init), jax.jit(learner.step))
    mine = jax.tree.map(lambda leaf: leaf[1], together)
    np.testing.assert_array_equal(mine[1].env_state.bar, alone[1].env_state.bar)
    np.testing.assert_array_equal(mine[1].env_state.end, alone[1].env_state.end)
    chex.assert_trees_all_close(mine[0], alone[0], rtol=1e-5, atol=1e-6)


def test_stacking_fills_up_with_nothing():
    datas = [prepared(fold).train for fold in (WALK[0], THREE)]
    stacked = stack_folds(datas, episode_bars=EPISODE)
    for at, data in enumerate(datas):
        rows = len(data.features)
        for leaf, own in zip(
            jax.tree.leaves((stacked.features, stacked.env_params.market)),
            jax.tree.leaves((data.features, data.env_params.market)),
            strict=True,
        ):
            np.testing.assert_array_equal(leaf[at, :rows], own)
            assert not np.asarray(leaf[at, rows:]).any()
        assert int(stacked.env_params.stop[at]) == rows
    first, stop = BEFORE, len(datas[0].features)
    count = int(stacked.env_params.num_starts[0])
    np.testing.assert_array_equal(stacked.env_params.starts[0, :count], np.arange(first, stop - EPISODE))
    assert int(stacked.env_params.num_starts[1]) == len(datas[1].env_params.starts)
    assert stack_folds([datas[0]] * 2, episode_bars=EPISODE).env_params.starts is None


def test_data_of_other_parts_are_not_stacked():
    data = prepared(WALK[0]).train
    with pytest.raises(ValueError, match="there are no folds"):
        stack_folds([], episode_bars=EPISODE)
    for other in (
        data.replace(lookback=5),
        data.replace(features=jnp.ones((90, 2))),
        data.replace(env_params=data.env_params.replace(band=jnp.float32(0.1))),
    ):
        with pytest.raises(ValueError, match="folds differ in their optional parts"):
            stack_folds([data, other], episode_bars=EPISODE)
    with pytest.raises(ValueError, match="hold no window of 2000 steps"):
        join([data, data], reward_scale=1.0, episode_bars=2_000)


def test_training_data_of_several_ranges_are_not_played_through():
    data, network = prepared(THREE).train, build.make_network(CONFIG, num_features=1)
    play = backtest.make_policy_backtest(network, build.make_environment(CONFIG))
    with pytest.raises(ValueError, match="no account can be played through"):
        play(network.init(jax.random.key(0)), data)


def test_a_reward_that_is_a_ratio_is_not_scaled():
    config = resolve(environ={}, flags=FLAGS | {"env.reward": "differential_sharpe"})
    for fold in (WALK[0], THREE):
        assert float(build.prepare_fold(config, FRAME, FEATURES, fold).train.reward_scale) == 1.0


@pytest.mark.parametrize(
    ("fold", "messages"),
    [
        (Fold(((0, 500),), None, ((600, 700),)), [f"bars 0 … 499 .* not among bars {FIRST} … 1499"]),
        (Fold(((100, 500),), None, ((1_400, 1_501),)), ["bars 1400 … 1500 of the fold are not among"]),
        (
            Fold(((100, 164), (200, 230)), (300, 320), ((600, 632),)),
            ["bars 300 … 319 are to be judged", "bars 600 … 631 are to be judged", "65 bars of an episode"],
        ),
        (
            Fold(((100, 200), (303, 400)), None, ((210, 300),)),
            ["from bar 303 on looks 4 bars back to bars 210 … 299, .* embargo of at least 4"],
        ),
    ],
)
def test_refuses_folds_that_do_not_fit(fold, messages):
    with pytest.raises(DataError) as error:
        build.prepare_fold(CONFIG, FRAME, FEATURES, fold)
    assert len(error.value.findings) == len(messages)
    for message in messages:
        error.match(message)


def test_a_range_that_holds_no_episode_is_scaled_by_and_not_played():
    fold = Fold(((100, 160), (304, 400)), None, ((210, 300),))
    data = prepared(fold)
    first = 60 + BEFORE
    np.testing.assert_array_equal(data.train.env_params.starts, first + BEFORE + np.arange(96 - EPISODE))
    alone = prepared(Fold(fold.train[1:], None, fold.test))
    assert not np.array_equal(data.scaler.mean, alone.scaler.mean)
