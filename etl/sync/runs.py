"""The runs of a collection: a cycle, and a backfill with the cycle that catches up.

A run that fails raises nothing: what went wrong is in its report, and in the history.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from etl import logs
from etl.backfill.backfill import BackfillOrder, run_backfill
from etl.backfill.rate_limit import RateLimiter
from etl.cache.keys import of_backfill
from etl.checkpoint.upgrade import upgrade
from etl.container import Container
from etl.errors import CacheAway, CycleFailed, EtlError, Interrupted, LeaseHeldError
from etl.interfaces import Process, Stages
from etl.model.report import Progress, Report, unheard
from etl.model.scan import Backfilled
from etl.settings import CollectionSettings
from etl.sync.cycle import run_cycle

_LOCKED_WAIT_SECONDS: Final = 0.5

_log = logging.getLogger("etl")


class Runs:
    """What runs on the parts that are handed in."""

    def __init__(self, parts: Container) -> None:
        self._parts = parts

    def cycle(
        self,
        collection: CollectionSettings,
        again: Sequence[str] = (),
        since: Backfilled | None = None,
        progress: Progress = unheard,
    ) -> Report:
        """One cycle: see `etl.sync.cycle.run_cycle`. `progress` is called after each batch."""
        report = Report(collection.name)
        keys, limits = self._parts.keys(collection), self._parts.limits(collection)
        with self._recorded(collection, report), self._parts.lease(keys.lease, keys.fence).hold() as token:
            if self._upgrade(collection):
                limits = limits._replace(cold_start="full")
            run_cycle(self._parts.stages(collection, keys), limits, token, report, progress, again, since)
        return report

    def backfill(self, collection: CollectionSettings, order: BackfillOrder, progress: Progress) -> Report:
        """Every document that is asked for; with `dry_run` only what would become of each."""
        report = Report(collection.name, mode="backfill")
        if order.dry_run:
            stages = self._parts.dry_stages(collection, order.executors)
            try:
                scan, _ = run_backfill(stages, self._process(stages, order), order, "", report, progress)
                report.unreachable = stages.retry(stages.reader.unreachable)
            except EtlError as error:
                report.failed(str(error), error.exit_code)
            return report
        keys = of_backfill(self._parts.keys(collection))
        with self._recorded(collection, report), self._parts.lease(keys.lease, keys.fence).hold() as token:
            self._upgrade(collection)
            stages = self._parts.stages(collection, keys, order.executors)
            scan, read = run_backfill(stages, self._process(stages, order), order, token, report, progress)
            if order.is_whole or self._parts.store(collection).load().checkpoint:
                self._catch_up(collection, read)
            store = self._parts.store(collection, keys)
            report.unreachable = stages.retry(stages.reader.unreachable)
            report.deferred = len(store.load().deferred)
            store.end(token, scan, report)
        return report

    def _upgrade(self, collection: CollectionSettings) -> bool:
        """Take the collection over from version 0.1, which knew no namespaces."""
        parts = self._parts
        if parts.settings.namespace:
            return False
        source, keys = parts.source(collection), parts.keys(collection)
        return parts.retry(partial(upgrade, parts.wire, collection.name, source, keys))

    def _process(self, stages: Stages, order: BackfillOrder) -> Process:
        """How this process writes a page; with a rate, it waits after each."""
        process = partial(stages.processor.process, remember_from=None, trust=False)
        return RateLimiter(order.rate, self._parts.stop).limited(process) if order.rate else process

    def _catch_up(self, collection: CollectionSettings, read: Backfilled) -> None:
        """A cycle that reads again all that changed since a backfill began, once no other one runs."""
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
        if report.incomplete:
            text = (
                "%d keys were removed though older documents may claim them: etl verify --repair finds those"
            )
            _log.warning(text, report.incomplete, extra=logs.event("incomplete", keys=report.incomplete))
