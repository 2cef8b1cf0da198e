"""Kinds of documents from outside the package: those that settings name, and those of installed packages."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from schemas.documents import register
from schemas.documents.kind import Kind

GROUP: Final = "promptcontent_etl.kinds"
"""The entry points by which an installed package brings its kinds: each names a module, or a `Kind` in it."""


class UnusableKinds(ValueError):
    """A module cannot be imported, has no kind, or its kind clashes with another one."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(problem)
        self.place = place
        """The index in the setting `kinds`; empty for an entry point."""


def load_kinds(modules: Sequence[str]) -> None:
    """Register the kinds of installed packages, and of these modules.

    Raises:
        UnusableKinds: a module cannot be imported, has no kind, or its kind clashes with another one.
    """
    installed = (("", f"the entry point {name}", value) for name, value in _installed())
    named = ((str(number), name, name) for number, name in enumerate(modules))
    for place, source, value in (*installed, *named):
        module, _, attribute = value.partition(":")
        try:
            imported = import_module(module)
            register(_kinds(getattr(imported, attribute) if attribute else imported))
        except (ImportError, AttributeError, ValueError) as error:
            raise UnusableKinds(place, f"{source} cannot be used: {error}") from error


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    return tuple((entry.name, entry.value) for entry in entry_points(group=GROUP))


def _kinds(found: Any) -> tuple[Kind, ...]:
    """The kinds of a module, or the kind or kinds that an entry point names."""
    named = getattr(found, "KINDS", None) or getattr(found, "KIND", found)
    kinds = tuple(named) if isinstance(named, tuple | list) else (named,)
    if not all(isinstance(kind, Kind) for kind in kinds):
        raise ValueError("expected KIND, or KINDS, made by schemas.documents.kind.Kind")
    return kinds
