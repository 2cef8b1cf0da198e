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
        """The setting below `kinds`: its number; empty for an entry point."""


def load_kinds(modules: Sequence[str]) -> None:
    """Register the kinds of installed packages, and of these modules.

    Raises:
        UnusableKinds: a module cannot be imported, has no kind, or its kind clashes with another one.
    """
    installed = (("", f"the entry point {name}", value) for name, value in _installed())
    named = ((str(number), name, name) for number, name in enumerate(modules))
    for place, what, value in (*installed, *named):
        module, _, attribute = value.partition(":")
        try:
            found = import_module(module)
            register(_kinds(getattr(found, attribute) if attribute else found))
        except (ImportError, AttributeError, ValueError) as error:
            raise UnusableKinds(place, f"{what} cannot be used: {error}") from error


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    return tuple((one.name, one.value) for one in entry_points(group=GROUP))


def _kinds(found: Any) -> tuple[Kind, ...]:
    """The kinds of a module, or what an entry point names: a kind or several."""
    several = getattr(found, "KINDS", None) or getattr(found, "KIND", found)
    kinds = tuple(several) if isinstance(several, tuple | list) else (several,)
    if not all(isinstance(kind, Kind) for kind in kinds):
        raise ValueError("expected KIND, or KINDS, made by schemas.documents.kind.Kind")
    return kinds
