"""The hierarchical pipeline's environments by the names and keys of its documents, as gymnasium environments.

Each is made of a configuration, a mapping of which every key has a default and no other key is known, and of
data: a frame for each instrument, or a `MarketData` that is ready, of which the bars, features and slice are
taken, while costs and limits are always the configuration's. For many accounts at once give the parts of
`task` to `envs.adapters.GymnasiumVectorEnv`.

Axes: T bars, A instruments.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
import pandas as pd
from pydantic import Field, StrictBool, TypeAdapter, ValidationError

from envs import actions, rewards
from envs.adapters import Task, make_task
from envs.adapters_gymnasium import GymnasiumEnv
from envs.hierarchy import make_joint, make_meta
from envs.hierarchy_market import bar_table, with_signals
from envs.portfolio_market import PortfolioMarket, make_portfolio_market, make_portfolio_params
from envs.rewards import Reward
from envs.risk_limits import RiskLimits
from envs.single import make_single
from envs.specialists import MTQUANT, Partition, make_partition
from envs.types import EnvParams
from ztb_jax.data.align import Aligned, align
from ztb_jax.data.market import MarketData, make_costs, make_market
from ztb_jax.data.validate import broken_bars
from ztb_jax.errors import ConfigError, DataError
from ztb_jax.features.recipe import compute
from ztb_jax.settings import STRICT, Bars, Distance, Fraction, Share, Text

Data = Mapping[str, pd.DataFrame] | MarketData
ByBar = Callable[[Aligned], np.ndarray]
Settings = TypeVar("Settings")
Limit = Annotated[float, Field(gt=0.0, le=1.0)]
EIGHT = tuple(name for members in MTQUANT.values() for name in members)
RUIN = 0.1


@dataclass(frozen=True)
class EnvSettings:
    """What every environment is made of."""

    __pydantic_config__ = STRICT

    episode_length: Bars = 1000
    """Bars of an episode."""
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    """Bars of the data before the first that is observed; the limits of a portfolio need at least 100."""
    initial_capital: Distance = 100000.0
    """Equity at the start, in account currency."""
    transaction_cost: Fraction = 0.003
    """Fee over the notional, once per side."""


@dataclass(frozen=True)
class SpecialistSettings(EnvSettings):
    """What a single instrument's environment is made of."""

    instrument: Text = "EURUSD"
    """Whose frame is traded."""
    max_position_size: Limit = 0.1
    """Exposure that a full position has, as a fraction of equity."""
    stop_loss_pct: Share = 0.02
    """Distance of the protective stop from every fill, as a fraction."""


@dataclass(frozen=True)
class MetaSettings(EnvSettings):
    """What a portfolio's environment is made of."""

    instruments: tuple[Text, ...] = EIGHT
    """Whose frames are traded, in the order of all arrays."""
    max_position_size: Limit = 0.1
    """Largest absolute weight of an instrument: with eight of them gross is at most 0.8."""
    max_portfolio_var: Share = 0.02
    """Largest value at risk over a bar, as a fraction of equity."""
    max_correlation_exposure: Limit = 0.7
    """Largest share of the gross of two correlated holdings, times their correlation."""
    max_sector_allocation: Distance = 0.4
    """Largest gross of a specialist's instruments, as a fraction of equity."""


@dataclass(frozen=True)
class JointSettings(MetaSettings):
    """The same, with what the trainer of the third phase reads."""

    gradient_coordination: StrictBool = True
    """Whether gradients are coordinated; the environment has none and only keeps it."""
    curriculum_learning: StrictBool = True
    """Whether difficulty grows; the environment plays the data that it is given and only keeps it."""


class _SettledEnv(GymnasiumEnv):
    """A `GymnasiumEnv` that tells its settings and its task.

    Attributes:
      settings: every key with its value.
      task: environment, parameters, features and lookback.
    """

    settings: Any

    def __init__(self, task: Task, settings: Any, *, render_mode: str | None):
        super().__init__(
            task.env, task.params, features=task.features, lookback=task.lookback, render_mode=render_mode
        )
        self.task, self.settings = task, settings


class SpecialistTrainingEnv(_SettledEnv):
    """One instrument, traded by a specialist: phase 1.

    Datasheet
      observation  [lookback x F + 5] float32: features of the last bars, oldest first, then level, exposure,
                   return since entry, distances to stop and target (there is no target)
      action       Discrete(3): short, flat or long `max_position_size` of equity, filled at the next open
      reward       differential Sharpe ratio of the net return
      risk         no position is asked for beyond `max_position_size`; a protective stop, `stop_loss_pct`
                   from the fill price, works inside the bar
      terminated   equity at 10 % of the start; truncated: `episode_length` bars were played
      info         `envs.adapters_gymnasium`
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        data: Data,
        *,
        recipe: str = "default",
        lookback: int = 1,
        reward: Reward | None = None,
        render_mode: str | None = None,
    ):
        """An environment of `config` (`SpecialistSettings`) and `data`; features are `recipe`'s, not scaled.

        Raises:
          ConfigError: every unknown key and bad value.
          DataError: no frame of the instrument, or one that cannot be used.
          ValueError: bars too few for an episode.
        """
        settings = read(SpecialistSettings, config)
        params, features, lookback = _single(settings, data, recipe=recipe, lookback=lookback)
        moves = np.log1p(np.asarray(params.market.gap)) + np.log1p(np.asarray(params.market.body))
        sharpe = rewards.differential_sharpe(deviation=float(moves.std()) * settings.max_position_size)
        env = make_single(
            actions=actions.levels(stop_loss=settings.stop_loss_pct),
            episode_bars=settings.episode_length,
            reward=sharpe if reward is None else reward,
        )
        task = make_task(env, params, features=features, lookback=lookback)
        super().__init__(task, settings, render_mode=render_mode)


class MetaControllerTrainingEnv(_SettledEnv):
    """A portfolio, allocated among fixed specialists: phase 2. Its datasheet is `envs.hierarchy.make_meta`'s.

    The observation is dense: `lookback` rows of `envs.specialists.Bar`, oldest first, then the account view
    `envs.specialists.View`.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        data: Data,
        *,
        specialists: ByBar | None = None,
        partition: Mapping[str, Sequence[str]] = MTQUANT,
        macro: ByBar | None = None,
        recipe: str = "default",
        lookback: int = 1,
        reward: Reward | None = None,
        render_mode: str | None = None,
    ):
        """An environment of `config` (`MetaSettings`) and `data`.

        Args:
          config: see there.
          data: a frame for each instrument, or ready with signals.
          specialists: from the aligned bars to their signals [T, A] in [-1, 1], row t by bars up to t.
          partition: instruments by specialist; each specialist is a sector.
          macro: from the aligned bars to columns [T, M], likewise.
          recipe: of each instrument's features, not scaled.
          lookback: rows of features in an observation.
          reward: None is the risk-adjusted one.
          render_mode: there is none.

        Raises:
          ConfigError: every unknown key and bad value; instruments without a specialist.
          DataError: frames that are missing or cannot be used, or no specialists.
          ValueError: bars too few for an episode.
        """
        settings = read(MetaSettings, config)
        team = _team(settings, partition)
        ready = _portfolio(settings, data, team, recipe=recipe, macro=macro, lookback=lookback)
        market = ready.params.market
        if specialists is not None and ready.bars is not None:
            market = with_signals(market, specialists(ready.bars))  # pyright: ignore[reportArgumentType]
        elif specialists is not None or ready.bars is not None:
            raise DataError("give specialists with frames, and only with them: ready data have their signals")
        env = make_meta(
            team, episode_bars=settings.episode_length, bars_per_year=ready.bars_per_year, reward=reward
        )
        params = ready.params.replace(market=market)
        task = make_task(env, params, features=ready.features, lookback=ready.lookback)
        super().__init__(task, settings, render_mode=render_mode)


class JointTrainingEnv(_SettledEnv):
    """The whole hierarchy in one action: phase 3. Its datasheet is `envs.hierarchy.make_joint`'s.

    The observation is as `MetaControllerTrainingEnv`'s.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        data: Data,
        *,
        partition: Mapping[str, Sequence[str]] = MTQUANT,
        macro: ByBar | None = None,
        recipe: str = "default",
        lookback: int = 1,
        reward: Reward | None = None,
        render_mode: str | None = None,
    ):
        """An environment of `config` (`JointSettings`) and `data`; the rest as `MetaControllerTrainingEnv`.

        Raises:
          ConfigError, DataError, ValueError: as there.
        """
        settings = read(JointSettings, config)
        team = _team(settings, partition)
        ready = _portfolio(settings, data, team, recipe=recipe, macro=macro, lookback=lookback)
        env = make_joint(team, episode_bars=settings.episode_length, reward=reward)
        task = make_task(env, ready.params, features=ready.features, lookback=ready.lookback)
        super().__init__(task, settings, render_mode=render_mode)


def read(kind: type[Settings], config: Mapping[str, Any]) -> Settings:
    """`config` as settings of `kind`.

    Raises:
      ConfigError: every unknown key and every bad value at once.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(config))
    except ValidationError as error:
        known = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
        raise ConfigError([_explain(item, known) for item in error.errors()]) from None


def _explain(item: Any, known: list[str]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] != "unexpected_keyword_argument":
        return f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}"
    near = difflib.get_close_matches(key, known, n=1)
    return f"{key}: unknown key; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}")


def _team(settings: MetaSettings, partition: Mapping[str, Sequence[str]]) -> Partition:
    try:
        return make_partition(partition, settings.instruments)
    except ValueError as error:
        raise ConfigError(f"instruments: {error}") from None


class _Ready(NamedTuple):
    params: EnvParams
    features: Any
    lookback: int
    bars: Aligned | None  # None where the data were ready
    bars_per_year: float


def _frames(data: Mapping[str, pd.DataFrame], names: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The frames of `names`; what is wrong with any of their bars is found at once."""
    lacking = [name for name in names if name not in data]
    if lacking:
        raise DataError(f"there is no frame of {', '.join(lacking)}; there are {', '.join(data) or 'none'}")
    frames = {name: data[name] for name in names}
    wrong = [f"{name}: {finding}" for name, frame in frames.items() for finding in broken_bars(frame)]
    if wrong:
        raise DataError(wrong)
    return frames


def _first_known(features: np.ndarray, lookback: int, *, at_least: int) -> int:
    known = np.asarray(np.isfinite(features.reshape(len(features), -1)).all(axis=1))
    if not known.any():
        raise DataError(f"no bar of {len(known)} has every feature: give more bars, or a shorter recipe")
    return max(int(known.argmax()) + lookback - 1, at_least)


def _single(settings: SpecialistSettings, data: Data, *, recipe: str, lookback: int):
    costs = make_costs(fee_rate=settings.transaction_cost, half_spread=0.0, slippage=0.0)
    capital = jnp.float32(settings.initial_capital)
    if isinstance(data, MarketData):
        given, features, lookback = data.env_params, np.asarray(data.features), data.lookback
    else:
        frame = _frames(data, [settings.instrument])[settings.instrument]
        features = compute(recipe, frame).values
        first, stop = jnp.int32(_first_known(features, lookback, at_least=0)), jnp.int32(len(frame))
        given = EnvParams(make_market(frame, inside=True), costs, jnp.float32(RUIN), first, stop)
    scale = jnp.full(len(features), settings.max_position_size, jnp.float32)
    first = jnp.maximum(given.first, settings.warmup_steps)
    market = given.market.replace(scale=scale)
    return given.replace(market=market, costs=costs, capital=capital, first=first), features, lookback


def _portfolio(
    settings: MetaSettings, data: Data, team: Partition, *, recipe: str, macro: ByBar | None, lookback: int
) -> _Ready:
    limits: Any = RiskLimits(
        max_portfolio_var=np.float32(settings.max_portfolio_var),
        max_correlation_exposure=np.float32(settings.max_correlation_exposure),
        max_sector_allocation=np.float32(settings.max_sector_allocation),
        max_weight=np.float32(settings.max_position_size),
    )
    costs = make_costs(fee_rate=settings.transaction_cost, half_spread=0.0, slippage=0.0)
    capital = jnp.float32(settings.initial_capital)
    if isinstance(data, MarketData):
        given: Any = data.env_params
        _check_ready(given.market)
        limits = limits.replace(window=given.market.window)
        first = jnp.maximum(given.first, settings.warmup_steps)
        params = given.replace(costs=costs, limits=limits, first=first, capital=capital)
        return _Ready(params, data.features, data.lookback, None, _bars_per_year(given.market.years))
    frames = _frames(data, team.instruments)
    bars = align(frames)
    features = np.stack([_as_of(compute(recipe, frame).values, frame, bars) for frame in frames.values()], 1)
    market = make_portfolio_market(
        bars.opened, bars.closed, present=bars.present, years=bars.years, groups=team.membership
    )
    first = _first_known(features, lookback, at_least=max(settings.warmup_steps, market.window))
    params = make_portfolio_params(market, costs, limits=limits, ruin_equity=RUIN, first=first)
    table = bar_table(market, macro=None if macro is None else macro(bars), features=features)
    return _Ready(params.replace(capital=capital), table, lookback, bars, _bars_per_year(market.years))


def _check_ready(market: Any) -> None:
    if not isinstance(market, PortfolioMarket) or market.factor is None or market.years is None:
        raise DataError("ready data need a PortfolioMarket with its risk known and with years")


def _as_of(values: np.ndarray, frame: pd.DataFrame, bars: Aligned) -> np.ndarray:
    """[T, F] the last row known at each stamp."""
    return values[frame.index.searchsorted(bars.stamps, side="right") - 1]


def _bars_per_year(years: Any) -> float:
    return float(1.0 / np.asarray(years)[1:].mean())
