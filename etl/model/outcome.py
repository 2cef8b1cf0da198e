"""One document after the transform: texts, numbers and bytes only."""

from typing import Any, NamedTuple

from schemas.operations import Reject
from schemas.position import Position, position_from_text, version_name

Row = tuple[Any, ...]
"""The fields of an `Outcome`, its fills as tuples too: to make objects of those classes takes longer."""


class Fill(NamedTuple):
    """One key that a document claims, and the commands that fill it once it is removed."""

    key: str
    family: str
    commands: bytes
    """As Redis takes them; none where the key is to stay removed."""
    length: int
    """How many commands."""


class Outcome(NamedTuple):
    """One document after the transform: where it stands and what becomes of it."""

    text: str
    """Its position, as `Position.text`."""
    ms: int | None
    """Its timestamp in milliseconds since the epoch; None where that is no date."""
    id: str
    """Its `_id` as canonical Extended JSON."""
    fills: tuple[Fill, ...] = ()
    requests: tuple[tuple[str, str], ...] = ()
    """Queues, and the item it asks each for."""
    lock: str | None = None
    """The key of the lock that puts it off while that exists."""
    reject: Reject | None = None
    """Why it cannot be applied."""

    @property
    def position(self) -> Position:
        """Its position."""
        return position_from_text(self.text)

    @property
    def version(self) -> str:
        """A short unique name of this version of the document."""
        return version_name(self.text)

    @property
    def filled(self) -> list[str]:
        """The keys that it fills."""
        return [fill.key for fill in self.fills if fill.commands]

    @property
    def claimed(self) -> list[str]:
        """The keys that it fills, or wants removed."""
        return [fill.key for fill in self.fills]
