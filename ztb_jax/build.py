"""Where names and numbers of a configuration become functions and arrays; the only such place."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from envs import actions, rewards, sizing
from envs.rewards import Reward
from envs.single import make_single
from envs.types import Costs, Env, Financing, Limits, Margin, Market
from ztb_jax import gates, gating, parallel, schedule
from ztb_jax.apg.learner import make_apg
from ztb_jax.apg.objective import Hyper as GrowthHyper
from ztb_jax.baseline import make_random
from ztb_jax.config import Config
from ztb_jax.data.frame import bars_per_year
from ztb_jax.data.market import MarketData, make_costs, make_market, make_market_data
from ztb_jax.data.split import Split, split
from ztb_jax.errors import DataError
from ztb_jax.features import scaling
from ztb_jax.features.recipe import Features
from ztb_jax.learner import Learner
from ztb_jax.policies import transforms
from ztb_jax.policies.distributions import distribution_for
from ztb_jax.policies.encoding import Encoding, choose_encoding
from ztb_jax.policies.policy import Policy, make_policy
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.learner import Options, make_ppo, minibatching_of
from ztb_jax.settings import EnvConfig

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


FEWEST_JUDGED = 33  # bars; they are played in one go, however long an episode is


class Measured(NamedTuple):
    """What environments are built from beside the settings, all of the train slice.

    Attributes:
      bars_per_year: from the slice's own stamps.
      deviation: of the slice's close-to-close log returns; 1 where none varies.
    """

    bars_per_year: float
    deviation: float


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


def prepare(config: Config, frame: pd.DataFrame, features: Features) -> Prepared:
    """Cut `frame` and its features into slices; the scaling is fitted on the train slice alone.

    Slices begin where a whole window of features and, with a volatility target, of returns is known.

    Raises:
      DataError: the warm-up leaves nothing, a feature is not finite, or a slice is shorter than an episode.
    """
    lookback, episode = config.features.lookback, config.env.episode_bars
    first = _first_playable(config, features)
    cut = split(
        len(frame),
        first=first,
        train=config.data.train,
        validation=config.data.validation,
        test=config.data.test,
        embargo=config.data.embargo_bars,
    )
    judged = (FEWEST_JUDGED, "a judgement", "")
    needs = {
        "train": (episode + 1, "an episode", "lower env.episode_bars, "),
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
    start, stop = cut.train
    scaler = scaling.fit(
        features.values, features.valid, start - lookback + 1, stop, limit=config.features.limit
    )
    scaled = scaler.apply(features.values)
    measured = _measured(frame.iloc[start:stop])
    market, rules = _market_of(config.env, frame, measured.bars_per_year), _rules_of(config.env)
    slices = {
        name: make_market_data(
            frame,
            scaled,
            costs=_costs_of(config.env),
            market=market,
            ruin_equity=config.env.ruin_equity,
            lookback=lookback,
            start=start,
            stop=stop,
            **rules,
        )
        for name, (start, stop) in cut._asdict().items()
    }
    if config.env.reward in RATIOS:
        slices = {name: data.replace(reward_scale=jnp.float32(1.0)) for name, data in slices.items()}
    year = bars_per_year(pd.DatetimeIndex(frame.index))
    return Prepared(frame, cut, slices, features.values.shape[1], year, measured, scaler)


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
        guarded=_guarded(env),
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


def _numbers(config: Config, record: Any) -> Any:
    """The settings under the names of the fields of `record`."""
    return record(**{field.name: getattr(config.ppo, field.name) for field in dataclasses.fields(record)})


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
        hyper=_numbers(config, Hyper),
        options=_options(config),
    )


def _apg(config: Config, env: Env, policy: Policy) -> Learner:
    return make_apg(
        env,
        policy,
        **_sizes(config),
        num_updates=schedule.num_updates(config),
        hyper=_numbers(config, GrowthHyper),
        optimizer=config.ppo.optimizer,
    )


def _random(config: Config, env: Env, policy: Policy) -> Learner:
    return make_random(env, policy, **_sizes(config))


LEARNERS = {"ppo": _ppo, "apg": _apg, "random": _random}


def _measured(bars: pd.DataFrame) -> Measured:
    deviation = float(np.diff(np.log(bars["close"].to_numpy(np.float64))).std())
    return Measured(bars_per_year(pd.DatetimeIndex(bars.index)), deviation if deviation > 0 else 1.0)


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


def _guarded(env: EnvConfig) -> bool:
    return env.daily_loss is not None or env.drawdown is not None


def _costs_of(env: EnvConfig) -> Costs:
    """Costs that are not asked for do not exist in the program."""
    more = {"volatility_slippage": env.volatility_slippage} if env.volatility_slippage else {}
    return make_costs(fee_rate=env.fee_rate, half_spread=env.half_spread, slippage=env.slippage, **more)


def _market_of(env: EnvConfig, frame: pd.DataFrame, year: float) -> Market:
    """The bars with what the settings look at, and nothing else."""
    brackets = (env.stop_loss, env.take_profit, env.trail, env.max_leverage)
    inside = any(brackets) or _guarded(env) or _financed(env)
    arrays = {}
    if env.volatility_target is not None:
        returns = frame["close"].pct_change().fillna(0.0).to_numpy()
        arrays["scale"] = sizing.volatility_target(
            returns, target=env.volatility_target / year**0.5, window=env.volatility_window
        )
    if env.max_position is not None:
        arrays["cap"] = np.full(len(frame), env.max_position, np.float32)
    window = env.volatility_window if env.volatility_slippage else None
    return make_market(frame, inside=inside, volatility_window=window, **arrays)


def _financed(env: EnvConfig) -> bool:
    return bool(env.borrow_rate or env.loan_rate or env.cash_rate)


def _rules_of(env: EnvConfig) -> dict[str, Any]:
    """The optional parts of `EnvParams` that the settings ask for."""
    rules: dict[str, Any] = {}
    if env.max_leverage is not None:
        rules["margin"] = Margin(jnp.float32(env.max_leverage), jnp.float32(env.maintenance))
    if _financed(env):
        rules["financing"] = Financing(*map(jnp.float32, (env.borrow_rate, env.loan_rate, env.cash_rate)))
    if _guarded(env):
        never = 1.0  # a loss of everything is the floor's business
        losses = (never if loss is None else loss for loss in (env.daily_loss, env.drawdown))
        rules["limits"] = Limits(*map(jnp.float32, losses))
    if env.latency:
        rules["latency"] = jnp.int32(env.latency)
    if env.band:
        rules["band"] = jnp.float32(env.band)
    return rules


def _first_playable(config: Config, features: Features) -> int:
    """The first bar whose observation and size are known."""
    first, env = _first_observable(features, config.features.lookback), config.env
    window = 0 if env.volatility_target is None else env.volatility_window
    num_bars = len(features.valid)
    needed = env.episode_bars + 1 + 2 * (FEWEST_JUDGED + config.data.embargo_bars)
    if window > first and num_bars - window < needed:
        raise DataError(
            f"env.volatility_window ({window}) leaves {max(num_bars - window, 0)} of {num_bars} bars with a "
            f"size, and the slices need {needed}: lower env.volatility_window or give more "
            "bars"
        )
    return max(first, window)


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
