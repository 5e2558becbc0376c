"""What a run is made of: frozen dataclasses with defaults, filled from a file, the environment and flags.

Precedence: flag > environment variable > file > default. A key `section.name` is the variable
`ZTB_SECTION__NAME` and the flag `--section.name`. Nothing here imports jax.
"""

import dataclasses
import datetime
import difflib
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from ztb_jax.errors import ConfigError


def _as_text(value: Any) -> Any:
    """Dates and numbers that YAML made out of a text, as the text again."""
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Positive = Annotated[int, Field(gt=0, le=10**15)]
Size = Annotated[int, Field(gt=0, le=2**24)]
Bars = Annotated[int, Field(gt=0, le=10**7)]
Text = Annotated[str, BeforeValidator(_as_text)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Closed = Annotated[float, Field(ge=0.0, le=1.0)]

STRICT = {"extra": "forbid", "allow_inf_nan": False}
PREFIX = "ZTB_"


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
    """Named list of indicators."""
    lookback: Bars = 32
    """Bars in the policy's window."""
    limit: Annotated[float, Field(gt=0.0)] = 5.0
    """Scaled features are clipped to plus and minus this many deviations."""


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


@dataclass(frozen=True)
class PolicyConfig:
    """The network."""

    __pydantic_config__ = STRICT

    width: Annotated[int, Field(gt=0, le=2**14)] = 64
    """Units in each of the two layers."""
    shared_torso: bool = True
    """One network for actor and critic instead of one each."""


@dataclass(frozen=True)
class PPOConfig:
    """The learner."""

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
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """Adam's, falling to zero over the run."""
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
    """Weight of the entropy bonus, falling to zero over the run."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 0.5
    """Global norm above which gradients are scaled down."""
    normalise_advantage: bool = True
    """Bring each minibatch's advantages to mean 0 and deviation 1."""


@dataclass(frozen=True)
class RunConfig:
    """The run directory and the length of the run."""

    __pydantic_config__ = STRICT

    root: Text = "runs"
    """Folder of run directories."""
    id: Text | None = None
    """Name of this run's directory; without it the time and the commit."""
    total_env_steps: Positive = 10_485_760
    """Environment steps to train, rounded up to whole windows."""
    window_updates: Size = 8
    """Updates between validations, checkpoints and progress."""
    patience_windows: Positive | None = None
    """Stop when validation has not improved for this many windows; none trains to the end."""
    keep_checkpoints: Positive = 3
    """Checkpoints kept, newest first."""


@dataclass(frozen=True)
class Config:
    """Everything that a run is made of."""

    __pydantic_config__ = STRICT

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """All randomness of the run follows from it."""
    data: DataConfig = field(default_factory=DataConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    run: RunConfig = field(default_factory=RunConfig)


def resolve(
    *,
    file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration of a run, every value and every combination checked.

    Args:
      file: YAML with any part of the tree; only what differs from the defaults.
      environ: variables to read, `os.environ` when None.
      flags: values by dotted key, the strongest.

    Raises:
      ConfigError: every unknown key, wrong type and value out of range at once, each with its place; then
        every contradiction.
    """
    config = layered(file=file, environ=environ, flags=flags)
    findings = contradictions(config)
    if findings:
        raise ConfigError(findings)
    return config


def layered(
    *,
    file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """As `resolve`, but values may still contradict each other: what flags are laid over."""
    tree: dict[str, Any] = {}
    places: dict[str, str] = {}
    if file is not None:
        _merge(tree, places, _flatten(_read_yaml(Path(file))), place=lambda key: f"{file}: {key}")
    variables = _from_environ(os.environ if environ is None else environ)
    _merge(tree, places, variables, place=lambda key: f"environment variable {_variable(key)}")
    _merge(tree, places, flags or {}, place=lambda key: f"flag --{key}")
    try:
        return TypeAdapter(Config).validate_python(tree)
    except ValidationError as error:
        raise ConfigError([_explain(item, places) for item in error.errors()]) from None


def contradictions(config: Config) -> list[str]:
    """What no single value shows: sizes that do not divide, shares that do not add up."""
    ppo, env, data = config.ppo, config.env, config.data
    findings = []
    if ppo.num_accounts % ppo.sharing:
        findings.append(
            f"ppo.num_accounts ({ppo.num_accounts}) is not a multiple of ppo.sharing ({ppo.sharing}): "
            f"take {_round_up(ppo.num_accounts, ppo.sharing)}"
        )
    elif ppo.sharing % ppo.num_minibatches and (ppo.num_accounts // ppo.sharing) % ppo.num_minibatches:
        findings.append(
            f"ppo.num_minibatches ({ppo.num_minibatches}) divides neither ppo.sharing ({ppo.sharing}) nor "
            f"the {ppo.num_accounts // ppo.sharing} groups of accounts: take a power of two"
        )
    if env.episode_bars % ppo.rollout_bars:
        findings.append(
            f"env.episode_bars ({env.episode_bars}) is not a multiple of ppo.rollout_bars "
            f"({ppo.rollout_bars}): take {_round_up(env.episode_bars, ppo.rollout_bars)}"
        )
    if abs(data.train + data.validation + data.test - 1.0) > 1e-9:
        total = data.train + data.validation + data.test
        findings.append(f"data.train, data.validation and data.test add up to {total:.6g}: make it 1")
    if len(set(env.levels)) < max(2, len(env.levels)):
        findings.append(f"env.levels ({env.levels}) needs at least two levels and none twice")
    return findings


def as_dict(config: Config) -> dict[str, Any]:
    """Plain values, ready for JSON."""
    return dataclasses.asdict(config)


def flat(config: Config) -> dict[str, Any]:
    """Every value by its dotted key, in order."""
    return _flatten(as_dict(config))


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(), Loader=_OnceLoader)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not valid YAML: it refers to itself or nests too deep") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must be a mapping of sections such as `ppo:`, found {type(tree).__name__}")
    return tree


class _OnceLoader(yaml.SafeLoader):
    """YAML in which a key stands once: of two, plain YAML would silently drop the first."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key!r} stands a second time in line {line}: merge the two")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            values |= _flatten(value, f"{name}.")
        else:
            values[name] = value
    return values


def _merge(tree, places, values, *, place) -> None:
    for key, value in values.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            if not isinstance(node.get(section), dict):
                node[section] = {}
            node = node[section]
        node[name] = value
        places[key] = place(key)


def _variable(key: str) -> str:
    return PREFIX + key.replace(".", "__").upper()


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    known = {_variable(key): key for key in flat(Config())}
    found, findings = {}, []
    for name, text in environ.items():
        if not name.startswith(PREFIX):
            continue
        if name in known:
            found[known[name]] = _scalar(text)
        else:
            findings.append(f"environment variable {name} is not known{_suggest(name, known)}")
    if findings:
        raise ConfigError(findings)
    return found


def _scalar(text: str) -> Any:
    """A variable's text; a list or none as YAML reads it. Numbers are read by their key's type."""
    if not (text.startswith("[") or text in {"", "~", "null", "none"}):
        return text
    try:
        return yaml.safe_load("null" if text == "none" else text)
    except yaml.YAMLError:
        return text


def _suggest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else f"; known are: {', '.join(known)}"


def _explain(error: Any, places: Mapping[str, str]) -> str:
    """One finding of pydantic's as place, cause and remedy."""
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    place = next((places[known] for known in places if key == known or key.startswith(known + ".")), key)
    if error["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        siblings = _siblings(location[:-1])
        return f"{place}: unknown key{_suggest(location[-1], siblings)}"
    if error["type"] == "dataclass_type":
        return f"{place}: must be a section with keys {', '.join(_siblings(location))}"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{place}: {message}, got {error['input']!r}"


def _siblings(sections: Sequence[str]) -> list[str]:
    node: Any = dataclasses.asdict(Config())
    for section in sections:
        node = node.get(section, {}) if isinstance(node, dict) else {}
    return list(node) if isinstance(node, dict) else []
