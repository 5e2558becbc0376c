"""Trainings side by side: each is the single training that it would have been alone."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ztb_jax import build, gates, numbers, schedule
from ztb_jax.config import resolve
from ztb_jax.data import folds
from ztb_jax.data.stretches import stack_folds
from ztb_jax.evaluation.backtest import make_policy_backtest
from ztb_jax.features import recipe
from ztb_jax.learner import Learner
from ztb_jax.population import with_hyper
from ztb_jax.runs import loop
from ztb_jax.training import evaluate
from ztb_jax.trials import MOST_AT_ONCE, NoRoomError, Trials, compile_trials, evenly

SETTINGS = {
    "data.symbol": "synthetic/ar1", "data.synthetic_bars": 700, "data.timeframe": "1h",
    "features.recipe": "returns", "features.lookback": 4, "env.episode_bars": 32, "policy.width": 8,
    "ppo.num_accounts": 16, "ppo.rollout_bars": 16, "ppo.sharing": 4, "ppo.num_minibatches": 1,
    "ppo.epochs": 2, "run.window_updates": 2, "run.total_env_steps": 1536,
}  # fmt: skip
WINDOWS, UPDATES = 3, 2


def made(**flags):
    return resolve(environ={}, flags=SETTINGS | {key.replace("__", "."): each for key, each in flags.items()})


class Case:
    """Two folds of one market, of different lengths, with learner and backtest."""

    def __init__(self, **flags):
        self.config, self.windows = made(**flags), {}
        config = self.config
        frame = evaluate.load_frame(config)
        features = recipe.compute("returns", frame)
        cut = folds.walk_forward(
            len(frame), first=8, folds=2, test_bars=100, anchored=True, validation=0.3, embargo=4, purge=0
        )
        self.folds = [build.prepare_fold(config, frame, features, fold) for fold in cut]
        sized = {"num_features": features.values.shape[1], "measured": self.folds[0].measured}
        self.learner = build.make_learner(config, **sized)
        env = build.make_environment(config, measured=self.folds[0].measured)
        self.backtest = make_policy_backtest(
            build.make_network(config, num_features=sized["num_features"]), env
        )
        assert (schedule.num_windows(config), config.run.window_updates) == (WINDOWS, UPDATES)

    def compiled(self, trials: int, **more):
        stacked = [
            stack_folds([getattr(fold, name) for fold in self.folds], episode_bars=32)
            for name in ("train", "validation")
        ]
        asked = {"learner": self.learner, "backtest": self.backtest, "validation": stacked[1]} | more
        if asked["backtest"] is None:
            asked["validation"] = None
        learner = asked.pop("learner")
        return compile_trials(
            learner, stacked[0], trials=trials, num_windows=WINDOWS, window_updates=UPDATES, **asked
        )

    def alone(self, market: int, seed: int, hyper) -> dict:
        """The main job's own loop, and its choice in float64."""
        data, validation = self.folds[market].train, self.folds[market].validation
        state = loop.initialise(self.learner, seed, data)
        state = state if hyper is None else with_hyper(state, hyper)
        if market not in self.windows:
            self.windows[market] = loop.compile_window(self.learner, state, data, num_updates=UPDATES)
        window = self.windows[market]
        best, scores, rewards = None, [], []
        for _ in range(WINDOWS):
            state, metrics = window(state, data)
            params = jax.device_get(self.learner.params(state))
            gain = np.asarray(self.backtest(params, validation).gain, np.float64)
            scores.append(float(np.log1p(gain).mean()))
            rewards.append(float(metrics["reward"].mean()))
            if scores[-1] == max(scores):
                best = params
        return {"params": best, "scores": scores, "rewards": rewards, "chosen": int(np.argmax(scores))}


def wanted(case: Case, rows) -> Trials:
    hyper = [
        numbers.arrays_of(made(**{"ppo__learning_rate": rate, "ppo__gamma": gamma}))
        for _, _, rate, gamma in rows
    ]
    return Trials(
        market=np.array([row[0] for row in rows], np.int32),
        seed=np.array([row[1] for row in rows], np.uint32),
        hyper=jax.tree.map(lambda *leaves: np.stack(leaves), *hyper),
    )


# Market, seed, learning rate, discount.
ROWS = [
    (0, 4, 1e-2, 0.5),
    (0, 3, 1e-2, 0.9),
    (0, 3, 1e-4, 0.9),
    (1, 3, 1e-2, 0.9),
    (0, 3, 1e-2, 0.9),
]


@pytest.fixture(scope="module")
def case():
    return Case()


@pytest.fixture(scope="module")
def program(case):
    return case.compiled(len(ROWS), members=3)


@pytest.fixture(scope="module")
def trained(case, program):
    """All rows, in two chunks of three, the second filled up with the first."""
    assert (program.members, program.num_chunks) == (3, 2)
    return [program.run(wanted(case, ROWS), chunk) for chunk in range(2)]


def of(trained, trial: int, name: str):
    chunk = next(chunk for chunk in trained if trial in chunk.trials)
    at = chunk.trials.tolist().index(trial)
    return jax.tree.map(lambda leaf: leaf[at], getattr(chunk, name))


def assert_close(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


def equal(one, other) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_a_trial_is_the_training_that_it_would_be_alone(case, trained):
    """Also on the shorter market, which was filled up to stand beside the other."""
    assert len(case.folds[0].train.features) < len(case.folds[1].train.features)
    for trial in (0, 1):
        market, seed, rate, gamma = ROWS[trial]
        hyper = numbers.arrays_of(made(ppo__learning_rate=rate, ppo__gamma=gamma))
        alone = case.alone(market, seed, hyper)
        np.testing.assert_allclose(of(trained, trial, "validation"), alone["scores"], rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(of(trained, trial, "reward"), alone["rewards"], rtol=1e-5, atol=1e-8)
        assert of(trained, trial, "chosen") == alone["chosen"]
        assert_close(of(trained, trial, "params"), alone["params"], rtol=1e-5, atol=1e-6)
        assert of(trained, trial, "verdict") == 0


def test_what_fills_up_the_last_chunk_is_not_told(trained):
    assert [chunk.trials.tolist() for chunk in trained] == [[0, 1, 2], [3, 4]]
    assert [len(jax.tree.leaves(chunk.params)[0]) for chunk in trained] == [3, 2]


def test_equal_trials_are_equal_to_the_bit_wherever_they_stand(trained):
    for name in ("params", "validation", "reward", "chosen"):
        assert equal(of(trained, 1, name), of(trained, 4, name))


def test_numbers_seeds_and_markets_make_a_difference(trained):
    for other in (0, 2, 3):
        assert not equal(of(trained, 1, "params"), of(trained, other, "params"))
        assert not np.array_equal(of(trained, 1, "reward"), of(trained, other, "reward"))


def test_neighbours_make_none(case, program, trained):
    others = list(ROWS)
    others[0], others[2] = (1, 9, 1e-1, 0.1), (1, 8, 1e-3, 0.99)
    again = program.run(wanted(case, others), 0)
    for name in ("params", "validation", "reward"):
        assert equal(of(trained, 1, name), of([again], 1, name))


def test_a_request_to_stop_is_answered_between_windows(case, program):
    asked = iter([False, False, True])
    assert program.run(wanted(case, ROWS), 0, lambda: next(asked)) is None
    assert next(asked, None) is None


class Walk(struct.PyTreeNode):
    """A learner that draws its weights: `hyper` moves them, and the market's first feature."""

    key: jax.Array
    weights: jax.Array
    hyper: jax.Array


def walker(size: int = 4) -> Learner:
    def init(key, data):
        return Walk(key, jnp.zeros(size), jnp.float32(1.0))

    def step(state, data):
        key, mine = jax.random.split(state.key)
        weights = state.weights + state.hyper * jax.random.normal(mine, (size,)) + data.features[0, 0]
        return state.replace(key=key, weights=weights), {"reward": weights.mean()}

    return Learner(init, step, lambda state: state.weights, 1)


class Played(NamedTuple):
    gain: jax.Array


def played(weights, data) -> Played:
    """Beyond the stop it earns a fortune, which nobody may count."""
    inside = jnp.arange(data.num_steps) < data.env_params.stop - 1 - data.env_params.first
    return Played(jnp.where(inside, weights[0] / 1000.0, 1e6))


def walked(case: Case, rows, learner=None, **more):
    """What walkers do, in order of the trials, and their program."""
    program = case.compiled(len(rows), learner=learner or walker(), **{"backtest": played} | more)
    trials = Trials(
        market=np.array([row[0] for row in rows], np.int32),
        seed=np.array([row[1] for row in rows], np.uint32),
        hyper=np.array([row[2] for row in rows], np.float32),
    )
    chunks = [program.run(trials, chunk) for chunk in range(program.num_chunks)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks), program


WALKS = [(market, seed, scale) for market in (0, 1) for seed in (5, 2**32 - 1) for scale in (0.5, 2.0, 9.0)]


def test_the_choice_is_the_best_window_up_to_the_stop_of_each_market(case):
    found, _ = walked(case, WALKS)
    for at, (market, seed, scale) in enumerate(WALKS):
        learner, data = walker(), case.folds[market].train
        state = with_hyper(learner.init(jax.random.key(seed), data), jnp.float32(scale))
        weights = []
        for update in range(WINDOWS * UPDATES):
            state, _ = learner.step(state, data)
            weights += [np.asarray(state.weights, np.float64)] if update % UPDATES == UPDATES - 1 else []
        scores = [math.log1p(each[0] / 1000.0) for each in weights]
        np.testing.assert_allclose(found.validation[at], scores, rtol=1e-4)
        assert found.chosen[at] == int(np.argmax(scores))
        np.testing.assert_allclose(found.params[at], weights[int(np.argmax(scores))], rtol=1e-5)


@pytest.mark.parametrize("members", [1, 5, 99])
def test_chunks_of_any_size_agree(case, members):
    whole, _ = walked(case, WALKS)
    found, program = walked(case, WALKS, members=members)
    assert program.members * program.num_chunks >= len(WALKS) > program.members * (program.num_chunks - 1)
    assert program.members == evenly(len(WALKS), program.members)
    assert found.trials.tolist() == list(range(len(WALKS)))
    for name in ("params", "validation", "reward"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-5)


def test_chunks_are_as_large_as_device_and_memory_allow_and_what_cannot_fit_is_refused(case, monkeypatch):
    large = walker(100_000)
    assert walked(case, WALKS)[1].members == evenly(len(WALKS), MOST_AT_ONCE["cpu"]) == 6
    monkeypatch.setitem(MOST_AT_ONCE, "cpu", 99)
    _, program = walked(case, WALKS, large)
    assert program.members == len(WALKS)
    for share in (0.9, 0.3):
        found, smaller = walked(case, WALKS, large, memory_bytes=int(share * program.planned_bytes))
        assert smaller.planned_bytes <= share * program.planned_bytes
        assert smaller.members < program.members
        assert len(found.trials) == len(WALKS)
    with pytest.raises(NoRoomError, match=r"one training needs [\d,]+ bytes and there are 1,000: lower"):
        walked(case, WALKS, large, memory_bytes=1000)


def test_what_a_gate_stops_keeps_the_windows_before_and_nothing_else(case):
    """Rewards grow by 1 an update: the gate trips in the window where they pass its bound."""

    def counting(bound: float) -> Learner:
        def step(state, data):
            state = state.replace(weights=state.weights + state.hyper)
            return state, {"reward": state.weights[0]}

        def update(count, metrics):
            return count, jnp.where(metrics["reward"] > bound, 7, 0).astype(jnp.int32)

        return gates.gated(walker()._replace(step=step), gates.Gate(lambda: jnp.int32(0), update))

    for backtest in (None, played):
        for bound, chosen, weight in (
            (0.5, -1, 0.0),
            (1.5, -1, 0.0),
            (2.5, 0, 2.0),
            (5.5, 1, 4.0),
            (9, 2, 6.0),
        ):
            found, _ = walked(case, [(0, 1, 1.0), (1, 1, 0.0)], counting(bound), backtest=backtest)
            assert found.chosen.tolist() == [chosen, 0 if backtest else 2]
            assert found.params[0, 0] == weight
            assert found.verdict.tolist() == [7 if bound < 6 else 0, 0]
            known = np.isfinite(found.validation[0])
            assert known.tolist() == [bool(backtest) and window <= chosen for window in range(WINDOWS)]


def test_no_trial_is_refused(case):
    with pytest.raises(ValueError, match="must be at least 1"):
        case.compiled(0)
