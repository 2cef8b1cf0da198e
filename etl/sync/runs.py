"""The runs of a collection: a cycle, and a backfill with the cycle that catches up.

A run that fails raises nothing: what went wrong is in its report, and in the history.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from etl.backfill.backfill import Backfill, BackfillOrder, rehearse
from etl.backfill.backfill import Rules as BackfillRules
from etl.backfill.rate_limit import Pace
from etl.cache.keys import companions, of_backfill
from etl.container import Assembly
from etl.errors import CacheAway, CycleFailed, EtlError, Interrupted, LeaseHeldError
from etl.model.report import Progress, Report, unheard
from etl.settings import CollectionSettings
from etl.sync.cycle import Cycle, Rules
from etl.sync.planner import Backfilled, Limits

_LOCKED_WAIT_SECONDS: Final = 0.5

_log = logging.getLogger("etl")


class Runs:
    """What runs on the parts that are handed in; `longest_ttl` in seconds."""

    def __init__(self, parts: Assembly, longest_ttl: int) -> None:
        self._parts = parts
        self._longest_ttl = longest_ttl

    def cycle(
        self,
        collection: CollectionSettings,
        again: Sequence[str] = (),
        since: Backfilled | None = None,
        progress: Progress = unheard,
    ) -> Report:
        """One cycle: see `etl.sync.cycle.Cycle.run`. `progress` is told after each page."""
        report = Report(collection.name)
        own = companions(collection.name)
        with self._recorded(collection, report), self._parts.lease(own.lease, own.fence).hold() as token:
            stages = self._parts.stages(collection, own)
            Cycle(stages, self._rules(collection, progress), token, report).run(again, since)
        return report

    def backfill(self, collection: CollectionSettings, order: BackfillOrder, progress: Progress) -> Report:
        """Every document that is asked for, or only what would become of each."""
        report = Report(collection.name, mode="backfill")
        pace = Pace(order.rate, self._parts.stop)
        rules = BackfillRules(order.bounds, collection.page_size, pace, order.restart, progress)
        if order.dry_run:
            self._rehearse(collection, order, rules, report)
            return report
        with self._recorded(collection, report):
            self._backfill(collection, order, rules, report)
        return report

    def _backfill(
        self, collection: CollectionSettings, order: BackfillOrder, rules: BackfillRules, report: Report
    ) -> None:
        own = of_backfill(companions(collection.name))
        with self._parts.lease(own.lease, own.fence).hold() as token:
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
            report = self.cycle(collection, since=read)
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
        except LeaseHeldError as error:
            report.failed(str(error), error.exit_code, "locked")
        except EtlError as error:
            _log.debug("the run failed", exc_info=True)
            report.sync_duration_ms = round((time.monotonic() - clock) * 1000)
            report.failed(str(error), error.exit_code)
            if not isinstance(error, CacheAway):
                with suppress(EtlError):  # what went wrong matters more than that it could not be recorded
                    self._parts.store(collection).record(report, began)

    def _rules(self, collection: CollectionSettings, progress: Progress) -> Rules:
        longest = self._longest_ttl * 1000
        limits = Limits(collection.overlap_seconds * 1000, longest, collection.cold_start)
        return Rules(collection.name, limits, collection.page_size, progress)
