"""The application behind every command."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from etl import logs
from etl.backfill.backfill import BackfillOrder
from etl.cache.inspector import Inspector, Shown
from etl.checkpoint.dead_letters import DeadLetters
from etl.checkpoint.history import Entry, History
from etl.checkpoint.lease import Lease
from etl.checkpoint.origin import refuse_other_source
from etl.checkpoint.purge import delete, own_keys
from etl.container import Container
from etl.doctor import Finding, examine
from etl.errors import ConfigurationError, CycleFailed, EtlError, TransientError
from etl.init.proposal import propose
from etl.model.report import ProgressCallback, RefreshReport, Report, no_progress
from etl.monitoring.history import read_recent
from etl.monitoring.status import CollectionStatus, read_status
from etl.settings import CollectionSettings, Settings
from etl.sync.follow import Followed
from etl.sync.refresh import refresh
from etl.transform.preview import Preview, preview
from etl.verify.report import VerifyReport
from etl.verify.trace import KeyStory, Trace, trace_document
from etl.verify.verifier import VerifyProgress, verify
from schemas.documents import KINDS
from schemas.ids import id_from_text, id_text

RECONCILED: Final = ("documents", "different", "missing", "orphaned", "repaired", "duration_ms")
"""The counts of a reconciliation that are kept: see `VerifyReport`."""

FOLLOW_AGAIN_SECONDS: Final = 5.0
"""Pause of a follower after a failure."""

__all__ = [
    "App",
    "BackfillOrder",
    "CollectionStatus",
    "Entry",
    "Finding",
    "KeyStory",
    "Preview",
    "Shown",
    "Trace",
    "VerifyReport",
]

_log = logging.getLogger("etl")


def _error_of(call: Callable[[], object]) -> str | None:
    try:
        call()
    except EtlError as error:
        return str(error)
    return None


def _log_retry(error: TransientError) -> None:
    _log.debug("%s; trying again", error)


class App:
    """The application. It connects at its first use; close it, or use it in a `with` statement.

    `on_retry` is called with the error of each step that is retried.

    Raises:
        ConfigurationError: an address in the settings is malformed.
    """

    def __init__(self, settings: Settings, on_retry: Callable[[TransientError], None] = _log_retry) -> None:
        self._settings = settings
        self._container = Container(settings, on_retry)
        self._retry = self._container.retry
        self._wire = self._container.wire

    @property
    def collections(self) -> list[str]:
        """The names of all collections in the settings."""
        return [collection.name for collection in self._settings.collections]

    def sync(self, names: Sequence[str] = (), progress: ProgressCallback = no_progress) -> Iterator[Report]:
        """One cycle of each collection, all of them by default; a failure is in its report.

        `progress` is called after each page.

        Raises:
            ConfigurationError: a name is not in the settings.
        """
        for collection in self._chosen(names):
            yield self._container.runs(collection).cycle(progress=progress)

    def leader_lease(self, name: str) -> Lease:
        """The leader lease of a collection, not acquired yet: of several daemons its holder runs the cycles.

        Raises:
            ConfigurationError: the name is not in the settings.
        """
        return self._container.lease(self._container.keys(self._settings.collection(name)).leader)

    def away(self) -> dict[str, str]:
        """The servers (`redis`, `mongodb`) that do not answer, each with the reason; may be called from any thread."""
        reader = self._container.reader(self._settings.collections[0])
        seconds = self._settings.mongo.timeout_seconds
        with ThreadPoolExecutor(1) as executor:  # in parallel, so that the time limits do not add up
            mongodb = executor.submit(_error_of, lambda: reader.ping(seconds))
            redis = _error_of(lambda: self._wire.exchange([("PING",)]))
            errors = {"redis": redis, "mongodb": mongodb.result()}
        return {server: error for server, error in errors.items() if error is not None}

    def retry_dead_letters(self, name: str, ids: Sequence[str]) -> Report:
        """One cycle that also reads these documents again (`_id`s as canonical Extended JSON)."""
        return self._container.runs(self._settings.collection(name)).cycle(ids)

    def backfill(self, name: str, order: BackfillOrder, progress: ProgressCallback) -> Report:
        """Write every document of a collection to the caches; a failure is in the report.

        Raises:
            ConfigurationError: the name is not in the settings.
        """
        return self._container.runs(self._settings.collection(name)).backfill(order, progress)

    def count(self, name: str) -> int:
        """The approximate number of documents in a collection.

        Raises:
            EtlError: MongoDB does not answer, or refuses, or the name is not in the settings.
        """
        return self._retry(self._container.reader(self._settings.collection(name)).count)

    def dead_letters(self, name: str) -> DeadLetters:
        """The dead letters of a collection.

        Raises:
            ConfigurationError: the name is not in the settings.
        """
        return DeadLetters(self._wire, self._container.keys(self._settings.collection(name)), self._retry)

    def refresh(self, family: str, name: str | None = None) -> RefreshReport:
        """Write a family, or its entries called `name`, again from MongoDB.

        Raises:
            ConfigurationError: no document fills the family, or it has no names, or the state in Redis is of
                another source.
            EtlError: a server does not answer, or refuses.
        """
        kinds = [kind for kind in KINDS.values() if family in {f.name for f in kind.families}]
        if not kinds:
            raise ConfigurationError(f"no document fills {family!r}, so it cannot be refreshed")
        if name is not None and any(kind.name_field is None for kind in kinds):
            raise ConfigurationError(f"the documents of {family!r} have no names: refresh the whole family")
        report = RefreshReport(family, name)
        for collection in self._settings.collections:
            stages = self._container.stages(collection, self._container.keys(collection))
            refuse_other_source(stages)
            refresh(stages, collection.tipo, report)
        return report

    def verify(
        self,
        name: str,
        sample: int | None = None,
        *,
        repair: bool = False,
        progress: VerifyProgress = lambda *_: None,
    ) -> VerifyReport:
        """Compare Redis with what the documents of a collection say, and with `repair` write what differs.

        Args:
            name: the collection.
            sample: approximate number of documents and keys to compare; None for all.
            repair: write the keys that do not match.
            progress: called with the progress.

        Raises:
            ConfigurationError: the name is not in the settings, or the state in Redis is of another source.
            EtlError: a server does not answer, or refuses.
        """
        scope = self._container.scope(self._settings.collection(name))
        refuse_other_source(scope.stages)
        store = self._container.store(self._settings.collection(name))
        due = store.reconciliation_due() if repair and sample is None else 0
        report = verify(scope, sample, progress, repair=repair)
        if due and report.true:
            store.reconciled(due)
        return report

    def follow(self, name: str, on_batch: Callable[[Followed], None]) -> None:
        """Apply the change stream of a collection until `stop`; `on_batch` is called after each batch.

        A temporary failure is logged once, and following is tried again every `FOLLOW_AGAIN_SECONDS`.

        Raises:
            StreamRefusedError: the server has no change streams, or the user may not open one.
            ConfigurationError: the name is not in the settings, or a server refuses the login or a right.
        """
        problem = ""

        def note(batch: Followed) -> None:
            nonlocal problem
            if problem and batch.outcome is not None:
                problem = ""
                _log.info("recovered", extra=logs.event("recovered"))
            on_batch(batch)

        reconcile = partial(self.verify, name, repair=True)
        follower = self._container.follower(self._settings.collection(name), reconcile, note)
        while not self._container.stop.is_set():
            try:
                follower.follow()
            except (TransientError, CycleFailed) as error:
                if str(error) != problem:
                    problem = str(error)
                    _log.warning("%s; trying again", error, extra=logs.event("trouble"))
                note(Followed({}, None, "failure"))
                self._container.stop.wait(FOLLOW_AGAIN_SECONDS)

    def reconciliation_due(self, name: str) -> bool:
        """Whether keys were removed that older documents may still claim; `reconcile` writes them again.

        Raises:
            ConfigurationError: the name is not in the settings.
            EtlError: Redis does not answer, or refuses.
        """
        return self._container.store(self._settings.collection(name)).reconciliation_due() > 0

    def reconcile(self, name: str) -> VerifyReport | None:
        """Verify and repair a collection; None if no cycle of it has finished yet.

        Raises:
            ConfigurationError: the name is not in the settings.
            LeaseHeldError: another daemon is reconciling it.
            EtlError: a server does not answer, or refuses.
        """
        keys = self._container.keys(self._settings.collection(name))
        with self._container.lease(keys.reconciliation_lease).hold():
            [finished] = self._retry(
                lambda: self._wire.exchange([("HEXISTS", keys.checkpoint, "mongo_clock")])
            )
            if not finished:
                return None
            report = self.verify(name, repair=True)
            counts = {kind: getattr(report, kind) for kind in RECONCILED}
            self._retry(lambda: History(self._wire, keys).note_reconciliation(counts))
            return report

    def trace(self, name: str, ids: Sequence[str]) -> Trace:
        """Explain the document with the first of these `_id`s (canonical Extended JSON) that exists.

        Raises:
            ConfigurationError: the name is not in the settings.
            EtlError: a server does not answer, or refuses.
        """
        scope = self._container.scope(self._settings.collection(name))
        return trace_document(scope, self.dead_letters(name).find, ids)

    def preview(self, name: str, ids: Sequence[str], limit: int) -> list[Preview]:
        """Documents of a collection beside what they become; writes nothing, and asks MongoDB only.

        Args:
            name: the collection.
            ids: their `_id`s as canonical Extended JSON; those that exist are shown. None for a random sample.
            limit: the size of the sample.

        Raises:
            ConfigurationError: the name is not in the settings, or MongoDB refuses an expression of the mapping.
            EtlError: MongoDB does not answer, or refuses.
        """
        collection = self._settings.collection(name)
        reader, transform = self._container.reader(collection), self._container.transform(collection)
        self._retry(reader.check_mapping)
        chosen = ids or self._retry(lambda: reader.sample(limit))
        wanted = [*map(id_from_text, chosen)]
        whole = {id_text(reader.position(raw).id): raw for raw in self._retry(lambda: reader.whole(wanted))}
        mapped = self._retry(lambda: reader.fetch(wanted))
        ttls = {family: life.ttl for family, life in self._settings.families.items()}
        results = [*zip(mapped, transform(mapped), strict=True)]
        return [preview(whole[result.id], raw, result, ttls) for raw, result in results if result.id in whole]

    def propose(self) -> str:
        """A settings file for the collections of the database, as YAML with comments.

        Raises:
            EtlError: MongoDB does not answer, or refuses.
        """
        database = self._settings.mongo.database
        return propose(database, self._retry(self._container.survey))

    def show(self, key: str) -> Shown | None:
        """The value of `key` in Redis; None if it does not exist.

        Raises:
            EtlError: Redis does not answer, or refuses.
        """
        return Inspector(self._wire, self._retry).show(key)

    def status(self, names: Sequence[str] = (), *, mongodb_away: str | None = None) -> list[CollectionStatus]:
        """The state of each collection, all of them by default; may be called from any thread.

        If `mongodb_away`, the reason why MongoDB does not answer, is given, MongoDB is not queried.

        Raises:
            ConfigurationError: a name is not in the settings.
            EtlError: Redis does not answer, or refuses. If MongoDB does not answer, that is in the status.
        """
        sources = [
            (collection.name, self._container.keys(collection), self._container.reader(collection))
            for collection in self._chosen(names)
        ]
        return read_status(self._wire, sources, self._settings.schedule.cycle_seconds, mongodb_away)

    def recent(self) -> list[dict[str, Any]]:
        """The last runs and the dead letters of each collection; may be called from any thread.

        Raises:
            EtlError: Redis does not answer, or refuses.
        """
        keys = {
            collection.name: self._container.keys(collection) for collection in self._settings.collections
        }
        return read_recent(self._wire, keys)

    def history(self, name: str, limit: int) -> list[Entry]:
        """At most `limit` runs of a collection, the newest first.

        Raises:
            ConfigurationError: the name is not in the settings.
            EtlError: Redis does not answer, or refuses.
        """
        history = History(self._wire, self._container.keys(self._settings.collection(name)))
        return self._retry(lambda: history.newest(limit))

    def own_keys(self, name: str, *, queues: bool) -> list[str]:
        """The ETL's own keys of a collection; with `queues` also the queues that only it feeds.

        Raises:
            ConfigurationError: the name is not in the settings.
            LeaseHeldError: another holder works on the collection.
            EtlError: Redis does not answer, or refuses.
        """
        collection = self._settings.collection(name)
        keys, source = self._container.keys(collection), self._container.source(collection)
        return self._retry(lambda: own_keys(self._wire, keys, source, queues=queues))

    def delete_keys(self, keys: Sequence[str]) -> int:
        """Delete keys of Redis; return how many existed.

        Raises:
            EtlError: Redis does not answer, or refuses.
        """
        return self._retry(lambda: delete(self._wire, keys))

    def doctor(self) -> list[Finding]:
        """Run every check of the settings and of both servers; a server that does not answer is a finding."""
        collections = self._settings.collections
        sources = {collection.name: self._container.reader(collection) for collection in collections}
        return list(examine(self._settings, sources, self._wire))

    def stop(self) -> None:
        """Stop the current run after its batch; may be called from a signal handler."""
        self._container.stop.set()

    def close(self) -> None:
        """Close all connections."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chosen(self, names: Sequence[str]) -> Sequence[CollectionSettings]:
        return [self._settings.collection(name) for name in names] or self._settings.collections
