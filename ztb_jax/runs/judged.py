"""What the files of a verdict hold: `evaluation.json` and the record of everything ever scored.

A part of `ztb_jax.runs.artifacts`, which says how records become schemas. Imports no jax.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

EXACT, OPEN = ConfigDict(extra="forbid"), ConfigDict(extra="allow")
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Stamp = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Kind = Literal["run", "sweep", "walkforward"]


@with_config(OPEN)
class Scored(TypedDict):
    """One line of `scored.jsonl`: a policy was scored on a stretch of bars.

    Attributes:
      config: SHA-256 of the settings without the seed and without where the run lies.
      policy: SHA-256 of the weights that were scored.
      data: content hash of all bars of the instrument.
      slice: what the run called the stretch.
      first, last: of the bars that money was at stake in, UTC; such texts are ordered as their times are.
      bars: how many these are.
      sharpe: net, a year's; None where it is undefined.
      sharpe_per_bar: the same of a bar.
    """

    kind: Kind
    run_id: str
    seed: Count
    config: Digest
    policy: Digest
    symbol: str
    timeframe: str
    data: Digest
    slice: str
    first: Stamp
    last: Stamp
    bars: Annotated[int, Field(gt=0)]
    sharpe: Finite | None
    sharpe_per_bar: Finite | None
    scored_at: str


@with_config(EXACT)
class Interval(TypedDict):
    """A number as it was seen, and the ends of its bootstrap interval; None beyond any number."""

    seen: float | None
    low: float | None
    high: float | None


@with_config(EXACT)
class Intervals(TypedDict):
    """Of other histories of the same kind: `ztb_jax.evaluation.resampling.bootstrap`; `block` is in bars."""

    confidence: Share
    draws: Count
    block: float
    mean: Interval
    sharpe: Interval
    total_return: Interval


@with_config(EXACT)
class FurtherEvidence(TypedDict):
    """What was measured beside the two tests; None where it was not, and `missing` says why.

    Attributes:
      min_track_record_length: bars; None also where no number would do.
      bootstrap: intervals of the mean return per bar, a year's Sharpe ratio and the total return.
      spa: p-value against each baseline, held in the share of it that the policy's returns contain.
      superior: which of policy and baselines earn more than nothing, all counted at once.
      doubled_costs: total return so.
      latency: p-value that orders a bar late lose.
      controls: on which an edge was found, too.
      missing: name to the reason.
    """

    probabilistic_sharpe: Share | None
    deflated_sharpe: Share | None
    min_track_record_length: float | None
    bootstrap: Intervals | None
    spa: dict[str, Share] | None
    superior: list[str] | None
    doubled_costs: float | None
    latency: Share | None
    controls: list[str] | None
    missing: dict[str, str]


@with_config(EXACT)
class Edge(TypedDict):
    """The verdict, `docs/explanation/verdict.md`.

    Attributes:
      label: None on a slice that the policy was trained or chosen on.
      reasons: sentences, the deciding one first.
      trials: M, policies that were ever scored on these bars.
      trials_at_first: what M was when this policy was first scored on them.
      ledger: `run.ledger`, the file that they were counted in; None is scored.jsonl in the folder of runs.
      alpha: chance of a false edge over all M.
      bars_needed: further bars that would decide; 0 when decided, None where no number would.
      contradictions: name of a piece of evidence to a sentence.
    """

    label: Literal["edge", "no edge", "inconclusive"] | None
    reasons: list[str]
    p_mean: Share | None
    p_alpha: Share | None
    sharpe: float | None
    sharpe_upper: float | None
    bars_needed: Count | None
    trials: Annotated[int, Field(gt=0)]
    trials_at_first: Annotated[int, Field(gt=0)]
    ledger: str | None
    alpha: Share
    contradictions: dict[str, str]
    evidence: FurtherEvidence | None


@with_config(EXACT)
class Target(TypedDict):
    """What a source document asks for, in one of its phases or overall; it is told, and stops nothing.

    `target` is None where that phase asks nothing, `value` where the run has no such number, and `met` where
    either is.
    """

    phase: str
    name: str
    target: str | None
    value: float | None
    met: bool | None


@with_config(OPEN)
class Evaluation(TypedDict):
    """`evaluation.json`: what came of the policy on a slice that chose nothing."""

    run_id: str
    symbol: str
    timeframe: str
    slice: str
    first_bar: str
    last_bar: str
    bars: Annotated[int, Field(gt=0)]
    bars_per_year: float
    chosen_window: Count | None
    beats_buy_and_hold: bool
    verdict: str
    edge: Edge
    targets: list[Target]
    notes: list[str]
    strategies: dict[str, dict[str, Any]]
