"""Puts the stages of each collection together: with `app`, the one place where both databases meet."""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from etl.backfill.crew import Crew
from etl.backfill.executors import processes
from etl.backfill.pipeline import Executors, Work, inline
from etl.cache.cache import Cache
from etl.cache.client import Wire, open_pool
from etl.cache.keys import Companions, companions
from etl.cache.keyspace import Keyspace
from etl.cache.ownership import Ownership
from etl.checkpoint.checkpoint import CheckpointStore
from etl.checkpoint.lease import Lease
from etl.errors import Transient
from etl.interfaces import Stages
from etl.mongo.client import close, connect
from etl.mongo.reader import Source
from etl.retry import Retry
from etl.settings import CollectionSettings, Settings
from etl.sync.refresh import Refresh
from etl.transform.sheet import unpacked
from etl.transform.transform import Transform
from etl.verify.classify import Rules
from etl.verify.inspection import Inspection
from etl.verify.reading import Reader, unrow
from etl.verify.recheck import Subject
from schemas.documents import FAMILIES, FIELDS
from schemas.families import LAST_SYNC

_FEW: Final = 5000
"""So many documents are transformed before it is worth starting processes for the rest."""


class Assembly:
    """Connections to both servers, made when first used, and what is built on them.

    Raises:
        Misconfigured: an address in the settings is malformed.
    """

    def __init__(self, settings: Settings, on_retry: Callable[[Transient], None]) -> None:
        mongo, redis = settings.mongo, settings.redis
        self._settings = settings
        self._client = connect(mongo.uri.get_secret_value(), mongo.timeout_seconds, connect=False)
        self._pool = open_pool(redis.url.get_secret_value(), redis.timeout_seconds)
        self._ttls = {family: settings.ttl(family) for family in FAMILIES}
        self.stop = threading.Event()
        self.retry = Retry(settings.retry.seconds, self.stop, on_retry)
        self.wire = self.connect()

    def connect(self) -> Wire:
        """A wire of its own, for another thread."""
        return Wire(self._pool)

    def close(self) -> None:
        """Give all connections back."""
        self.wire.close()
        self._pool.disconnect()
        close(self._client)

    def source(self, collection: CollectionSettings) -> Source:
        """Stage 1."""
        database = self._settings.mongo.database
        return Source(self._client, database, collection.name, collection.timestamp_field, FIELDS)

    def transform(self, collection: CollectionSettings) -> Transform:
        """Stage 2."""
        return Transform(collection.tipo, collection.timestamp_field, self._ttls)

    def ownership(self, collection: CollectionSettings) -> Ownership | None:
        """What is kept of which document filled which key; None where the settings say so."""
        return Ownership(collection.name, self._settings.longest_ttl()) if collection.track_keys else None

    def store(self, collection: CollectionSettings, own: Companions | None = None) -> CheckpointStore:
        """Stage 4; `own` for a backfill's."""
        published = self._ttls[LAST_SYNC.name] or 2 * self._settings.schedule.cycle_seconds
        keys = own or companions(collection.name)
        return CheckpointStore(self.wire, collection.name, keys, published, self.retry)

    def lease(self, own: Companions) -> Lease:
        """The lease with these keys."""
        return Lease(self.connect, own, self._settings.lease.seconds, self.retry)

    def refresh(self, collection: CollectionSettings) -> Refresh:
        """The refresh of a collection."""
        overlap, size = collection.overlap_seconds * 1000, collection.page_size
        source, transform = self.source(collection), self.transform(collection)
        return Refresh(source, transform, Keyspace(self.wire), self.retry, size, overlap)

    def subject(self, collection: CollectionSettings) -> Subject:
        """A collection and its cache, as a verification looks at them."""
        others = [one for one in self._settings.collections if one.name != collection.name]
        reader = Reader(collection.tipo, collection.timestamp_field)
        return Subject(
            collection=collection.name,
            source=self.source(collection),
            reader=reader,
            read=Crew(Work(reader, reader.rows, unrow), processes(self._settings.workers()), _FEW),
            inspection=self._inspection(collection, others),
            rules=Rules(self._ttls, collection.track_keys, all(one.track_keys for one in others)),
            retry=self.retry,
            stop=self.stop,
            page_size=collection.page_size,
            overlap=collection.overlap_seconds * 1000,
            cycle_seconds=self._settings.schedule.cycle_seconds,
        )

    def _inspection(self, collection: CollectionSettings, others: Sequence[CollectionSettings]) -> Inspection:
        beside = [ownership for one in others if (ownership := self.ownership(one))]
        return Inspection(self.wire, collection.name, self._ttls, self.ownership(collection), beside)

    def stages(
        self,
        collection: CollectionSettings,
        own: Companions,
        executors: Executors | None = None,
    ) -> Stages:
        """The four stages of a collection, with the companions of a cycle or of a backfill.

        `executors` that somebody asked for work from the first page on, the default ones once it is worth it.
        """
        transform, source = self.transform(collection), self.source(collection)
        cache = Cache(self.wire, collection.name, own, self.ownership(collection))
        store = self.store(collection, own)
        few = 0 if executors else _FEW
        work = Work(transform, transform.parcel, unpacked)
        crew = Crew(work, executors or processes(self._settings.workers()), few)
        return Stages(
            source, transform, cache, store, lambda p: inline(transform, p), crew, self.retry, self.stop
        )
