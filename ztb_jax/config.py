"""Filling `ztb_jax.settings` from a file, the environment and flags.

Precedence: flag > environment variable > file > preset > default. A key `section.name` is the variable
`ZTB_SECTION__NAME` and the flag `--section.name`. Nothing here imports jax.
"""

import dataclasses
import difflib
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ztb_jax.contradictions import contradictions
from ztb_jax.errors import ConfigError
from ztb_jax.presets import PRESETS
from ztb_jax.settings import LIMIT_VARIABLES, Config

PREFIX = "ZTB_"


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
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """As `resolve`, but values may still contradict each other: what flags are laid over.

    A command's own `defaults`, by dotted key, are weaker than everything that is asked for, presets included.
    """
    tree: dict[str, Any] = {}
    places: dict[str, str] = {}
    from_file = {} if file is None else flattened(_read_yaml(Path(file)))
    variables = _from_environ(os.environ if environ is None else environ)
    asked = dict(defaults or {}) | from_file | variables | dict(flags or {})
    _merge(tree, places, defaults or {}, place=lambda key: f"default of the command: {key}")
    _merge(tree, places, PRESETS.get(asked.get("preset"), {}), place=lambda key: f"preset: {key}")
    _merge(tree, places, from_file, place=lambda key: f"{file}: {key}")
    _merge(tree, places, variables, place=lambda key: f"environment variable {_variable(key)}")
    _merge(tree, places, flags or {}, place=lambda key: f"flag --{key}")
    try:
        return TypeAdapter(Config).validate_python(tree)
    except ValidationError as error:
        raise ConfigError([_explain(item, places) for item in error.errors()]) from None


def as_dict(config: Config) -> dict[str, Any]:
    """Plain values, ready for JSON."""
    return dataclasses.asdict(config)


def flat(config: Config) -> dict[str, Any]:
    """Every value by its dotted key, in order."""
    return flattened(as_dict(config))


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


def flattened(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            values |= flattened(value, f"{name}.")
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
        if not name.startswith(PREFIX) or name in LIMIT_VARIABLES:
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
