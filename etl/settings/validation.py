"""From pydantic's view of a wrong setting to the one line a person needs."""

from collections.abc import Callable, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from etl.settings.model import Settings
from etl.settings.urls import nearest

Path = tuple[str | int, ...]


def one_line(error: ValidationError, source: Callable[[Path], str]) -> str:
    """Every problem as `path: what is expected (where it was set)`, joined by semicolons.

    `source` names where the value at a path came from. No value is ever quoted: it may be a secret.
    """
    found = error.errors(include_input=False)
    return "; ".join(_describe(details, source) for details in found if not _follows(details, found))


def _follows(details: ErrorDetails, found: Sequence[ErrorDetails]) -> bool:
    """Whether a list only counts as too short because what is in it is wrong, which is told by itself."""
    path = details["loc"]
    inside = (other["loc"] for other in found if other["loc"][: len(path)] == path and other["loc"] != path)
    return details["type"] == "too_short" and any(inside)


def dotted(path: Path) -> str:
    """The path as people write it: `collections.0.name`."""
    return ".".join(str(part) for part in path)


def known_names(path: Path) -> tuple[str, ...]:
    """The names that may stand where the last part of `path` stands; none where any name may."""
    fields = Settings.model_fields
    if len(path) == 1:
        return tuple(fields)
    section = _section(fields[str(path[0])].annotation) if path[0] in fields else None
    return tuple(section.model_fields) if section else ()


def _section(annotation: object) -> type[BaseModel] | None:
    """The model behind `MongoSettings`, `tuple[CollectionSettings, ...]` or `dict[str, FamilySettings]`.

    None of a single value, such as `namespace`.
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
            return details["msg"].replace("Input should be", "expected")
