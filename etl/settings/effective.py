"""The settings in force: each value with its origin, secrets masked."""

from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from etl.settings.layers import Loaded, leaves
from etl.settings.urls import masked
from etl.settings.validation import dotted


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting: `mongo.uri`, its value, and `default`, `file …`, `environment …` or `command line`."""

    path: str
    value: Any
    source: str


def effective(loaded: Loaded) -> list[Effective]:
    """Every setting in force, in the order of the model."""
    return [
        Effective(dotted(path), _shown(value), loaded.origins.of(path))
        for path, value in leaves(loaded.settings.model_dump())
    ]


def _shown(value: Any) -> Any:
    if not isinstance(value, SecretStr):
        return value
    secret = value.get_secret_value()
    return masked(secret) if "://" in secret else "***"  # of an address only the password is masked
