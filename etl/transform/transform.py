"""Stage 2, the transform: raw documents become outcomes, with the commands that Redis is to carry out.

Pure, so that any executor can run it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import bson

from etl.cache.resp import Command, pack_one
from etl.model.outcome import Row
from etl.transform.encoding import encode
from etl.transform.sheet import Parcel, Sheet, parcel, sheet
from schemas.codec import decode
from schemas.documents import project
from schemas.operations import Enqueue, Evict, Projection, Put, Reject
from schemas.position import Place, place_in, position_in

_UNDECODABLE = (bson.errors.BSONError, ValueError, OverflowError)

Value = Mapping[str, str] | Sequence[str | bytes]
"""What a key is filled with."""

Lives = Mapping[str, int | None]
"""The life of each family in seconds; None for ever."""


@dataclass(frozen=True, slots=True)
class Transform:
    """How the documents of one collection are read: a small value that travels to workers."""

    tipo: str
    """The kind of a document that names none."""
    timestamp_field: str
    ttls: Lives

    def __call__(self, documents: Sequence[bytes]) -> Sheet:
        """The outcome of each document, in the same order; a bad one never stops its neighbours."""
        rows = self._rows(documents)
        return sheet(rows, encode(rows))

    def parcel(self, documents: Sequence[bytes]) -> Parcel:
        """The same, ready to travel: see `etl.transform.sheet.unpacked`."""
        rows = self._rows(documents)
        return parcel(rows, encode(rows))

    def _rows(self, documents: Sequence[bytes]) -> list[Row]:
        return [self._row(raw) for raw in documents]

    def _row(self, raw: bytes) -> Row:
        try:
            document = decode(raw)
        except _UNDECODABLE as error:
            return self._undecodable(raw, error)
        place = place_in(document, self.timestamp_field, raw)
        if place[1] is None and position_in(raw, self.timestamp_field).is_array():
            # Its index has one entry for each member: no single place in the order, and none to pass.
            return row(place, Reject(f"{self.timestamp_field} is an array"), self.ttls)
        return row(place, project(document, self.tipo), self.ttls)

    def _undecodable(self, raw: bytes, error: Exception) -> Row:
        # The driver's message may quote the bytes it stumbled over, so only its type is kept.
        reject = Reject(f"the document cannot be decoded ({type(error).__name__})")
        return row(position_in(raw, self.timestamp_field).place(), reject, self.ttls)


def row(place: Place, projection: Projection | Reject, ttls: Lives) -> Row:
    """What becomes of the document at `place`."""
    if isinstance(projection, Reject):
        return (*place, (), (), None, projection)
    fills, requests = [], []
    for entry in projection.entries:
        if isinstance(entry, Enqueue):
            requests.append((entry.key, entry.item))
        else:
            fills.append(_fill(entry, ttls))
    return (*place, tuple(fills), tuple(requests), projection.lock, None)


def _fill(entry: Put | Evict, ttls: Lives) -> Row:
    key, family = entry.key, entry.family
    if isinstance(entry, Evict):
        return (key, family, b"", 0)
    fill, ttl = pack_one(_filling(key, entry.value)), ttls.get(family)
    if ttl is None:
        return (key, family, fill, 1)
    return (key, family, fill + pack_one(("EXPIRE", key, ttl)), 2)


def commands(key: str, value: Value, ttl: int | None) -> list[Command]:
    """What fills a key that is not there, and gives it so many seconds to live; None: it stays."""
    fill = _filling(key, value)
    return [fill] if ttl is None else [fill, ("EXPIRE", key, ttl)]


def _filling(key: str, value: Value) -> Command:
    # By type: to find out whether it is a Mapping takes longer than all else here.
    if type(value) is dict or (type(value) is not list and isinstance(value, Mapping)):
        return ("HSET", key, *chain.from_iterable(value.items()))
    return ("RPUSH", key, *value)
