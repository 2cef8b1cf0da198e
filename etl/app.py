"""The application behind every command: what can be asked of both servers."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from types import TracebackType
from typing import Self

from etl.assembly import Assembly
from etl.backfill import Backfill, BackfillOrder, Progress, rehearse
from etl.backfill import Rules as BackfillRules
from etl.companions import companions, of_backfill
from etl.cycle import Cycle, Rules
from etl.dead_letters import DeadLetters
from etl.doctor import Finding, examine
from etl.errors import CacheAway, CycleFailed, EtlError, Interrupted, Locked, Misconfigured, Transient
from etl.history import Entry, History
from etl.keyspace import Keyspace, Shown
from etl.lease import this_process
from etl.pace import Pace
from etl.report import RefreshReport, Report
from etl.resp import Command
from etl.scan import Backfilled, Limits
from etl.settings import CollectionSettings, Settings
from etl.status import CollectionStatus, read_status
from etl.trace import KeyStory, Trace, Tracer
from etl.verify import Tell, Verify
from etl.verify_report import VerifyReport
from schemas.documents import KINDS

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

_LOCKED_WAIT_SECONDS = 0.5

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
        clock = self._parts.source(self._settings.collections[0]).clock
        with closing(self._parts.connect()) as wire:
            asked = {"redis": _complaint(lambda: wire.exchange([("PING",)])), "mongodb": _complaint(clock)}
        return {server: problem for server, problem in asked.items() if problem is not None}

    def retry_dead_letters(self, name: str, ids: Sequence[str]) -> Report:
        """One cycle that also reads these documents again (`_id`s as canonical Extended JSON)."""
        return self._cycle(self._settings.collection(name), ids)

    def backfill(self, name: str, order: BackfillOrder, progress: Progress) -> Report:
        """Every document of a collection into the caches; a failure is in the report.

        Raises:
            Misconfigured: the name is not in the settings.
        """
        collection = self._settings.collection(name)
        report = Report(collection.name, mode="backfill")
        pace = Pace(order.rate, self._parts.stop)
        rules = BackfillRules(order.bounds, collection.page_size, pace, order.restart, progress)
        if order.dry_run:
            self._rehearse(collection, order, rules, report)
            return report
        with self._recorded(collection, report):
            self._backfill(collection, order, rules, report)
        return report

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
        return self.verify(name, repair=True) if taken and ready else None

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

    def status(self, names: Sequence[str] = ()) -> list[CollectionStatus]:
        """Where each collection stands, all of them by default; may be called from any thread.

        Raises:
            Misconfigured: a name is not in the settings.
            EtlError: Redis is away, or refuses. MongoDB away is in the status.
        """
        sources = [(collection.name, self._parts.source(collection)) for collection in self._chosen(names)]
        with closing(self._parts.connect()) as wire:
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

    def _cycle(
        self, collection: CollectionSettings, again: Sequence[str] = (), since: Backfilled | None = None
    ) -> Report:
        report = Report(collection.name)
        own = companions(collection.name)
        with self._recorded(collection, report), self._parts.lease(own).hold() as token:
            stages = self._parts.stages(collection, own)
            Cycle(stages, self._rules(collection), token, report).run(again, since)
        return report

    def _backfill(
        self, collection: CollectionSettings, order: BackfillOrder, rules: BackfillRules, report: Report
    ) -> None:
        own = of_backfill(companions(collection.name))
        with self._parts.lease(own).hold() as token:
            stages = self._parts.stages(collection, own, order.executors)
            backfill = Backfill(stages, rules, token, report)
            read = backfill.run()
            if order.is_whole or self._parts.store(collection).load().checkpoint:
                self._catch_up(collection, read)
            backfill.end()

    def _rehearse(
        self, collection: CollectionSettings, order: BackfillOrder, rules: BackfillRules, report: Report
    ) -> None:
        """A backfill that writes nothing; not even that it failed."""
        own = of_backfill(companions(collection.name))
        try:
            rehearse(self._parts.stages(collection, own, order.executors), rules, report)
        except EtlError as error:
            report.failed(str(error), error.exit_code)

    def _catch_up(self, collection: CollectionSettings, read: Backfilled) -> None:
        """A cycle that reads again all that changed since a backfill began, once nobody else runs one."""
        while True:
            report = self._cycle(collection, since=read)
            if report.status == "ok":
                return
            if self._parts.stop.is_set():
                raise Interrupted("stopped while it caught up; the same command goes on from there")
            if report.status != "locked":
                raise CycleFailed(f"the cycle that was to catch up failed: {report.error}")
            self._parts.stop.wait(_LOCKED_WAIT_SECONDS)

    @contextmanager
    def _recorded(self, collection: CollectionSettings, report: Report) -> Iterator[None]:
        """Put what goes wrong into the report, and keep that in the history where Redis can."""
        began, clock = round(time.time() * 1000), time.monotonic()
        try:
            yield
        except Locked as error:
            report.failed(str(error), error.exit_code, "locked")
        except EtlError as error:
            _log.debug("the run failed", exc_info=True)
            report.sync_duration_ms = round((time.monotonic() - clock) * 1000)
            report.failed(str(error), error.exit_code)
            if not isinstance(error, CacheAway):
                with suppress(EtlError):  # what went wrong matters more than that it could not be recorded
                    self._parts.store(collection).record(report, began)

    def _rules(self, collection: CollectionSettings) -> Rules:
        longest = self._settings.longest_ttl() * 1000
        limits = Limits(collection.overlap_seconds * 1000, longest, collection.cold_start)
        return Rules(collection.name, limits, collection.page_size)
