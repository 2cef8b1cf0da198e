"""A reader over documents in mongomock, and any reader with a way to step in between.

The twin promises what `etl.mongo.reader.MongoReader` does: `tests/contract` holds both to the same facts.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import bson

from etl.interfaces import Reader
from etl.model.index import Index
from etl.model.page import Page
from etl.mongo.queries import matching
from etl.mongo.reader import UNREACHABLE_CAP
from schemas.codec import DECODING, RawValue
from schemas.ids import id_text
from schemas.position import Position, position_in
from tests.support.assembly import FIELD
from tests.support.clocks import Clocks
from tests.support.meddling import Meddler


class ReaderTwin:
    """`etl.mongo.reader.MongoReader` over documents in mongomock, and `raw` ones that no client would write."""

    def __init__(self, documents: Any) -> None:
        self._documents = documents
        self.raw: list[bytes] = []

    def clock(self) -> int:
        """The clock of this machine; see `MeddledReader` for one that a test moves."""
        return round(time.time() * 1000)

    index = Index("updated_at_1__id_1")

    def prepare(self) -> bool:
        """There is always an index."""
        return True

    def page(self, after: Position, end: Position, limit: int) -> Page:
        """The next documents after one position and before another."""
        found = [raw for raw in self._all() if after.order() < _position(raw).order() < end.order()]
        documents = found[:limit]
        return Page(documents, _position(documents[-1]) if documents else None, len(found) >= limit)

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        """The documents with these `_id`s that exist, in order of position."""
        wanted = [Position(None, document_id).order() for document_id in ids]
        return [raw for raw in self._all() if Position(None, _position(raw).id).order() in wanted]

    def of_kind(self, criteria: Mapping[str, Sequence[Any]], limit: int) -> Iterator[list[bytes]]:
        """All documents that match, the newest first, `limit` at a time."""
        found = self._sorted(map(_encoded, self._documents.find(matching(criteria, {}))))[::-1]
        for start in range(0, len(found) + 1, limit):
            yield found[start : start + limit]

    def cuts(self, count: int) -> list[Position]:
        """Positions that cut the collection into about this many ranges."""
        every = [_position(raw) for raw in self._all() if _faithful(raw)]
        return every[:: max(1, len(every) // count)]

    def count(self) -> int:
        """How many documents there are."""
        return len(self._all())

    def identity(self) -> str | None:
        """That of a collection that is never dropped."""
        return "a collection"

    def sample(self, count: int) -> list[str]:
        """The `_id`s of the first of them."""
        return [id_text(_position(raw).id) for raw in self._all()[:count]]

    def unreachable(self) -> int:
        """How many documents have no date to be reached by."""
        dateless = [raw for raw in self._all() if _position(raw).ms is None]
        return min(len(dateless), UNREACHABLE_CAP)

    def _all(self) -> list[bytes]:
        return self._sorted([*map(_encoded, self._documents.find()), *self.raw])

    def _sorted(self, documents: Any) -> list[bytes]:
        return sorted(documents, key=lambda raw: _position(raw).order())


def _encoded(document: Mapping[str, Any]) -> bytes:
    return bson.encode(document, codec_options=DECODING)


def _position(raw: bytes) -> Position:
    return position_in(raw, FIELD)


def _faithful(raw: bytes) -> bool:
    """Whether the position of a document can be named: it holds nothing that is of bytes only."""
    return not any(isinstance(part, RawValue) for part in _position(raw))


class MeddledReader:
    """Any reader, with a clock in the test's hands and a meddler around each call."""

    def __init__(self, reader: Reader, clocks: Clocks, meddler: Meddler) -> None:
        self._reader = reader
        self._clocks = clocks
        self._around = meddler.around

    @property
    def index(self) -> Index:
        """As the reader has it."""
        return self._reader.index

    def prepare(self) -> bool:
        """As the reader does."""
        return self._around(self._reader.prepare)

    def clock(self) -> int:
        """What the test says it is."""
        return self._around(lambda: self._clocks.mongo)

    def page(self, after: Position, end: Position, limit: int) -> Page:
        """As the reader does."""
        return self._around(lambda: self._reader.page(after, end, limit))

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        """As the reader does."""
        return self._around(lambda: self._reader.fetch(ids))

    def of_kind(self, criteria: Mapping[str, Sequence[Any]], limit: int) -> Iterator[list[bytes]]:
        """As the reader does, with the meddler before each page."""
        for documents in self._reader.of_kind(criteria, limit):
            yield self._around(lambda: documents)  # noqa: B023 (called at once)

    def cuts(self, count: int) -> list[Position]:
        """As the reader does."""
        return self._around(lambda: self._reader.cuts(count))

    def count(self) -> int:
        """As the reader does."""
        return self._around(self._reader.count)

    def identity(self) -> str | None:
        """As the reader does."""
        return self._around(self._reader.identity)

    def sample(self, count: int) -> list[str]:
        """As the reader does."""
        return self._around(lambda: self._reader.sample(count))

    def unreachable(self) -> int:
        """As the reader does."""
        return self._around(self._reader.unreachable)
