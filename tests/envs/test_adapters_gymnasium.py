"""Our environments as gymnasium's `Env` and `VectorEnv`."""

import itertools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics
from gymnasium.wrappers.vector import DictInfoToList
from gymnasium.wrappers.vector import RecordEpisodeStatistics as RecordVector

from envs import actions, adapters_gymnasium
from envs.adapters import TASKS, GymnasiumEnv, GymnasiumVectorEnv, register_gymnasium
from envs.observations import dense
from envs.protection import STOP
from envs.transforms import record

IDS = register_gymnasium()
COMPONENTS = actions.grid(sizes=(0.5, 1.0), brackets=((0.02, 0.04, np.inf), actions.NO_BRACKET), flat=False)
PLAIN = TASKS["Trading-v0"](episode_bars=6)
ORDERS = TASKS["TradingOrders-v0"](episode_bars=6)
PORTFOLIO = TASKS["TradingPortfolio-v0"](episode_bars=6)


def single(task, **changes):
    return GymnasiumEnv(
        task.env, task.params.replace(**changes), features=task.features, lookback=task.lookback
    )


def vector(task, num_envs, **changes):
    return GymnasiumVectorEnv(
        task.env,
        task.params.replace(**changes),
        features=task.features,
        lookback=task.lookback,
        num_envs=num_envs,
    )


def play(env, actions_of, steps, **reset):
    """Everything that `steps` steps return."""
    return [env.reset(**reset), *(env.step(actions_of(step)) for step in range(steps))]


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, tuple | list):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        np.testing.assert_array_equal(one, other)


def assert_told(ours, theirs, path=()):
    """The same infos, where their masks say that there are any."""
    assert set(ours) == set(theirs), path
    for name in theirs:
        if name.startswith("_"):
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=str(path))
        elif isinstance(theirs[name], dict):
            assert_told(ours[name], theirs[name], (*path, name))
        else:
            shown = theirs[f"_{name}"]
            assert ours[name].dtype == theirs[name].dtype, (*path, name)
            for one, other in zip(ours[name][shown], theirs[name][shown], strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def closed(seed=0):
    """A market in which a third of the bars is closed."""
    return PLAIN.params.market.replace(tradable=jnp.asarray(np.random.default_rng(seed).random(4096) < 0.66))


@pytest.mark.parametrize("name", IDS)
def test_passes_gymnasiums_checks(name):
    check_env(gymnasium.make(name).unwrapped)
    check_env(gymnasium.make(name, render_mode=None).unwrapped)


@pytest.mark.parametrize("space", [actions.continuous(), COMPONENTS], ids=["box", "components"])
def test_passes_gymnasiums_checks_in_other_spaces(space):
    # Without an id there is no other render mode to make, which the checker would warn of.
    check_env(single(TASKS["Trading-v0"](actions=space)), skip_render_check=True)


@pytest.mark.parametrize(
    ("task", "space"),
    [
        (PLAIN, gymnasium.spaces.Discrete(3)),
        (ORDERS, gymnasium.spaces.Discrete(15)),
        (PORTFOLIO, gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)),
        (TASKS["Trading-v0"](actions=actions.continuous(low=-0.5)), gymnasium.spaces.Box(-0.5, 1.0, (1,))),
        (TASKS["Trading-v0"](actions=COMPONENTS), gymnasium.spaces.MultiDiscrete([3, 2, 2])),
    ],
    ids=["levels", "orders", "portfolio", "box", "components"],
)
def test_spaces_and_types(task, space):
    one, many = single(task), vector(task, 3)
    assert one.action_space == many.single_action_space == space
    observation, _ = one.reset(seed=0)
    observations, _ = many.reset(seed=0)
    for _ in range(7):
        assert observation.dtype == observations.dtype == np.float32
        assert observation in one.observation_space
        assert observations in many.observation_space
        observation, reward, terminated, truncated, _ = one.step(one.action_space.sample())
        observations, rewards, ended, cut, _ = many.step(many.action_space.sample())
        assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
        assert (rewards.dtype, ended.dtype, cut.dtype) == (np.float64, bool, bool)
        assert rewards.shape == ended.shape == cut.shape == (3,)
        observations[:] = 0.0  # the caller may write to what it gets
        if truncated:
            observation, _ = one.reset()


@pytest.mark.parametrize("make", [single, lambda task: vector(task, 4)], ids=["single", "vector"])
def test_a_seed_fixes_the_start_and_all_that_follows(make):
    env, again = make(TASKS["Trading-v0"]()), make(TASKS["Trading-v0"]())

    def acts(step):
        return np.full(env.action_space.shape, step % 3) if env.action_space.shape else step % 3

    first = play(env, acts, 5, seed=7)
    for _ in range(3):
        assert_same(first, play(env, acts, 5, seed=7))
    assert_same(first, play(again, acts, 5, seed=7))
    assert_same(play(env, acts, 2), play(again, acts, 2))
    starts = [np.atleast_1d(env.reset(seed=seed)[1]["bar"]).tolist() for seed in range(20)]
    starts += [np.atleast_1d(env.reset()[1]["bar"]).tolist() for _ in range(20)]
    assert len({tuple(start) for start in starts}) > 35
    assert all(len(set(start)) == len(start) for start in starts if len(start) > 1), "accounts differ"


@pytest.mark.parametrize("task", [PLAIN, ORDERS, PORTFOLIO], ids=["levels", "orders", "portfolio"])
def test_a_vector_is_its_accounts_and_each_is_the_environment(task):
    num, step = 3, jax.jit(task.env.step)
    many = vector(task, num)
    many.action_space.seed(0)
    observations, infos = many.reset(seed=1)
    drawn = task.env.draw(jax.random.key(3), (num, 1), task.params)
    fixed = {name: np.asarray(getattr(drawn, name)) for name in drawn._fields}
    fixed = {name: leaf if name == "start" else leaf[:, 0] for name, leaf in fixed.items()}
    observations, infos = many.reset(seed=1, options=fixed)
    np.testing.assert_array_equal(infos["bar"], fixed["start"])
    steps = [many.action_space.sample() for _ in range(6)]
    results = [many.step(one) for one in steps]
    for index in range(num):
        one = single(task)
        chosen = {name: leaf[index] for name, leaf in fixed.items()}
        observation, _ = one.reset(options=chosen)
        np.testing.assert_allclose(observation, observations[index], rtol=1e-5, atol=1e-6)
        state = task.env.begin(
            type(drawn)(*(jnp.asarray(chosen[name]) for name in drawn._fields)), task.params
        )
        for number, (taken, result) in enumerate(zip(steps, results, strict=True), start=1):
            observation, reward, terminated, truncated, info = one.step(taken[index])
            state, out = step(jax.random.key(0), state, jnp.asarray(taken[index]), task.params)
            row = dense(task.features, out.observation.bar, out.observation.account, lookback=task.lookback)
            seen = result[4]["final_obs"][index] if number == 6 else result[0][index]
            for other in (seen, row):
                np.testing.assert_allclose(observation, other, rtol=1e-5, atol=2e-6)
            for other in (result[1][index], float(out.reward)):
                np.testing.assert_allclose(reward, other, rtol=1e-4, atol=1e-6)
            assert truncated == bool(result[3][index]) == bool(out.truncated) == (number == 6)
            assert terminated == bool(result[2][index]) == bool(out.terminated)
            assert ("fill" in info) == bool((np.asarray(out.fill.traded) != 0).any())


def test_infos_are_those_of_gymnasiums_own_vector():
    many = vector(ORDERS, 3)
    own = SyncVectorEnv([lambda: single(ORDERS)] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    assert many.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    many.action_space.seed(3)
    options = {"start": 777, "level": 0.0}
    results = [(many.reset(options=options), own.reset(options=options))]
    for _ in range(6):
        taken = many.action_space.sample()
        results.append((many.step(taken), own.step(taken)))
    assert any("exit" in ours[-1] or "exit" in ours[-1].get("final_info", {}) for ours, _ in results)

    for ours, theirs in results[:-1]:
        for one, other in zip(ours[:-1], theirs[:-1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        assert_told(ours[-1], theirs[-1])
    (*_, ours), (*_, theirs) = results[-1]
    for infos in (ours, theirs):  # new starts are drawn by each as it likes
        for name in ("bar", "equity", "action_mask"):
            infos.pop(name)
    assert_told(ours, theirs)


def test_the_last_observation_of_an_episode_is_kept_and_the_next_one_begins():
    many = vector(PLAIN, 2)
    many.reset(options={"start": [100, 200], "level": 1.0})
    for _ in range(5):
        many.step(np.array([2, 2]))
    observations, _, terminated, truncated, infos = many.step(np.array([2, 0]))
    assert not terminated.any()
    assert truncated.all()
    assert infos["final_info"]["bar"].tolist() == [106, 206]
    assert [row[-2] for row in infos["final_obs"]] == [1.0, -1.0], "levels of the accounts that ended"
    features = np.asarray(PLAIN.features)
    for index in range(2):
        for row, bar in (
            (infos["final_obs"][index], [106, 206][index]),
            (observations[index], infos["bar"][index]),
        ):
            np.testing.assert_array_equal(row[:-2], features[bar - 15 : bar + 1].ravel())
    assert infos["equity"].tolist() == [1.0, 1.0]
    assert "fill" not in infos, "what was filled belongs to the episode that ended"
    assert infos["final_info"]["_fill"].tolist() == [False, True]


def test_only_the_account_that_is_ruined_starts_anew():
    crash = PLAIN.params.market.body.at[103].set(-0.5)
    many = vector(PLAIN, 2, market=PLAIN.params.market.replace(body=crash), ruin_equity=jnp.float32(0.8))
    many.reset(options={"start": 100, "level": [1.0, 0.0]})
    for bar in (101, 102):
        *_, terminated, truncated, infos = many.step(np.array([2, 1]))
        assert not (terminated | truncated).any()
        assert infos["bar"].tolist() == [bar, bar]
    *_, terminated, truncated, infos = many.step(np.array([2, 1]))
    assert terminated.tolist() == [True, False]
    assert not truncated.any()
    assert infos["bar"][1] == 103
    assert infos["bar"][0] != 103
    assert infos["final_info"]["equity"][0] < 0.8
    assert infos["_final_obs"].tolist() == [True, False]
    assert infos["final_obs"][1] is None

    one = single(PLAIN, market=PLAIN.params.market.replace(body=crash), ruin_equity=jnp.float32(0.8))
    one.reset(options={"start": 100, "level": 1.0})
    assert [one.step(2)[2] for _ in range(3)] == [False, False, True]
    with pytest.raises(gymnasium.error.ResetNeeded):
        one.step(2)


def test_masks_tell_what_may_be_asked_for():
    one, many = single(PLAIN, market=closed()), vector(PLAIN, 5, market=closed())
    tradable, levels = np.asarray(closed().tradable), np.asarray(PLAIN.env.levels)
    one.action_space.seed(0)
    _, info = one.reset(seed=0)
    ruled_out = 0
    for _ in range(6):
        mask = info["action_mask"]
        assert mask.dtype == np.int8
        np.testing.assert_array_equal(one.action_masks(), mask.astype(bool))
        held = one._accounts.view.observation[0, -2]
        np.testing.assert_array_equal(mask, tradable[info["bar"] + 1] | (levels == held))
        action = one.action_space.sample(mask=mask)
        assert mask[action]
        ruled_out += int((mask == 0).sum())
        *_, info = one.step(action)
    assert ruled_out > 0
    _, infos = many.reset(seed=0)
    for _ in range(14):
        masks = many.action_masks()
        assert masks.shape == (5, 3)
        assert masks.dtype == bool
        np.testing.assert_array_equal(infos["action_mask"], masks)
        *_, infos = many.step(np.array([np.flatnonzero(row)[-1] for row in masks]))
    components = single(TASKS["Trading-v0"](actions=COMPONENTS))
    assert components.reset()[1].keys() == {"bar", "equity"}
    assert components.action_masks().shape == (7,)


def test_fills_are_told_in_quote_currency_and_add_up():
    task = TASKS["TradingOrders-v0"]()
    one = single(task, capital=jnp.float32(5000.0))
    _, info = one.reset(seed=5)
    prices = jax.device_get(task.params.market.prices)
    equity, fills, exits = info["equity"], 0, 0
    assert equity == 5000.0
    one.action_space.seed(1)
    for _ in range(200):
        before, held = equity, one._accounts.view.observation[0, -6]
        *_, info = one.step(one.action_space.sample())
        bar, equity = info["bar"], info["equity"]
        for name in ("fill", "exit"):
            if name not in info:
                continue
            told = info[name]
            assert told["bar"] == bar
            assert told["side"] == np.sign(told["traded"])
            assert prices.low[bar] * 0.999 < told["price"] < prices.high[bar] * 1.001
            assert 0 < told["cost"] < 0.01
            assert before > 0
            fills += name == "fill"
            exits += name == "exit"
        if "exit" in info:
            assert info["exit"]["reason"] >= STOP
        if "fill" not in info and "exit" not in info:
            gain = held * (prices.close[bar] / prices.close[bar - 1] - 1.0)
            np.testing.assert_allclose(equity / before - 1.0, gain, atol=1e-5)
    assert fills > 20
    assert exits > 5


def test_the_gymnasium_wrappers_work_on_both():
    counted = RecordEpisodeStatistics(single(PLAIN))
    counted.reset(seed=0)
    rewards = [counted.step(2) for _ in range(6)]
    assert rewards[-1][4]["episode"]["l"] == 6
    many = DictInfoToList(RecordVector(vector(PLAIN, 3)))
    many.reset(seed=0)
    for _ in range(6):
        *_, infos = many.step(np.array([2, 1, 0]))
    assert [info["episode"]["l"] for info in infos] == [6, 6, 6]
    assert all(info["final_obs"].shape == (34,) for info in infos)
    made = gymnasium.make_vec(IDS[0], num_envs=2, vectorization_mode="vector_entry_point", seed=4)
    assert type(made.unwrapped) is GymnasiumVectorEnv


def test_instances_share_their_programs():
    env = TASKS["Trading-v0"](episode_bars=3)
    counts = [function._cache_size() for function in (adapters_gymnasium._begin, adapters_gymnasium._step)]
    for seed, _ in itertools.product(range(2), range(2)):
        many = vector(env, 7, ruin_equity=jnp.float32(0.1 * seed))
        play(many, lambda step, space=many.action_space: space.sample(), 5, seed=seed)
    now = [function._cache_size() for function in (adapters_gymnasium._begin, adapters_gymnasium._step)]
    assert [after - before for after, before in zip(now, counts, strict=True)] == [1, 1]


@pytest.mark.parametrize(
    ("action", "message"),
    [(3, "from 0 to below"), (-1, "from 0"), (1.0, "integers"), ([1], "must be"), (np.nan, "integers")],
)
def test_refuses_actions_that_are_not_in_the_space(action, message):
    one = single(PLAIN)
    one.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        one.step(action)


def test_refuses_what_makes_no_sense():
    boxed = single(TASKS["Trading-v0"](actions=actions.continuous()))
    boxed.reset(seed=0)
    boxed.step(np.array([7.0]))  # beyond the bounds: clipped, as learners that sample from a Gaussian expect
    with pytest.raises(ValueError, match="finite"):
        boxed.step(np.array([np.nan]))
    with pytest.raises(AttributeError, match="no masks"):
        boxed.action_masks()
    fresh = single(PLAIN)
    with pytest.raises(gymnasium.error.ResetNeeded):
        fresh.step(0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        vector(PLAIN, 2).step(np.array([0, 0]))
    for unready in (fresh, vector(PLAIN, 2)):
        with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
            unready.action_masks()
    for options, message in (
        ({"bar": 3}, "'start', 'level'"),
        ({"start": 14}, "between 15"),
        ({"start": 4090}, "4089"),
    ):
        with pytest.raises(ValueError, match=message):
            fresh.reset(options=options)
    with pytest.raises(ValueError, match="num_envs"):
        vector(PLAIN, 0)
    with pytest.raises(TypeError, match="render_mode must be None"):
        gymnasium.make(IDS[0], render_mode="human", disable_env_checker=True)


def test_recorded_environments_tell_the_same():
    plain, recorded = (single(PLAIN._replace(env=env)) for env in (PLAIN.env, record(PLAIN.env)))
    assert_same(play(plain, lambda _: 2, 6, seed=0), play(recorded, lambda _: 2, 6, seed=0))
