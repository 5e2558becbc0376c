"""What the files of a study hold, and what it was asked for.

A part of `ztb_jax.runs.artifacts`, which says how records become schemas. Imports no jax.
"""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from ztb_jax.runs.judged import EXACT, Count, Digest, Edge, Finite, Interval, Share

Several = Annotated[int, Field(gt=0)]
Dates = Annotated[list[str], Field(min_length=2, max_length=2)]


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How a walk-forward study cuts bars into folds, and what it trains on each.

    Attributes:
      scheme: anchored trains on everything before a test, rolling on the newest train_bars of it,
        combinatorial on all but some of the groups of bars and what is near them.
      folds: of walking forward.
      train_bars: of a training part; None is what the tests leave.
      test_bars: of a test; None divides what follows the first training part.
      groups: of bars, combinatorial.
      held_out: groups of a test, combinatorial.
      purge: bars that labels reach forward; the environment's reach none beyond a window.
      validation: share of the training part that chooses the window and the configuration.
      seeds: trainings of every fold and configuration, with the seeds `config.seed` and on.
      vary: texts of `ztb_jax.space.parse_axes`; every combination is a configuration.
    """

    scheme: Literal["anchored", "rolling", "combinatorial"] = "anchored"
    folds: int = 8
    train_bars: int | None = None
    test_bars: int | None = None
    groups: int = 6
    held_out: int = 2
    purge: int = 0
    validation: float = 0.2
    seeds: int = 4
    vary: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Search:
    """What a sweep tries.

    Attributes:
      vary: texts of `ztb_jax.space.parse_axes`.
      method: grid, random or optuna (its tree-structured Parzen estimator, told of each batch).
      points: how many configurations, but for a grid.
      batch: configurations that optuna is asked for at a time, and that train side by side.
      seeds: trainings of each, with the seeds `config.seed` and on.
    """

    vary: tuple[str, ...]
    method: Literal["grid", "random", "optuna"] = "grid"
    points: int = 16
    batch: int = 8
    seeds: int = 1


@with_config(EXACT)
class Effort(TypedDict):
    """What a study has trained: environment steps, and wall seconds of training and of compiling."""

    env_steps: Count
    seconds: float
    compile_seconds: float


@with_config(EXACT)
class WalkForwardStudy(TypedDict):
    """`study.json` of `ztb walkforward`, replaced at once.

    Attributes:
      config: that it was begun with.
      members: trainings side by side in each program, so that one that goes on has the same bits.
      trained: so far.
    """

    kind: Literal["walkforward"]
    config: dict[str, Any]
    scheme: Scheme
    members: dict[str, Several]
    trained: Effort
    started_at: str


@with_config(EXACT)
class SweepStudy(TypedDict):
    """`study.json` of `ztb sweep`, likewise; `batches` are configurations as they were proposed."""

    kind: Literal["sweep"]
    config: dict[str, Any]
    search: Search
    batches: list[list[dict[str, Any]]]
    members: dict[str, Several]
    trained: Effort
    started_at: str


StudyFile = Annotated[WalkForwardStudy | SweepStudy, Field(discriminator="kind")]


@with_config(EXACT)
class Tested(TypedDict):
    """What a policy did on a test range, sold at its end; trades and fees are without that last sale."""

    first: str
    last: str
    bars: Several
    total_return: Finite
    sharpe: Finite | None
    max_drawdown: Share
    turnover: Finite | None
    num_trades: Finite
    fees_paid: Finite
    exposure: Finite


@with_config(EXACT)
class TrialRow(TypedDict):
    """One line of `trials.jsonl`: a training.

    Attributes:
      trial: its number: by configuration, then fold, then seed.
      config, fold: numbers from 0.
      policy: SHA-256 of the weights.
      chosen_window: whose policy it brought; None where a gate let no window pass, so that it stays flat.
      validation_log_growth: of that window, a bar.
      reward_mean: of the last window, a bar.
      verdict: code of the gate that stopped it, 0 for none.
      tests: one for each test range of its fold; none in a sweep.
    """

    trial: Count
    config: Count
    fold: Count
    seed: Count
    policy: Digest
    chosen_window: Count | None
    validation_log_growth: Finite | None
    reward_mean: Finite | None
    verdict: Count
    tests: list[Tested]


@with_config(EXACT)
class Summary(TypedDict):
    """What a history of net returns amounts to; a year's numbers by the instrument's own bars a year."""

    total_return: Finite
    annual_return: Finite | None
    volatility: Finite | None
    sharpe: Finite | None
    sortino: Finite | None
    max_drawdown: Share


@with_config(EXACT)
class Dispersion(TypedDict):
    """A year's Sharpe ratio of each seed, and the mean of their middle half; None for less than three."""

    sharpe: list[Finite]
    interquartile_mean: Interval | None


@with_config(EXACT)
class ConfigurationResult(TypedDict):
    """One configuration played in every fold, its capital spread over the seeds.

    Attributes:
      settings: in which it differs.
      chosen: in how many folds it was the strategy's.
      validation_log_growth: mean over folds and seeds.
    """

    settings: dict[str, Any]
    chosen: Count
    validation_log_growth: Finite | None
    summary: Summary
    seeds: Dispersion


@with_config(EXACT)
class FoldResult(TypedDict):
    """One fold; a value for each of its test ranges where there are lists.

    Attributes:
      train, validation, test: first and last bar of each range.
      configuration: number of the one that the validation chose.
      validation_log_growth: its mean over seeds; None where one has none.
      total_return: of the strategy.
      buy_and_hold: of the same bars.
      seeds: total returns of each training of that configuration.
      without_policy: of its trainings, stopped by a gate before a window passed.
    """

    train: list[Dates]
    validation: Dates | None
    test: list[Dates]
    configuration: Count
    validation_log_growth: Finite | None
    total_return: list[Finite]
    buy_and_hold: list[Finite]
    seeds: list[list[Finite]]
    without_policy: Count


@with_config(EXACT)
class Overfitting(TypedDict):
    """Probability of backtest overfitting among the configurations, by so many blocks of bars."""

    probability: Share
    blocks: Several


@with_config(EXACT)
class Shuffled(TypedDict):
    """The strategy's orders on shuffled bars: `ztb_jax.evaluation.controls.Shuffled`."""

    draws: Several
    edges: Count
    allowed: Count
    contradicts: bool
    t: Finite | None
    p_value: Share | None
    share: Share


@with_config(EXACT)
class Leak(TypedDict):
    """The verdict on who knows each next bar: `ztb_jax.evaluation.controls.Leak`."""

    label: Literal["edge", "no edge", "inconclusive"]
    p_mean: Share | None
    p_alpha: Share | None
    trades: Count
    reason: str


@with_config(EXACT)
class Controls(TypedDict):
    """Markets on which the answer is known; `shuffled` is None where there are too few bars."""

    shuffled: Shuffled | None
    leak: Leak


@with_config(EXACT)
class WalkForwardResult(TypedDict):
    """`result.json` of `ztb walkforward`; `docs/how-to/walk-forward-and-sweep.md` says how to read it.

    Attributes:
      bars: out of sample, that money was at stake in.
      trainings: in all; `without_policy` of them were stopped before a window passed a gate.
      stopped: name of a gate to how many trainings it stopped.
      strategy: in each fold the configuration of the best validation, its capital spread over the seeds.
      seeds: the same strategy with the policies of one seed.
      paths: Sharpe ratio of the strategy on each way through the test ranges; one unless combinatorial.
      overfitting: None for one configuration, or too few bars.
    """

    id: str
    kind: Literal["walkforward"]
    symbol: str
    timeframe: str
    scheme: Scheme
    first_bar: str
    last_bar: str
    bars: Several
    bars_per_year: Finite
    trainings: Several
    without_policy: Count
    stopped: dict[str, Several]
    strategy: Summary
    seeds: Dispersion
    baselines: dict[str, Summary]
    configurations: list[ConfigurationResult]
    paths: list[Finite]
    folds: list[FoldResult]
    overfitting: Overfitting | None
    edge: Edge
    controls: Controls


@with_config(EXACT)
class Point(TypedDict):
    """A configuration that a sweep tried.

    Attributes:
      settings: in which it differs.
      validation_log_growth: a bar, of each seed; None where a gate let no window pass.
      mean: over seeds; None where one has none.
    """

    settings: dict[str, Any]
    validation_log_growth: list[Finite | None]
    mean: Finite | None


@with_config(EXACT)
class SweepResult(TypedDict):
    """`result.json` of `ztb sweep`; `best` is the number of a point, None where none has a mean."""

    id: str
    kind: Literal["sweep"]
    symbol: str
    timeframe: str
    method: str
    trainings: Several
    best: Count | None
    points: list[Point]


StudyResult = Annotated[WalkForwardResult | SweepResult, Field(discriminator="kind")]
