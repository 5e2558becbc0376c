"""What accounts remember of their own steps: the same in rollout, update and backtest, gone with a life."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.single import make_single
from envs.transforms import autoreset, vectorise
from tests.ppo import numpy_ppo
from tests.ppo.cases import (
    LOOKBACK,
    G,
    S,
    T,
    assert_close,
    jit,
    made_up,
    market,
    network,
    spec,
    unsettled,
    updated,
)
from ztb_jax.evaluation.backtest import make_policy_backtest, start_of
from ztb_jax.policies.play import begin
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.rollout import collect
from ztb_jax.ppo.update import make_gradient, samples_of

POLICY = network(memory=3)
PARAMS = unsettled(POLICY)
ENV = make_single(episode_bars=2 * T)
DATA = market()
FRAGILE = DATA.replace(env_params=DATA.env_params.replace(ruin_equity=jnp.float32(0.97)))
NUMBERS = Hyper(gamma=0.9, lam=0.8, value_clip=0.2)


@cache
def history():
    """Five rollouts one after the other, with ruins and window ends: [(play before, rollout, play after)]."""
    env = autoreset(vectorise(ENV, num_groups=G, sharing=S))

    @jax.jit
    def go_on(key, play):
        return collect(key, POLICY, env, params=PARAMS, play=play, data=FRAGILE, rollout_bars=T)

    state, _ = env.reset(jax.random.key(1), FRAGILE.env_params)
    ends = jnp.arange(1, G + 1) % 2 + 1
    play, told = begin(state.replace(end=state.bar + ends * T), (G, S), POLICY), []
    for number in range(5):
        before = play
        play, rollout, _ = go_on(jax.random.key(number), play)
        told.append((before, rollout, play))
    return told


def contexts_of(params, rollout):
    """[T, G, S, D] float64."""
    bars = np.asarray(rollout.start)[None] + np.arange(T)[:, None]
    window = numpy_ppo.windows(np.asarray(DATA.features, np.float64), bars, LOOKBACK)
    return np.repeat(numpy_ppo.context(params, window)[:, :, None], S, axis=2)


def test_memories_equal_numpys_and_begin_anew_with_every_life():
    weights = numpy_ppo.as_float64(PARAMS)
    memory, fresh = np.zeros((G, S, 3)), np.ones((G, S), bool)
    ruins = window_ends = 0
    for before, rollout, after in history():
        terminated = np.asarray(rollout.terminated)
        starts = np.concatenate([fresh[None], terminated[:-1]])
        contexts, account = contexts_of(weights, rollout), np.asarray(rollout.account, np.float64)
        told = numpy_ppo.remembered(weights, memory, starts, contexts, account)
        np.testing.assert_array_equal(rollout.fresh, fresh)
        np.testing.assert_allclose(after.memory, told[-1], atol=1e-5)
        view = np.concatenate([account, told], -1).reshape(T * G * S, -1)
        values = numpy_ppo.head(weights, contexts.reshape(T * G * S, -1), view)[3]
        np.testing.assert_allclose(np.asarray(rollout.value).ravel(), values, atol=2e-5)
        ended = np.asarray(before.env_state.end) == np.asarray(rollout.start) + T
        memory, fresh = told[-1], ended[:, None] | terminated[-1]
        ruins, window_ends = ruins + int(terminated.sum()), window_ends + int(ended.sum())
    assert ruins > 5
    assert window_ends > 3


def test_the_first_minibatch_sees_the_very_policy_that_played():
    for _, rollout, _ in history():
        same = {"learning_rate": 0.0, "clip": 5e-7}
        trained, metrics = updated(
            POLICY, spec(num_minibatches=2), rollout, params=PARAMS, data=FRAGILE, **same
        )
        jax.tree.map(np.testing.assert_array_equal, trained.params, PARAMS)
        assert float(metrics["clip_fraction"]) == 0.0, "a ratio is not one"
        assert abs(float(metrics["kl"])) < 1e-7


def test_the_value_of_a_cut_off_state_knows_what_went_before():
    weights = numpy_ppo.as_float64(PARAMS)
    env = vectorise(ENV, num_groups=G, sharing=S)

    @jit
    def step(state, action):
        """A step without the restart of windows: accounts reopen where they were ruined."""
        state, out = env.step(jax.random.key(0), state, action, FRAGILE.env_params)
        opened = env.reopen(state, FRAGILE.env_params)
        account = jax.tree.map(partial(jnp.where, out.terminated), opened.account, state.account)
        return state.replace(account=account), out.observation.account

    ended = 0
    for before, rollout, after in history():
        kept = ~np.asarray(rollout.terminated)[-1]
        state, account = before.env_state, None
        for t in range(T):
            state, account = step(state, rollout.action[t])
        bars = np.asarray(rollout.start) + T
        window = numpy_ppo.windows(np.asarray(DATA.features, np.float64), bars, LOOKBACK)
        context = np.repeat(numpy_ppo.context(weights, window)[:, None], S, axis=1)
        account = np.asarray(account, np.float64)
        memory = numpy_ppo.remembered(
            weights,
            np.asarray(after.memory, np.float64),
            np.zeros((1, G, S), bool),
            context[None],
            account[None],
        )[0]
        view = np.concatenate([account, memory], -1).reshape(G * S, -1)
        values = numpy_ppo.head(weights, context.reshape(G * S, -1), view)[3].reshape(G, S)
        np.testing.assert_allclose(np.asarray(rollout.final_value)[kept], values[kept], atol=2e-5)
        ended += int((np.asarray(before.env_state.end) == bars).sum())
    assert ended > 3


def numpy_loss(params, rollout, advantage):
    contexts = contexts_of(params, rollout)
    account = np.asarray(rollout.account, np.float64)
    fresh = np.concatenate([np.asarray(rollout.fresh)[None], np.asarray(rollout.terminated)[:-1]])
    told = numpy_ppo.remembered(params, np.asarray(rollout.memory, np.float64), fresh, contexts, account)
    view = np.concatenate([account, told], -1).reshape(T * G * S, -1)
    _, _, logits, value = numpy_ppo.head(params, contexts.reshape(T * G * S, -1), view)
    plain = {name: np.asarray(getattr(rollout, name)).ravel() for name in ("action", "log_prob", "value")}
    normal = (advantage - advantage.mean()) / advantage.std()
    batch = plain | {"advantage": normal.ravel(), "target": (advantage.ravel() + plain["value"])}
    return numpy_ppo.objective(logits, value, batch, NUMBERS)[0]


@cache
def differences():
    """Central finite differences of the NumPy loss at every weight of the memory and the encoder."""
    rollout = made_up(POLICY)
    plain = {
        name: np.asarray(getattr(rollout, name), np.float64)
        for name in ("reward", "value", "terminated", "final_value")
    }
    advantage = numpy_ppo.gae(plain, 0.9, 0.8)
    params = numpy_ppo.as_float64(PARAMS)

    def slope(leaf, at):
        sides = []
        kept = leaf[at]
        for move in (1e-5, -1e-5):
            leaf[at] = kept + move
            sides.append(numpy_loss(params, rollout, advantage))
        leaf[at] = kept
        return (sides[0] - sides[1]) / 2e-5

    return {
        name: jax.tree.map(
            lambda leaf: np.array([slope(leaf, at) for at in np.ndindex(leaf.shape)]).reshape(leaf.shape),
            params[name],
        )
        for name in ("memory", "encoder")
    }


@pytest.mark.parametrize(("shuffle", "accumulate"), [("accounts", 1), ("segments", 2)])
def test_the_gradient_flows_through_time(shuffle, accumulate):
    """Accounts whole, and in parts, against finite differences of a float64 GRU in NumPy."""
    how, rollout = spec(shuffle=shuffle, accumulate=accumulate), made_up(POLICY)
    samples = samples_of(rollout, gamma=0.9, lam=0.8)
    gradient = jit(make_gradient(POLICY, how))
    found, _ = gradient(PARAMS, (rollout.start, None, samples), DATA, NUMBERS)
    for name, expected in differences().items():
        assert_close(found[name], expected, rtol=1e-3, atol=1e-5)
    recurrent = found["memory"]["params"]["hn"]["kernel"]
    assert float(jnp.abs(recurrent).max()) > 1e-4


def test_a_backtest_remembers_as_a_rollout_does():
    """By hand, bar by bar: memory from zero, and the most probable action."""
    data = market(30)
    # Without biases no action is the best one everywhere.
    params = jax.tree.map(lambda leaf: 2.0 * leaf if leaf.ndim > 1 else 0.0 * leaf, PARAMS)
    trace = make_policy_backtest(POLICY, ENV)(params, data)
    weights = numpy_ppo.as_float64(params)
    state, memory = start_of(ENV, data.env_params), np.zeros((1, 3))
    step = jit(lambda state, action: ENV.step(jax.random.key(0), state, action, data.env_params)[0])
    levels = []
    for bar in range(LOOKBACK - 1, 29):
        window = numpy_ppo.windows(np.asarray(data.features, np.float64), np.array([bar]), LOOKBACK)
        context = numpy_ppo.context(weights, window)
        account = np.asarray(ENV.observe(state).account, np.float64)[None]
        memory = numpy_ppo.remembered(weights, memory, np.zeros((1, 1), bool), context[None], account[None])[
            0
        ]
        logits = numpy_ppo.head(weights, context, np.concatenate([account, memory], -1))[2]
        action = int(logits.argmax())
        levels.append((-1.0, 0.0, 1.0)[action])
        state = step(state, jnp.int32(action))
    np.testing.assert_array_equal(trace.level, levels)
    assert len(set(levels)) > 1
    np.testing.assert_allclose(trace.exposure[-1], state.account.exposure, atol=1e-6)
