"""Analytic policy gradients: the derivative of the real environment, one update by hand, a known optimum."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from envs import actions
from envs.single import make_single
from envs.transforms import autoreset, vectorise
from envs.types import Financing, Lots
from ztb_jax.apg.learner import make_apg
from ztb_jax.apg.objective import Chance, Hyper, discounted, objective
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market_data
from ztb_jax.evaluation.backtest import make_policy_backtest
from ztb_jax.keys import split_named
from ztb_jax.optimizers import as_arrays
from ztb_jax.policies.continuous_distributions import beta, squashed_gaussian
from ztb_jax.policies.play import begin
from ztb_jax.policies.policy import Policy, make_policy

L, EPISODE, ROLLOUT = 4, 16, 8
ENV = make_single(actions=actions.continuous(), episode_bars=EPISODE)
POLICY = make_policy(num_features=1, account_size=2, distribution=squashed_gaussian(), lookback=L, width=8)


def market(frame=None, **costs):
    frame = synthetic.ar1(0, 200) if frame is None else frame
    returns = frame["close"].pct_change().fillna(0.0).to_numpy()
    costs = {"fee_rate": 5e-4, "half_spread": 2e-4, "slippage": 0.0, **costs}
    return make_market_data(
        frame, (returns / returns.std())[:, None], costs=make_costs(**costs), lookback=L, start=L - 1
    )


DATA = market()


def learner(env=ENV, policy=POLICY, *, optimizer="adam", num_updates=None, **numbers):
    sizes = {
        name: numbers.pop(name) for name in ("num_accounts", "rollout_bars", "sharing") if name in numbers
    }
    sizes = {"num_accounts": 8, "rollout_bars": ROLLOUT, "sharing": 2} | sizes
    return make_apg(
        env, policy, **sizes, num_updates=num_updates, hyper=Hyper(**numbers), optimizer=optimizer
    )


@functools.cache
def standard():
    apg = learner()
    return jax.jit(apg.init), jax.jit(apg.step)


def linear_policy():
    """A policy without a cast, so that float64 goes through it."""

    def apply(params, context, account):
        outputs = context + account @ params["account"]
        return squashed_gaussian().parameters(outputs[..., :2]), outputs[..., 2]

    return Policy(
        init=lambda key: None,
        encode=lambda params, features, first=0: (features @ params["features"])[first:],
        apply=apply,
        lookback=1,
        distribution=squashed_gaussian(),
    )


@pytest.mark.parametrize("rules", ["plain", "whole"])
def test_the_gradient_is_that_of_finite_differences_in_float64(rules):
    """Through decisions, fills, costs, financing, latency and the critic: nothing cuts or bends it."""
    late = 2 if rules == "whole" else 0
    env = make_single(actions=actions.continuous(), episode_bars=32, max_latency=late)
    batched = autoreset(vectorise(env, num_groups=3, sharing=2))
    frame = synthetic.ar1(3, 120, sigma=0.05)
    params = make_market_data(
        frame, np.zeros((120, 1)), costs=make_costs(fee_rate=0.01, half_spread=0.02, slippage=0.0), lookback=1
    )
    if rules == "whole":
        years = jnp.full(120, 0.1, jnp.float32)
        env_params = params.env_params.replace(
            latency=jnp.int32(late),
            financing=Financing(*map(jnp.float32, (0.1, 0.2, 0.05))),
            market=params.env_params.market.replace(years=years),
        )
        params = params.replace(env_params=env_params)
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        double = partial(
            jax.tree.map, lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf
        )
        data = double(params).replace(features=jnp.asarray(rng.normal(size=(120, 4))))
        state, _ = batched.reset(jax.random.key(1), data.env_params)
        play = double(begin(state, (3, 2), linear_policy()))
        chance = Chance(jnp.asarray(rng.normal(size=(6, 3, 2))), jax.random.split(jax.random.key(2), 6))
        weights = {
            "features": jnp.asarray(rng.normal(size=(4, 3)) / 2),
            "account": jnp.asarray(rng.normal(size=(2, 3)) / 2),
        }
        numbers = double(as_arrays(Hyper(gamma=0.9, entropy_weight=0.1)))
        # The critic's fit and the critic as a judge stand still by intent, so the actor's columns move alone.
        move = {
            name: jnp.asarray(rng.normal(size=leaf.shape)).at[:, 2].set(0.0) for name, leaf in weights.items()
        }

        @jax.jit
        def loss(weights):
            plain = numbers.replace(value_weight=jnp.float64(0.0))
            return objective(
                weights, chance, play, policy=linear_policy(), env=batched, data=data, hyper=plain
            )[0]

        grads = jax.jit(jax.grad(loss))(weights)
        ours = float(sum((move[name] * grads[name]).sum() for name in move))
        step = 1e-6

        def at(share):
            return float(loss({name: weights[name] + share * move[name] for name in move}))

        theirs = (at(step) - at(-step)) / (2 * step)
    assert abs(ours) > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_returns_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    reward, over, end = rng.normal(size=(7, 3)), rng.random((7, 3)) < 0.3, rng.normal(size=3)
    wanted, later = np.zeros((7, 3)), end
    for t in reversed(range(7)):
        later = reward[t] + 0.8 * np.where(over[t], 0.0, later)
        wanted[t] = later
    given = jnp.asarray(reward, jnp.float32), jnp.asarray(over), jnp.asarray(end, jnp.float32)
    ours = discounted(*given, gamma=0.8)
    np.testing.assert_allclose(ours, wanted, atol=1e-6)


def test_one_update_by_hand():
    """Account by account and bar by bar through `ENV` itself, then Adam by its formula."""
    gamma, rate, bars = 0.9, 0.01, 4
    apg = learner(
        num_accounts=4,
        rollout_bars=bars,
        gamma=gamma,
        learning_rate=rate,
        value_weight=0.3,
        entropy_weight=0.02,
        max_grad_norm=0.1,
    )
    state = apg.init(jax.random.key(0), DATA)
    # Windows that go on: what happens at their ends is tested with the environments.
    clock = state.play.env_state
    state = state.replace(play=state.play.replace(env_state=clock.replace(end=clock.bar + EPISODE)))
    keys = split_named(state.key, "next", "action", "step")
    family = POLICY.distribution
    games = jax.tree.map(
        lambda leaf: jnp.repeat(leaf, 2) if leaf.ndim == 1 else leaf.reshape(4), state.play.env_state
    )
    noise = family.draw(keys["action"], (bars, 2, 2))

    def account_of(params, game, noise):
        contexts = POLICY.encode(params, DATA.features)
        frozen = jax.lax.stop_gradient(params)
        rewards, values, entropies = [], [], []
        for t in range(bars):
            seen = ENV.observe(game)
            at, _ = POLICY.apply(params, contexts[seen.bar], seen.account)
            _, value = POLICY.apply(params, contexts[seen.bar], jax.lax.stop_gradient(seen.account))
            raw = at.mean + jnp.exp(at.log_std) * noise[t]
            game, out = ENV.step(keys["step"], game, jnp.tanh(raw), DATA.env_params)
            rewards.append(out.reward * DATA.reward_scale)
            values.append(value)
            entropies.append(family.entropy(at))
        seen = ENV.observe(game)
        _, end = POLICY.apply(frozen, jax.lax.stop_gradient(contexts)[seen.bar], seen.account)
        returns = [
            sum(gamma**k * reward for k, reward in enumerate(rewards[t:])) + gamma ** (bars - t) * end
            for t in range(bars)
        ]
        error = sum(0.5 * (v - jax.lax.stop_gradient(r)) ** 2 for v, r in zip(values, returns, strict=True))
        return (-returns[0] + 0.3 * error - 0.02 * sum(entropies)) / bars

    @jax.jit
    def loss(params):
        each = jax.vmap(account_of, in_axes=(None, 0, 1))
        return each(params, games, noise.reshape(bars, 4)).mean()

    grads = jax.grad(loss)(state.params)
    norm = optax.tree.norm(grads)
    assert norm > 0.1, "clipping is part of it"
    after, metrics = jax.jit(apg.step)(state, DATA)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], loss(state.params), rtol=1e-5)

    def stepped(weight, grad):
        grad = grad * 0.1 / norm
        return weight - rate * grad / (jnp.abs(grad) + 1e-5)

    wanted = jax.tree.map(stepped, state.params, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), after.params, wanted)


def test_every_leaf_of_the_state_advances():
    init, step = standard()
    before = init(jax.random.key(0), DATA)
    after, _ = step(before, DATA)
    now = dict(jax.tree_util.tree_leaves_with_path(after))
    for path, leaf in jax.tree_util.tree_leaves_with_path(before.replace(hyper=None)):
        raw = jax.random.key_data if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray
        if "end" not in jax.tree_util.keystr(path):  # a window may end with this rollout or a later one
            assert (np.asarray(raw(leaf)) != np.asarray(raw(now[path]))).any(), jax.tree_util.keystr(path)


def test_metrics_are_numbers_and_equal_keys_give_equal_bits():
    init, step = standard()
    results = [step(init(jax.random.key(seed), DATA), DATA) for seed in (0, 0, 1)]
    assert {"loss", "reward", "grad_norm", "param_norm", "skipped"} <= set(results[0][1])
    assert all(value.shape == () and value.dtype == jnp.float32 for value in results[0][1].values())
    jax.tree.map(np.testing.assert_array_equal, results[0][0].params, results[1][0].params)
    assert results[0][1]["grad_norm"] != results[2][1]["grad_norm"]


def test_a_gradient_that_is_not_finite_changes_no_weight_and_is_counted():
    init, step = standard()
    state = init(jax.random.key(0), DATA)
    broken = DATA.replace(features=DATA.features.at[:].set(jnp.nan))
    after, metrics = step(state, broken)
    assert metrics["skipped"] == 1.0
    jax.tree.map(np.testing.assert_array_equal, after.trained, state.trained)
    assert after.updates == 1
    assert step(state, DATA)[1]["skipped"] == 0.0


def coin(num_bars=400, up=0.53, size=0.1):
    """Returns of plus and minus `size` in random order, so that an interior exposure grows fastest."""
    rng = np.random.default_rng(0)
    returns = np.where(rng.permutation(num_bars) < up * num_bars, size, -size)
    close = 100.0 * np.cumprod(1.0 + returns)
    opened = np.concatenate([[100.0], close[:-1]])
    bars = {
        "open": opened,
        "high": np.maximum(opened, close),
        "low": np.minimum(opened, close),
        "close": close,
    }
    index = pd.date_range("2020-01-01", periods=num_bars, freq="D", tz="UTC")
    return pd.DataFrame(bars | {"volume": 1.0}, index=index)


# A beta stays wide for long, so it takes more updates.
@pytest.mark.parametrize(("head", "updates"), [(squashed_gaussian, 150), (beta, 400)])
def test_the_best_constant_exposure_is_found(head, updates):
    frame = coin()
    data = market(frame, fee_rate=0.0, half_spread=0.0)
    data = data.replace(features=jnp.zeros_like(data.features))
    policy = make_policy(num_features=1, account_size=2, distribution=head(), lookback=L, width=8)
    apg = learner(
        policy=policy,
        num_accounts=2048,
        sharing=4,
        num_updates=updates,
        learning_rate=0.02,
        entropy_weight=0.0,
    )

    @jax.jit
    def trained(state):
        return jax.lax.scan(lambda state, _: apg.step(state, data), state, length=updates)[0]

    state = trained(apg.init(jax.random.key(0), data))
    returns = np.asarray(frame["close"] / frame["open"] - 1.0)
    # Windows begin anywhere between, so bars near the ends are in fewer of them.
    starts = np.arange(int(data.env_params.first), int(data.env_params.stop) - EPISODE)
    played = returns[(starts[:, None] + 1 + np.arange(EPISODE)).ravel()]
    grid = np.linspace(-1.0, 1.0, 201)
    best = grid[np.log1p(grid[:, None] * played[None]).mean(axis=1).argmax()]
    assert 0.3 < best < 0.7
    levels = make_policy_backtest(policy, ENV)(apg.params(state), data).level
    np.testing.assert_allclose(levels[10:], best, atol=0.08)


def test_what_has_no_derivative_is_refused():
    choices = make_policy(num_features=1, account_size=2, num_actions=3, lookback=L, width=8)
    with pytest.raises(ValueError, match=r"list of actions has no derivative.*; a choice has no derivative"):
        learner(make_single(episode_bars=EPISODE), choices)
    with pytest.raises(ValueError, match="a choice has no derivative"):
        learner(policy=choices)
    lots = DATA.env_params.replace(
        lots=Lots(size=jnp.float32(1.0)), capital=jnp.float32(1e5), band=jnp.float32(0.1)
    )
    with pytest.raises(ValueError, match="lots, band of the environment's parameters"):
        learner().init(jax.random.key(0), DATA.replace(env_params=lots))
    fee = DATA.env_params.replace(
        costs=DATA.env_params.costs.replace(fee_minimum=jnp.float32(1.0)), capital=jnp.float32(1e5)
    )
    with pytest.raises(ValueError, match=r"costs\.fee_minimum"):
        learner().init(jax.random.key(0), DATA.replace(env_params=fee))


def test_sizes_and_numbers_out_of_range_are_refused_together():
    with pytest.raises(
        ValueError, match=r"episode_bars \(16\) must be a multiple of rollout_bars \(5\).*gamma.*sgd"
    ):
        learner(rollout_bars=5, gamma=1.5, optimizer="sgd")
    other = DATA.replace(lookback=2)
    with pytest.raises(ValueError, match="looks back 4 bars"):
        learner().init(jax.random.key(0), other)
    with pytest.raises(ValueError, match="a window needs 16"):
        learner().init(jax.random.key(0), market(synthetic.ar1(0, 18)))
