"""What documents claim, outside a cycle: raw documents become readings. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import bson

from schemas.documents import project
from schemas.entries import Evict, Projection, Put, Reject
from schemas.position import DECODING, LENIENT, Position, position_in


class Reading(NamedTuple):
    """One document as it is now: where it stands, and what it asks of the cache."""

    position: Position
    projection: Projection | Reject

    @property
    def claims(self) -> Mapping[str, Put | Evict]:
        """What the document says of each key it names; nothing where it is invalid."""
        if isinstance(self.projection, Reject):
            return {}
        return {entry.key: entry for entry in self.projection.entries if isinstance(entry, Put | Evict)}

    @property
    def fills(self) -> list[str]:
        """The keys that the document fills."""
        return [key for key, entry in self.claims.items() if isinstance(entry, Put)]

    @property
    def lock(self) -> str | None:
        """The key of the lock that puts the document off while it exists."""
        return self.projection.lock if isinstance(self.projection, Projection) else None


class Reader(NamedTuple):
    """How the documents of one collection are read."""

    tipo: str
    """The kind of a document that names none."""
    timestamp_field: str

    def __call__(self, documents: Sequence[bytes]) -> list[Reading]:
        """The reading of each document, in the same order."""
        return [self._read(raw) for raw in documents]

    def _read(self, raw: bytes) -> Reading:
        try:
            document = bson.decode(raw, DECODING)
        except (bson.errors.BSONError, ValueError, OverflowError):
            position = position_in(bson.decode(raw, LENIENT), self.timestamp_field)
            return Reading(position, Reject("the document cannot be decoded"))
        position = position_in(document, self.timestamp_field)
        if isinstance(position.timestamp, list):
            return Reading(position, Reject(f"{self.timestamp_field} is an array"))
        return Reading(position, project(document, self.tipo))
