"""Versions of documents in the model: their claims, kept keys and requests."""

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
    """A version of a document and its projection."""

    slot: Slot
    document: dict[str, Any]
    position: Position
    projection: Projection | Reject
    must_be_queued: bool = False
    committed: int = 0
    """The number of the change in MongoDB that made it visible."""
    visible_at: int = 0
    """The time of that change by the clock of Redis, in milliseconds since the epoch."""
    replaced: int = 0
    """The number of the change that replaced or deleted it."""

    @property
    def claims(self) -> dict[str, Value]:
        """The value of each claimed key; None for an eviction."""
        entries = () if isinstance(self.projection, Reject) else self.projection.entries
        return {e.key: e.read if isinstance(e, Put) else None for e in entries if isinstance(e, (Put, Evict))}

    @property
    def keeps(self) -> set[str]:
        """The keys that it keeps."""
        entries = () if isinstance(self.projection, Reject) else self.projection.entries
        return {e.key for e in entries if isinstance(e, Keep)}

    @property
    def request(self) -> tuple[str, str] | None:
        """The queue and the item of its request."""
        entries = () if isinstance(self.projection, Reject) else self.projection.entries
        return next(((e.key, e.item) for e in entries if isinstance(e, Enqueue)), None)

    def order(self) -> Any:
        """The sort key of versions."""
        return self.position.order()

    @property
    def lock(self) -> str | None:
        """The lock of its campaign."""
        return None if isinstance(self.projection, Reject) else self.projection.lock
