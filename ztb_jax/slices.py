"""What a configuration makes of a frame: bars, costs and rules as arrays, and where they can be played."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from envs import sizing
from envs.types import Costs, Financing, Limits, Margin, Market
from ztb_jax.config import Config
from ztb_jax.data.folds import Fold, Range
from ztb_jax.data.frame import bars_per_year
from ztb_jax.data.market import make_costs, make_market
from ztb_jax.errors import DataError
from ztb_jax.features import scaling
from ztb_jax.features.recipe import Features
from ztb_jax.settings import EnvConfig

FEWEST_JUDGED = 33  # bars; they are played in one go, however long an episode is


class Measured(NamedTuple):
    """What environments are built from beside the settings, all of the train bars.

    Attributes:
      bars_per_year: from their own stamps.
      deviation: of their close-to-close log returns; 1 where none varies.
    """

    bars_per_year: float
    deviation: float


def measure(frame: pd.DataFrame, ranges: Sequence[Range]) -> Measured:
    """What the bars in `ranges` tell; nothing between two of them counts."""
    parts = [frame.iloc[start:stop] for start, stop in ranges]
    moves = [np.diff(np.log(part["close"].to_numpy(np.float64))) for part in parts]
    deviation = float(np.concatenate(moves).std())
    year = bars_per_year(*[pd.DatetimeIndex(part.index) for part in parts])
    return Measured(year, deviation if deviation > 0 else 1.0)


def fit_scaler(config: Config, features: Features, ranges: Sequence[Range]) -> scaling.Scaler:
    """The scaler of the rows that observations in `ranges` see, and of no other."""
    seen = [slice(start - config.features.lookback + 1, stop) for start, stop in ranges]
    values, valid = (
        np.concatenate([rows[each] for each in seen]) for rows in (features.values, features.valid)
    )
    return scaling.fit(values, valid, 0, len(values), limit=config.features.limit)


def guarded(env: EnvConfig) -> bool:
    """Whether losses end trading."""
    return env.daily_loss is not None or env.drawdown is not None


def costs_of(env: EnvConfig) -> Costs:
    """Costs that are not asked for do not exist in the program."""
    more = {"volatility_slippage": env.volatility_slippage} if env.volatility_slippage else {}
    return make_costs(fee_rate=env.fee_rate, half_spread=env.half_spread, slippage=env.slippage, **more)


def market_of(env: EnvConfig, frame: pd.DataFrame, year: float) -> Market:
    """The bars with what the settings look at, and nothing else.

    Args:
      env: the settings.
      frame: every bar.
      year: bars in one, of the train bars; a volatility target is of a year.
    """
    brackets = (env.stop_loss, env.take_profit, env.trail, env.max_leverage)
    inside = any(brackets) or guarded(env) or _financed(env)
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


def rules_of(env: EnvConfig) -> dict[str, Any]:
    """The optional parts of `EnvParams` that the settings ask for."""
    rules: dict[str, Any] = {}
    if env.max_leverage is not None:
        rules["margin"] = Margin(jnp.float32(env.max_leverage), jnp.float32(env.maintenance))
    if _financed(env):
        rules["financing"] = Financing(*map(jnp.float32, (env.borrow_rate, env.loan_rate, env.cash_rate)))
    if guarded(env):
        never = 1.0  # a loss of everything is the floor's business
        losses = (never if loss is None else loss for loss in (env.daily_loss, env.drawdown))
        rules["limits"] = Limits(*map(jnp.float32, losses))
    if env.latency:
        rules["latency"] = jnp.int32(env.latency)
    if env.band:
        rules["band"] = jnp.float32(env.band)
    return rules


def first_playable(config: Config, features: Features) -> int:
    """The first bar whose observation and size are known.

    Raises:
      DataError: there is none, a later bar has a feature that is not finite, or too few bars have a size.
    """
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


def fold_findings(config: Config, fold: Fold, *, bounds: Range) -> list[str]:
    """Why `fold` cannot be trained and judged on, a sentence each; none where it can.

    Args:
      config: the settings; those of `data` that divide bars are not read.
      fold: of `ztb_jax.data.folds`.
      bounds: [first, stop) of the bars that can be played.
    """
    lookback, episode = config.features.lookback, config.env.episode_bars
    judged = [*([fold.validation] if fold.validation else []), *fold.test]
    findings = [
        f"bars {start} … {stop - 1} of the fold are not among bars {bounds[0]} … {bounds[1] - 1}, which can "
        "be played: make folds of this frame, with first_playable as their first bar"
        for start, stop in (*fold.train, *judged)
        if not bounds[0] <= start < stop <= bounds[1]
    ]
    findings += [
        f"bars {start} … {stop - 1} are to be judged on, and a judgement needs {FEWEST_JUDGED}: make fewer "
        "folds or groups, raise the share of validation, or give more bars"
        for start, stop in judged
        if stop - start < FEWEST_JUDGED
    ]
    if all(stop - start <= episode for start, stop in fold.train):
        findings.append(
            f"no training range of {list(fold.train)} has the {episode + 1} bars of an episode: lower "
            "env.episode_bars, make fewer folds or groups, or give more bars"
        )
    findings += [
        f"training from bar {start} on looks {lookback} bars back to bars {test[0]} … {test[1] - 1}, which "
        f"are judged: make folds with an embargo of at least {lookback}, or lower features.lookback"
        for start, _ in fold.train
        for test in judged
        if test[0] < start < test[1] + lookback
    ]
    return findings
