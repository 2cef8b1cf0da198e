"""One collection of MongoDB: commands to the primary, the index to read by, and documents between index bounds."""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import pymongo
from bson import MaxKey, MinKey
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, ReadPreference, errors
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern

from etl import logs
from etl.errors import AccessDenied, ConfigurationError
from etl.model.index import Index
from etl.mongo import indexes, queries
from etl.mongo.client import address, is_without_index, translated_errors
from etl.mongo.queries import Fields
from schemas.codec import DECODING
from schemas.position import Position, position_in

PING_SECONDS: Final = 2.0
"""Time limit for status queries and health checks."""

MAJORITY: Final = ReadConcern("majority")
LINEARIZABLE: Final = ReadConcern("linearizable")

_ON_A_VIEW: Final = 166
_RAW: Final = CodecOptions(document_class=RawBSONDocument)

_log: Final = logging.getLogger("etl.reader")

T = TypeVar("T")


class MongoCollection:
    """Commands on one collection; everything but `between` goes to the primary.

    Every method raises `TransientError` if a retry may help, `ConfigurationError` for wrong credentials or roles, and
    `CycleFailed` for every other error.
    """

    def __init__(
        self,
        client: MongoClient[dict[str, Any]],
        database: str,
        collection: str,
        timestamp_field: str,
        *,
        pages_from: Any,
        allow_sharded: bool,
    ) -> None:
        """Create the object without contacting the server; for the arguments see `MongoReader`."""
        self._client = client
        self._field = timestamp_field
        self._pages_from = pages_from
        self._allow_sharded = allow_sharded
        self._database = client[database]
        read = self._database.get_collection(
            collection, codec_options=_RAW, read_concern=MAJORITY, read_preference=ReadPreference.PRIMARY
        )
        # The driver derives the type of a collection from its client, and ignores the codec options.
        self._collection = cast("Collection[RawBSONDocument]", read)
        self._index = Index(None)

    @property
    def index(self) -> Index:
        """The index that `prepare` has found, or the reason why there is none."""
        return self._index

    def clock(self) -> int:
        """The primary's wall clock in milliseconds since the epoch (`localTime` of `hello`)."""
        with self._translated_errors():
            hello = self._client.admin.command(
                "hello", read_preference=ReadPreference.PRIMARY, codec_options=DECODING
            )
            return int(DatetimeMS(hello["localTime"]))

    def ping(self, seconds: float = PING_SECONDS) -> None:
        """Ask the primary for its clock, and wait at most `seconds`, including a retry by the driver."""
        with pymongo.timeout(seconds):
            self.clock()

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

    def prepare(self) -> bool:
        """Look for the index on `(timestamp, _id)`; without it each page scans the whole collection.

        Returns:
            Whether the index exists and can be used; `index` gives the reason if not.

        Raises:
            ConfigurationError: this is a sharded cluster, and the settings do not allow one.
        """
        with self._translated_errors():
            if self._client.is_mongos and not self._allow_sharded:
                raise ConfigurationError(
                    f"MongoDB at {address(self._client)} is a sharded cluster, which is untested"
                    " (mongo.allow_sharded accepts it)"
                )
            self._index = self._find_index()
        return self._index.name is not None

    def position(self, raw: bytes) -> Position:
        """The position of a raw document, which may be one that cannot be decoded."""
        return position_in(raw, self._field)

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
            reply = self._command(command | {"readConcern": MAJORITY.document}, _RAW, session)
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

    def _by_id(
        self,
        ids: Sequence[Any],
        fields: Fields,
        level: ReadConcern = MAJORITY,
        session: ClientSession | None = None,
    ) -> list[bytes]:
        with self._translated_errors():
            if level == LINEARIZABLE and not self._is_replica_set():
                level = MAJORITY
            collection = self._collection.with_options(read_concern=level)
            # In one batch: with read concern linearizable each further one would wait for the journal again.
            found = collection.find(queries.by_id(ids), fields, session=session, batch_size=len(ids) + 1)
            return [bytes(document.raw) for document in found]

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
