"""Seals: what a run depended on, written down so that another can tell whether it may expect the same bits.

    seal = create_run_seal(seed=42, config={"learning_rate": 0.001}, metadata={"experiment": "baseline"})
    same = get_run_seal_manager().validate_environment(seal)
    if not all(same.values()):
        print("Environment mismatch - reproducibility not guaranteed")

What is not known is never equal to what is not known.
"""

import dataclasses
import getpass
import hashlib
import json
import os
import platform
import re
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import jax
from pydantic import TypeAdapter, ValidationError

from ztb_jax import devices
from ztb_jax.errors import RunError
from ztb_jax.runs import directory
from ztb_jax.runs.listing import flattened
from ztb_jax.runs.programs import settings, sources
from ztb_jax.settings import STRICT

VERSION = 1
SEED_LIMIT = 2**31
IDENTITY = re.compile(r"run_\d{8}_\d{6}_[0-9a-f]{8}")
COMPARED = (
    "python_version",
    "platform",
    "git_commit",
    "requirements_hash",
    "config_hash",
    "sources_hash",
    "jax_backend",
    "device_kind",
    "device_count",
    "cpu_cores",
    "processor",
    "xla_flags",
    "prng_impl",
    "jax_settings",
)
"""What a seal is validated by; hostname, user and folder do not change a result."""
EXPLAINED = ("git_commit", "requirements_hash", "config_hash", "jax_settings")
"""Those that `changes` tells by what is behind them."""
PLACES = (
    "data.cache_dir", "run.root", "run.id", "run.ledger", "run.device", "gates.memory_gb",
    "gates.resume_seconds",
)  # fmt: skip
"""Settings of where a run is made, not of what."""


@dataclass(frozen=True)
class EnvironmentSnapshot:
    """Where a run is made.

    Attributes:
      python_version: such as "3.11.7".
      platform: system, release and machine.
      hostname: of the machine.
      user: who runs.
      working_directory: where.
      git_commit: of the working directory's repository, with a digest of the difference where tracked files
        differ from it; None outside one.
      git_branch: None outside of a repository, or on none.
      requirements: version of every installed distribution by name.
      requirements_hash: SHA-256 of them.
      config_hash: SHA-256 of the configuration as canonical JSON and of `trade-config.json`, if there is one.
      sources_hash: SHA-256 of every line of `envs` and `ztb_jax`.
      jax_backend: "cpu", "gpu" or "tpu".
      device_kind: of the first device.
      device_count: of all processes.
      cpu_cores: that the process may use; sums are split among them, so bits hold within one number.
      processor: its name and vector instructions.
      xla_flags: as they are set.
      prng_impl: of new keys.
      jax_settings: those that change what programs compute, such as jax_enable_x64.
    """

    __pydantic_config__ = STRICT
    python_version: str
    platform: str
    hostname: str
    user: str | None
    working_directory: str
    git_commit: str | None
    git_branch: str | None
    requirements: dict[str, str]
    requirements_hash: str
    config_hash: str
    sources_hash: str
    jax_backend: str
    device_kind: str
    device_count: int
    cpu_cores: int | None
    processor: str | None
    xla_flags: str
    prng_impl: str
    jax_settings: dict[str, str]


@dataclass(frozen=True)
class RunSeal:
    """What makes a run what it is.

    Attributes:
      run_id: unique, such as "run_20261121_234500_1f3a5b7c".
      seed: of the run.
      key: implementation and words of the PRNG key that the seed gives, which is what a run starts from.
      timestamp: when it was made, UTC, ISO 8601.
      environment: where.
      config: of the run.
      metadata: anything else.
      version: of this format.
    """

    __pydantic_config__ = STRICT
    run_id: str
    seed: int
    key: dict[str, Any]
    timestamp: str
    environment: EnvironmentSnapshot
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION


class RunSealManager:
    """Seals as files of one folder, which is made when the first is written.

    Args:
      seal_dir: the folder.
    """

    def __init__(self, seal_dir: str | Path = "run_seals"):
        self.seal_dir = Path(seal_dir)

    def create_seal(
        self,
        seed: int | None = None,
        config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RunSeal:
        """Make a seal of here and now, and write it.

        Args:
          seed: of the run; None draws one.
          config: of the run, of what JSON can hold.
          metadata: anything else, likewise.

        Raises:
          ValueError: a seed that is no number of 0 to 2**31 - 1, or values that JSON cannot hold.
          OSError: the folder cannot be written.
        """
        seed = secrets.randbelow(SEED_LIMIT) if seed is None else seed
        if not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"seed must be within [0, {SEED_LIMIT - 1}], got {seed}")
        seal = make_seal("", seed, config, metadata)
        self.seal_dir.mkdir(parents=True, exist_ok=True)
        seal = dataclasses.replace(seal, run_id=self._claim())
        write_seal(self._path(seal.run_id), seal)
        return seal

    def _claim(self) -> str:
        """A name that no other seal has: the file is made with it, so that two processes cannot share one."""
        while True:
            run_id = f"run_{datetime.now(UTC):%Y%m%d_%H%M%S}_{secrets.token_hex(4)}"
            try:
                self._path(run_id).touch(exist_ok=False)
            except FileExistsError:
                continue
            return run_id

    def _path(self, run_id: str) -> Path:
        return self.seal_dir / f"{run_id}.json"

    def load_seal(self, run_id: str) -> RunSeal | None:
        """The seal of that name; None where there is none.

        Raises:
          RunError: its file is damaged, or of a later version.
        """
        if not IDENTITY.fullmatch(run_id) or not self._path(run_id).is_file():
            return None
        return read_seal(self._path(run_id))

    def list_seals(self) -> list[str]:
        """The names of all seals, oldest first."""
        names = (path.stem for path in self.seal_dir.glob("run_*.json")) if self.seal_dir.is_dir() else ()
        return sorted(name for name in names if IDENTITY.fullmatch(name))

    def validate_environment(self, seal: RunSeal) -> dict[str, bool]:
        """For each of `COMPARED`, whether it is here what it was; of two unknowns nothing is the same."""
        now = snapshot(seal.config)
        pairs = {name: (getattr(seal.environment, name), getattr(now, name)) for name in COMPARED}
        return {name: then is not None and then == here for name, (then, here) in pairs.items()}


def make_seal(
    run_id: str, seed: int, config: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None
) -> RunSeal:
    """A seal of here and now, not written anywhere.

    Raises:
      ValueError: values that JSON cannot hold.
    """
    known, told = _plain("config", config), _plain("metadata", metadata)
    key = key_facts(jax.random.key(seed))
    return RunSeal(run_id, seed, key, directory.timestamp(), snapshot(known), known, told)


def write_seal(path: Path, seal: RunSeal) -> None:
    """Replace the file at once."""
    directory.write_json(path, dataclasses.asdict(seal))


def read_seal(path: Path) -> RunSeal:
    """The seal in a file.

    Raises:
      RunError: it is damaged, or of a later version.
    """
    told = directory.read_json(path)
    if isinstance(told, dict) and isinstance(told.get("version"), int) and told["version"] > VERSION:
        raise RunError(f"{path} is of version {told['version']}, this reads up to {VERSION}: update ztb_jax")
    try:
        return TypeAdapter(RunSeal).validate_json(json.dumps(told), strict=True)
    except ValidationError as error:
        places = ("/".join(map(str, each["loc"])) + ": " + each["msg"] for each in error.errors())
        raise RunError(f"{path} is not a seal ({'; '.join(places)})") from error


def key_facts(key: jax.Array) -> dict[str, Any]:
    """A typed key [] as plain values."""
    return {"impl": str(jax.random.key_impl(key)), "words": jax.random.key_data(key).tolist()}


def snapshot(config: Mapping[str, Any]) -> EnvironmentSnapshot:
    """Here and now, for a run of `config`."""
    requirements = _requirements()
    device = jax.devices()[0]
    return EnvironmentSnapshot(
        python_version=platform.python_version(),
        platform=platform.platform(),
        hostname=platform.node(),
        user=_user(),
        working_directory=os.getcwd(),
        git_commit=_commit(),
        git_branch=_git("symbolic-ref", "--short", "-q", "HEAD"),
        requirements=requirements,
        requirements_hash=_digest(requirements),
        config_hash=_digest({"config": config, "file": _trade_config()}),
        sources_hash=sources(),
        jax_backend=device.platform,
        device_kind=device.device_kind,
        device_count=jax.device_count(),
        cpu_cores=devices.cores(),
        processor=devices.processor(),
        xla_flags=os.environ.get("XLA_FLAGS", ""),
        prng_impl=str(jax.config.values["jax_default_prng_impl"]),
        jax_settings=settings(),
    )


def changes(seal: RunSeal, *, config: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """What a run with `seal` depends on and is not as it was, each with both values.

    The working directory's commit is not among it, for `sources_hash` is of the code that runs. What is
    unknown here is told; what was unknown then, too.

    Args:
      seal: of the run.
      config: plain values, of now.
      facts: what the seal's metadata hold besides, such as data, split and normaliser.
    """
    then, now = dataclasses.asdict(seal.environment), dataclasses.asdict(snapshot(config))
    told = [
        f"environment.{name} was {then[name]!r} and is {now[name]!r}"
        for name in COMPARED
        if name not in EXPLAINED and (then[name] != now[name] or now[name] is None)
    ]
    told += _differing("environment.jax_settings", then["jax_settings"], now["jax_settings"])
    told += _differing("requirements", then["requirements"], now["requirements"])
    if _digest(then["requirements"]) != then["requirements_hash"]:
        told.append("requirements of the seal do not agree with their hash: it was edited or damaged")
    then, now = (
        {k: v for k, v in flattened(_plain("config", of)).items() if k not in PLACES}
        for of in (seal.config, config)
    )
    told += _differing("config", then, now)
    told += _differing("seal", {name: seal.metadata.get(name) for name in facts}, _plain("facts", facts))
    key = key_facts(jax.random.key(seal.seed))
    if seal.key != key:
        told.append(f"key of the seal was {seal.key} and seed {seal.seed} gives {key}")
    if seal.seed != config["seed"]:
        told.append(f"seed of the seal was {seal.seed} and config.seed is {config['seed']}")
    return told


def _differing(place: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{place}.{name} was {then.get(name)!r} and is {now.get(name)!r}"
        for name in sorted({**then, **now})
        if then.get(name) != now.get(name)
    ]


def _plain(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    """What comes back from JSON."""
    try:
        return json.loads(json.dumps(dict(value or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds what JSON cannot: {error}") from error


def _digest(value: Any) -> str:
    """SHA-256 of a value as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _requirements() -> dict[str, str]:
    """By name, what an import would find: the first on the path; not what an install left half removed."""
    found: dict[str, str] = {}
    for each in distributions():
        try:
            name = each.metadata["Name"]
        except FileNotFoundError:  # as the backport of importlib.metadata says it, where that is installed
            continue
        if name:
            found.setdefault(name.lower(), each.version)
    return found


def _trade_config() -> str | None:
    path = Path("trade-config.json")
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return None


def _commit() -> str | None:
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    difference = _git("diff", "HEAD")
    if difference is None:
        return None
    return f"{commit}-dirty-{_digest(difference)[:16]}" if difference else commit


def _git(*arguments: str) -> str | None:
    """What git says of the working directory; None where it says nothing of use."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=True)
        return done.stdout.decode(errors="surrogateescape").strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def get_run_seal_manager() -> RunSealManager:
    """The manager of `run_seals` in the working directory; nothing is made before the first seal."""
    return RunSealManager()


def create_run_seal(
    seed: int | None = None,
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> RunSeal:
    """`RunSealManager.create_seal` of `get_run_seal_manager`."""
    return get_run_seal_manager().create_seal(seed=seed, config=config, metadata=metadata)
