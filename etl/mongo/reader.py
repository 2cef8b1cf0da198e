"""Stage 1, read: short keyset pages of raw documents, in `(updated_at, _id)` order.

It needs the role `read` and writes nothing.
"""

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
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
from etl.mongo.queries import Fields
from schemas.codec import DECODING, type_name
from schemas.ids import id_text
from schemas.position import AFTER_DATES, FIRST, FIRST_DATE, LAST, Position, at, position_in

UNREACHABLE_CAP: Final = 10_000
"""Counting documents without a usable date stops here: their number must not slow the cycle."""

PING_SECONDS: Final = 2.0
"""The longest time that a question of a person or a monitor waits for MongoDB."""

COUNT_CAP: Final = 10_000
"""Counting documents whose timestamp is of one type stops here."""

MOST_IDS: Final = 500
"""How many documents are read by `_id` at once."""

_UNINDEXED_PAGE: Final = 10_000
_SAMPLES_A_CUT: Final = 5
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
    """Where to read on; None without documents."""
    more: bool
    """Whether there may be more."""


class Source:
    """One collection of MongoDB as the ETL reads it.

    Every method raises `TransientError` where trying again may help, `ConfigurationError` for wrong
    credentials or roles, and `CycleFailed` for every other error.
    """

    def __init__(
        self,
        client: MongoClient[dict[str, Any]],
        database: str,
        collection: str,
        timestamp_field: str = "updated_at",
        fields: Sequence[str] = (),
    ) -> None:
        """A reader; nothing is asked of the server yet.

        Args:
            client: the connection.
            database: its name.
            collection: its name.
            timestamp_field: the name of a field, or a dotted path.
            fields: the fields to read beside the timestamp and `_id`; whole documents where none are named.
        """
        self._client = client
        self._field = timestamp_field
        # The whole of a field that a dotted path begins with: its path and itself would collide.
        timestamp = timestamp_field.partition(".")[0]
        self._fields: Fields = dict.fromkeys((*fields, timestamp), True) if fields else {}
        self._database = client[database]
        read = self._database.get_collection(
            collection, codec_options=_RAW, read_concern=_MAJORITY, read_preference=ReadPreference.PRIMARY
        )
        # The driver types a collection by its client, whatever class the codec options name.
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
        """Look for the index on `(timestamp, _id)`; without it, reading works but scans: see `index`.

        Returns:
            Whether the index is there, and can be used.

        Raises:
            ConfigurationError: this is a sharded cluster, whose router would mix up the order of pages.
        """
        with self._translated_errors():
            if self._client.is_mongos:
                raise ConfigurationError(
                    f"MongoDB at {address(self._client)} is a sharded cluster: not supported"
                )
            self._index = self._find_index()
        return self._index.name is not None

    @property
    def index(self) -> Index:
        """The index that `prepare` has found, or why there is none."""
        return self._index

    def ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """The primary's answer to one command on the database, one that only reads."""
        with self._translated_errors():
            answer: Mapping[str, Any] = self._command(command, DECODING)
            return answer

    def identity(self) -> str | None:
        """The UUID of the collection: another one once it was dropped and created again.

        None where there is no such collection, for a view, and where the user may not list collections.
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
        """At most `limit` documents after `after` and before `end`, in index order.

        The document at `after` itself is left out. A page may end early by weight. Where the index
        cannot be used any more, the page is read without it, and a warning says so.
        """
        return self._page(after, end, limit, max(limit, _UNINDEXED_PAGE))

    def fetch(self, ids: Sequence[Any], session: ClientSession | None = None) -> list[bytes]:
        """The documents with these `_id`s that exist, in order of position.

        As they are now: a primary of a replica set that was deposed without knowing it does not answer. With the
        session of a change stream they are as the stream has shown them, or newer, which is read much faster: a
        linearizable read waits for the journal, up to 100 ms.
        """
        found: list[bytes] = []
        with self._translated_errors():
            level = _LINEARIZABLE if session is None and self._is_replica_set() else _MAJORITY
            collection = self._collection.with_options(read_concern=level)
            for start in range(0, len(ids), MOST_IDS):
                wanted = queries.by_id(ids[start : start + MOST_IDS])
                # In one batch: each further one would wait for the journal again.
                some = collection.find(wanted, self._fields, session=session, batch_size=MOST_IDS + 1)
                found += [bytes(document.raw) for document in some]
        return sorted(found, key=lambda raw: self.position(raw).order())

    def of_kind(self, criteria: Mapping[str, Any], limit: int) -> Iterator[list[bytes]]:
        """All documents that match `criteria`, the newest first, `limit` at a time."""
        order = [(self._field, -1), ("_id", -1)]
        with (
            self._translated_errors(),
            self._collection.find(criteria, self._fields, sort=order, allow_disk_use=True) as cursor,
        ):
            more = True
            while more:
                documents, more = queries.gather((bytes(document.raw) for document in cursor), limit)
                yield documents

    def cuts(self, count: int) -> list[Position]:
        """At most `count` positions that cut the collection into ranges of about one size, ascending.

        They are sampled, so they are others each time. None where the collection is small, or is not
        read by an index.
        """
        if self._index.name is None:
            return []
        with self._translated_errors():
            wanted = min(count, self._collection.estimated_document_count() // _LEAST_RANGE)
            if wanted < 1:
                return []
            samples: list[Mapping[str, Any]] = [
                {"$sample": {"size": wanted * _SAMPLES_A_CUT}},
                {"$project": {self._field.partition(".")[0]: True}},
            ]
            found = [self.position(bytes(one.raw)) for one in self._collection.aggregate(samples)]
        distinct = {one.text(): one for one in found if not one.is_array()}
        ordered = sorted(distinct.values(), key=Position.order)
        # Every fifth of five samples a cut: the ranges between single ones would differ much more in size.
        return ordered[_SAMPLES_A_CUT // 2 :: _SAMPLES_A_CUT]

    def unreachable(self) -> int:
        """How many documents have no date to be reached by, at most `UNREACHABLE_CAP`."""

        def between(index: str, after: Position, end: Position, limit: int) -> int:
            # A filter for types would walk all of the index.
            return sum(1 for _ in self._between(index, after, end, limit, queries.NOTHING)) if limit else 0

        def by_index(index: str) -> int:
            before = between(index, FIRST, FIRST_DATE, UNREACHABLE_CAP)
            return before + between(index, AFTER_DATES, LAST, UNREACHABLE_CAP - before)

        def by_filter() -> int:
            dates = {"$gte": FIRST_DATE.timestamp, "$lte": DatetimeMS(2**63 - 1)}
            return self._collection.count_documents({self._field: {"$not": dates}}, limit=UNREACHABLE_CAP)

        return self._by_index(by_index, by_filter)

    def timestamp_types(self) -> Counter[str]:
        """How many documents have a timestamp of each type but date, up to about `COUNT_CAP` of each.

        By MongoDB's names of types. Reads what the index has before and after all dates. Arrays may stand
        among the dates, but only if MongoDB knows that it has indexed any: then all documents are looked at.

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
        """About how many documents the collection has, as its metadata say."""
        with self._translated_errors():
            return self._collection.estimated_document_count()

    def sample(self, count: int) -> list[str]:
        """A random sample of about `count` documents: the `_id` of each, once, as `id_text`."""
        stages: list[dict[str, Any]] = [{"$sample": {"size": count}}, {"$project": {"_id": True}}]
        with self._translated_errors():
            found = self._collection.aggregate(stages)
            return [*{id_text(self.position(bytes(one.raw)).id): None for one in found}]

    def waited(self, reached: Position) -> float:
        """How long the oldest document after `reached` has waited, in seconds by MongoDB's clock.

        0 where there is none; documents dated in the future do not count. Takes `PING_SECONDS` at most,
        also while the server is away: this is for people and monitors, who ask again.
        """
        with pymongo.timeout(PING_SECONDS):
            clock = self.clock()
            self.prepare()
            oldest = self._page(reached, at(clock + 1), 1, 1).last
        ms = None if oldest is None else oldest.ms
        return 0.0 if ms is None else max(0, clock - ms) / 1000

    def ping(self, seconds: float = PING_SECONDS) -> None:
        """Ask the primary for its clock, and wait at most `seconds`, including a retry by the driver."""
        with pymongo.timeout(seconds):
            self.clock()

    def position(self, raw: bytes) -> Position:
        """The position of a raw document, also of one that cannot be decoded."""
        return position_in(raw, self._field)

    def _page(self, after: Position, end: Position, limit: int, unindexed: int) -> Page:
        """The page of `limit` documents; of more without the index, as each reads the whole collection."""
        if after.order() >= end.order():
            return Page([], None, more=False)
        return self._by_index(
            lambda index: self._indexed_page(index, after, end, limit),
            lambda: self._sorted_page(after, end, unindexed),
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
        """Whether the server reads between bounds of an index: it lists one that it is still building."""
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
        """What `indexed` says, or `otherwise` where there is no index any more."""
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

    def _indexed_page(self, index: str, after: Position, end: Position, limit: int) -> Page:
        documents, more = self._read(index, after, end, limit, self._fields, self.position)
        last = self.position(documents[-1]) if documents else None
        if last is None or not last.is_array():
            return Page(documents, last, more)
        # The index has an entry for each member of the array: its key says at which one the page ends.
        fields = queries.with_index_key(self._fields)
        found, more = self._read(index, after, end, limit, fields, lambda raw: queries.split_key(raw)[1])
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
        """The documents of a page, without the one at `after`, and whether there may be more."""
        # One more than asked for: index bounds are inclusive.
        with closing(self._between(index, after, end, limit + 1, fields)) as found:
            beyond = (
                raw for number, raw in enumerate(found) if number or position(raw).order() != after.order()
            )
            return queries.gather(beyond, limit)

    def _between(
        self, index: str, begin: Position, end: Position, limit: int, fields: Fields
    ) -> Generator[bytes, None, None]:
        """The documents from one position on and before another; to be closed."""
        find = queries.by_index(index, self._field, begin, end, fields)
        command = {"find": self._collection.name, **find, "limit": limit, "batchSize": limit}
        with self._client.start_session(causal_consistency=False) as session:
            reply = self._command(command | {"readConcern": _MAJORITY.document}, _RAW, session)["cursor"]
            try:
                yield from queries.documents_in(reply)
                while reply["id"]:  # there are more than one reply may hold
                    more = {"getMore": reply["id"], "collection": self._collection.name}
                    # Not repeated where the reply is lost: the cursor has moved on then.
                    reply = self._database.command(more, codec_options=_RAW, session=session)["cursor"]
                    yield from queries.documents_in(reply)
            finally:
                if reply["id"]:
                    kill = {"killCursors": self._collection.name, "cursors": [reply["id"]]}
                    self._database.command(kill, session=session)

    def _sorted_page(self, after: Position, end: Position, limit: int) -> Page:
        """The same page without the index: every page reads the whole collection, so they are long."""
        pipeline = queries.by_sort(self._field, after, end, limit, self._fields)
        with self._collection.aggregate(pipeline, collation=_SIMPLE, allowDiskUse=True) as cursor:
            documents, more = queries.gather((bytes(document.raw) for document in cursor), limit)
        return Page(documents, self.position(documents[-1]) if documents else None, more)

    def _command(
        self, command: Mapping[str, Any], options: CodecOptions[Any], session: ClientSession | None = None
    ) -> Any:
        """The primary's answer to a command; asked again where the connection was lost, as drivers do."""

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
        if self._client.is_mongos:  # asks a server, where none was asked yet
            return False
        servers = self._client.topology_description.server_descriptions().values()
        return any(server.replica_set_name for server in servers)

    def _translated_errors(self) -> AbstractContextManager[None]:
        return translated_errors(self._client, self._collection.full_name)
