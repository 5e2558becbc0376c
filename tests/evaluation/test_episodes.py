"""Episodes for replays: the same bars, fills and equity as the environment and the backtest give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import actions, protection
from envs.single import make_single
from envs.types import Limits
from tests.test_build import prepared
from ztb_jax.data import synthetic
from ztb_jax.data.market import make_costs, make_market, make_market_data
from ztb_jax.evaluation.backtest import make_policy_backtest
from ztb_jax.evaluation.episodes import Frames, make_episodes
from ztb_jax.evaluation.frames import REASONS, frames_of, summary_of
from ztb_jax.policies import transforms
from ztb_jax.policies.distributions import distribution_for
from ztb_jax.policies.policy import make_policy

ENV = make_single(levels=(-1.0, 0.0, 1.0), episode_bars=64)


def network(env=ENV, **more):
    policy = make_policy(
        num_features=1,
        account_size=env.account_size,
        distribution=distribution_for(env.actions),
        lookback=4,
        width=8,
        **more,
    )
    return policy, jax.tree.map(lambda leaf: 4 * leaf, policy.init(jax.random.key(2)))


def keys_of(*seeds):
    return jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))


def one(frames: Frames, number=0) -> Frames:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[number], frames)


@pytest.mark.parametrize("more", [{}, {"memory": 4}, {"encoder": "gru", "grid": 16}])
def test_the_whole_slice_is_the_backtest(more):
    """The longest episode has one start; a deterministic policy then does what the report says it did."""
    data = prepared().slices["test"]
    policy, params = network(**more)
    steps = data.num_steps
    played = one(make_episodes(policy, ENV, steps=steps)(params, data, keys_of(5)))
    trace = make_policy_backtest(policy, ENV)(params, data)
    np.testing.assert_array_equal(played.bar, np.arange(steps) + data.lookback - 1)
    np.testing.assert_array_equal(played.asked, trace.level)
    np.testing.assert_allclose(np.diff(played.log_equity, prepend=0.0), np.log1p(trace.gain), atol=2e-6)
    np.testing.assert_allclose(played.exposure, trace.exposure, rtol=1e-5, atol=1e-6)
    for name in ("traded", "cost", "price"):
        np.testing.assert_allclose(
            getattr(played.fill, name), getattr(trace.fill, name), rtol=1e-4, atol=1e-6
        )
    assert played.truncated.tolist() == [False] * (steps - 1) + [True]


def test_episodes_are_random_and_repeat_with_their_keys():
    data = prepared().slices["test"]
    policy, params = network()
    play = make_episodes(policy, ENV, steps=40, deterministic=False)
    first, again = play(params, data, keys_of(1, 2, 3)), play(params, data, keys_of(3, 9, 1))
    starts = np.asarray(first.bar)[:, 0]
    assert len(set(starts.tolist())) == 3
    jax.tree.map(np.testing.assert_array_equal, one(first, 2), one(again, 0))
    jax.tree.map(np.testing.assert_array_equal, one(first, 0), one(again, 2))
    assert (np.asarray(first.bar) == starts[:, None] + np.arange(40)).all()


def test_every_start_may_come():
    data = prepared().slices["test"]
    policy, params = network()
    steps = data.num_steps - 2
    played = make_episodes(policy, ENV, steps=steps)(params, data, keys_of(*range(40)))
    starts, counts = np.unique(np.asarray(played.bar)[:, 0] - (data.lookback - 1), return_counts=True)
    assert starts.tolist() == [0, 1, 2]
    assert counts.min() > 4
    # The last bar of the latest one is the last of the slice.
    assert np.asarray(played.bar)[:, -1].max() + 1 == data.features.shape[0] - 1


def test_sampled_actions_follow_the_policy():
    data = prepared().slices["test"]
    policy, params = network()
    sampled = make_episodes(policy, ENV, steps=50, deterministic=False)(params, data, keys_of(*range(60)))
    chances = np.exp(np.asarray(sampled.log_prob))
    best = make_episodes(policy, ENV, steps=50)(params, data, keys_of(*range(60)))
    assert (np.exp(np.asarray(best.log_prob)) >= 1.0 / 3.0 - 1e-6).all()
    # The mean of the probability of what was drawn is below that of the most probable one.
    assert chances.mean() < np.exp(np.asarray(best.log_prob)).mean()
    assert len(np.unique(np.asarray(sampled.action))) == 3


@pytest.mark.parametrize(
    ("space", "spread"), [(actions.levels(), 2 / 3), (actions.continuous(low=-1.0, high=1.0), 1 / 3)]
)
def test_random_trading_is_uniform(space, spread):
    env = make_single(actions=space, episode_bars=64)
    policy, params = network(env)
    data = prepared().slices["test"]
    play = make_episodes(transforms.uniform(policy, space), env, steps=50, deterministic=False)
    played = play(params, data, keys_of(*range(200)))
    asked = np.asarray(played.asked)
    assert abs(asked.mean()) < 0.02
    assert asked.var() == pytest.approx(spread, rel=0.03)
    chance = 1 / 3 if space.sizes else 1 / 2
    np.testing.assert_allclose(np.exp(np.asarray(played.log_prob)), chance, rtol=1e-5)


def test_what_cannot_be_played_is_refused():
    policy, params = network()
    data = prepared().slices["test"]
    with pytest.raises(ValueError, match="does not fit into"):
        make_episodes(policy, ENV, steps=data.num_steps + 1)(params, data, keys_of(0))
    with pytest.raises(ValueError, match="actions"):
        make_episodes(policy, make_single(levels=(0.0, 1.0), episode_bars=64), steps=4)


def stopped_out():
    """An account of a market that moves by a tenth, with stops, a lock and a floor that is soon reached."""
    space = actions.levels((-1.0, 0.0, 1.0), stop_loss=0.03, take_profit=0.2)
    env = make_single(actions=space, episode_bars=64, guarded=True)
    frame = synthetic.ar1(3, 400, sigma=0.05)
    data = make_market_data(
        frame,
        np.zeros((400, 1)),
        costs=make_costs(fee_rate=1e-3, half_spread=1e-4, slippage=0.0),
        market=make_market(frame, inside=True),
        ruin_equity=0.9,
        lookback=4,
        start=3,
        limits=Limits(jnp.float32(0.05), jnp.float32(1.0)),
    )
    policy, params = network(env)
    play = make_episodes(transforms.uniform(policy, space), env, steps=120, deterministic=False)
    return frame, data, play(params, data, keys_of(*range(30)))


def test_frames_tell_what_the_bars_and_the_account_did():
    """Equity from the fills alone: before x (1 + held x move - costs), in float64."""
    frame, data, played = stopped_out()
    kinds = set()
    for number in range(30):
        episode = one(played, number)
        frames = list(frames_of(episode, bars=frame, features=np.asarray(data.features), capital=5000.0))
        told = summary_of(episode)
        assert len(frames) == told.steps
        equity, position = 5000.0, 0.0
        for index, each in enumerate(frames):
            row = int(episode.bar[index]) + 1
            bar, state = each["render_state"]["bar"], each["render_state"]
            assert bar == {name: float(frame[name].iloc[row]) for name in ("open", "high", "low", "close")}
            assert each["frame_index"] == index
            assert each["t"] == index + 1
            before, last = equity, float(frame["close"].iloc[row - 1])
            held, at, cost = position * before, last, 0.0
            for event in each["events"]:
                kinds.add(event.get("reason", event["type"]))
                if event["type"] not in {"fill", "exit"}:
                    continue
                traded = event["size"] * before * (1 if event["side"] == "buy" else -1)
                # A fill is at the open, an exit where its reason put it; costs are told beside.
                mid = bar["open"] if event["type"] == "fill" else None
                if mid is None:
                    mid = _exit_mid(event, held, before, traded, at)
                equity += held * (mid / at - 1.0)
                held, at = held * mid / at + traded, mid
                cost += event["cost"]
            equity += held * (bar["close"] / at - 1.0) - cost
            held *= bar["close"] / at
            position = held / equity
            assert state["equity"] == pytest.approx(equity, rel=2e-4)
            assert state["position"] == pytest.approx(position, abs=2e-3)
            equity, position = state["equity"], state["position"]
            assert state["net_profit"] == pytest.approx(equity - 5000.0)
        assert frames[-1]["terminated"] == told.terminated
        assert frames[-1]["truncated"] == told.truncated == (not told.terminated)
        assert sum(each["reward"] for each in frames) == pytest.approx(told.return_total, abs=1e-6)
        assert told.return_percent == pytest.approx(100 * (equity / 5000.0 - 1), abs=1e-3)
    assert {"order", "fill", "stop", "target", "ruin"} <= kinds


def _exit_mid(event, held, before, traded, at):
    """The price at which what is held is worth what was traded: an exit closes it all."""
    del event, before
    return at * -traded / held


def test_what_is_ruled_out_is_marked_where_it_is_done():
    """Masks keep a policy from it: with the mask heeded nothing is invalid, and locks rule much out."""
    _, _, played = stopped_out()
    assert not np.asarray(played.invalid).any()


def test_info_can_be_left_out_and_every_reason_has_a_name():
    frame, data, played = stopped_out()
    episode = one(played)
    common = {"bars": frame, "features": np.asarray(data.features), "capital": 1.0}
    assert all("info" not in each for each in frames_of(episode, include_info=False, **common))
    told = next(frames_of(episode, **common))["info"]
    assert {
        "value",
        "log_prob",
        "turnover",
        "cost",
        "invalid_action",
        "net_profit",
        "survival",
    } <= told.keys()
    values = {
        value
        for name, value in vars(protection).items()
        if name in {"STOP", "TARGET", "TRAIL", "LIQUIDATION"}
    }
    assert set(REASONS) == values


def test_an_account_that_is_closed_in_the_last_bar_did_not_survive():
    _, _, played = stopped_out()
    episode = one(played)
    ends = np.zeros(len(episode.terminated), bool)
    ends[-1] = True
    told = summary_of(episode._replace(terminated=ends))
    assert told.survival == 1.0 - 1.0 / len(ends)
    assert told.steps == len(ends)
