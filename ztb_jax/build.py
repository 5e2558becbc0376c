"""Where names and numbers of a configuration become functions and arrays; the only such place."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from envs.single import make_single
from envs.types import Env
from ztb_jax import gates
from ztb_jax.config import Config
from ztb_jax.data.frame import bars_per_year
from ztb_jax.data.market import MarketData, make_costs, make_market_data
from ztb_jax.data.split import Split, split
from ztb_jax.errors import DataError
from ztb_jax.features import scaling
from ztb_jax.features.recipe import Features
from ztb_jax.learner import Learner
from ztb_jax.policies.policy import Policy, make_policy
from ztb_jax.ppo.learner import make_ppo


class Prepared(NamedTuple):
    """A market ready to train and judge on.

    Attributes:
      frame: every bar.
      split: the slices in bars of `frame`.
      slices: "train", "validation" and "test" as arrays.
      num_features: F.
      bars_per_year: from the instrument's own stamps.
    """

    frame: pd.DataFrame
    split: Split
    slices: dict[str, MarketData]
    num_features: int
    bars_per_year: float


def prepare(config: Config, frame: pd.DataFrame, features: Features) -> Prepared:
    """Cut `frame` and its features into slices; the scaling is fitted on the train slice alone.

    Raises:
      DataError: the warm-up leaves nothing, a feature is not finite, or a slice is shorter than a window.
    """
    lookback, episode = config.features.lookback, config.env.episode_bars
    first = _first_observable(features, lookback)
    cut = split(
        len(frame),
        first=first,
        train=config.data.train,
        validation=config.data.validation,
        test=config.data.test,
        embargo=config.data.embargo_bars,
    )
    short = [
        f"the {name} slice has {stop - start} bars and an episode needs {episode + 1}: lower "
        f"env.episode_bars, raise data.{name} or give more bars"
        for name, (start, stop) in cut._asdict().items()
        if stop - start < episode + 1
    ]
    if short:
        raise DataError(short)
    start, stop = cut.train
    scaler = scaling.fit(
        features.values, features.valid, start - lookback + 1, stop, limit=config.features.limit
    )
    scaled = scaler.apply(features.values)
    costs = make_costs(
        fee_rate=config.env.fee_rate, half_spread=config.env.half_spread, slippage=config.env.slippage
    )
    slices = {
        name: make_market_data(
            frame,
            scaled,
            costs=costs,
            ruin_equity=config.env.ruin_equity,
            lookback=lookback,
            start=start,
            stop=stop,
        )
        for name, (start, stop) in cut._asdict().items()
    }
    return Prepared(
        frame, cut, slices, features.values.shape[1], bars_per_year(pd.DatetimeIndex(frame.index))
    )


def make_environment(config: Config) -> Env:
    """The environment of a configuration."""
    return make_single(levels=config.env.levels, episode_bars=config.env.episode_bars)


def make_network(config: Config, *, num_features: int) -> Policy:
    """The policy of a configuration."""
    env = make_environment(config)
    return make_policy(
        num_features=num_features,
        account_size=env.account_size,
        num_actions=env.num_actions,
        lookback=config.features.lookback,
        width=config.policy.width,
        shared_torso=config.policy.shared_torso,
    )


def make_learner(config: Config, *, num_features: int) -> Learner:
    """The learner of a configuration, behind a gate that stops it at the first number that is not finite."""
    ppo = config.ppo
    learner = make_ppo(
        make_environment(config),
        make_network(config, num_features=num_features),
        num_accounts=ppo.num_accounts,
        rollout_bars=ppo.rollout_bars,
        sharing=ppo.sharing,
        epochs=ppo.epochs,
        num_minibatches=ppo.num_minibatches,
        num_updates=num_windows(config) * config.run.window_updates,
        learning_rate=ppo.learning_rate,
        gamma=ppo.gamma,
        lam=ppo.lam,
        clip=ppo.clip,
        value_clip=ppo.value_clip,
        value_weight=ppo.value_weight,
        entropy_weight=ppo.entropy_weight,
        max_grad_norm=ppo.max_grad_norm,
        normalise_advantage=ppo.normalise_advantage,
    )
    return gates.gated(learner, gates.finite("loss", "reward", "grad_norm", "param_norm"))


def num_windows(config: Config) -> int:
    """Windows that train at least `run.total_env_steps`."""
    return -(-config.run.total_env_steps // window_env_steps(config))


def window_env_steps(config: Config) -> int:
    """Environment steps in one window."""
    return config.ppo.num_accounts * config.ppo.rollout_bars * config.run.window_updates


def _first_observable(features: Features, lookback: int) -> int:
    """The first bar with a whole window of known features; every later row must be known, too."""
    if not features.valid.any():
        raise DataError(
            f"no bar has every feature: {len(features.valid)} bars are fewer than the indicators' warm-up"
        )
    warm = int(np.argmax(features.valid))
    holes = warm + np.flatnonzero(~features.valid[warm:])
    if holes.size:
        raise DataError(
            f"features of {holes.size} bars after the warm-up are not finite, first at row {holes[0]}: "
            "drop those bars on import, or take a recipe without that column"
        )
    if warm + lookback > len(features.valid):
        raise DataError(
            f"features.lookback ({lookback}) and a warm-up of {warm} bars leave nothing of "
            f"{len(features.valid)} bars: lower features.lookback or give more bars"
        )
    return warm + lookback - 1
