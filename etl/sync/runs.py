"""The runs of a collection: a cycle, and a backfill with its catch-up cycle.

A failed run does not raise: the error is in its report and in the history.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from etl import logs
from etl.backfill.backfill import BackfillOrder, run_backfill
from etl.backfill.rate_limit import RateLimiter
from etl.checkpoint.lease import Lease
from etl.checkpoint.origin import refuse_other_source
from etl.errors import CycleFailed, EtlError, Interrupted, LeaseHeldError, LeaseLost, RedisUnavailable
from etl.interfaces import Process, Stages
from etl.model.report import ProgressCallback, Report, no_progress
from etl.model.scan import Backfilled
from etl.sync.cycle import run_cycle
from etl.sync.planner import Limits

_LOCKED_WAIT_SECONDS: Final = 0.5

_log = logging.getLogger("etl")


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of one collection, over stages and leases that `etl.container` has built."""

    collection: str
    limits: Limits
    cycle_stages: Stages
    backfill_stages: Callable[[BackfillOrder], Stages]
    """The stages of a backfill or of a dry run."""
    lease: Lease
    backfill_lease: Lease
    upgrade: Callable[[], bool]
    """Upgrades the state of version 0.1; returns whether there was any."""

    def cycle(self, ids: Sequence[str] = (), progress: ProgressCallback = no_progress) -> Report:
        """Run one cycle: see `etl.sync.cycle.run_cycle`."""
        report = Report(self.collection)
        with suppress(EtlError), self._recorded(report), self.lease.hold() as token:
            limits = self.limits._replace(cold_start="full") if self.upgrade() else self.limits
            run_cycle(self.cycle_stages, limits, token, report, progress, ids)
        return report

    def backfill(self, order: BackfillOrder, progress: ProgressCallback) -> Report:
        """Write every document within the bounds; with `dry_run` only count the documents."""
        report = Report(self.collection, mode="backfill")
        stages = self.backfill_stages(order)
        process: Process = partial(stages.processor.process, remember_from=None, skip_done=False)
        if order.rate:
            process = RateLimiter(order.rate, stages.stop).limited(process)
        if order.dry_run:
            try:
                run_backfill(stages, process, order, "", report, progress)
                report.unreachable = stages.retry(stages.reader.unreachable)
            except EtlError as error:
                report.failed(str(error), error.exit_code)
            return report
        with suppress(EtlError), self._recorded(report), self.backfill_lease.hold() as token:
            refuse_other_source(self.cycle_stages)  # a backfill has no source of its own before its first run
            self.upgrade()
            scan, read = run_backfill(stages, process, order, token, report, progress)
            if order.is_whole or self.cycle_stages.store.load().checkpoint:
                self._catch_up(read)
            report.unreachable = stages.retry(stages.reader.unreachable)
            state = stages.store.load()
            report.deferred = len(state.deferred)
            stages.store.end(token, scan, report, state.primaries)
        return report

    def _catch_up(self, read: Backfilled) -> None:
        """Run a cycle that reads everything that changed since the backfill began.

        Wait while another holder runs a cycle, also one that has taken over the lease of this cycle.

        Raises:
            Interrupted: asked to stop.
            CycleFailed: the cycle failed.
        """
        stop = self.cycle_stages.stop
        while True:
            report = Report(self.collection)
            try:
                with self._recorded(report), self.lease.hold() as token:
                    return run_cycle(self.cycle_stages, self.limits, token, report, no_progress, since=read)
            except EtlError as error:
                if stop.is_set():
                    raise Interrupted("stopped during the catch-up; the same command resumes it") from error
                # A fence without a holder is gone: Redis was flushed, and with it all that the backfill wrote.
                if not (isinstance(error, LeaseHeldError | LeaseLost) and error.holder):
                    raise CycleFailed(f"the catch-up cycle failed: {error}") from error
            stop.wait(_LOCKED_WAIT_SECONDS)

    @contextmanager
    def _recorded(self, report: Report) -> Iterator[None]:
        """Put an error into the report, and the report into the history if Redis answers; raise the error again."""
        began, clock = round(time.time() * 1000), time.monotonic()
        try:
            yield
        except LeaseHeldError as error:
            report.failed(str(error), error.exit_code, "locked")
            raise
        except EtlError as error:
            _log.debug("the run failed", exc_info=True)
            report.sync_duration_ms = round((time.monotonic() - clock) * 1000)
            report.failed(str(error), error.exit_code)
            if not isinstance(error, RedisUnavailable):
                with suppress(EtlError):  # the first error matters more than a failure to record it
                    self.cycle_stages.store.record(report, began)
            raise
        finally:
            if report.incomplete:
                text = "%d keys may lack their newest remaining document: etl verify --repair finds it"
                _log.warning(text, report.incomplete, extra=logs.event("incomplete", keys=report.incomplete))
