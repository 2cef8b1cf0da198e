"""What documents claim, outside a cycle: raw documents become readings. Pure: any executor can run it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import bson

from schemas.codec import decode
from schemas.documents import project
from schemas.operations import Evict, Put, Reject
from schemas.position import Position, place_in, position_from_text, position_in


class Reading(NamedTuple):
    """One document as it is now: where it stands, and what it asks of the cache.

    Of texts and numbers, as an `etl.sync.batch.Outcome` is, but with the values themselves.
    """

    text: str
    """Its position, as `Position.text`."""
    ms: int | None
    """Its timestamp in milliseconds since the epoch; None where that is no date."""
    id: str
    """Its `_id` as canonical Extended JSON."""
    claims: Mapping[str, Put | Evict]
    """What it says of each key it names; nothing where it is invalid."""
    lock: str | None = None
    """The key of the lock that puts it off while that exists."""
    reject: Reject | None = None
    """Why it is invalid."""

    @property
    def position(self) -> Position:
        """Its position."""
        return position_from_text(self.text)

    @property
    def fills(self) -> list[str]:
        """The keys that it fills."""
        return [key for key, entry in self.claims.items() if isinstance(entry, Put)]


@dataclass(frozen=True, slots=True)
class Reader:
    """How the documents of one collection are read: a small value that travels to workers."""

    tipo: str
    """The kind of a document that names none."""
    timestamp_field: str

    def __call__(self, documents: Sequence[bytes]) -> list[Reading]:
        """The reading of each document, in the same order."""
        return [self._read(raw) for raw in documents]

    def rows(self, documents: Sequence[bytes]) -> list[Any]:
        """The same as tuples, which travel in less time; `unrow` makes readings of them."""
        return [(*reading[:3], _plain(reading.claims), *reading[4:]) for reading in self(documents)]

    def _read(self, raw: bytes) -> Reading:
        try:
            document = decode(raw)
        except (bson.errors.BSONError, ValueError, OverflowError):
            return self._invalid(raw, Reject("the document cannot be decoded"))
        place = place_in(document, self.timestamp_field, raw)
        if place[1] is None and position_in(raw, self.timestamp_field).is_array():
            return self._invalid(raw, Reject(f"{self.timestamp_field} is an array"))
        projection = project(document, self.tipo)
        if isinstance(projection, Reject):
            return self._invalid(raw, projection)
        claims = {e.key: _read(e) for e in projection.entries if isinstance(e, Put | Evict)}
        return Reading(*place, claims, projection.lock)

    def _invalid(self, raw: bytes, reject: Reject) -> Reading:
        return Reading(*position_in(raw, self.timestamp_field).place(), {}, reject=reject)


def _read(entry: Put | Evict) -> Put | Evict:
    """The entry with its value as Redis gives it back."""
    return entry._replace(value=entry.read) if isinstance(entry, Put) else entry


def unrow(rows: Sequence[Any]) -> list[Reading]:
    """The inverse of `Reader.rows`."""
    return [Reading._make((*row[:3], _unplain(row[3]), *row[4:])) for row in rows]


def _plain(claims: Mapping[str, Put | Evict]) -> list[tuple[Any, ...]]:
    return [tuple(entry) for entry in claims.values()]


def _unplain(entries: Sequence[tuple[Any, ...]]) -> dict[str, Put | Evict]:
    return {entry[1]: Put(*entry) if len(entry) == len(Put._fields) else Evict(*entry) for entry in entries}
