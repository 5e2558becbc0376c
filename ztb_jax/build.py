"""Where names and numbers of a configuration become functions and arrays; the only such place."""

import dataclasses
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from envs import actions, rewards
from envs.rewards import Reward
from envs.single import make_single
from envs.types import Env
from ztb_jax import gates, gating, numbers, parallel, schedule
from ztb_jax.apg.learner import make_apg
from ztb_jax.baseline import make_random
from ztb_jax.config import Config
from ztb_jax.data.folds import Fold, Range
from ztb_jax.data.frame import bars_per_year
from ztb_jax.data.market import MarketData, make_market_data, reward_scale_of
from ztb_jax.data.split import Split, split
from ztb_jax.data.stretches import join
from ztb_jax.errors import DataError
from ztb_jax.features import scaling
from ztb_jax.features.recipe import Features
from ztb_jax.learner import Learner
from ztb_jax.policies import transforms
from ztb_jax.policies.distributions import distribution_for
from ztb_jax.policies.encoding import Encoding, choose_encoding
from ztb_jax.policies.policy import Policy, make_policy
from ztb_jax.ppo.learner import Options, make_ppo, minibatching_of
from ztb_jax.settings import EnvConfig
from ztb_jax.slices import (
    FEWEST_JUDGED,
    Measured,
    costs_of,
    first_playable,
    fit_scaler,
    fold_findings,
    guarded,
    market_of,
    measure,
    rules_of,
)

# A return over the account's own deviation: of order one on every market, with no unit to take away.
RATIOS = {
    "differential_sharpe": rewards.differential_sharpe,
    "differential_sortino": rewards.differential_sortino,
}
VALUE_SCALES = {
    "none": lambda policy, axis: policy,
    "symlog": lambda policy, axis: transforms.symlog_values(policy),
    "popart": lambda policy, axis: transforms.popart_values(policy, axis_name=axis),
}


class Prepared(NamedTuple):
    """A market ready to train and judge on.

    Attributes:
      frame: every bar.
      split: the slices in bars of `frame`.
      slices: "train", "validation" and "test" as arrays.
      num_features: F.
      bars_per_year: from the instrument's own stamps, of every bar; what reports annualise by.
      measured: what environments are built from.
      scaler: of the features, fitted on the train slice.
    """

    frame: pd.DataFrame
    split: Split
    slices: dict[str, MarketData]
    num_features: int
    bars_per_year: float
    measured: Measured
    scaler: scaling.Scaler


class FoldData(NamedTuple):
    """A fold ready to train and judge on.

    Attributes:
      fold: its ranges in bars of the frame.
      train: of all its training ranges; where they are several, `env_params.starts` keeps windows in them.
      validation: None where nothing chooses.
      tests: one for each test range.
      measured: what environments are built from.
      scaler: of the features, fitted on the training ranges.
    """

    fold: Fold
    train: MarketData
    validation: MarketData | None
    tests: tuple[MarketData, ...]
    measured: Measured
    scaler: scaling.Scaler


def prepare(config: Config, frame: pd.DataFrame, features: Features) -> Prepared:
    """Cut `frame` and its features into slices; the scaling is fitted on the train slice alone.

    Slices begin where a whole window of features and, with a volatility target, of returns is known.

    Raises:
      DataError: the warm-up leaves nothing, a feature is not finite, or a slice is shorter than an episode.
    """
    cut = split(
        len(frame),
        first=first_playable(config, features),
        train=config.data.train,
        validation=config.data.validation,
        test=config.data.test,
        embargo=config.data.embargo_bars,
    )
    judged = (FEWEST_JUDGED, "a judgement", "")
    needs = {
        "train": (config.env.episode_bars + 1, "an episode", "lower env.episode_bars, "),
        "validation": judged,
        "test": judged,
    }
    short = [
        f"the {name} slice has {stop - start} bars and {needs[name][1]} needs {needs[name][0]}: "
        f"{needs[name][2]}raise data.{name} or give more bars"
        for name, (start, stop) in cut._asdict().items()
        if stop - start < needs[name][0]
    ]
    if short:
        raise DataError(short)
    ready = _cut(config, frame, features, Fold((cut.train,), cut.validation, (cut.test,)))
    assert ready.validation is not None
    slices = {"train": ready.train, "validation": ready.validation, "test": ready.tests[0]}
    year = bars_per_year(pd.DatetimeIndex(frame.index))
    return Prepared(frame, cut, slices, features.values.shape[1], year, ready.measured, ready.scaler)


def prepare_fold(config: Config, frame: pd.DataFrame, features: Features, fold: Fold) -> FoldData:
    """Cut `frame` and its features as `fold` says; scaler and measures are of its training ranges alone.

    Training data hold the bars of the training ranges, with the `features.lookback - 1` rows before each, and
    no other. A training range that is shorter than an episode is scaled by, but not played.

    Args:
      config: the settings; those of `data` that divide bars are not read.
      frame: every bar.
      features: of every bar.
      fold: of `ztb_jax.data.folds`, made with `first` = `first_playable(config, features)` or later.

    Raises:
      DataError: with every finding: a range outside the bars that can be played, or shorter than what it is
        for, or a training range whose first window would see bars that choose or judge.
    """
    findings = fold_findings(config, fold, bounds=(first_playable(config, features), len(frame)))
    if findings:
        raise DataError(findings)
    return _cut(config, frame, features, fold)


def _cut(config: Config, frame: pd.DataFrame, features: Features, fold: Fold) -> FoldData:
    """The slices of `fold`, whose ranges are known to fit."""
    env, before = config.env, config.features.lookback - 1
    scaler, measured = fit_scaler(config, features, fold.train), measure(frame, fold.train)
    scaled, market = scaler.apply(features.values), market_of(env, frame, measured.bars_per_year)
    closed = frame["close"].to_numpy(np.float64)

    def one(bars: Range) -> MarketData:
        data = make_market_data(
            frame,
            scaled,
            costs=costs_of(env),
            market=market,
            ruin_equity=env.ruin_equity,
            lookback=before + 1,
            start=bars[0],
            stop=bars[1],
            **rules_of(env),
        )
        return data.replace(reward_scale=jnp.float32(1.0)) if env.reward in RATIOS else data

    train = [one(bars) for bars in fold.train]
    if len(train) > 1:
        scale = reward_scale_of(*[closed[start - before : stop] for start, stop in fold.train])
        whole = join(
            train,
            reward_scale=1.0 if env.reward in RATIOS else scale,
            episode_bars=env.episode_bars,
            grid=make_network(config, num_features=features.values.shape[1]).grid,
        )
    else:
        whole = train[0]
    chooses = None if fold.validation is None else one(fold.validation)
    return FoldData(fold, whole, chooses, tuple(one(bars) for bars in fold.test), measured, scaler)


def make_environment(config: Config, *, measured: Measured | None = None, extra_latency: int = 0) -> Env:
    """The environment of a configuration; rewards other than log_return need what `prepare` measured.

    With `extra_latency` it has room for so many bars more than `env.latency`, which accounts do not see, and
    needs an `EnvParams.latency` even where that is 0.
    """
    return _environment(config, _reward_of(config.env, measured), extra_latency)


def _environment(config: Config, reward: Reward | None, extra_latency: int = 0) -> Env:
    env = config.env
    if config.policy.head == "categorical":
        space = actions.levels(
            env.levels,
            stop_loss=env.stop_loss or math.inf,
            take_profit=env.take_profit or math.inf,
            trail=env.trail or math.inf,
        )
    else:
        space = actions.continuous(low=min(env.levels), high=max(env.levels))
    return make_single(
        actions=space,
        episode_bars=env.episode_bars,
        reward=reward,
        guarded=guarded(env),
        max_latency=env.latency + extra_latency,
    )


def make_network(config: Config, *, num_features: int) -> Policy:
    """The policy of a configuration."""
    env = _environment(config, None)  # what an account shows does not depend on the reward
    wanted = config.policy
    policy = make_policy(
        num_features=num_features,
        account_size=env.account_size,
        distribution=distribution_for(env.actions, wanted.head),
        lookback=config.features.lookback,
        width=wanted.width,
        depth=wanted.depth,
        shared_torso=wanted.shared_torso,
        encoder=wanted.encoder,
        grid=config.ppo.rollout_bars,
        memory=wanted.memory,
    )
    if wanted.precision != "float32":
        policy = transforms.in_precision(policy, jnp.dtype(wanted.precision))
    if wanted.rematerialise:
        policy = transforms.rematerialised(policy)
    axis = _axis_of(config)
    policy = VALUE_SCALES[wanted.value_scale](policy, axis)
    if wanted.normalise_observations:
        policy = transforms.normalised(
            policy, num_features=num_features, account_size=env.account_size, axis_name=axis
        )
    return policy


def make_learner(config: Config, *, num_features: int, measured: Measured | None = None) -> Learner:
    """The learner of a configuration, behind the gates that it asks for.

    With several `run.devices` its step is for `ztb_jax.parallel.sharded`.
    """
    made = LEARNERS[config.learner](
        config,
        make_environment(config, measured=measured),
        make_network(config, num_features=num_features),
    )
    return gates.gated(made, gating.make_update_gates(config))


def encodings(config: Config, policy: Policy, *, num_bars: int) -> dict[str, Encoding]:
    """How rollouts and, with PPO, minibatches encode a slice of `num_bars` bars."""
    ppo = config.ppo
    groups, bars = ppo.num_accounts // ppo.sharing, ppo.rollout_bars
    found = {"rollout": choose_encoding(policy, num_bars=num_bars, num_groups=groups, bars=bars + 1)}
    if config.learner != "ppo":
        return found
    cut = minibatching_of(
        policy, _options(config), shape=(groups, ppo.sharing), rollout_bars=bars, num_bars=num_bars
    )
    found["minibatch"] = choose_encoding(
        policy,
        num_bars=num_bars,
        num_groups=cut.size if cut.shuffle == "segments" else groups,
        bars=bars,
        samples=None if cut.whole else cut.size,
    )
    return found


def _sizes(config: Config) -> dict[str, int]:
    return {name: getattr(config.ppo, name) for name in ("num_accounts", "rollout_bars", "sharing")}


def _axis_of(config: Config) -> str | None:
    return None if config.run.devices == 1 else parallel.AXIS


def _options(config: Config) -> Options:
    chosen = {name: getattr(config.ppo, name) for name in Options._fields if name != "axis_name"}
    return Options(axis_name=_axis_of(config), **chosen)


def _ppo(config: Config, env: Env, policy: Policy) -> Learner:
    return make_ppo(
        env,
        policy,
        **_sizes(config),
        num_updates=schedule.num_updates(config),
        hyper=numbers.record_of(config),
        options=_options(config),
    )


def _apg(config: Config, env: Env, policy: Policy) -> Learner:
    return make_apg(
        env,
        policy,
        **_sizes(config),
        num_updates=schedule.num_updates(config),
        hyper=numbers.record_of(config),
        optimizer=config.ppo.optimizer,
    )


def _random(config: Config, env: Env, policy: Policy) -> Learner:
    return make_random(env, policy, **_sizes(config))


LEARNERS = {"ppo": _ppo, "apg": _apg, "random": _random}


def _reward_of(env: EnvConfig, measured: Measured | None) -> Reward:
    if env.reward == "log_return":
        return rewards.log_return()
    if measured is None:
        raise ValueError(
            f"env.reward {env.reward} is built from bars_per_year and the deviation of a bar: give "
            "`measured`, of `prepare`"
        )
    if env.reward in RATIOS:
        return RATIOS[env.reward](deviation=_full_deviation(env, measured))
    targets = dataclasses.asdict(env.risk_adjusted)
    return rewards.risk_adjusted(bars_per_year=measured.bars_per_year, **targets)


def _full_deviation(env: EnvConfig, measured: Measured) -> float:
    """The deviation of a bar's return at the largest exposure that the settings ask for and allow."""
    one = measured.deviation
    if env.volatility_target is not None:
        one = env.volatility_target / measured.bars_per_year**0.5
    caps = (cap for cap in (env.max_position, env.max_leverage) if cap is not None)
    return min(max(map(abs, env.levels)) * one, *(cap * measured.deviation for cap in caps), math.inf)
