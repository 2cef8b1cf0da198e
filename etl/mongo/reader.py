"""Stage 1, the source: short keyset pages of raw documents, in `(updated_at, _id)` order.

It needs the role `read` and writes nothing.

Pages are read by index bounds (`min` and `max` with a hint), which compare whole pairs over every
BSON type. A `$gt` in a filter would bracket by type and hide the other types of `_id`.
Without the index the same pages come from a sort over `$expr`, which does not bracket either.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, cast

import pymongo
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, ReadPreference
from pymongo.collation import Collation
from pymongo.collection import Collection
from pymongo.cursor import RawBatchCursor
from pymongo.read_concern import ReadConcern

from etl.errors import Misconfigured
from etl.mongo.client import address, told
from etl.mongo.paging import PAGE_BYTES, beyond, faithful, gather, split, usable
from schemas.codec import DECODING
from schemas.ids import id_text
from schemas.position import AFTER_DATES, FIRST, FIRST_DATE, LAST, Position, at, position_in

UNREACHABLE_CAP: Final = 10_000
"""Counting documents without a usable date stops here: their number must not slow the cycle."""

GLANCE_SECONDS: Final = 2.0
"""The longest time that a question of a person or a monitor waits for MongoDB."""

_UNINDEXED_PAGE: Final = 10_000
_SIMPLE = Collation(locale="simple")
_RAW: Final = CodecOptions(document_class=RawBSONDocument)


class Page(NamedTuple):
    """Raw documents in order. `last` is the position to read on from; `more` says whether to."""

    documents: list[bytes]
    last: Position | None
    more: bool


class Source:
    """One collection of MongoDB as the ETL reads it.

    Every method raises `Transient` where trying again may help, `Misconfigured` for wrong
    credentials or roles, and `CycleFailed` for what is left.
    """

    def __init__(
        self,
        client: MongoClient[dict[str, Any]],
        database: str,
        collection: str,
        timestamp_field: str = "updated_at",
    ) -> None:
        self._client = client
        self._field = timestamp_field
        read = client[database].get_collection(
            collection,
            codec_options=_RAW,
            read_concern=ReadConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        # The driver types a collection by its client, whatever class the codec options name.
        self._collection = cast("Collection[RawBSONDocument]", read)
        self._index: str | None = None

    def clock(self) -> int:
        """The primary's wall clock in milliseconds since the epoch (`localTime` of `hello`)."""
        with self._told():
            hello = self._client.admin.command(
                "hello", read_preference=ReadPreference.PRIMARY, codec_options=DECODING
            )
            return int(DatetimeMS(hello["localTime"]))

    def prepare(self) -> bool:
        """Look for the index on `(timestamp, _id)`; without it, reading works but scans.

        Returns:
            Whether the index is there.

        Raises:
            Misconfigured: this is a sharded cluster, whose router would mix up the order of pages.
        """
        with self._told():
            indexes = self._collection.index_information()
            if self._client.is_mongos:
                raise Misconfigured(f"MongoDB at {address(self._client)} is a sharded cluster: not supported")
        wanted = [(self._field, 1), ("_id", 1)]
        self._index = next((name for name, index in indexes.items() if usable(index, wanted)), None)
        return self._index is not None

    def create_index_command(self) -> str:
        """What a person types in mongosh to make cycles cheap."""
        # Named, as the same fields may have an index that is of no use, under the name MongoDB would choose.
        options = f"{{name: 'etl_{self._field}', collation: {{locale: 'simple'}}}}"
        return (
            f"db.getSiblingDB({self._collection.database.name!r})"
            f".getCollection({self._collection.name!r})"
            f".createIndex({{{self._field!r}: 1, '_id': 1}}, {options})"
        )

    @property
    def index(self) -> str | None:
        """The name of the index that `prepare` has found."""
        return self._index

    def ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """The primary's answer to one command on the database, one that only reads."""
        with self._told():
            return self._collection.database.command(
                dict(command), read_preference=ReadPreference.PRIMARY, codec_options=DECODING
            )

    def identity(self) -> str | None:
        """The UUID of the collection: another one once it was dropped and created again."""
        with self._told():
            reply = self.ask(
                {
                    "listCollections": 1,
                    "filter": {"name": self._collection.name},
                    "authorizedCollections": True,
                }
            )
        found = reply["cursor"]["firstBatch"]
        uuid = found[0]["info"].get("uuid") if found else None
        return None if uuid is None else uuid.hex() if isinstance(uuid, bytes) else str(uuid)

    def page(self, after: Position, end: Position, limit: int) -> Page:
        """At most `limit` documents after `after` and before `end`, in index order.

        The document at `after` itself is left out. A page may end early by weight. It never ends at
        a document whose position cannot be named; a run of those makes it longer.
        """
        if self._index is None:
            limit = max(limit, _UNINDEXED_PAGE)
        return self._page(after, end, limit, PAGE_BYTES)

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        """The documents with these `_id`s that exist, as they are now, in order of position."""
        with self._told():
            found = self._collection.find({"_id": {"$in": list(ids)}})
            return sorted(
                (bytes(document.raw) for document in found), key=lambda raw: self.position(raw).order()
            )

    def of_kind(self, criteria: Mapping[str, Any], limit: int) -> Iterator[list[bytes]]:
        """All documents that match `criteria`, the newest first, `limit` at a time."""
        order = [(self._field, -1), ("_id", -1)]
        with self._told():
            cursor = self._collection.find(criteria, sort=order, allow_disk_use=True)
            with cursor:
                while True:
                    documents, full = gather((bytes(document.raw) for document in cursor), limit)
                    yield documents
                    if not full:
                        return

    def cuts(self, count: int) -> list[Position]:
        """Positions that cut the collection into about so many ranges: distinct, ascending; none without index.

        Sampled, which the role `read` allows.
        """
        if self._index is None or not count:
            return []
        stages: list[dict[str, Any]] = [{"$sample": {"size": count}}, {"$project": {self._field: True}}]
        with self._told():
            sampled = [self.position(bytes(one.raw)) for one in self._collection.aggregate(stages)]
        distinct = {one.text(): one for one in sampled if faithful(one)}
        return sorted(distinct.values(), key=Position.order)

    def unreachable(self) -> int:
        """How many documents have no date to be reached by, at most `UNREACHABLE_CAP`."""
        with self._told():
            if self._index is None:
                dates = {"$gte": FIRST_DATE.timestamp, "$lte": DatetimeMS(2**63 - 1)}
                return self._collection.count_documents({self._field: {"$not": dates}}, limit=UNREACHABLE_CAP)
            before = self._between(FIRST, FIRST_DATE, UNREACHABLE_CAP)
            return before + self._between(AFTER_DATES, LAST, UNREACHABLE_CAP - before)

    def _between(self, after: Position, end: Position, limit: int) -> int:
        """How many documents the index has in a range. A filter for types would walk all of the index."""
        if limit <= 0:
            return 0
        with self._bounded(after, end, limit, {"_id": True}) as cursor:
            return sum(1 for _ in split(cursor))

    def count(self) -> int:
        """About how many documents the collection has, as its metadata say."""
        with self._told():
            return self._collection.estimated_document_count()

    def sample(self, count: int) -> list[str]:
        """The `_id`s of about so many documents, each once, as `id_text`."""
        stages: list[dict[str, Any]] = [{"$sample": {"size": count}}, {"$project": {"_id": True}}]
        with self._told():
            found = self._collection.aggregate(stages)
            return [*{id_text(self.position(bytes(one.raw)).id): None for one in found}]

    def waited(self, reached: Position) -> float:
        """How long the oldest document after `reached` has waited, in seconds by MongoDB's clock.

        0 where there is none; documents dated in the future do not count. Takes `GLANCE_SECONDS` at most,
        also while the server is away: this is for people and monitors, who ask again.
        """
        with pymongo.timeout(GLANCE_SECONDS), self._told():
            clock = self.clock()
            end = at(clock + 1)
            if reached.order() >= end.order():
                return 0.0
            if self.prepare():
                found = self._bounded(reached, end, 2, {self._field: True})
            else:
                found = self._unindexed(reached, end, 1)
            with found as cursor:
                first = next(self._past(split(cursor), reached), None)
        oldest = None if first is None else self.position(first).ms
        return 0.0 if oldest is None else max(0, clock - oldest) / 1000

    def ping(self, seconds: float = GLANCE_SECONDS) -> None:
        """Ask the primary for its clock, and wait so many seconds in all: a retry of the driver included."""
        with pymongo.timeout(seconds):
            self.clock()

    def position(self, raw: bytes) -> Position:
        """The position of a raw document, also of one that cannot be decoded."""
        return position_in(raw, self._field)

    def _page(self, after: Position, end: Position, limit: int, weight: int) -> Page:
        with self._told(), self._query(after, end, limit) as cursor:
            documents, full = gather(self._past(split(cursor), after), limit, weight)
        count = self._up_to_a_border(documents)
        if not full:
            return Page(documents, self.position(documents[count - 1]) if count else None, more=False)
        if not count:
            return self._page(after, end, 2 * limit, 2 * weight)
        return Page(documents[:count], self.position(documents[count - 1]), more=True)

    def _past(self, documents: Iterable[bytes], after: Position) -> Iterator[bytes]:
        """These documents, without the one at `after`: index bounds are inclusive."""
        for number, raw in enumerate(documents):
            if number or self.position(raw).order() != after.order():
                yield raw

    def _up_to_a_border(self, documents: Sequence[bytes]) -> int:
        """How many there are up to the last one whose position can be read on from."""
        counts = range(len(documents), 0, -1)
        return next((count for count in counts if faithful(self.position(documents[count - 1]))), 0)

    def _query(self, after: Position, end: Position, limit: int) -> RawBatchCursor[RawBSONDocument]:
        if self._index is None:
            return self._unindexed(after, end, limit)
        # One more than asked for: the bound is inclusive and returns the document at `after`.
        return self._bounded(after, end, limit + 1, None)

    def _bounded(
        self, after: Position, end: Position, limit: int, fields: Mapping[str, bool] | None
    ) -> RawBatchCursor[RawBSONDocument]:
        """The documents between two positions by the bounds of the index, the first included."""
        lower, upper = ([(self._field, p.timestamp), ("_id", p.id)] for p in (after, end))
        raw = self._collection.find_raw_batches
        found = raw({}, fields, limit=limit, batch_size=limit, collation=_SIMPLE)
        found.hint(self._index or "").min(lower).max(upper)
        return found

    def _unindexed(self, after: Position, end: Position, limit: int) -> RawBatchCursor[RawBSONDocument]:
        """The same page without the index: every page reads the whole collection, so they are long."""
        moment = {"$ifNull": [f"${self._field}", None]}
        criteria = {"$expr": {"$and": [beyond("$gt", moment, after), beyond("$lt", moment, end)]}}
        return self._collection.find_raw_batches(
            criteria,
            sort=[(self._field, 1), ("_id", 1)],
            limit=limit,
            collation=_SIMPLE,
            allow_disk_use=True,
        )

    def _told(self) -> AbstractContextManager[None]:
        return told(self._client, self._collection.full_name)
