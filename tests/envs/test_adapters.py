"""Our environments as gymnax's, and the tasks that are registered under an id."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import actions, adapters
from envs.adapters import TASKS, make_task, register_gymnax, synthetic_bars, to_gymnax
from envs.observations import dense
from envs.single import make_single

ROOT = Path(__file__).resolve().parents[2]
IDS = tuple(TASKS)


@pytest.fixture(scope="module")
def gymnax():
    """gymnax, which knows our ids."""
    import gymnax

    assert register_gymnax() == IDS
    assert register_gymnax() == IDS, "registering again does nothing"
    return gymnax


def keys(seed, num):
    return jax.random.split(jax.random.key(seed), num)


def test_importing_the_adapters_imports_neither_package():
    code = "import sys, envs.adapters; sys.exit(bool({'gymnax', 'gymnasium'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
    with pytest.raises(AttributeError, match="Elsewhere"):
        _ = adapters.Elsewhere


@pytest.mark.parametrize("name", IDS)
def test_passes_what_gymnax_asks_of_every_environment(gymnax, name):
    """As `tests/test_reproduction_matrix.py` and `tests/misc/test_misc_env.py` of gymnax 1.0.1."""
    env, params = gymnax.make(name)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    reset_key, action_key, step_key = keys(0, 3)
    observation, state = reset(reset_key, params)
    action = env.action_space(params).sample(action_key)
    following, state, reward, terminated, truncated, info = step(step_key, state, action, params)
    assert observation.shape == following.shape == info["final_observation"].shape
    assert observation.dtype == following.dtype == reward.dtype == jnp.float32
    assert reward.shape == terminated.shape == truncated.shape == ()
    assert {"terminated", "truncated", "final_observation", "discount"} <= info.keys()
    for seen in (observation, following):
        assert seen.shape == env.observation_space(params).shape
        assert bool(env.observation_space(params).contains(seen))
    assert bool(env.action_space(params).contains(action))
    assert bool(env.state_space(params).contains(state))
    assert env.name == "Trading"
    assert isinstance(env, gymnax.environments.environment.Environment)


@pytest.mark.parametrize("name", IDS)
def test_equals_our_environment_step_for_step(gymnax, name):
    env, params = gymnax.make(name, episode_bars=5)
    task = TASKS[name](episode_bars=5)
    ours, step, reset = task.env, jax.jit(task.env.step), jax.jit(task.env.reset)
    reset_key, *step_keys = keys(1, 13)
    observation, state = env.reset(reset_key, params)
    expected, seen = reset(reset_key, task.params)

    def assert_sees(observation, seen):
        row = dense(task.features, seen.bar, seen.account, lookback=task.lookback)
        np.testing.assert_allclose(observation, row, rtol=1e-5, atol=1e-6)

    assert_sees(observation, seen)
    for number, key in enumerate(step_keys, start=1):
        action = env.action_space(params).sample(key)
        observation, state, reward, terminated, truncated, info = env.step(key, state, action, params)
        ours_key, reset_key = jax.random.split(key)
        expected, out = step(ours_key, expected, action, task.params)
        np.testing.assert_allclose(reward, out.reward, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(info["fill"].traded, out.fill.traded, rtol=1e-5, atol=1e-7)
        assert_sees(info["final_observation"], out.observation)
        assert bool(truncated) == bool(out.truncated) == (number % 5 == 0)
        assert bool(terminated) == bool(out.terminated)
        seen = out.observation
        if truncated:
            expected, seen = reset(reset_key, task.params)
        assert_sees(observation, seen)
    assert ours.episode_bars == int(params.max_steps_in_episode)


def test_steps_and_resets_compile_once(gymnax):
    env, params = gymnax.make("Trading-v0", episode_bars=3)
    step, reset = type(env).step, type(env).reset
    before = step._cache_size(), reset._cache_size()
    _, state = env.reset(jax.random.key(0), params)
    for key in keys(0, 8):
        dearer = params.replace(
            env_params=params.env_params.replace(
                costs=params.env_params.costs.replace(fee_rate=jax.random.uniform(key))
            )
        )
        _, state, *_ = env.step(key, state, jnp.int32(1), dearer)
    env.reset(jax.random.key(1), dearer)
    assert (step._cache_size() - before[0], reset._cache_size() - before[1]) == (1, 1)


def test_fewer_steps_than_the_episode_truncate_earlier(gymnax):
    env, params = gymnax.make("Trading-v0")
    params = params.replace(max_steps_in_episode=jnp.int32(2))
    _, state = env.reset(jax.random.key(0), params)
    ends = []
    for key in keys(0, 4):
        _, state, _, terminated, truncated, info = env.step(key, state, jnp.int32(1), params)
        ends.append(bool(truncated))
        assert not terminated
        assert float(info["discount"]) == 1.0, "the value of a truncated episode goes on"
    assert ends == [False, True, False, True]


def test_a_ruined_account_terminates_and_starts_anew(gymnax):
    env, params = gymnax.make("Trading-v0")
    params = params.replace(env_params=params.env_params.replace(ruin_equity=jnp.float32(1.5)))
    _, state = env.reset(jax.random.key(0), params)
    _, state, _, terminated, truncated, info = env.step(jax.random.key(1), state, jnp.int32(0), params)
    assert bool(terminated)
    assert not bool(truncated)
    assert float(info["discount"]) == 0.0
    assert float(state.state.account.log_equity) == 0.0
    assert int(state.time) == 0


def test_plays_the_data_that_make_is_given(gymnax):
    data = TASKS["Trading-v0"](lookback=4, seed=5)
    _, params = gymnax.make("Trading-v0", params=data.params, features=data.features, lookback=4)
    np.testing.assert_array_equal(params.features, data.features)
    np.testing.assert_array_equal(params.env_params.market.gap, data.params.market.gap)
    other = gymnax.make("Trading-v0")[1]
    assert not np.array_equal(params.env_params.market.gap, other.env_params.market.gap)
    with pytest.raises(ValueError, match="belong together"):
        gymnax.make("Trading-v0", params=data.params)


@pytest.mark.parametrize(
    "space",
    [
        actions.continuous(),
        actions.grid(sizes=(0.5, 1.0), brackets=((0.02, 0.04, np.inf), actions.NO_BRACKET), flat=False),
    ],
    ids=["box", "components"],
)
def test_spaces_of_more_than_one_choice(gymnax, space):
    task = TASKS["Trading-v0"](actions=space)
    env = to_gymnax(task.env, task.params, features=task.features, lookback=task.lookback)
    params = env.default_params
    _, state = env.reset(jax.random.key(0), params)
    action = env.action_space(params).sample(jax.random.key(1))
    native = jnp.reshape(jnp.stack(action) if isinstance(action, tuple) else action, space.shape)
    _, expected = task.env.step(jax.random.key(0), state.state, native, task.params)
    for form in (action, native):
        _, _, reward, *_ = env.step(jax.random.key(2), state, form, params)
        np.testing.assert_allclose(reward, expected.reward, rtol=1e-5, atol=1e-7)
    assert env.num_actions == len(space.sizes or (1,))


def test_masks_are_those_of_the_state_that_acts(gymnax):
    task = TASKS["Trading-v0"]()
    closed = task.params.market.replace(tradable=jnp.arange(4096) % 2 == 0)
    params = task.params.replace(market=closed)
    env = to_gymnax(task.env, params, features=task.features, lookback=task.lookback)
    _, state = env.reset(jax.random.key(0), env.default_params)
    for key in keys(0, 4):
        mask = np.asarray(env.action_mask(state))
        held = float(state.state.account.level)
        opens = int(state.state.bar + 1) % 2 == 0
        assert mask.tolist() == [opens or level == held for level in task.env.levels]
        _, state, *_ = env.step(key, state, jnp.int32(np.flatnonzero(mask)[-1]), env.default_params)
    free, _ = gymnax.make("Trading-v0")
    assert np.asarray(free.action_mask(state)).all()


@pytest.mark.parametrize("name", IDS[1:])
def test_works_in_the_wrappers_that_come_with_gymnax(gymnax, name):
    from gymnax.experimental.rollout import RolloutWrapper
    from gymnax.wrappers import FlattenObservationWrapper, LogWrapper
    from gymnax.wrappers.dm_env import GymnaxToDmEnvWrapper
    from gymnax.wrappers.gym import GymnaxToGymWrapper

    env, params = gymnax.make(name, episode_bars=4)
    logged = LogWrapper(FlattenObservationWrapper(env))
    _, state = jax.vmap(logged.reset, in_axes=(0, None))(keys(0, 3), params)
    sample = jax.vmap(env.action_space(params).sample)
    for seed in range(4):
        _, state, _, _, _, info = jax.vmap(logged.step, in_axes=(0, 0, 0, None))(
            keys(seed, 3), state, sample(keys(seed, 3)), params
        )
    assert np.asarray(info["returned_episode"]).all()
    assert np.asarray(info["returned_episode_lengths"]).tolist() == [4, 4, 4]
    last = GymnaxToDmEnvWrapper(env)
    moment = last.step(
        jax.random.key(0), last.reset(jax.random.key(0), params), sample(keys(0, 1))[0], params
    )
    assert moment.observation.shape == env.observation_space(params).shape
    single = GymnaxToGymWrapper(env, params, 0)
    single.reset()
    assert single.step(single.action_space.sample())[0].shape == env.observation_space(params).shape

    def act(weights, observation, key):
        return env.action_space(params).sample(key)

    rollout = RolloutWrapper(act, env=env, env_params=params, num_env_steps=6)
    observations, *_ = rollout.single_rollout(jax.random.key(0), None)
    assert observations.shape == (6, *env.observation_space(params).shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lookback": 0}, "lookback"),
        ({"lookback": 32}, "first whole window"),
        ({"features": np.zeros((7, 2))}, "a row for each bar"),
        ({"features": np.zeros(4096)}, "a row for each bar"),
        ({"features": np.full((4096, 2), np.nan)}, "not all finite"),
        ({"stop": jnp.int32(5000)}, "slice of the 4096 bars"),
        ({"first": jnp.int32(-1)}, "slice of the 4096 bars"),
        ({"stop": jnp.int32(100)}, "episode_bars of at most 84"),
    ],
)
def test_refuses_parts_that_do_not_fit(change, message):
    task = TASKS["Trading-v0"]()
    given = {"features": task.features, "lookback": task.lookback}
    ends = {"first", "stop"} & change.keys()
    params = task.params.replace(**{name: change[name] for name in ends})
    given |= {name: change[name] for name in change.keys() - ends}
    with pytest.raises(ValueError, match=message):
        make_task(task.env, params, **given)


def test_tells_all_that_does_not_fit_at_once():
    task = TASKS["Trading-v0"]()
    beyond = task.params.replace(stop=jnp.int32(5000))
    with pytest.raises(ValueError, match=r"slice of the 4096 bars; features must be .*; lookback \(0\)"):
        make_task(task.env, beyond, features=np.zeros((7, 2)), lookback=0)


def test_a_slice_of_one_episode_is_enough():
    task = TASKS["Trading-v0"]()
    tight = task.params.replace(stop=task.params.first + 9)
    make_task(make_single(episode_bars=8), tight, features=task.features, lookback=task.lookback)
    with pytest.raises(ValueError, match="hold no episode"):
        make_task(make_single(episode_bars=9), tight, features=task.features, lookback=task.lookback)


@pytest.mark.parametrize("shape", [(4096,), (4096, 3)])
def test_synthetic_bars_are_bars_that_can_be_learnt(shape):
    bars = synthetic_bars(shape, seed=3)
    assert all(part.shape == shape and np.isfinite(part).all() for part in bars)
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert (bars.low > 0).all()
    returns = np.diff(np.log(bars.close), axis=0).reshape(4095, -1)
    for column in returns.T:
        assert abs(np.corrcoef(column[1:], column[:-1])[0, 1] - 0.3) < 0.05
    for one, same, other in zip(
        bars, synthetic_bars(shape, seed=3), synthetic_bars(shape, seed=4), strict=True
    ):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


def test_synthetic_features_know_no_later_bar():
    bars = synthetic_bars((300,))
    before = adapters._synthetic_features(bars)
    changed = adapters.Bars(*(np.where(np.arange(300) > 150, 2 * part, part) for part in bars))
    np.testing.assert_allclose(adapters._synthetic_features(changed)[:151], before[:151], atol=1e-9)
    assert np.abs(before).max() < 10
