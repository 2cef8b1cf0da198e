"""From pydantic's view of a wrong setting to the one line a person needs."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from etl.settings.model import Settings

Path = tuple[str | int, ...]


def one_line(error: ValidationError, source: Callable[[Path], str]) -> str:
    """Every problem as `path: what is expected (where it was set)`, joined by semicolons.

    `source` names where the value at a path came from. No value is ever quoted: it may be a secret.
    """
    return "; ".join(_describe(details, source) for details in error.errors(include_input=False))


def dotted(path: Path) -> str:
    """The path as people write it: `collections.0.name`."""
    return ".".join(str(part) for part in path)


def known_names(path: Path) -> tuple[str, ...]:
    """The names that may stand where the last part of `path` stands; none where any name may."""
    if len(path) == 1:
        return tuple(Settings.model_fields)
    field = Settings.model_fields.get(str(path[0]))
    section = _section(field.annotation) if field else None
    return tuple(section.model_fields) if section else ()


def nearest(name: str, known: tuple[str, ...]) -> str:
    """A way out for a misspelt name: `did you mean …?`, or all the known ones."""
    spelling = {known_name.lower(): known_name for known_name in known}
    close = get_close_matches(name.lower(), spelling, n=1)
    return f"did you mean {spelling[close[0]]}?" if close else "expected one of: " + ", ".join(known)


def _section(annotation: object) -> type[BaseModel] | None:
    """The model behind `MongoSettings` or `tuple[CollectionSettings, ...]`; None behind a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, reversed(get_args(annotation)))), None)


def _describe(details: ErrorDetails, source: Callable[[Path], str]) -> str:
    path = tuple(part for part in details["loc"] if part != "[key]")
    inner = details.get("ctx", {}).get("path")
    if details["type"] == "contradiction" and inner:
        path = (*path, inner)
    return f"{dotted(path)}: {_expected(details, path)}{source(path)}"


def _expected(details: ErrorDetails, path: Path) -> str:
    match details["type"]:
        case "extra_forbidden":
            return f"unknown setting, {nearest(str(path[-1]), known_names(path))}"
        case "missing":
            return "required, but not given"
        case "model_type" | "dict_type":
            return "expected a mapping of settings"
        case _:
            return details["msg"].replace("Input should be", "expected")
