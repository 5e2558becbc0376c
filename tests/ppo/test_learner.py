"""The laws of a training step: a rollout and an update, nothing stands still, nothing is seen twice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.single import make_single
from envs.transforms import autoreset, cheapen, vectorise
from tests.ppo.cases import LOOKBACK, market, network, unsettled
from ztb_jax.data.market import make_costs
from ztb_jax.evaluation.backtest import make_policy_backtest
from ztb_jax.learner import scheduled
from ztb_jax.optimizers import Trained, as_arrays, optimizer_of
from ztb_jax.policies.encoding import encode_bars
from ztb_jax.policies.play import begin
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.learner import Options, make_ppo
from ztb_jax.ppo.loss import ppo_loss
from ztb_jax.ppo.minibatches import choose_minibatching, epoch_orders, shuffled
from ztb_jax.ppo.rollout import collect
from ztb_jax.ppo.update import UpdateSpec, make_update, samples_of

EPISODE, ROLLOUT = 32, 16
SIZES = {"num_accounts": 32, "rollout_bars": ROLLOUT}

ENV = make_single(episode_bars=EPISODE)
POLICY = network()
DATA = market()
FAMILY = POLICY.distribution


def learner(**changes):
    """A small learner; every argument goes where `make_ppo` has it."""
    numbers = {name: changes.pop(name) for name in list(changes) if name in Hyper.__dataclass_fields__}
    options = {name: changes.pop(name) for name in list(changes) if name in Options._fields}
    return make_ppo(
        ENV,
        changes.pop("policy", POLICY),
        **{**SIZES, "sharing": 4, **changes},
        hyper=Hyper(**numbers),
        options=Options(**{"num_minibatches": 2, "shuffle": "accounts", **options}),
    )


def minibatching(*, num_groups=8, sharing=4, num_minibatches=2, shuffle="accounts"):
    return choose_minibatching(
        num_groups=num_groups,
        sharing=sharing,
        rollout_bars=ROLLOUT,
        num_minibatches=num_minibatches,
        shuffle=shuffle,
    )


@functools.cache
def standard():
    """(init, step), compiled once for the tests that need no learner of their own."""
    ppo = learner()
    return jax.jit(ppo.init), jax.jit(ppo.step)


def played(sharing=4, data=DATA):
    env = autoreset(vectorise(ENV, num_groups=32 // sharing, sharing=sharing))
    params = unsettled(POLICY, outputs=0.1)
    state, _ = env.reset(jax.random.key(1), data.env_params)
    _, rollout, _ = collect(
        jax.random.key(2),
        POLICY,
        env,
        params=params,
        play=begin(state, (32 // sharing, sharing), POLICY),
        data=data,
        rollout_bars=ROLLOUT,
    )
    return params, state, rollout


def test_every_leaf_of_the_state_advances():
    init, step = standard()
    before = init(jax.random.key(0), DATA)
    after, _ = step(before, DATA)
    for path, leaf in jax.tree_util.tree_leaves_with_path(before.replace(hyper=None, rate=None)):
        now = dict(jax.tree_util.tree_leaves_with_path(after))[path]
        raw = jax.random.key_data if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray
        # A window may end with this rollout or a later one: the clock's end need not move in every group.
        if "end" in jax.tree_util.keystr(path):
            continue
        assert (np.asarray(raw(leaf)) != np.asarray(raw(now))).any(), jax.tree_util.keystr(path)


def test_windows_restart_at_their_ends_and_only_there():
    init, step = standard()
    state = init(jax.random.key(0), DATA)
    assert len(set(np.asarray(state.play.env_state.end - state.play.env_state.bar).tolist())) == 2, (
        "phases are staggered"
    )
    for _ in range(6):
        before, (state, _) = state.play.env_state, step(state, DATA)
        ended = np.asarray(before.bar) + ROLLOUT == np.asarray(before.end)
        moved = np.asarray(state.play.env_state.bar) == np.asarray(before.bar) + ROLLOUT
        assert moved[~ended].all()
        assert (np.asarray(state.play.env_state.end - state.play.env_state.bar)[ended] == EPISODE).all()


def test_equal_keys_give_equal_bits_and_others_do_not():
    init, step = standard()
    results = [step(init(jax.random.key(seed), DATA), DATA)[0].params for seed in (0, 0, 1)]
    jax.tree.map(np.testing.assert_array_equal, results[0], results[1])
    assert (
        results[0]["encoder"]["params"]["window"]["kernel"]
        != results[2]["encoder"]["params"]["window"]["kernel"]
    ).any()


def test_the_step_compiles_once():
    ppo = learner(num_updates=100)
    step = jax.jit(ppo.step, donate_argnums=0)
    state = jax.jit(ppo.init)(jax.random.key(0), DATA)
    for _ in range(4):
        state, _ = step(state, DATA)
    assert step._cache_size() == 1


def test_the_rollout_records_what_the_policy_saw_and_said():
    params, state, rollout = played()
    contexts = POLICY.encode(params, DATA.features)
    bars = rollout.start[None, :] + jnp.arange(ROLLOUT)[:, None]
    log_probs, value = POLICY.apply(params, contexts[bars][:, :, None], rollout.account)
    np.testing.assert_allclose(value, rollout.value, atol=1e-6)
    picked = jnp.take_along_axis(log_probs, rollout.action[..., None], -1)[..., 0]
    np.testing.assert_allclose(picked, rollout.log_prob, atol=1e-6)
    np.testing.assert_array_equal(rollout.start, state.bar)
    levels = jnp.array([-1.0, 0.0, 1.0])[rollout.action]
    np.testing.assert_array_equal(rollout.account[1:, ..., 0], levels[:-1])


@pytest.mark.parametrize(
    ("sharing", "shuffle"),
    [(4, "accounts"), (1, "segments"), (4, "segments"), (4, "full"), (4, "affine")],
)
def test_every_sample_is_used_once_in_an_epoch(sharing, shuffle):
    _, _, rollout = played(sharing)
    samples = samples_of(rollout, gamma=0.9, lam=0.9)
    groups = 32 // sharing
    mark = jnp.arange(ROLLOUT * 32, dtype=jnp.float32).reshape(ROLLOUT, groups, sharing)
    cut = minibatching(num_groups=groups, sharing=sharing, shuffle=shuffle)
    (order,) = epoch_orders(jax.random.key(0), epochs=1, cut=cut)
    starts, places, dealt = shuffled(order, rollout.start, samples._replace(value=mark), cut)
    marks = np.asarray(dealt.value).astype(int)
    assert marks.ravel().tolist() != sorted(marks.ravel().tolist())
    assert sorted(marks.ravel().tolist()) == list(range(ROLLOUT * 32))
    # Each sample's bar still belongs to it: the mark tells step and group.
    if places is None:
        group = (marks[:, 0, :, 0] // sharing) % groups
        np.testing.assert_array_equal(starts, np.asarray(rollout.start)[group])
    else:
        np.testing.assert_array_equal(places, marks // sharing)
        np.testing.assert_array_equal(starts, np.broadcast_to(rollout.start, starts.shape))


def test_a_step_is_a_rollout_and_an_update_with_keys_of_their_own():
    ppo = learner(epochs=2)
    before = jax.jit(ppo.init)(jax.random.key(5), DATA)
    after, _ = jax.jit(ppo.step)(before, DATA)
    next_key, rollout_key, update_key = jax.random.split(before.key, 3)
    env = autoreset(vectorise(ENV, num_groups=8, sharing=4))
    update = make_update(POLICY, UpdateSpec(minibatching(), rollout_bars=ROLLOUT, epochs=2))

    @jax.jit
    def by_hand(state):
        play, rollout, _ = collect(
            rollout_key,
            POLICY,
            env,
            params=state.params,
            play=state.play,
            data=DATA,
            rollout_bars=ROLLOUT,
        )
        samples = samples_of(rollout, gamma=0.95, lam=0.9)
        trained, _ = update(
            update_key,
            Trained(state.params, optimizer_of("adam", Hyper()).init(state.params)),
            start=rollout.start,
            samples=samples,
            data=DATA,
            hyper=as_arrays(Hyper()),
        )
        return trained.params, play.env_state

    params, env_state = by_hand(before)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), after.params, params)
    jax.tree.map(np.testing.assert_array_equal, after.play.env_state, env_state)
    np.testing.assert_array_equal(jax.random.key_data(after.key), jax.random.key_data(next_key))


def test_schedules_fall_to_zero():
    ppo = learner(num_updates=3)
    step = jax.jit(ppo.step)
    state = jax.jit(ppo.init)(jax.random.key(0), DATA)
    for _ in range(3):
        state, _ = step(state, DATA)
    still, _ = step(state, DATA)
    jax.tree.map(np.testing.assert_array_equal, still.params, state.params)


def test_refuses_parts_that_do_not_fit_each_other():
    with pytest.raises(ValueError, match="looks back 4 bars and the data were cut for 1"):
        learner().init(jax.random.key(0), market(lookback=1))
    with pytest.raises(ValueError, match="20 bars to play and a window needs 32"):
        learner().init(jax.random.key(0), market(20 + LOOKBACK))
    two = make_single(levels=(0.0, 1.0), episode_bars=EPISODE)
    with pytest.raises(ValueError, match="3 actions and the environment 2"):
        make_ppo(two, POLICY, **SIZES)
    with pytest.raises(ValueError, match="3 actions and the environment 2"):
        make_policy_backtest(POLICY, two)


@pytest.mark.parametrize("name", ["fee_rate", "half_spread", "slippage"])
@pytest.mark.parametrize("value", [-1e-4, 1.0, float("nan")])
def test_refuses_costs_that_are_no_fractions(name, value):
    with pytest.raises(ValueError, match=name):
        make_costs(**{"fee_rate": 0.0, "half_spread": 0.0, "slippage": 0.0, name: value})


def closed_market():
    """Every fourth bar is closed: there, only the level one has may be asked for."""
    data = market()
    tradable = jnp.arange(data.features.shape[0]) % 4 != 0
    params = data.env_params
    return data.replace(env_params=params.replace(market=params.market.replace(tradable=tradable)))


def test_masks_reach_sampling_and_the_loss():
    data = closed_market()
    params, _, rollout = played(data=data)
    allowed, action = np.asarray(rollout.allowed), np.asarray(rollout.action)
    assert allowed.any(-1).all()
    assert (~allowed).sum() > 100
    assert np.take_along_axis(allowed, action[..., None], -1).all()
    bars = np.asarray(rollout.start)[None, :, None] + np.arange(ROLLOUT)[:, None, None] + 1
    assert (allowed.sum(-1) == np.where(bars % 4 == 0, 1, 3)).all()
    # Nothing has been learnt yet, so the ratio is one only if old and new log-probabilities are both masked.
    samples = samples_of(rollout, gamma=0.9, lam=0.9)
    rows, at = encode_bars(POLICY, params, data.features, rollout.start, bars=ROLLOUT)
    log_probs, value = POLICY.apply(params, rows[at][:, :, None], samples.account)
    _, parts = ppo_loss(log_probs, value, samples, distribution=FAMILY, hyper=Hyper(entropy_weight=0.0))
    assert float(parts["kl"]) == pytest.approx(0.0, abs=1e-6)
    state = jax.jit(learner().init)(jax.random.key(0), data)
    _, metrics = jax.jit(learner().step)(state, data)
    assert all(np.isfinite(float(metric)) for metric in metrics.values())


def test_a_curriculum_makes_the_first_rollout_free_and_the_last_one_dear():
    lessons = scheduled(learner(num_updates=2), cheapen, num_updates=2)
    state = jax.jit(lessons.init)(jax.random.key(0), DATA)
    step, rewards = jax.jit(lessons.step), []
    free = DATA.replace(env_params=cheapen(DATA.env_params, jnp.float32(0)))
    half = DATA.replace(env_params=cheapen(DATA.env_params, jnp.float32(0.5)))
    plain = jax.jit(learner(num_updates=2).step)
    for same in (free, half):
        _, expected = plain(state, same)
        state, metrics = step(state, DATA)
        rewards.append((float(metrics["reward"]), float(expected["reward"])))
    for got, expected in rewards:
        assert got == pytest.approx(expected, abs=1e-8)
