"""Stage 1, read: short keyset pages of raw documents in `(updated_at, _id)` order. Requires only the role `read`."""

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar, cast
from uuid import UUID

import pymongo
from bson import MaxKey, MinKey
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from bson.json_util import dumps
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, ReadPreference, errors
from pymongo.client_session import ClientSession
from pymongo.collation import Collation
from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern

from etl import logs
from etl.errors import AccessDenied, ConfigurationError, CycleFailed
from etl.model.index import Index
from etl.mongo import indexes, queries
from etl.mongo.client import address, is_without_index, translated_errors
from etl.mongo.mapping import MappingFallback
from etl.mongo.queries import Fields
from schemas.codec import DECODING, type_name
from schemas.ids import id_text
from schemas.position import AFTER_DATES, FIRST, FIRST_DATE, LAST, Position, at, position_in

UNREACHABLE_CAP: Final = 10_000
"""Maximum when documents without a usable date are counted, so that the count does not slow the cycle."""

PING_SECONDS: Final = 2.0
"""Time limit for status queries and health checks."""

COUNT_CAP: Final = 10_000
"""Maximum when documents are counted by the type of their timestamp."""

MOST_IDS: Final = 500
"""Maximum of `_id`s per query."""

_UNINDEXED_PAGE: Final = 10_000
_CAREFUL_PAGE: Final = 50
_SAMPLES_PER_CUT: Final = 5
_LEAST_RANGE: Final = 1_000
_ON_A_VIEW: Final = 166
_SIMPLE: Final = Collation(locale="simple")
_MAJORITY: Final = ReadConcern("majority")
_LINEARIZABLE: Final = ReadConcern("linearizable")
_RAW: Final = CodecOptions(document_class=RawBSONDocument)

_log: Final = logging.getLogger("etl.reader")

T = TypeVar("T")


class Page(NamedTuple):
    """Raw documents in order."""

    documents: list[bytes]
    last: Position | None
    """The position of the last document, to continue from; None without documents."""
    more: bool
    """Whether further documents may follow."""


class Source:
    """Reads one collection of MongoDB.

    Every method raises `TransientError` if a retry may help, `ConfigurationError` for wrong credentials or roles, and
    `CycleFailed` for every other error.
    """

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
        self._allow_sharded = allow_sharded
        self._pages_from = pages_from
        self._client = client
        self._field = timestamp_field
        # A projection must not name both a field and a path inside it, so it names the first part of the path.
        timestamp = timestamp_field.partition(".")[0]
        self._bare: Fields = {timestamp: True}
        self._mapping: Fields = {name: queries.expression(value) for name, value in mapping.items()}
        self._fields: Fields = dict.fromkeys((*fields, timestamp), True) | self._mapping if fields else {}
        self._fallback = MappingFallback(self._mapping, self._fields, setting, self._by_id, self.position)
        self._database = client[database]
        read = self._database.get_collection(
            collection, codec_options=_RAW, read_concern=_MAJORITY, read_preference=ReadPreference.PRIMARY
        )
        # The driver derives the type of a collection from its client, and ignores the codec options.
        self._collection = cast("Collection[RawBSONDocument]", read)
        self._index = Index(None)

    def clock(self) -> int:
        """The primary's wall clock in milliseconds since the epoch (`localTime` of `hello`)."""
        with self._translated_errors():
            hello = self._client.admin.command(
                "hello", read_preference=ReadPreference.PRIMARY, codec_options=DECODING
            )
            return int(DatetimeMS(hello["localTime"]))

    def prepare(self) -> bool:
        """Look for the index on `(timestamp, _id)`; without it each page scans the whole collection.

        Returns:
            Whether the index exists and can be used; `index` gives the reason if not.

        Raises:
            ConfigurationError: this is a sharded cluster, and the settings do not allow one; or MongoDB refuses an
                expression of the mapping.
        """
        with self._translated_errors():
            if self._client.is_mongos and not self._allow_sharded:
                raise ConfigurationError(
                    f"MongoDB at {address(self._client)} is a sharded cluster, which is untested"
                    " (mongo.allow_sharded accepts it)"
                )
            self._fallback.check()
            self._index = self._find_index()
        return self._index.name is not None

    def check_mapping(self) -> None:
        """Have MongoDB parse the mapping: see `MappingFallback.check`."""
        self._fallback.check()

    @property
    def index(self) -> Index:
        """The index that `prepare` has found, or the reason why there is none."""
        return self._index

    def ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """The primary's reply to a read-only command on the database."""
        with self._translated_errors():
            answer: Mapping[str, Any] = self._command(command, DECODING)
            return answer

    def identity(self) -> str | None:
        """The UUID of the collection, which changes if it is dropped and created again.

        None if the collection does not exist, is a view, or the user may not list collections.
        """
        wanted = {"name": self._collection.name}
        try:
            reply = self.ask({"listCollections": 1, "filter": wanted, "authorizedCollections": True})
        except AccessDenied:
            return None
        found = reply["cursor"]["firstBatch"]
        uuid = found[0]["info"].get("uuid") if found else None
        return None if uuid is None else str(UUID(bytes=uuid))

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
        level = _LINEARIZABLE if session is None else _MAJORITY
        found: list[bytes] = []
        for start in range(0, len(ids), MOST_IDS):
            wanted = ids[start : start + MOST_IDS]
            try:
                found += self._by_id(wanted, self._fields, level, session)
            except CycleFailed:
                if not self._mapping:
                    raise
                found += self._fallback.mapped(self._by_id(wanted, self._bare, level, session), _LINEARIZABLE)
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

    def ping(self, seconds: float = PING_SECONDS) -> None:
        """Ask the primary for its clock, and wait at most `seconds`, including a retry by the driver."""
        with pymongo.timeout(seconds):
            self.clock()

    def position(self, raw: bytes) -> Position:
        """The position of a raw document, which may be one that cannot be decoded."""
        return position_in(raw, self._field)

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

    def _by_id(
        self,
        ids: Sequence[Any],
        fields: Fields,
        level: ReadConcern = _MAJORITY,
        session: ClientSession | None = None,
    ) -> list[bytes]:
        with self._translated_errors():
            if level == _LINEARIZABLE and not self._is_replica_set():
                level = _MAJORITY
            collection = self._collection.with_options(read_concern=level)
            # In one batch: with read concern linearizable each further one would wait for the journal again.
            found = collection.find(queries.by_id(ids), fields, session=session, batch_size=len(ids) + 1)
            return [bytes(document.raw) for document in found]

    def _page(self, after: Position, end: Position, limit: int, unindexed: int, fields: Fields) -> Page:
        """A page of `limit` documents; of `unindexed` without the index, as each page reads the whole collection."""
        if after.order() >= end.order():
            return Page([], None, more=False)
        return self._by_index(
            lambda index: self._indexed_page(index, after, end, limit, fields),
            lambda: self._sorted_page(after, end, unindexed, fields),
        )

    def _find_index(self) -> Index:
        namespace, fields = self._collection.full_name, [name for name, _ in indexes.wanted(self._field)]
        found = indexes.candidates(self._indexes(), self._field)
        name = next((index["name"] for index in found if not index.get("hidden")), None)
        if name is not None and self._serves(name, fields):
            return Index(name)
        if not self._serves("_id_", ["_id"]):
            return indexes.unsupported()
        if name is not None:
            return indexes.building(name)
        if found:
            return indexes.hidden(namespace, found[0]["name"])
        return indexes.missing(namespace, self._field)

    def _indexes(self) -> list[Mapping[str, Any]]:
        try:
            return [*self._collection.with_options(codec_options=DECODING).list_indexes()]
        except errors.OperationFailure as error:
            if error.code == _ON_A_VIEW:
                return []
            raise

    def _serves(self, index: str, fields: Sequence[str]) -> bool:
        """Whether the server accepts bounds of an index; it also lists indexes that are still being built."""
        bounds = {"min": dict.fromkeys(fields, MinKey()), "max": dict.fromkeys(fields, MaxKey())}
        find = {"find": self._collection.name, "hint": index, **bounds, "limit": 1, "projection": {"_id": 1}}
        try:
            self._command(find | {"collation": {"locale": "simple"}}, _RAW)
        except errors.OperationFailure as error:
            if is_without_index(error):
                return False
            raise
        return True

    def _by_index(self, indexed: Callable[[str], T], otherwise: Callable[[], T]) -> T:
        """The result of `indexed`, or of `otherwise` if there is no usable index any more."""
        with self._translated_errors():
            if self._index.name is not None:
                try:
                    return indexed(self._index.name)
                except errors.OperationFailure as error:
                    if not is_without_index(error):
                        raise
                self._index = self._find_index()
                if self._index.name is not None:
                    return indexed(self._index.name)
                _log.warning("%s", self._index.warning, extra=logs.event("index"))
            return otherwise()

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

    def _between(
        self, index: str, begin: Position, end: Position, limit: int, fields: Fields
    ) -> Generator[bytes, None, None]:
        """The documents from `begin` (inclusive) to `end` (exclusive). The generator must be closed."""
        find = queries.by_index(index, self._field, begin, end, fields)
        command = {"find": self._collection.name, **find, "limit": limit, "batchSize": limit}
        if self._client.is_mongos:  # which otherwise returns what each shard has in turn
            command["sort"] = {self._field: 1, "_id": 1}
        if self._pages_from != ReadPreference.PRIMARY and self._is_replica_set():
            # As fresh as a read from the primary: a member that lags is waited for.
            hello = self._command({"hello": 1}, DECODING)
            fresh = {"level": "majority", "afterClusterTime": hello["lastWrite"]["majorityOpTime"]["ts"]}
            command["readConcern"] = fresh
            cursor: Any = self._database.cursor_command(
                command, read_preference=self._pages_from, codec_options=_RAW
            )
            with cursor:
                yield from (bytes(document.raw) for document in cursor)
            return
        with self._client.start_session(causal_consistency=False) as session:
            reply = self._command(command | {"readConcern": _MAJORITY.document}, _RAW, session)
            cursor_id, batch = queries.batch_in(reply)
            try:
                yield from batch
                while cursor_id:  # a reply holds at most 16 MB
                    more = {"getMore": cursor_id, "collection": self._collection.name}
                    # Not retried: if only the reply was lost, the cursor has advanced.
                    reply = self._database.command(more, codec_options=_RAW, session=session)
                    cursor_id, batch = queries.batch_in(reply)
                    yield from batch
            finally:
                if cursor_id:
                    kill = {"killCursors": self._collection.name, "cursors": [cursor_id]}
                    self._database.command(kill, session=session)

    def _sorted_page(self, after: Position, end: Position, limit: int, fields: Fields) -> Page:
        """A page without the index. Each reads the whole collection, so it has more documents."""
        pipeline = queries.by_sort(self._field, after, end, limit, fields)
        with self._collection.aggregate(pipeline, collation=_SIMPLE, allowDiskUse=True) as cursor:
            documents, more = queries.gather((bytes(document.raw) for document in cursor), limit)
        return Page(documents, self.position(documents[-1]) if documents else None, more)

    def _command(
        self, command: Mapping[str, Any], options: CodecOptions[Any], session: ClientSession | None = None
    ) -> Any:
        """The primary's reply to a command; it is sent once more if the connection is lost, as drivers do."""

        def ask() -> Any:
            return self._database.command(
                dict(command),
                read_preference=ReadPreference.PRIMARY,
                codec_options=options,
                session=session,
            )

        try:
            return ask()
        except errors.ServerSelectionTimeoutError:
            raise
        except errors.AutoReconnect:
            return ask()

    def _is_replica_set(self) -> bool:
        if self._client.is_mongos:  # connects to a server if the client has not done so yet
            return False
        servers = self._client.topology_description.server_descriptions().values()
        return any(server.replica_set_name for server in servers)

    def _translated_errors(self) -> AbstractContextManager[None]:
        return translated_errors(self._client, self._collection.full_name)
