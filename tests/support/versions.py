"""Versions of documents in a world of tests: what each claims, keeps and requests."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.operations import Enqueue, Evict, Keep, Projection, Put, Reject
from schemas.position import Position
from tests.support.slots import Slot

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


Value = dict[str, str] | list[str] | None


def at_ms(ms: int) -> datetime:
    """The date that is this number of milliseconds after the epoch."""
    return _EPOCH + timedelta(milliseconds=ms)


@dataclass(eq=False)
class Version:
    """One version of a document, and what it asks for."""

    slot: Slot
    document: dict[str, Any]
    position: Position
    projection: Projection | Reject
    must_be_queued: bool = False
    committed: int = 0
    """When it became visible: the number of that change of MongoDB."""
    visible_at: int = 0
    """The same by the clock of Redis, in milliseconds since the epoch."""
    replaced: int = 0
    """When another version took its place, or it was deleted: the number of that change."""

    @property
    def claims(self) -> dict[str, Value]:
        """What it says of each key; None for one that is not to be."""
        entries = () if isinstance(self.projection, Reject) else self.projection.entries
        return {e.key: e.read if isinstance(e, Put) else None for e in entries if isinstance(e, (Put, Evict))}

    @property
    def keeps(self) -> set[str]:
        """The keys that it leaves as they are."""
        entries = () if isinstance(self.projection, Reject) else self.projection.entries
        return {e.key for e in entries if isinstance(e, Keep)}

    @property
    def request(self) -> tuple[str, str] | None:
        """The queue and the item it asks for."""
        entries = () if isinstance(self.projection, Reject) else self.projection.entries
        return next(((e.key, e.item) for e in entries if isinstance(e, Enqueue)), None)

    def order(self) -> Any:
        """By which the newest is told."""
        return self.position.order()

    @property
    def lock(self) -> str | None:
        """The lock it waits for."""
        return None if isinstance(self.projection, Reject) else self.projection.lock
