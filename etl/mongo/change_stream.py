"""The change stream of one collection: which documents were written, in what order, and where to resume.

Events are requested without documents, so none exceeds 16 MB. The commands are sent directly, because the driver's own
change stream cannot return what has arrived without waiting for more. See "Change Streams"
and "getMore" in the MongoDB manual.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import pymongo
from bson import Timestamp
from pymongo import MongoClient, ReadPreference, errors
from pymongo.client_session import ClientSession

from etl.errors import EtlError, InvalidatedError, StreamRefusedError, TokenLostError
from etl.model.events import Events, ResumeToken
from etl.mongo.client import first_line, translated_errors
from schemas.codec import DECODING
from schemas.ids import id_text

# Server error codes: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
_TOKEN_LOST: Final = frozenset({222, 260, 280, 286})
"""CloseChangeStream, InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost."""
_NO_STREAMS: Final = frozenset({13, 40573, 40415})
"""Unauthorized; the server is no member of a replica set."""
_INVALIDATE: Final = "invalidate"
_CLOSE_SECONDS: Final = 1.0
_PIPELINE: Final[Sequence[Mapping[str, Any]]] = (
    {"$project": {"operationType": True, "documentKey": True, "clusterTime": True}},
)

Session = ClientSession


class ChangeStream:
    """A change stream of one collection; not thread-safe.

    Every method raises `TokenLostError`, `InvalidatedError`, `StreamRefusedError`, and the errors of
    `etl.mongo.client.translated_errors`.

    Args:
        client: the connection.
        database: the name of the database.
        collection: the name of the collection.
        most: maximum number of events per batch.
    """

    def __init__(
        self, client: MongoClient[dict[str, Any]], database: str, collection: str, most: int
    ) -> None:
        self._client = client
        self._database = client[database]
        self._name = collection
        self._most = most
        self._cursor = 0
        self._session: Session | None = None

    @property
    def session(self) -> Session | None:
        """The causally consistent session of the stream: what is read in it is no older than the last events."""
        return self._session

    def open(self, token: ResumeToken | None) -> Events:
        """Open the stream after a token, or at the present; return the events that are available immediately."""
        self.close()
        self._session = self._client.start_session(causal_consistency=True)
        stage = {"$changeStream": {"resumeAfter": token} if token else {}}
        command = {
            "aggregate": self._name,
            "pipeline": [stage, *_PIPELINE],
            "cursor": {"batchSize": self._most},
        }
        return self._events(
            self._ask(command | {"readConcern": {"level": "majority"}})["cursor"], "firstBatch"
        )

    def next(self, wait_seconds: float) -> Events:
        """The events that have arrived; waits at most `wait_seconds` for the first one."""
        command = {
            "getMore": self._cursor,
            "collection": self._name,
            "batchSize": self._most,
            "maxTimeMS": max(1, round(wait_seconds * 1000)),
        }
        return self._events(self._ask(command)["cursor"], "nextBatch")

    def close(self) -> None:
        """End the session, and first close the cursor, if the server answers within `_CLOSE_SECONDS`."""
        if self._cursor:
            with suppress(EtlError), pymongo.timeout(_CLOSE_SECONDS):
                self._ask({"killCursors": self._name, "cursors": [self._cursor]})
        if self._session is not None:
            self._session.end_session()
        self._session = None

    def _ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        self._cursor = 0  # after an error there is no cursor to close
        with self._translated_errors():
            return self._database.command(
                dict(command),
                session=self._session,
                read_preference=ReadPreference.PRIMARY,
                codec_options=DECODING,
            )

    def _events(self, cursor: Mapping[str, Any], batch: str) -> Events:
        self._cursor = int(cursor["id"])
        events: Sequence[Mapping[str, Any]] = cursor[batch]
        operations: dict[str, int] = {}
        ids: dict[str, None] = {}
        clock: Timestamp | None = None
        for event in events:
            kind = event["operationType"]
            operations[kind] = operations.get(kind, 0) + 1
            clock = event.get("clusterTime", clock)
            if "documentKey" in event:
                ids[id_text(event["documentKey"]["_id"])] = None
        if _INVALIDATE in operations or not self._cursor:
            raise InvalidatedError(f"{self._database.name}.{self._name} was dropped or renamed")
        token = cursor.get("postBatchResumeToken") or events[-1]["_id"]
        return Events([*ids], operations, token, None if clock is None else float(clock.time))

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        namespace = f"{self._database.name}.{self._name}"
        try:
            with translated_errors(self._client, namespace):
                yield
        except EtlError as error:
            code = getattr(error.__cause__, "code", None)
            if code in _TOKEN_LOST:
                raise TokenLostError(f"{namespace}: the oplog does not go back to the last event") from error
            if code in _NO_STREAMS:
                reason = error.__cause__ if isinstance(error.__cause__, errors.PyMongoError) else error
                raise StreamRefusedError(f"{namespace}: no change stream: {first_line(reason)}") from error
            raise
