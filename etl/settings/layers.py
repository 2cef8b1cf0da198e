"""Merges the sources of settings, command line over environment over file over default, and records origins."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr, ValidationError

from etl.errors import ConfigurationError
from etl.settings import environment, validation, yaml_file
from etl.settings.model import Settings
from etl.settings.urls import masked
from etl.settings.validation import Path as SettingPath

DEFAULT_FILE = Path("config/etl.yaml")


class Origins(dict[SettingPath, str]):
    """The origin of each value that is not a default, by path."""

    def of(self, path: SettingPath) -> str:
        """The origin of the value at `path`: `default`, `file PATH`, `environment NAME`, `command line`."""
        return self.get(path, "default")

    def near(self, path: SettingPath) -> str:
        """The origin of `path` or of the nearest given value, as the end of an error message."""
        for length in range(len(path), 0, -1):
            for known, origin in self.items():
                if known[:length] == path[:length]:
                    return f" ({origin})"
        return ""


class Loaded(NamedTuple):
    """The settings in force, and the origin of each value."""

    settings: Settings
    origins: Origins


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting: `mongo.uri`, its value, and `default`, `file …`, `environment …` or `command line`."""

    path: str
    value: Any
    source: str


class _Layer(NamedTuple):
    values: Mapping[str, Any]
    origin: Callable[[SettingPath], str]


def load(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings in force: `overrides` over the environment over the YAML file over the defaults.

    The file is `path`, else `ETL_CONFIG`, else `config/etl.yaml` in the current directory, else none.

    Raises:
        ConfigurationError: a setting is invalid; the message is one line without secrets.
    """
    return load_with_origins(path, overrides or {}).settings


def load_with_origins(path: Path | None, overrides: Mapping[str, Any]) -> Loaded:
    """Like `load`, with the origin of every value."""
    values: dict[str, Any] = {}
    origins = Origins()
    for layer in _layers(path, overrides):
        _merge(values, layer, origins)
    try:
        return Loaded(Settings.model_validate(values), origins)
    except ValidationError as error:
        # `from None`: a traceback must not contain the given values, which may be secrets.
        raise ConfigurationError(validation.one_line(error, origins.near)) from None


def _layers(path: Path | None, overrides: Mapping[str, Any]) -> Iterator[_Layer]:
    """The sources except for the defaults, from the weakest to the strongest."""
    variable = os.environ.get(environment.FILE_VARIABLE)
    chosen = path or (Path(variable) if variable else DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    if chosen:
        yield _Layer(yaml_file.read(chosen), lambda _: f"file {chosen}")
    yield _Layer(environment.read(), environment.origin)
    yield _Layer(overrides, lambda _: "command line")


def _merge(below: dict[str, Any], layer: _Layer, origins: Origins, at: SettingPath = ()) -> None:
    """Merge a layer into the layers below: mappings by key, other values (also lists) as a whole.

    If a mapping meets another type below, that stays and is refused later: a value of the section in a higher layer
    must not hide the mistake.
    """
    for name, value in layer.values.items():
        path = (*at, name)
        if isinstance(value, Mapping) and name in below:
            if isinstance(below[name], dict):
                _merge(below[name], _Layer(value, layer.origin), origins, path)
            continue
        below[name] = dict(value) if isinstance(value, Mapping) else value
        for hidden in [known for known in origins if known[: len(path)] == path]:
            del origins[hidden]
        origins |= {leaf: layer.origin(leaf) for leaf, _ in _leaves(value, path)}


def _leaves(value: Any, at: SettingPath = ()) -> Iterator[tuple[SettingPath, Any]]:
    """All leaf values below `value` with their paths; an empty mapping or list counts as a leaf."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    if not items:
        yield at, value
    for name, inner in items:
        yield from _leaves(inner, (*at, name))


def effective(loaded: Loaded) -> list[Effective]:
    """Every setting in force, in the order of the model."""
    return [
        Effective(validation.dotted(path), _shown(value), loaded.origins.of(path))
        for path, value in _leaves(loaded.settings.model_dump())
    ]


def _shown(value: Any) -> Any:
    if not isinstance(value, SecretStr):
        return value
    secret = value.get_secret_value()
    return masked(secret) if "://" in secret else "***"  # of an address only the password is masked
