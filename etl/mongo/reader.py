"""Stage 1, read: short keyset pages of raw documents in `(updated_at, _id)` order. Requires only the role `read`."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from types import MappingProxyType
from typing import Any, Final

import pymongo
from bson.datetime_ms import DatetimeMS
from bson.json_util import dumps
from pymongo import MongoClient, ReadPreference
from pymongo.client_session import ClientSession
from pymongo.collation import Collation

from etl.errors import CycleFailed
from etl.model.page import Page
from etl.mongo import queries
from etl.mongo.collection import LINEARIZABLE, MAJORITY, PING_SECONDS, MongoCollection
from etl.mongo.mapping import MappingFallback
from etl.mongo.queries import Fields
from schemas.codec import DECODING, type_name
from schemas.ids import id_text
from schemas.position import AFTER_DATES, FIRST, FIRST_DATE, LAST, Position, at

UNREACHABLE_CAP: Final = 10_000
"""Maximum when documents without a usable date are counted, so that the count does not slow the cycle."""

COUNT_CAP: Final = 10_000
"""Maximum when documents are counted by the type of their timestamp."""

MOST_IDS: Final = 500
"""Maximum of `_id`s per query."""

_UNINDEXED_PAGE: Final = 10_000
_CAREFUL_PAGE: Final = 50
_SAMPLES_PER_CUT: Final = 5
_LEAST_RANGE: Final = 1_000
_SIMPLE: Final = Collation(locale="simple")


class MongoReader(MongoCollection):
    """Reads the documents of one collection; raises as `MongoCollection` does."""

    def __init__(
        self,
        client: MongoClient[dict[str, Any]],
        database: str,
        collection: str,
        timestamp_field: str = "updated_at",
        fields: Sequence[str] = (),
        mapping: Mapping[str, Any] = MappingProxyType({}),
        setting: str = "fields",
        *,
        pages_from: Any = ReadPreference.PRIMARY,
        allow_sharded: bool = False,
    ) -> None:
        """Create a reader without contacting the server.

        Args:
            client: the connection.
            database: the name of the database.
            collection: the name of the collection.
            timestamp_field: the name of a field, or a dotted path.
            fields: the fields to read besides the timestamp and `_id`; if empty, whole documents are read.
            mapping: MongoDB expressions of those fields that are not taken as they are.
            setting: the setting that holds the mapping, for messages.
            pages_from: the read preference of the pages; everything else is read from the primary.
            allow_sharded: whether a router of a sharded cluster is accepted.
        """
        super().__init__(
            client, database, collection, timestamp_field, pages_from=pages_from, allow_sharded=allow_sharded
        )
        # A projection must not name both a field and a path inside it, so it names the first part of the path.
        timestamp = timestamp_field.partition(".")[0]
        self._bare: Fields = {timestamp: True}
        self._mapping: Fields = {name: queries.expression(value) for name, value in mapping.items()}
        self._fields: Fields = dict.fromkeys((*fields, timestamp), True) | self._mapping if fields else {}
        self._fallback = MappingFallback(self._mapping, self._fields, setting, self._by_id, self.position)

    def prepare(self) -> bool:
        """Look for the index: see `MongoCollection.prepare`.

        Raises:
            ConfigurationError: also where MongoDB refuses an expression of the mapping.
        """
        found = super().prepare()
        self._fallback.check()
        return found

    def check_mapping(self) -> None:
        """Have MongoDB parse the mapping: see `MappingFallback.check`."""
        self._fallback.check()

    def page(self, after: Position, end: Position, limit: int) -> Page:
        """At most `limit` documents after `after` and before `end`, both exclusive, in index order.

        A page may end early by its size in bytes. If the index cannot be used any more, the page is read without it
        and a warning is logged.
        """
        unindexed = max(limit, _UNINDEXED_PAGE)
        try:
            return self._page(after, end, limit, unindexed, self._fields)
        except CycleFailed:
            if not self._mapping:
                raise
        # An expression that fails for one document fails the whole command.
        bare = self._page(after, end, min(limit, _CAREFUL_PAGE), unindexed, self._bare)
        return bare._replace(documents=self._fallback.mapped(bare.documents))

    def fetch(self, ids: Sequence[Any], session: ClientSession | None = None) -> list[bytes]:
        """The documents with these `_id`s that exist, in order of position, in their current version.

        Read concern linearizable: a primary that was deposed without noticing it does not answer. With the session
        of a change stream they are as the stream has shown them, or newer, which is read much faster: a linearizable
        read waits for the journal, up to 100 ms.
        """
        level = LINEARIZABLE if session is None else MAJORITY
        found: list[bytes] = []
        for start in range(0, len(ids), MOST_IDS):
            wanted = ids[start : start + MOST_IDS]
            try:
                found += self._by_id(wanted, self._fields, level, session)
            except CycleFailed:
                if not self._mapping:
                    raise
                found += self._fallback.mapped(self._by_id(wanted, self._bare, level, session), LINEARIZABLE)
        return sorted(found, key=lambda raw: self.position(raw).order())

    def whole(self, ids: Sequence[Any]) -> list[bytes]:
        """The same documents with all their fields, not mapped."""
        return self._by_id(ids, {})

    def of_kind(self, criteria: Mapping[str, Sequence[Any]], limit: int) -> Iterator[list[bytes]]:
        """All documents whose fields have one of these values each, the newest first, `limit` at a time."""
        if not self._mapping:
            yield from self._newest(queries.matching(criteria, {}), self._fields, limit)
            return
        reached = LAST
        try:
            for bare in self._newest(queries.matching(criteria, self._mapping), self._bare, limit):
                yield self._fallback.mapped(bare)
                reached = self.position(bare[-1]) if bare else reached
        except CycleFailed:
            self._fallback.check()
        else:
            return
        # The filter fails for some document: look at the rest of them here.
        unmapped = {name: values for name, values in criteria.items() if name not in self._mapping}
        for bare in self._newest(queries.matching(unmapped, {}), self._bare, limit):
            rest = [raw for raw in bare if self.position(raw).order() < reached.order()]
            yield [raw for raw in self._fallback.mapped(rest) if queries.meets(raw, criteria)]

    def cuts(self, count: int) -> list[Position]:
        """At most `count` positions that cut the collection into ranges of similar size, ascending.

        They are sampled, so they differ between calls. Empty if the collection is small or has no index to read by.
        """
        if self._index.name is None:
            return []
        with self._translated_errors():
            wanted = min(count, self._collection.estimated_document_count() // _LEAST_RANGE)
            if wanted < 1:
                return []
            samples: list[Mapping[str, Any]] = [
                {"$sample": {"size": wanted * _SAMPLES_PER_CUT}},
                {"$project": {self._field.partition(".")[0]: True}},
            ]
            found = [self.position(bytes(one.raw)) for one in self._collection.aggregate(samples)]
        distinct = {one.text(): one for one in found if not one.is_array()}
        ordered = sorted(distinct.values(), key=Position.order)
        # One of every five samples: ranges between single samples would differ much more in size.
        return ordered[_SAMPLES_PER_CUT // 2 :: _SAMPLES_PER_CUT]

    def unreachable(self) -> int:
        """Number of documents without a date, which no delta reads; at most `UNREACHABLE_CAP`."""

        def between(index: str, after: Position, end: Position, limit: int) -> int:
            # Bounds, because a filter by type would scan the whole index.
            return sum(1 for _ in self._between(index, after, end, limit, queries.NOTHING)) if limit else 0

        def by_index(index: str) -> int:
            before = between(index, FIRST, FIRST_DATE, UNREACHABLE_CAP)
            return before + between(index, AFTER_DATES, LAST, UNREACHABLE_CAP - before)

        def by_filter() -> int:
            dates = {"$gte": FIRST_DATE.timestamp, "$lte": DatetimeMS(2**63 - 1)}
            return self._collection.count_documents({self._field: {"$not": dates}}, limit=UNREACHABLE_CAP)

        return self._by_index(by_index, by_filter)

    def timestamp_types(self) -> Counter[str]:
        """Number of documents per type of timestamp other than date, up to about `COUNT_CAP` of each.

        The keys are MongoDB's names of types. Reads the index entries before and after all dates. The entries of
        arrays may be among the dates: if the index is marked as multikey, all documents are checked for arrays.

        Raises:
            CycleFailed: there is no index to read by.
        """
        index = self._index.name
        if index is None:
            raise CycleFailed("without the index that reads the whole collection")
        fields = {self._field.partition(".")[0]: True}
        types: Counter[str] = Counter()
        with self._translated_errors():
            for begin, end in ((FIRST, FIRST_DATE), (AFTER_DATES, LAST)):
                for raw in self._between(index, begin, end, COUNT_CAP, fields):
                    position = self.position(raw)
                    if not position.is_array():
                        types[type_name(position.timestamp)] += 1
            explained = self._command({"explain": {"find": self._collection.name, "hint": index}}, DECODING)
            if '"isMultiKey": true' in dumps(explained):
                arrays = {"$expr": {"$isArray": [f"${self._field}"]}}
                types["array"] = self._collection.count_documents(arrays, limit=COUNT_CAP)
        return +types

    def count(self) -> int:
        """The approximate number of documents, from the metadata of the collection."""
        with self._translated_errors():
            return self._collection.estimated_document_count()

    def sample(self, count: int) -> list[str]:
        """The distinct `_id`s of a random sample of about `count` documents, as `id_text`."""
        stages: list[dict[str, Any]] = [{"$sample": {"size": count}}, {"$project": {"_id": True}}]
        with self._translated_errors():
            found = self._collection.aggregate(stages)
            return [*{id_text(self.position(bytes(one.raw)).id): None for one in found}]

    def waited(self, reached: Position) -> float:
        """The age of the oldest document after `reached`, in seconds by MongoDB's clock.

        0 if there is none; documents dated in the future do not count. Takes at most `PING_SECONDS`, even if the
        server does not answer, because status commands and monitors must not hang.
        """
        with pymongo.timeout(PING_SECONDS):
            clock = self.clock()
            self.prepare()
            oldest = self._page(reached, at(clock + 1), 1, 1, self._bare).last
        ms = None if oldest is None else oldest.ms
        return 0.0 if ms is None else max(0, clock - ms) / 1000

    def _newest(self, criteria: Mapping[str, Any], fields: Fields, limit: int) -> Iterator[list[bytes]]:
        order = [(self._field, -1), ("_id", -1)]
        with (
            self._translated_errors(),
            self._collection.find(criteria, fields, sort=order, allow_disk_use=True) as cursor,
        ):
            more = True
            while more:
                documents, more = queries.gather((bytes(document.raw) for document in cursor), limit)
                yield documents

    def _page(self, after: Position, end: Position, limit: int, unindexed: int, fields: Fields) -> Page:
        """A page of `limit` documents; of `unindexed` without the index, as each page reads the whole collection."""
        if after.order() >= end.order():
            return Page([], None, more=False)
        return self._by_index(
            lambda index: self._indexed_page(index, after, end, limit, fields),
            lambda: self._sorted_page(after, end, unindexed, fields),
        )

    def _indexed_page(self, index: str, after: Position, end: Position, limit: int, fields: Fields) -> Page:
        documents, more = self._read(index, after, end, limit, fields, self.position)
        last = self.position(documents[-1]) if documents else None
        if last is None or not last.is_array():
            return Page(documents, last, more)
        # The index has one entry per member of the array, so only the key of the entry tells where the page ends.
        keyed_fields = queries.with_index_key(fields)
        found, more = self._read(
            index, after, end, limit, keyed_fields, lambda raw: queries.split_key(raw)[1]
        )
        keyed = [queries.split_key(raw) for raw in found]
        return Page([raw for raw, _ in keyed], keyed[-1][1] if keyed else None, more)

    def _read(
        self,
        index: str,
        after: Position,
        end: Position,
        limit: int,
        fields: Fields,
        position: Callable[[bytes], Position],
    ) -> tuple[list[bytes], bool]:
        """The documents of a page, without the one at `after`, and whether more may follow."""
        # One more than requested, because index bounds are inclusive.
        with closing(self._between(index, after, end, limit + 1, fields)) as found:
            beyond = (
                raw for number, raw in enumerate(found) if number or position(raw).order() != after.order()
            )
            return queries.gather(beyond, limit)

    def _sorted_page(self, after: Position, end: Position, limit: int, fields: Fields) -> Page:
        """A page without the index. Each reads the whole collection, so it has more documents."""
        pipeline = queries.by_sort(self._field, after, end, limit, fields)
        with self._collection.aggregate(pipeline, collation=_SIMPLE, allowDiskUse=True) as cursor:
            documents, more = queries.gather((bytes(document.raw) for document in cursor), limit)
        return Page(documents, self.position(documents[-1]) if documents else None, more)
