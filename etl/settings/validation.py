"""Converts pydantic's errors to one line."""

from collections.abc import Callable, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from etl.settings.model import FamilySettings, Settings
from etl.settings.urls import nearest

Path = tuple[str | int, ...]


def one_line(error: ValidationError, source: Callable[[Path], str]) -> str:
    """Every problem as `path: what is expected (where it was set)`, joined by semicolons.

    `source` gives the origin of the value at a path. Values are never quoted: they may be secrets.
    """
    errors = error.errors(include_input=False)
    return "; ".join(_describe(details, source) for details in errors if not _follows(details, errors))


def _follows(details: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """Whether a list counts as too short only because its items are invalid, which is reported anyway."""
    path = details["loc"]
    inside = (other["loc"] for other in errors if other["loc"][: len(path)] == path and other["loc"] != path)
    return details["type"] == "too_short" and any(inside)


def dotted(path: Path) -> str:
    """The path with dots: `collections.0.name`."""
    return ".".join(str(part) for part in path)


def known_names(path: Path) -> tuple[str, ...]:
    """The valid names for the last part of `path`; empty if any name is valid."""
    model: type[BaseModel] | None = Settings
    for part in path[:-1]:
        if isinstance(part, str) and model is not None and part in model.model_fields:
            model = _section(model.model_fields[part].annotation)
        elif not isinstance(part, int) and model is not FamilySettings:
            return ()
    return tuple(model.model_fields) if model else ()


def _section(annotation: object) -> type[BaseModel] | None:
    """The model behind `MongoSettings`, `tuple[CollectionSettings, ...]` or `dict[str, FamilySettings]`.

    None for a single value, such as `namespace`.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section(argument) for argument in get_args(annotation))
    return next((section for section in inner if section), None)


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
        case "tuple_type":
            return "expected a list"
        case _:
            message = details["msg"].replace("Input should be", "expected")
            return message.replace("String should match", "expected text that matches")
