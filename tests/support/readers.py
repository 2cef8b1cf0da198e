"""A fake reader on mongomock, and a wrapper for any reader that interrupts its calls.

The tests in `tests/contract` run on the fake reader and on `etl.mongo.reader.MongoReader`.
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
from tests.support.call_hooks import CallHooks
from tests.support.clocks import Clocks


class FakeReader:
    """A fake `MongoReader` on mongomock, with additional `raw` documents that mongomock cannot store."""

    def __init__(self, documents: Any) -> None:
        self._documents = documents
        self.raw: list[bytes] = []

    def clock(self) -> int:
        return round(time.time() * 1000)

    index = Index("updated_at_1__id_1")

    def prepare(self) -> bool:
        return True

    def page(self, after: Position, end: Position, limit: int) -> Page:
        found = [raw for raw in self._all() if after.order() < _position(raw).order() < end.order()]
        documents = found[:limit]
        return Page(documents, _position(documents[-1]) if documents else None, len(found) >= limit)

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        requested = [Position(None, document_id).order() for document_id in ids]
        return [raw for raw in self._all() if Position(None, _position(raw).id).order() in requested]

    def of_kind(self, criteria: Mapping[str, Sequence[Any]], limit: int) -> Iterator[list[bytes]]:
        found = self._sorted(map(_encoded, self._documents.find(matching(criteria, {}))))[::-1]
        for start in range(0, len(found) + 1, limit):
            yield found[start : start + limit]

    def cuts(self, count: int) -> list[Position]:
        every = [_position(raw) for raw in self._all() if _has_python_position(raw)]
        return every[:: max(1, len(every) // count)]

    def count(self) -> int:
        return len(self._all())

    def identity(self) -> str | None:
        return "a collection"

    def sample(self, count: int) -> list[str]:
        return [id_text(_position(raw).id) for raw in self._all()[:count]]

    def unreachable(self) -> int:
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


def _has_python_position(raw: bytes) -> bool:
    """Whether date and `_id` of a document have Python values."""
    return not any(isinstance(part, RawValue) for part in _position(raw))


class HookedReader:
    """Wraps a reader: its clock is set by the test, and each call may be interrupted."""

    def __init__(self, reader: Reader, clocks: Clocks, hooks: CallHooks) -> None:
        self._reader = reader
        self._clocks = clocks
        self._around = hooks.around

    @property
    def index(self) -> Index:
        return self._reader.index

    def prepare(self) -> bool:
        return self._around(self._reader.prepare)

    def clock(self) -> int:
        return self._around(lambda: self._clocks.mongo)

    def page(self, after: Position, end: Position, limit: int) -> Page:
        return self._around(lambda: self._reader.page(after, end, limit))

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        return self._around(lambda: self._reader.fetch(ids))

    def of_kind(self, criteria: Mapping[str, Sequence[Any]], limit: int) -> Iterator[list[bytes]]:
        for documents in self._reader.of_kind(criteria, limit):
            yield self._around(lambda: documents)  # noqa: B023 (called at once)

    def cuts(self, count: int) -> list[Position]:
        return self._around(lambda: self._reader.cuts(count))

    def count(self) -> int:
        return self._around(self._reader.count)

    def identity(self) -> str | None:
        return self._around(self._reader.identity)

    def sample(self, count: int) -> list[str]:
        return self._around(lambda: self._reader.sample(count))

    def unreachable(self) -> int:
        return self._around(self._reader.unreachable)
