"""The composition root: the one place where settings, servers, stages and the heart meet."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Self

from etl.cache import Cache
from etl.checkpoint import CheckpointStore
from etl.companions import companions
from etl.cycle import Cycle, Rules
from etl.dead_letters import DeadLetters
from etl.doctor import Finding, examine
from etl.errors import CacheAway, EtlError, Locked, Misconfigured, Transient
from etl.history import Entry, History
from etl.inspection import Inspection
from etl.keyspace import Keyspace, Shown
from etl.lease import Lease, this_process
from etl.ownership import Ownership
from etl.ports import Stages
from etl.reading import Reader
from etl.redis_wire import Command, Wire, open_pool
from etl.refresh import Refresh
from etl.report import RefreshReport, Report
from etl.retry import Retry
from etl.scan import Limits
from etl.second_look import Subject
from etl.settings import CollectionSettings, Settings
from etl.source import Source, connect
from etl.status import CollectionStatus, read_status
from etl.trace import KeyStory, Trace, Tracer
from etl.transform import Transform
from etl.verdicts import Rules as Verification
from etl.verify import Tell, Verify
from etl.verify_report import VerifyReport
from schemas.documents import FAMILIES, KINDS
from schemas.families import LAST_SYNC
from schemas.keys import companion

__all__ = ["App", "CollectionStatus", "Entry", "Finding", "KeyStory", "Shown", "Trace", "VerifyReport"]

_log = logging.getLogger("etl")


class App:
    """The product behind every command. Connects when first used; close it, or use it in a `with`.

    Raises:
        Misconfigured: an address in the settings is malformed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        mongo, redis = settings.mongo, settings.redis
        self._client = connect(mongo.uri.get_secret_value(), mongo.timeout_seconds, connect=False)
        self._pool = open_pool(redis.url.get_secret_value(), redis.timeout_seconds)
        self._ttls = {family: settings.ttl(family) for family in FAMILIES}
        self._stop = threading.Event()
        self._retry = Retry(settings.retry.seconds, self._stop, _tell_of_retry)
        self._wire = self._connect()

    @property
    def collections(self) -> list[str]:
        """The names of all collections in the settings."""
        return [collection.name for collection in self._settings.collections]

    def sync(self, names: Sequence[str] = ()) -> Iterator[Report]:
        """One cycle of each collection, all of them by default; a failure is in its report.

        Raises:
            Misconfigured: a name is not in the settings.
        """
        for collection in self._chosen(names):
            yield self._cycle(collection)

    def take_turn(self, name: str) -> bool:
        """Whether this interval's cycle of a collection falls to this process, among several daemons.

        Whoever asks first has it, for nine tenths of the interval: by the next one it is free again.

        Raises:
            EtlError: Redis stays away, or refuses.
        """
        own = companions(self._settings.collection(name).name)
        ms = self._settings.schedule.cycle_seconds * 900
        take: Command = ("SET", own.turn, this_process(), "NX", "PX", ms)
        return bool(self._retry(lambda: self._wire.exchange([take]))[0])

    def retry_dead_letters(self, name: str, ids: Sequence[str]) -> Report:
        """One cycle that also reads these documents again (`_id`s as canonical Extended JSON)."""
        return self._cycle(self._settings.collection(name), ids)

    def dead_letters(self, name: str) -> DeadLetters:
        """The dead letters of a collection.

        Raises:
            Misconfigured: the name is not in the settings.
        """
        return DeadLetters(self._wire, self._settings.collection(name).name, self._retry)

    def refresh(self, family: str, name: str | None = None) -> RefreshReport:
        """Warm a family, or its entries called `name`, whatever the watermark says.

        Raises:
            Misconfigured: no document fills the family, or it has no names.
            EtlError: a server stays away, or refuses.
        """
        kinds = [kind for kind in KINDS.values() if family in {f.name for f in kind.families}]
        if not kinds:
            raise Misconfigured(f"no document fills {family!r}, so it cannot be refreshed")
        report = RefreshReport(family, name)
        for collection in self._settings.collections:
            self._refresh(collection).run(report)
        return report

    def show(self, key: str) -> Shown | None:
        """What Redis holds under `key`; None where there is no such key.

        Raises:
            EtlError: Redis stays away, or refuses.
        """
        return self._retry(lambda: Keyspace(self._wire, self._ttls).show(key))

    def status(self, names: Sequence[str] = ()) -> list[CollectionStatus]:
        """Where each collection stands, all of them by default; may be called from any thread.

        Raises:
            Misconfigured: a name is not in the settings.
            EtlError: Redis is away, or refuses. MongoDB away is in the status.
        """
        sources = [(collection.name, self._source(collection)) for collection in self._chosen(names)]
        with closing(self._connect()) as wire:
            return read_status(wire, sources, self._settings.schedule.cycle_seconds)

    def history(self, name: str, limit: int) -> list[Entry]:
        """At most `limit` runs of a collection, the newest first.

        Raises:
            Misconfigured: the name is not in the settings.
            EtlError: Redis stays away, or refuses.
        """
        history = History(self._wire, self._settings.collection(name).name)
        return self._retry(lambda: history.newest(limit))

    def doctor(self) -> list[Finding]:
        """Every check of the settings and of both servers; a server that is away is a finding."""
        sources = {collection.name: self._source(collection) for collection in self._settings.collections}
        with closing(self._connect()) as wire:
            return list(examine(self._settings, sources, wire))

    def verify(
        self, name: str, sample: int | None = None, *, repair: bool = False, tell: Tell = lambda *_: None
    ) -> VerifyReport:
        """Compare Redis with what the documents of a collection say, and with `repair` mend it.

        Args:
            name: the collection.
            sample: compare about so many documents and keys; None for all.
            repair: write what is wrong as it should be.
            tell: told of the progress.

        Raises:
            Misconfigured: the name is not in the settings.
            EtlError: a server stays away, or refuses.
        """
        subject = self._subject(self._settings.collection(name))
        return Verify(subject, VerifyReport(name), tell).run(sample, repair=repair)

    def reconcile(self, name: str) -> VerifyReport | None:
        """Verify and mend a collection, if a cycle of it has finished and no other daemon does so now.

        Raises:
            Misconfigured: the name is not in the settings.
            EtlError: a server stays away, or refuses.
        """
        seconds = self._settings.reconcile.interval_seconds or 1
        turn = companion(LAST_SYNC.key(collection=self._settings.collection(name).name), "reconciling")
        take: Command = ("SET", turn, this_process(), "NX", "PX", seconds * 900)
        finished: Command = ("HEXISTS", companions(name).checkpoint, "mongo_clock")
        taken, ready = self._retry(lambda: self._wire.exchange([take, finished]))
        return self.verify(name, repair=True) if taken and ready else None

    def trace(self, name: str, ids: Sequence[str]) -> Trace:
        """The story of the document with the first of these `_id`s (canonical Extended JSON) that exists.

        Raises:
            Misconfigured: the name is not in the settings.
            EtlError: a server stays away, or refuses.
        """
        subject = self._subject(self._settings.collection(name))
        return Tracer(subject, self.dead_letters(name).find).trace(ids)

    def stop(self) -> None:
        """Ask what is running to end after its batch; may be called from a signal handler."""
        self._stop.set()

    def close(self) -> None:
        """Give all connections back."""
        self._wire.close()
        self._pool.disconnect()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chosen(self, names: Sequence[str]) -> Sequence[CollectionSettings]:
        return [self._settings.collection(name) for name in names] or self._settings.collections

    def _connect(self) -> Wire:
        return Wire(self._pool)

    def _cycle(self, collection: CollectionSettings, again: Sequence[str] = ()) -> Report:
        report = Report(collection.name)
        store = self._store(collection)
        began, clock = round(time.time() * 1000), time.monotonic()
        try:
            with self._lease(collection).hold() as token:
                stages = self._stages(collection, store)
                return Cycle(stages, self._rules(collection), token, report).run(again)
        except Locked as error:
            return report.failed(str(error), error.exit_code, "locked")
        except EtlError as error:
            _log.debug("the cycle failed", exc_info=True)
            report.sync_duration_ms = round((time.monotonic() - clock) * 1000)
            report.failed(str(error), error.exit_code)
            if not isinstance(error, CacheAway):
                with suppress(EtlError):  # what went wrong matters more than that it could not be recorded
                    store.record(report, began)
            return report

    def _stages(self, collection: CollectionSettings, store: CheckpointStore) -> Stages:
        return Stages(
            source=self._source(collection),
            transform=self._transform(collection),
            cache=Cache(self._wire, collection.name, self._ttls),
            checkpoint=store,
            retry=self._retry,
            stop=self._stop,
        )

    def _rules(self, collection: CollectionSettings) -> Rules:
        longest = self._settings.longest_ttl() * 1000
        limits = Limits(collection.overlap_seconds * 1000, longest, collection.cold_start)
        return Rules(collection.name, limits, collection.page_size)

    def _source(self, collection: CollectionSettings) -> Source:
        database = self._settings.mongo.database
        return Source(self._client, database, collection.name, collection.timestamp_field)

    def _transform(self, collection: CollectionSettings) -> Transform:
        return Transform(collection.tipo, collection.timestamp_field)

    def _store(self, collection: CollectionSettings) -> CheckpointStore:
        published = self._ttls[LAST_SYNC.name] or 2 * self._settings.schedule.cycle_seconds
        return CheckpointStore(self._wire, collection.name, published, self._retry)

    def _lease(self, collection: CollectionSettings) -> Lease:
        return Lease(self._connect, collection.name, self._settings.lease.seconds, self._retry)

    def _subject(self, collection: CollectionSettings) -> Subject:
        others = [one for one in self._settings.collections if one.name != collection.name]
        tracked = all(_tracks_keys(one) for one in others)
        return Subject(
            collection=collection.name,
            source=self._source(collection),
            reader=Reader(collection.tipo, collection.timestamp_field),
            inspection=self._inspection(collection, others),
            rules=Verification(self._ttls, _tracks_keys(collection), tracked),
            retry=self._retry,
            stop=self._stop,
            page_size=collection.page_size,
            overlap=collection.overlap_seconds * 1000,
            cycle_seconds=self._settings.schedule.cycle_seconds,
        )

    def _inspection(self, collection: CollectionSettings, others: Sequence[CollectionSettings]) -> Inspection:
        life = self._settings.longest_ttl()
        ownership = Ownership(collection.name, life)
        beside = [Ownership(one.name, life) for one in others]
        return Inspection(self._wire, collection.name, self._ttls, ownership, beside)

    def _refresh(self, collection: CollectionSettings) -> Refresh:
        keyspace = Keyspace(self._wire, self._ttls)
        transform = self._transform(collection)
        overlap = collection.overlap_seconds * 1000
        source, size = self._source(collection), collection.page_size
        return Refresh(source, transform, keyspace, self._retry, size, overlap)


def _tracks_keys(collection: CollectionSettings) -> bool:
    """Whether its cycles record which document filled which key."""
    return bool(getattr(collection, "track_keys", True))


def _tell_of_retry(error: Transient) -> None:
    _log.debug("%s; trying again", error)
