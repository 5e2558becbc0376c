"""Every setting with its default: frozen dataclasses that `ztb_jax.config` fills, without jax."""

import datetime
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field


def _as_text(value: Any) -> Any:
    """Dates and numbers that YAML made out of a text, as the text again."""
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _in_order(values: tuple[float, ...]) -> tuple[float, ...]:
    """Thresholds rise, and none stands twice."""
    return tuple(sorted(set(values)))


Positive = Annotated[int, Field(gt=0, le=10**15)]
Size = Annotated[int, Field(gt=0, le=2**24)]
Bars = Annotated[int, Field(gt=0, le=10**7)]
Text = Annotated[str, BeforeValidator(_as_text)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Distance = Annotated[float, Field(gt=0.0)]
Closed = Annotated[float, Field(ge=0.0, le=1.0)]
Thresholds = Annotated[tuple[NonNegative, ...], AfterValidator(_in_order), Field(max_length=64)]
Schedule = Annotated[tuple[NonNegative, ...], Field(min_length=1, max_length=64)]

DEVICE_PATTERN = r"auto|(cpu|gpu|cuda|tpu)(:\d{1,4})?"

STRICT = {"extra": "forbid", "allow_inf_nan": False}


LIMIT_VARIABLES = ("ZTB_CHECKPOINT_INTERVAL", "ZTB_MAX_MEMORY_GB", "ZTB_MAX_CONSECUTIVE_FAILURES")
"""Variables of the documents that are no settings of a run: `ztb_jax.training.limits` reads them."""


@dataclass(frozen=True)
class DataConfig:
    """Which prices, and how they are cut."""

    __pydantic_config__ = STRICT

    symbol: Text = "SP500"
    """SP500 and NASDAQ are built in; synthetic/NAME is generated; the rest comes out of the cache."""
    timeframe: Text = "1d"
    """Length of a bar: 1d, 4h, 15m."""
    start: Text | None = None
    """Use bars from this date on, YYYY-MM-DD."""
    end: Text | None = None
    """Use bars before this date, YYYY-MM-DD."""
    cache_dir: Text | None = None
    """Folder of imported prices; without it the user's cache."""
    train: Share = 0.6
    """Share of the bars that is trained on."""
    validation: Share = 0.2
    """Share of the bars that chooses the policy."""
    test: Share = 0.2
    """Share of the bars that is evaluated once."""
    embargo_bars: Annotated[int, Field(ge=0)] = 32
    """Bars dropped between slices; with at least features.lookback no window spans two slices."""
    synthetic_bars: Bars = 20_000
    """Length of a generated market."""


@dataclass(frozen=True)
class FeatureConfig:
    """What the policy sees of the market."""

    __pydantic_config__ = STRICT

    recipe: Text = "default"
    """Named list of indicators, or your own: `module:attribute` or `path/to/file.py:attribute`."""
    lookback: Bars = 32
    """Bars in the policy's window."""
    limit: Annotated[float, Field(gt=0.0)] = 5.0
    """Scaled features are clipped to plus and minus this many deviations."""


@dataclass(frozen=True)
class RiskAdjustedConfig:
    """What `env.reward: risk_adjusted` weighs beside log growth."""

    __pydantic_config__ = STRICT

    risk_penalty_weight: NonNegative = 1.0
    """Of the return that is missing to sharpe_target, and of depth beyond max_drawdown_target."""
    transaction_cost_weight: NonNegative = 1.0
    """Of costs; 1 counts them once, as the return does."""
    diversification_bonus_weight: NonNegative = 0.5
    """Of a spread book; a single instrument never earns it."""
    sharpe_target: NonNegative = 2.0
    """Annual Sharpe ratio below which the reward is cut."""
    max_drawdown_target: Closed = 0.15
    """Depth under the highest equity that is free of charge."""
    risk_free_rate: float = 0.02
    """Annual return that counts as nothing earned."""
    downside_volatility_weight: NonNegative = 1.0
    """Of squared returns below the risk-free rate."""


@dataclass(frozen=True)
class EnvConfig:
    """The simulated account."""

    __pydantic_config__ = STRICT

    levels: tuple[float, ...] = (-1.0, 0.0, 1.0)
    """Target exposures, one for each action, as fractions of equity."""
    episode_bars: Bars = 256
    """Bars in an episode; a multiple of ppo.rollout_bars."""
    fee_rate: Fraction = 5e-4
    """Commission as a fraction of notional, once per side."""
    half_spread: Fraction = 1e-4
    """Half the bid-ask spread as a fraction of the price."""
    slippage: Fraction = 1e-4
    """Further adverse fill distance as a fraction of the price."""
    ruin_equity: Fraction = 0.1
    """Share of the starting equity at which the account is closed."""
    volatility_slippage: NonNegative = 0.0
    """Further adverse fill distance in deviations of a bar, measured over volatility_window."""
    latency: Annotated[int, Field(ge=0, le=1000)] = 0
    """Whole bars that an order arrives late; fewer than episode_bars."""
    stop_loss: Share | None = None
    """Distance of a protective stop from every fill, as a fraction of its price."""
    take_profit: Distance | None = None
    """Distance of a profit target from every fill."""
    trail: Share | None = None
    """Distance of a stop that trails the best price since the fill."""
    max_position: Distance | None = None
    """Largest exposure, whatever the level asks for."""
    volatility_target: Distance | None = None
    """Annual deviation that a level of 1 is scaled to; without it a level is an exposure."""
    volatility_window: Annotated[int, Field(ge=2, le=10**6)] = 20
    """Bars that deviations are measured over; with volatility_target the slices begin after them."""
    max_leverage: Distance | None = None
    """Largest exposure that the margin allows, no level above it; brings margin calls inside the bar."""
    maintenance: Share = 0.25
    """Equity over the holding's value at which a margin call closes it; needs max_leverage."""
    borrow_rate: NonNegative = 0.0
    """Annual rate on the value of a short holding."""
    loan_rate: NonNegative = 0.0
    """Annual rate on what a long holding exceeds the equity by (levels above 1, or volatility_target)."""
    cash_rate: NonNegative = 0.0
    """Annual rate earned on equity that is not invested."""
    daily_loss: Share | None = None
    """Share of the day's equity whose loss flattens and locks the account to the end of the day."""
    drawdown: Share | None = None
    """Share of the highest equity whose loss flattens and locks the account to the end of the episode."""
    band: Closed = 0.0
    """Trades of a smaller share of equity are not made; for heads that ask for any exposure."""
    capital: Annotated[float, Field(gt=0.0, le=1e15)] = 10_000.0
    """Money that an account begins with: what is told in money, such as the profit of a replay, is of it."""
    reward: Literal["log_return", "differential_sharpe", "differential_sortino", "risk_adjusted"] = (
        "log_return"
    )
    """What the learner is paid; the report always judges by net returns."""
    risk_adjusted: RiskAdjustedConfig = field(default_factory=RiskAdjustedConfig)


@dataclass(frozen=True)
class PolicyConfig:
    """The network."""

    __pydantic_config__ = STRICT

    width: Annotated[int, Field(gt=0, le=2**14)] = 64
    """Units in each layer, and of the encoder's memory."""
    depth: Annotated[int, Field(gt=0, le=64)] = 2
    """Layers between the bars and the outputs."""
    encoder: Literal["window", "recurrence", "gru", "attention"] = "window"
    """How the last bars become a context: the first layer of an MLP, or a memory that reads them in order."""
    shared_torso: bool = True
    """One network for actor and critic instead of one each."""
    head: Literal["categorical", "squashed_gaussian", "beta"] = "categorical"
    """Distribution over actions; all but categorical ask for any exposure within the outermost levels."""
    memory: Annotated[int, Field(ge=0, le=2**12)] = 0
    """Units with which each account remembers its own steps; 0 is none."""
    value_scale: Literal["none", "symlog", "popart"] = "none"
    """The scale that values are learnt on: as they are, their symmetric logarithm, or standardised."""
    normalise_observations: bool = False
    """Show features and account in running means and deviations of what was played."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; weights and probabilities stay float32."""
    rematerialise: bool = False
    """Compute layers again for the gradient instead of keeping them: less memory, more work."""


@dataclass(frozen=True)
class PPOConfig:
    """The learner's sizes and numbers; those that only PPO reads are refused with another learner."""

    __pydantic_config__ = STRICT

    num_accounts: Size = 1024
    """Accounts simulated in parallel."""
    rollout_bars: Size = 64
    """Bars played between updates."""
    sharing: Size = 8
    """Accounts on the same bars: more is faster and noisier."""
    epochs: Size = 4
    """Passes over a rollout."""
    num_minibatches: Size = 4
    """Gradient steps of a pass."""
    shuffle: Literal["auto", "accounts", "segments", "full", "affine"] = "auto"
    """What minibatches are made of: accounts of every group, whole groups, or single steps."""
    accumulate: Size = 1
    """Parts of a minibatch whose gradients are computed one after the other, to save memory."""
    optimizer: Literal["adam", "muon"] = "adam"
    """Adam, or Muon for matrices with Adam for the rest."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """The optimiser's, before its schedule."""
    learning_rate_schedule: Schedule = (1.0, 0.0)
    """Multipliers at equal distances over the run, linear in between."""
    beta1: Fraction = 0.9
    """Decay of the optimiser's first moment."""
    beta2: Fraction = 0.999
    """Decay of the second moment."""
    epsilon: Distance = 1e-5
    """Added to the root of the second moment."""
    weight_decay: NonNegative | None = None
    """Decay of matrices, as a multiple of the learning rate."""
    gamma: Closed = 0.95
    """Discount of a bar."""
    lam: Closed = 0.9
    """Decay of the advantage trace."""
    clip: Annotated[float, Field(gt=0.0)] = 0.2
    """How far the probability ratio may move."""
    value_clip: Annotated[float, Field(gt=0.0)] | None = None
    """How far the value may move in an update; none is the plain squared error."""
    value_weight: NonNegative = 0.5
    """Weight of the value loss."""
    entropy_weight: NonNegative = 0.01
    """Weight of the entropy bonus, before its schedule."""
    entropy_schedule: Schedule = (1.0, 0.0)
    """Multipliers of the entropy weight over the run."""
    clip_schedule: Schedule = (1.0,)
    """Multipliers of both clips over the run."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 0.5
    """Global norm above which gradients are scaled down."""
    advantage: Literal["minibatch", "batch", "none"] = "minibatch"
    """Over what advantages are brought to mean 0 and deviation 1."""
    normalise_rewards: bool = False
    """Divide rewards by the running deviation of discounted returns."""
    target_kl: Distance | None = None
    """Divergence of an update that kl_rule acts upon."""
    kl_rule: Literal["stop", "adapt"] = "stop"
    """End an update beyond 1.5 target_kl, or adapt the learning rate to stay between half and twice of it."""


@dataclass(frozen=True)
class GateConfig:
    """What stops a run, beside numbers that are not finite and steps counted twice, which always do."""

    __pydantic_config__ = STRICT

    patience_updates: Size = 8
    """Updates running for which kl, entropy, turnover or trades must be beyond their limit."""
    kl: Distance | None = 1.0
    """Largest divergence of an update from the policy that played, in nats; only PPO tells it."""
    least_entropy: float | None = None
    """Least entropy of the policy, in nats: below, it no longer explores."""
    least_turnover: NonNegative | None = None
    """Least notional traded over equity, a mean of accounts and bars: below, accounts only hold."""
    most_turnover: Distance | None = None
    """Most of it."""
    least_trades: NonNegative | None = None
    """Least trades of a bar and account."""
    most_trades: Distance | None = None
    """Most of them."""
    fees: bool = True
    """Stop where an update's trades do not cost what fee_rate, half_spread and slippage say."""
    falling_reward: NonNegative | None = None
    """Stop where the reward's slope is below 0 by so many standard errors, such as 5; 0 is any such slope."""
    falling_after_steps: Annotated[int, Field(ge=0, le=10**15)] = 300_000
    """Environment steps after which that slope begins."""
    memory_gb: Distance | None = None
    """GiB that the process may hold; none is 2, or 2 more than it begins with, and what a window plans."""
    resume_seconds: Distance | None = None
    """Seconds that a resume may take; the documents ask for 30."""
    patience_windows: Size = 3
    """Windows running for which the validation must be beyond a limit that follows."""
    baseline: float | None = None
    """Log growth per bar that the validation must exceed."""
    drawdown: Share | None = None
    """Largest loss of the validation, as a share of its highest equity."""
    behind_buy_and_hold: NonNegative | None = None
    """Log growth per bar by which the validation may be behind buying and holding."""
    gap: NonNegative | None = None
    """Log growth per bar by which training may be ahead of the validation."""


@dataclass(frozen=True)
class RunConfig:
    """The run directory and the length of the run."""

    __pydantic_config__ = STRICT

    root: Text = "runs"
    """Folder of run directories."""
    id: Text | None = None
    """Name of this run's directory; without it the time and the commit."""
    ledger: Text | None = None
    """File in which all scorings are recorded to count M; without it scored.jsonl in run.root."""
    total_env_steps: Positive = 10_485_760
    """Environment steps to train, rounded up to whole windows; with window_env_steps to whole updates."""
    window_updates: Size = 8
    """Updates between validations, checkpoints and progress."""
    window_env_steps: Positive | None = None
    """Environment steps between them instead, which need not be whole updates."""
    flush_partial_window: bool = False
    """Tell of a last window that training ends in the middle of, too; needs window_env_steps."""
    policy_every_windows: Positive | None = None
    """Keep the policy of every so many windows, and of the last, as checkpoints/ckpt_<window>.pt; none is 1
    with replays.episodes."""
    patience_windows: Positive | None = None
    """Stop when validation has not improved for this many windows; none trains to the end."""
    keep_checkpoints: Annotated[int, Field(ge=2, le=2**20)] = 5
    """Newest checkpoints kept, beside that of the best window."""
    keep_every: Positive | None = None
    """Keep the checkpoint of every so many windows, too, however old."""
    device: Annotated[str, Field(pattern=f"^({DEVICE_PATTERN})$")] = "auto"
    """auto (a GPU, else a TPU, else the CPU), gpu or cuda, tpu, cpu, or one of several: gpu:1."""
    devices: Annotated[int, Field(ge=0, le=2**14)] = 1
    """Devices of the platform of run.device that accounts are spread over; 0 is all of them."""
    profile: bool = False
    """Trace one window into the run's folder profile, with a table of what took the time."""


@dataclass(frozen=True)
class ReplayConfig:
    """Episodes played with the policies that run.policy_every_windows keeps, on the validation slice."""

    __pydantic_config__ = STRICT

    episodes: Annotated[int, Field(ge=0, le=4096)] = 0
    """Episodes played with each policy that is kept; that of the best return becomes a replay. 0 is none."""
    max_steps: Bars = 512
    """Longest episode, in bars."""
    include_info: bool = True
    """Write into each frame what the policy thought and what the bar cost."""
    deterministic: bool = True
    """Play the most probable action; otherwise sample, as training does."""
    seed_offset: Annotated[int, Field(ge=0, lt=2**31)] = 100_000
    """Added to the seed, so that replays play other episodes than training did."""
    profit_thresholds: Thresholds = (100.0, 500.0, 1000.0)
    """Profits in money from which on a replay is tagged milestone:profit:<threshold>."""
    return_thresholds: Thresholds = (10.0, 25.0, 50.0)
    """Returns in percent, likewise."""
    survival_thresholds: Thresholds = (1.0,)
    """Shares of the episode that the account lived, likewise."""


@dataclass(frozen=True)
class SinkConfig:
    """Where a run tells what happens, beside its own directory."""

    __pydantic_config__ = STRICT

    logs: Text = "logs"
    """Folder of event files and training.log, one folder a run in it."""
    tensorboard: bool = False
    """Write both: `tensorboard --logdir logs` shows the run."""
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases; offline keeps everything in the run directory for `wandb sync`."""
    wandb_project: Text = "ztb_jax"
    """Project there."""
    mlflow: Text | None = None
    """Tracking URI of MLflow, such as file:mlruns or http://localhost:5000."""


@dataclass(frozen=True)
class Config:
    """Everything that a run is made of."""

    __pydantic_config__ = STRICT

    preset: Literal["ztb", "mtquant", "asteroid"] | None = None
    """Defaults of one of the source documents, which everything else that is set goes over."""
    learner: Literal["ppo", "apg", "random"] = "ppo"
    """PPO; the derivative of growth through the simulator, for continuous heads; or random trading."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """All randomness of the run follows from it."""
    data: DataConfig = field(default_factory=DataConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    gates: GateConfig = field(default_factory=GateConfig)
    run: RunConfig = field(default_factory=RunConfig)
    replays: ReplayConfig = field(default_factory=ReplayConfig)
    sinks: SinkConfig = field(default_factory=SinkConfig)
