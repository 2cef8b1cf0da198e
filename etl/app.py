"""The application behind every command: what can be asked of both servers."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import TracebackType
from typing import Any, Final, Self

from etl.backfill.backfill import BackfillOrder
from etl.cache.keys import companions
from etl.cache.keyspace import Keyspace, Shown
from etl.cache.resp import Command
from etl.checkpoint.dead_letters import DeadLetters
from etl.checkpoint.history import Entry, History
from etl.checkpoint.lease import this_process
from etl.checkpoint.purge import delete, own_keys
from etl.container import Assembly
from etl.doctor import Finding, examine
from etl.errors import EtlError, Misconfigured, Transient
from etl.model.report import Progress, RefreshReport, Report, unheard
from etl.monitoring.history import read_recent
from etl.monitoring.status import CollectionStatus, read_status
from etl.settings import CollectionSettings, Settings
from etl.sync.runs import Runs
from etl.verify.report import VerifyReport
from etl.verify.trace import KeyStory, Trace, Tracer
from etl.verify.verifier import Tell, Verify
from schemas.documents import KINDS

RECONCILED: Final = ("documents", "different", "missing", "orphaned", "repaired", "duration_ms")
"""The counts of a reconciliation that are kept: see `VerifyReport`."""

__all__ = [
    "App",
    "BackfillOrder",
    "CollectionStatus",
    "Entry",
    "Finding",
    "KeyStory",
    "Shown",
    "Trace",
    "VerifyReport",
]

_log = logging.getLogger("etl")


def _complaint(ask: Callable[[], object]) -> str | None:
    try:
        ask()
    except EtlError as error:
        return str(error)
    return None


def _tell_of_retry(error: Transient) -> None:
    _log.debug("%s; trying again", error)


class App:
    """The product behind every command. Connects when first used; close it, or use it in a `with`.

    `on_retry` is told of every step that failed and is tried again.

    Raises:
        Misconfigured: an address in the settings is malformed.
    """

    def __init__(self, settings: Settings, on_retry: Callable[[Transient], None] = _tell_of_retry) -> None:
        self._settings = settings
        self._parts = Assembly(settings, on_retry)
        self._retry = self._parts.retry
        self._wire = self._parts.wire
        self._runs = Runs(self._parts, settings.longest_ttl())

    @property
    def collections(self) -> list[str]:
        """The names of all collections in the settings."""
        return [collection.name for collection in self._settings.collections]

    def sync(self, names: Sequence[str] = (), progress: Progress = unheard) -> Iterator[Report]:
        """One cycle of each collection, all of them by default; a failure is in its report.

        `progress` is told after each page.

        Raises:
            Misconfigured: a name is not in the settings.
        """
        for collection in self._chosen(names):
            yield self._runs.cycle(collection, progress=progress)

    def take_turn(self, name: str) -> float:
        """Take the turn of this interval's cycle of a collection, among several daemons.

        Whoever has the turn keeps it for as long as it comes back for it every interval; a tenth of
        an interval before it is due again, it is free.

        Returns:
            0 where the turn is this process', else in how many seconds its holder is due again.

        Raises:
            EtlError: Redis stays away, or refuses.
        """
        turn, mine = companions(self._settings.collection(name).name).turn, this_process()
        tenth = self._settings.schedule.cycle_seconds / 10
        ms = int(tenth * 9000)
        look: list[Command] = [("SET", turn, mine, "NX", "PX", ms), ("GET", turn), ("PTTL", turn)]
        _, holder, left = self._retry(lambda: self._wire.exchange(look))
        if holder != mine:
            return float(max(0, left) / 1000 + tenth)
        self._retry(lambda: self._wire.exchange([("SET", turn, mine, "PX", ms)]))
        return 0.0

    def away(self) -> dict[str, str]:
        """Why `redis` or `mongodb` does not answer, of each that does not; may be called from any thread."""
        source, seconds = (
            self._parts.source(self._settings.collections[0]),
            self._settings.mongo.timeout_seconds,
        )
        with closing(self._parts.connect()) as wire, ThreadPoolExecutor(1) as beside:
            mongodb = beside.submit(_complaint, lambda: source.ping(seconds))  # at once: one wait, not two
            asked = {"redis": _complaint(lambda: wire.exchange([("PING",)])), "mongodb": mongodb.result()}
        return {server: problem for server, problem in asked.items() if problem is not None}

    def retry_dead_letters(self, name: str, ids: Sequence[str]) -> Report:
        """One cycle that also reads these documents again (`_id`s as canonical Extended JSON)."""
        return self._runs.cycle(self._settings.collection(name), ids)

    def backfill(self, name: str, order: BackfillOrder, progress: Progress) -> Report:
        """Every document of a collection into the caches; a failure is in the report.

        Raises:
            Misconfigured: the name is not in the settings.
        """
        return self._runs.backfill(self._settings.collection(name), order, progress)

    def count(self, name: str) -> int:
        """About how many documents a collection has.

        Raises:
            EtlError: MongoDB stays away, or refuses, or the name is not in the settings.
        """
        return self._retry(self._parts.source(self._settings.collection(name)).count)

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
            self._parts.refresh(collection).run(report)
        return report

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
        subject = self._parts.subject(self._settings.collection(name))
        return Verify(subject, VerifyReport(name), tell).run(sample, repair=repair)

    def reconcile(self, name: str) -> VerifyReport | None:
        """Verify and mend a collection, if a cycle of it has finished and no other daemon does so now.

        Raises:
            Misconfigured: the name is not in the settings.
            EtlError: a server stays away, or refuses.
        """
        own = companions(self._settings.collection(name).name)
        ms = (self._settings.reconcile.interval_seconds or 1) * 900
        take: Command = ("SET", own.reconciling, this_process(), "NX", "PX", ms)
        finished: Command = ("HEXISTS", own.checkpoint, "mongo_clock")
        taken, ready = self._retry(lambda: self._wire.exchange([take, finished]))
        if not (taken and ready):
            return None
        report = self.verify(name, repair=True)
        counts = {kind: getattr(report, kind) for kind in RECONCILED}
        self._retry(lambda: History(self._wire, name).note_reconciliation(counts))
        return report

    def trace(self, name: str, ids: Sequence[str]) -> Trace:
        """The story of the document with the first of these `_id`s (canonical Extended JSON) that exists.

        Raises:
            Misconfigured: the name is not in the settings.
            EtlError: a server stays away, or refuses.
        """
        subject = self._parts.subject(self._settings.collection(name))
        return Tracer(subject, self.dead_letters(name).find).trace(ids)

    def show(self, key: str) -> Shown | None:
        """What Redis holds under `key`; None where there is no such key.

        Raises:
            EtlError: Redis stays away, or refuses.
        """
        return self._retry(lambda: Keyspace(self._wire).show(key))

    def status(self, names: Sequence[str] = (), *, mongodb_away: str | None = None) -> list[CollectionStatus]:
        """Where each collection stands, all of them by default; may be called from any thread.

        `mongodb_away` says why MongoDB does not answer, where that is known: it is not asked again.

        Raises:
            Misconfigured: a name is not in the settings.
            EtlError: Redis is away, or refuses. MongoDB away is in the status.
        """
        sources = [(collection.name, self._parts.source(collection)) for collection in self._chosen(names)]
        with closing(self._parts.connect()) as wire:
            return read_status(wire, sources, self._settings.schedule.cycle_seconds, mongodb_away)

    def recent(self) -> list[dict[str, Any]]:
        """The last runs and the dead letters of each collection; may be called from any thread.

        Raises:
            EtlError: Redis is away, or refuses.
        """
        with closing(self._parts.connect()) as wire:
            return read_recent(wire, self.collections)

    def history(self, name: str, limit: int) -> list[Entry]:
        """At most `limit` runs of a collection, the newest first.

        Raises:
            Misconfigured: the name is not in the settings.
            EtlError: Redis stays away, or refuses.
        """
        history = History(self._wire, self._settings.collection(name).name)
        return self._retry(lambda: history.newest(limit))

    def own_keys(self, name: str, *, queues: bool) -> list[str]:
        """The ETL's own keys of a collection; with `queues` also the queues that only it feeds.

        Raises:
            Misconfigured: the name is not in the settings.
            Locked: somebody works on the collection.
            EtlError: Redis stays away, or refuses.
        """
        collection = self._settings.collection(name).name
        return self._retry(lambda: own_keys(self._wire, collection, queues=queues))

    def delete_keys(self, keys: Sequence[str]) -> int:
        """Delete keys of Redis; returns how many there were.

        Raises:
            EtlError: Redis stays away, or refuses.
        """
        return self._retry(lambda: delete(self._wire, keys))

    def doctor(self) -> list[Finding]:
        """Every check of the settings and of both servers; a server that is away is a finding."""
        collections = self._settings.collections
        sources = {collection.name: self._parts.source(collection) for collection in collections}
        with closing(self._parts.connect()) as wire:
            return list(examine(self._settings, sources, wire))

    def stop(self) -> None:
        """Ask what is running to end after its batch; may be called from a signal handler."""
        self._parts.stop.set()

    def close(self) -> None:
        """Give all connections back."""
        self._parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chosen(self, names: Sequence[str]) -> Sequence[CollectionSettings]:
        return [self._settings.collection(name) for name in names] or self._settings.collections
