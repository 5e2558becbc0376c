"""The setting that names a learner: what it builds, and what it refuses."""

import dataclasses

import jax
import numpy as np
import pytest

from ztb_jax import build
from ztb_jax.apg.learner import APGState
from ztb_jax.baseline import RandomState
from ztb_jax.config import resolve
from ztb_jax.contradictions import READ_BY_ALL, READ_BY_APG
from ztb_jax.data import synthetic
from ztb_jax.errors import ConfigError
from ztb_jax.features import recipe
from ztb_jax.ppo.learner import PPOState
from ztb_jax.settings import PPOConfig

SMALL = {
    "features.recipe": "returns",
    "features.lookback": 4,
    "data.embargo_bars": 8,
    "env.episode_bars": 32,
    "policy.width": 8,
    "ppo.num_accounts": 16,
    "ppo.rollout_bars": 8,
    "ppo.sharing": 4,
}
SMOOTH = {"learner": "apg", "policy.head": "squashed_gaussian"}


@pytest.mark.parametrize(
    ("flags", "state"),
    [({"learner": "ppo"}, PPOState), (SMOOTH, APGState), ({"learner": "random"}, RandomState)],
)
def test_each_learner_trains_behind_the_gate(flags, state):
    config = resolve(environ={}, flags=SMALL | flags)
    frame = synthetic.ar1(0, 400)
    prepared = build.prepare(config, frame, recipe.compute("returns", frame))
    learner = build.make_learner(config, num_features=prepared.num_features)
    data = prepared.slices["train"]
    before = jax.jit(learner.init)(jax.random.key(0), data)
    after, metrics = jax.jit(learner.step)(before, data)
    assert isinstance(after.learner, state)
    assert learner.env_steps == 16 * 8
    assert after.verdict == 0
    assert {"loss", "reward", "grad_norm", "param_norm", "verdict"} <= set(metrics)
    assert np.isfinite([float(value) for value in metrics.values()]).all()


def test_apg_refuses_what_has_no_derivative():
    with pytest.raises(ConfigError, match=r"policy\.head is categorical"):
        resolve(environ={}, flags={"learner": "apg"})
    with pytest.raises(ConfigError, match=r"env\.band \(0\.1\)"):
        resolve(environ={}, flags=SMOOTH | {"env.band": 0.1})
    resolve(environ={}, flags=SMOOTH | {"ppo.gamma": 0.9, "ppo.optimizer": "muon"})


@pytest.mark.parametrize(("flags", "read"), [(SMOOTH, READ_BY_APG), ({"learner": "random"}, READ_BY_ALL)])
def test_settings_that_a_learner_does_not_read_are_refused(flags, read):
    """Every name that is read is one, and each of the others is refused by name."""
    names = {field.name for field in dataclasses.fields(PPOConfig)}
    assert read < names
    changed = {"ppo.epochs": 7, "ppo.lam": 0.5, "ppo.clip_schedule": (1.0, 0.5)}
    with pytest.raises(ConfigError) as told:
        resolve(environ={}, flags=SMALL | flags | changed)
    for name in changed:
        assert f"{name} is not read by learner {flags['learner']}" in str(told.value)


def test_random_refuses_what_is_learnt_with():
    with pytest.raises(ConfigError, match=r"ppo\.learning_rate is not read by learner random"):
        resolve(environ={}, flags={"learner": "random", "ppo.learning_rate": 0.1})


def test_the_minibatches_of_ppo_bind_no_other_learner():
    resolve(environ={}, flags=SMOOTH | {"ppo.num_accounts": 9, "ppo.sharing": 3})
