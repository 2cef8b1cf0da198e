"""The settings that environment variables give: `ETL_MONGO__URI`, or `ETL_COLLECTIONS` as JSON."""

import os
import re

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from etl.errors import Misconfigured
from etl.settings import validation
from etl.settings.model import Settings
from etl.settings.urls import nearest

PREFIX = "ETL_"
#: Names the settings file; no setting itself.
FILE_VARIABLE = "ETL_CONFIG"


class _Environment(Settings, BaseSettings):
    """Tells pydantic-settings what to look for; never instantiated."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True)


def read() -> dict[str, object]:
    """What the variables say, as nested settings; an empty variable counts as not set.

    Raises:
        Misconfigured: a variable that was meant for a setting but names none, or is no JSON where it must be.
    """
    _refuse_misspelt()
    try:
        return EnvSettingsSource(_Environment)()
    except ValueError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = PREFIX + (field[1].upper() if field else "…")
        if name not in map(str.upper, os.environ):
            name += "__…"  # of one of its lists
        # `from None`: the cause holds the value, and that may be a secret.
        raise Misconfigured(f"environment {name}: expected JSON") from None


def origin(path: validation.Path) -> str:
    """The variable that gave the value at `path`, by its longest name: `ETL_MONGO` may be JSON."""
    present = {name.upper(): name for name in os.environ}
    names = [variable(path[:length]) for length in range(len(path), 0, -1)]
    return "environment " + next((present[name] for name in names if name in present), names[-1])


def variable(path: validation.Path) -> str:
    """The variable of a setting: `ETL_MONGO__URI`."""
    return PREFIX + "__".join(str(part) for part in path).upper()


def _refuse_misspelt() -> None:
    """Refuse a variable that was meant for a setting: it has our `__`, or would be one with it.

    Any other `ETL_…` belongs to somebody else: Kubernetes sets `ETL_SERVICE_HOST` for a service named etl.
    What begins with a section (`ETL_MONGO__…`) is checked with the settings themselves.
    """
    known = _variables()
    sections = tuple(
        variable((name, "")) for name in Settings.model_fields if validation.known_names((name, ""))
    )
    for name in sorted(name for name in os.environ if name.upper().startswith(PREFIX)):
        if name.upper() in known or name.upper().startswith(sections):
            continue
        if "__" in name or _squeezed(name) in map(_squeezed, known):
            raise Misconfigured(f"environment {name}: unknown setting, {nearest(name, known)}")


def _squeezed(name: str) -> str:
    return re.sub("_+", "_", name.upper())


def _variables() -> tuple[str, ...]:
    """Every variable that gives one setting, and those that give a whole section as JSON."""
    whole = (FILE_VARIABLE, *(variable((section,)) for section in Settings.model_fields))
    named = ("collections", "families")  # their parts have names of their own: JSON only
    parts = (
        variable((section, name))
        for section in Settings.model_fields
        if section not in named
        for name in validation.known_names((section, ""))
    )
    return (*whole, *parts)
