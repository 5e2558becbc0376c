"""The settings that are numbers in a learner's state: one program serves any values of them."""

import dataclasses
from typing import Any

from ztb_jax.apg.objective import Hyper as GrowthHyper
from ztb_jax.config import Config
from ztb_jax.optimizers import as_arrays
from ztb_jax.ppo.hyper import Hyper

RECORDS: dict[str, Any] = {"ppo": Hyper, "apg": GrowthHyper}
"""Of each learner that has any; their fields are names of settings of `ppo`."""


def keys_of(config: Config) -> frozenset[str]:
    """Dotted keys of those settings; none for a learner without numbers."""
    record = RECORDS.get(config.learner)
    return frozenset() if record is None else frozenset(f"ppo.{name}" for name in _names(record))


def record_of(config: Config) -> Any:
    """The learner's record with the values of `config`; None for one without numbers."""
    record = RECORDS.get(config.learner)
    return None if record is None else record(**{name: getattr(config.ppo, name) for name in _names(record)})


def arrays_of(config: Config) -> Any:
    """The same as float32 arrays, as the learner's state has it."""
    record = record_of(config)
    return None if record is None else as_arrays(record)


def _names(record: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(record)]
