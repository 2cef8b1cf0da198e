"""Builds all objects from the settings; besides `app` the only module that knows both databases."""

import pickle
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Final

from etl.backfill.backfill import BackfillOrder, DryProcessor, DryStore
from etl.backfill.executors import processes
from etl.backfill.worker import work
from etl.cache.client import SentinelService, Wire
from etl.cache.cluster import AutoWire
from etl.cache.inspector import Inspector
from etl.cache.keys import StateKeys, of_backfill, of_follower, state_keys
from etl.cache.writer import DEADLINE_SECONDS, CacheWriter, refuse_unsendable
from etl.checkpoint.checkpoint import CheckpointStore
from etl.checkpoint.follow_store import FollowStore
from etl.checkpoint.lease import Lease, LeaseKeys
from etl.checkpoint.upgrade import upgrade
from etl.errors import TransientError
from etl.interfaces import RangeProgress, Stages, Task, Workers
from etl.model.result import TransformResult
from etl.model.scan import Scan
from etl.mongo.change_stream import ChangeStream, Session
from etl.mongo.client import close, connect
from etl.mongo.reader import MongoReader
from etl.mongo.survey import Survey, survey
from etl.retry import Retry
from etl.settings import CollectionSettings, RedisSettings, Settings
from etl.settings.kinds import load_kinds
from etl.sync.follow import Followed, Follower
from etl.sync.planner import Limits
from etl.sync.processor import Processor
from etl.sync.runs import Runs
from etl.transform.transform import Transform
from etl.verify.recheck import Scope
from schemas.documents import fields
from schemas.families import LAST_SYNC
from schemas.ids import id_from_text
from schemas.keys import component

_MIN_DOCUMENTS_FOR_WORKERS: Final = 5000
"""Smaller collections are read without worker processes."""


class Container:
    """Builds the objects of the application; connections are opened at their first use.

    Raises:
        ConfigurationError: an address in the settings is malformed.
    """

    def __init__(self, settings: Settings, on_retry: Callable[[TransientError], None]) -> None:
        mongo, redis = settings.mongo, settings.redis
        self.settings = settings
        self._client = connect(mongo.uri.get_secret_value(), mongo.timeout_seconds, connect=False)
        self._ttls = {family: life.ttl for family, life in settings.families.items()}
        self.stop = threading.Event()
        self.retry = Retry(settings.retry.seconds, self.stop, on_retry)
        self.wire: Wire = AutoWire(redis.url.get_secret_value(), redis.timeout_seconds, _sentinel(redis))

    def close(self) -> None:
        """Close all connections."""
        self.wire.close()
        close(self._client)

    def keys(self, collection: CollectionSettings) -> StateKeys:
        """The keys that the ETL keeps for a collection."""
        return state_keys(collection.name, self.settings.namespace)

    def source(self, collection: CollectionSettings) -> str:
        """The prefix of the names of a collection's documents."""
        name, namespace = component(collection.name), self.settings.namespace
        return f"{namespace}/{name}" if namespace else name

    def reader(self, collection: CollectionSettings) -> MongoReader:
        """Stage 1."""
        return self._reader(collection)

    def scanner(self, collection: CollectionSettings) -> MongoReader:
        """Stage 1 of a backfill or a verification: pages come from where `mongo.uri` says."""
        return self._reader(collection, pages_from=self._client.read_preference)

    def survey(self) -> list[Survey]:
        """What the collections of the database hold."""
        return survey(self._client, self.settings.mongo.database)

    def transform(self, collection: CollectionSettings) -> Callable[[Sequence[bytes]], list[TransformResult]]:
        """Stage 2; it asks Redis for its limit where a document is large."""
        most = self.settings.transform.document_bytes
        transform = Transform(self.source(collection), collection.tipo, collection.timestamp_field, most)
        longest = partial(self.retry, self.wire.longest_argument)
        return lambda documents: refuse_unsendable(transform(documents), longest)

    def processor(self, collection: CollectionSettings) -> Processor:
        """Stage 3."""
        memory = collection.overlap_seconds + 2 * self.settings.schedule.cycle_seconds
        sources = frozenset(map(self.source, self.settings.collections))
        writer = CacheWriter(self.wire, self._ttls, memory, track_keys=collection.track_keys)
        return Processor(
            writer=writer,
            source=self.source(collection),
            reread=self.reread,
            is_configured=lambda name: name.partition(" ")[0] in sources,
            retry=self.retry,
        )

    def reread(self, names: Collection[str], session: Session | None = None) -> list[TransformResult]:
        """Read the documents with these names that exist, of all collections, in ascending order."""
        found: list[TransformResult] = []
        for collection in self.settings.collections:
            prefix = self.source(collection) + " "
            ids = [id_from_text(name.removeprefix(prefix)) for name in names if name.startswith(prefix)]
            if ids:
                found += self.transform(collection)(self.reader(collection).fetch(ids, session))
        return sorted(found, key=lambda one: (one.position.order(), one.document))

    def store(self, collection: CollectionSettings, keys: StateKeys | None = None) -> CheckpointStore:
        """Stage 4; `keys` are those of a cycle by default."""
        published = self._ttls[LAST_SYNC.name] or 2 * self.settings.schedule.cycle_seconds
        keys = keys or self.keys(collection)
        return CheckpointStore(self.wire, keys, published, self.retry)

    def lease(self, key: str, fence: str | None = None) -> Lease:
        """The lease with this key; with a fence if it protects a checkpoint."""
        return Lease(self.wire, LeaseKeys(key, fence), self.settings.lease.seconds, self.retry)

    def limits(self, collection: CollectionSettings) -> Limits:
        """How far back a cycle reads."""
        lookback = round((collection.overlap_seconds + DEADLINE_SECONDS) * 1000)
        return Limits(lookback, self.settings.longest_ttl() * 1000, collection.cold_start)

    def stages(self, collection: CollectionSettings, keys: StateKeys) -> Stages:
        """The four stages of a collection, with the keys of a cycle or of a backfill."""
        return Stages(
            reader=self.reader(collection),
            transform=self.transform(collection),
            processor=self.processor(collection),
            store=self.store(collection, keys),
            start_workers=partial(self._start_workers, collection, BackfillOrder()),
            retry=self.retry,
            stop=self.stop,
            page_size=collection.page_size,
            source=f"{self.settings.mongo.database}.{collection.name} by {collection.timestamp_field}",
        )

    def runs(self, collection: CollectionSettings) -> Runs:
        """The runs of a collection."""
        keys = self.keys(collection)
        backfill_keys = of_backfill(keys)
        return Runs(
            collection=collection.name,
            limits=self.limits(collection),
            cycle_stages=self.stages(collection, keys),
            backfill_stages=partial(self._backfill_stages, collection),
            lease=self.lease(keys.lease, keys.fence),
            backfill_lease=self.lease(backfill_keys.lease, backfill_keys.fence),
            upgrade=partial(self._upgrade, collection),
        )

    def follower(
        self,
        collection: CollectionSettings,
        reconcile: Callable[[], object],
        on_batch: Callable[[Followed], None],
    ) -> Follower:
        """The follower of a collection."""
        keys = of_follower(self.keys(collection))
        database, size = self.settings.mongo.database, collection.page_size
        stream = ChangeStream(self._client, database, collection.name, size)
        return Follower(
            stages=self.stages(collection, self.keys(collection)),
            store=FollowStore(self.store(collection, keys)),
            stream=stream,
            reread=lambda names: self.reread(names, stream.session),
            lease=self.lease(keys.lease, keys.fence),
            cycle=self.runs(collection).cycle,
            reconcile=reconcile,
            on_batch=on_batch,
        )

    def _reader(self, collection: CollectionSettings, **options: Any) -> MongoReader:
        return MongoReader(
            self._client,
            self.settings.mongo.database,
            collection.name,
            collection.timestamp_field,
            fields(),
            collection.fields,
            f"collections.{self.settings.collections.index(collection)}.fields",
            allow_sharded=self.settings.mongo.allow_sharded,
            **options,
        )

    def _backfill_stages(self, collection: CollectionSettings, order: BackfillOrder) -> Stages:
        if order.dry_run:
            return self.dry_stages(collection, order)
        start = partial(self._start_workers, collection, order)
        stages = self.stages(collection, of_backfill(self.keys(collection)))
        return replace(stages, reader=self.scanner(collection), start_workers=start)

    def _upgrade(self, collection: CollectionSettings) -> bool:
        """Upgrade the state of version 0.1, which had no namespaces."""
        if self.settings.namespace:
            return False
        source, keys = self.source(collection), self.keys(collection)
        return self.retry(partial(upgrade, self.wire, collection.name, source, keys))

    def dry_stages(self, collection: CollectionSettings, order: BackfillOrder) -> Stages:
        """The stages of a backfill that writes nothing."""
        start = partial(self._start_workers, collection, order)
        stages = self.stages(collection, self.keys(collection))
        reader = self.scanner(collection)
        return replace(stages, reader=reader, processor=DryProcessor(), store=DryStore(), start_workers=start)

    def scope(self, collection: CollectionSettings) -> Scope:
        """The scope of a verification."""
        keys = self.keys(collection)
        return Scope(
            collection=collection.name,
            stages=replace(self.stages(collection, keys), reader=self.scanner(collection)),
            inspector=Inspector(self.wire, self.retry),
            processor=self.processor(collection),
            source=self.source(collection),
            ttls=self._ttls,
            overlap=collection.overlap_seconds * 1000,
            keys=keys,
        )

    @contextmanager
    def _start_workers(
        self, collection: CollectionSettings, order: BackfillOrder, scan: Scan
    ) -> Iterator[Workers | None]:
        """Start workers: always if the order names an executor, else for large collections only."""
        reader = self.reader(collection)
        alone = scan.mode == "delta" or (scan.mode == "cold_start" and collection.cold_start == "now")
        if alone or order.rate or not self.retry(reader.prepare):
            yield None
            return
        if order.executors is None and self.retry(reader.count) < _MIN_DOCUMENTS_FOR_WORKERS:
            yield None
            return
        start = order.executors or processes(self.settings.workers())
        lookback = self.limits(collection).lookback
        remember_from = scan.clocks.mongo - lookback if scan.mode == "cold_start" else None
        remote = RemoteWork(pickle.dumps(self.settings), collection.name, remember_from, order.dry_run)
        with start() as started:
            yield Workers(started[0], remote, started[1]) if started else None


def _sentinel(redis: RedisSettings) -> SentinelService | None:
    if redis.sentinel is None:
        return None
    nodes = [node.rpartition(":")[::2] for node in redis.sentinel.nodes]
    secret = redis.sentinel.password
    return SentinelService(
        service=redis.sentinel.service,
        nodes=[(host.strip("[]"), int(port)) for host, port in nodes],
        username=redis.sentinel.username,
        password=secret.get_secret_value() if secret else None,
    )


@dataclass(frozen=True, slots=True)
class RemoteWork:
    """A task of a cold start or a backfill in a worker process, with connections of its own."""

    settings: bytes
    collection: str
    remember_from: int | None
    dry: bool

    def __call__(self, task: Task) -> RangeProgress:
        """Work on the range of the task for the time of the task."""
        stages = _stages(self.settings, self.collection, self.dry)
        process = partial(stages.processor.process, remember_from=self.remember_from, skip_done=False)
        return work(stages, process, task)


@lru_cache(maxsize=4)
def _stages(settings: bytes, name: str, dry: bool) -> Stages:  # noqa: FBT001
    """The stages of a worker process, cached so that connections are kept from task to task."""
    loaded: Settings = pickle.loads(settings)  # noqa: S301 (made by the coordinator)
    load_kinds(loaded.kinds)
    container = Container(loaded, lambda _: None)
    collection = container.settings.collection(name)
    keys = container.keys(collection)
    stages = container.dry_stages(collection, BackfillOrder()) if dry else container.stages(collection, keys)
    stages = replace(stages, reader=container.scanner(collection))
    stages.retry(stages.reader.prepare)
    return stages
