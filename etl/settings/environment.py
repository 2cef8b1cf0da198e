"""Settings from environment variables: `ETL_MONGO__URI`, or `ETL_COLLECTIONS` as JSON."""

import os
import re

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from etl.errors import ConfigurationError
from etl.settings import validation
from etl.settings.model import Settings
from etl.settings.urls import nearest

PREFIX = "ETL_"
#: The path of the settings file; not a setting itself.
FILE_VARIABLE = "ETL_CONFIG"


class _Environment(Settings, BaseSettings):
    """Describes the variables to pydantic-settings; never instantiated."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True)


def read() -> dict[str, object]:
    """The values of the variables as nested settings; an empty variable counts as not set.

    Raises:
        ConfigurationError: a misspelt variable, or invalid JSON.
    """
    _refuse_misspelt()
    try:
        return EnvSettingsSource(_Environment)()
    except ValueError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = PREFIX + (field[1].upper() if field else "…")
        if name not in map(str.upper, os.environ):
            name += "__…"  # of one of its lists
        # `from None`: the cause contains the value, which may be a secret.
        raise ConfigurationError(f"environment {name}: expected JSON") from None


def origin(path: validation.Path) -> str:
    """The variable that gave the value at `path`; the longest name wins, as `ETL_MONGO` may be JSON."""
    present = {name.upper(): name for name in os.environ}
    names = [variable(path[:length]) for length in range(len(path), 0, -1)]
    return "environment " + next((present[name] for name in names if name in present), names[-1])


def variable(path: validation.Path) -> str:
    """The variable of a setting: `ETL_MONGO__URI`."""
    return PREFIX + "__".join(str(part) for part in path).upper()


def _refuse_misspelt() -> None:
    """Refuse misspelt variables: those with `__`, and those that would be a setting with it.

    Other `ETL_…` variables are ignored: Kubernetes sets `ETL_SERVICE_HOST` for a service named etl. Those that begin
    with a section (`ETL_MONGO__…`) are checked with the settings.
    """
    known = _variables()
    sections = tuple(
        variable((name, "")) for name in Settings.model_fields if validation.known_names((name, ""))
    )
    for name in sorted(name for name in os.environ if name.upper().startswith(PREFIX)):
        if name.upper() in known or name.upper().startswith(sections):
            continue
        if "__" in name or _squeezed(name) in map(_squeezed, known):
            raise ConfigurationError(f"environment {name}: unknown setting, {nearest(name, known)}")


def _squeezed(name: str) -> str:
    return re.sub("_+", "_", name.upper())


def _variables() -> tuple[str, ...]:
    """All variables: of single settings, and of whole sections as JSON."""
    whole = (FILE_VARIABLE, *(variable((section,)) for section in Settings.model_fields))
    named = ("collections", "families")  # their keys are names chosen by the user: JSON only
    parts = (
        variable((section, name))
        for section in Settings.model_fields
        if section not in named
        for name in validation.known_names((section, ""))
    )
    return (*whole, *parts)
