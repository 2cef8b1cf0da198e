"""The jobs of the daemon: cycles, refreshes, reconciliations.

A failed job runs once more as soon as both servers answer; if it fails again it waits for its next interval. So work
resumes right after an outage, and other failures repeat once per interval.
"""

import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, NamedTuple

from etl import logs
from etl.app import App
from etl.checkpoint.lease import RENEWALS_PER_LEASE
from etl.errors import EtlError, Interrupted, LeaseHeldError, TransientError, error_location
from etl.model.report import Report
from etl.monitoring.metrics import Metrics
from etl.settings import Settings

_CHECK_SECONDS: Final = 5.0
"""Interval between checks of the servers after a failure."""

_LINES_PER_OUTAGE: Final = 5
"""Maximum number of log lines per outage: a server that goes down causes several errors."""

_log = logging.getLogger("etl.daemon")


class NothingDone(Exception):
    """The run had nothing to do, or another daemon does it: neither success nor failure."""


class JobContext(NamedTuple):
    """Shared by all jobs."""

    settings: Settings
    metrics: Metrics
    postpone: Callable[[str, float], None]
    """Moves the next run of a task to this many seconds from now."""
    start: Callable[[Settings, Callable[[TransientError], None]], App] = App
    """Creates an application from the settings and a callback for retries."""


class Job(ABC):
    """One task of the scheduler, with an application of its own, because jobs run in parallel threads.

    Args:
        task: the name of the task; also the label in logs and metrics.
        seconds: the interval.
        context: shared by all jobs.
    """

    first_delay: float = 0.0
    """Seconds from the start of the daemon to the first run."""

    def __init__(self, task: str, seconds: float, context: JobContext) -> None:
        self.task = task
        self.seconds = seconds
        self.app = context.start(context.settings, self._on_retry)
        self.metrics = context.metrics
        self._context = context
        self._waiting = False
        self._logged: set[str] = set()

    @abstractmethod
    def log_fields(self) -> dict[str, str]:
        """The fields of its log lines."""

    @abstractmethod
    def work(self) -> str | None:
        """One run; returns the problem, None on success.

        Raises:
            EtlError: the same as returning a problem.
            Interrupted: the daemon stops.
            NothingDone: nothing was due, or another daemon does the work.
        """

    @abstractmethod
    def count_failure(self) -> None:
        """Count a failed run that has no report."""

    @abstractmethod
    def yield_leadership(self) -> None:
        """Let another daemon take over after a failed run."""

    def close(self) -> None:
        """Release everything it holds."""
        self.app.close()

    def __call__(self) -> None:
        """One run, or a check whether it can start; never raises."""
        with logs.bound(**self.log_fields()):
            try:
                problems = self._run()
            except (Interrupted, NothingDone):
                return
            for problem in problems:
                self._log_problem(problem)
            if not problems:
                self._log_recovery()

    def postpone(self, seconds: float) -> None:
        """Run next in this many seconds."""
        self._context.postpone(self.task, seconds)

    def _run(self) -> list[str]:
        """The problems; empty after a successful run."""
        retrying, self._waiting = self._waiting, False
        if retrying and (away := self.app.away()):
            self._retry_soon()
            return list(away.values())
        problem = self._work()
        if problem is None:
            return []
        self.yield_leadership()
        if retrying:  # it failed although both servers answer
            self.postpone(self.seconds)
        else:
            self._retry_soon()
        return [problem]

    def _work(self) -> str | None:
        try:
            return self.work()
        except (Interrupted, NothingDone):
            raise
        except EtlError as error:
            self.count_failure()
            return str(error)
        except Exception as error:  # noqa: BLE001 (last resort: the daemon survives and logs the location)
            self.count_failure()
            _log.debug("unforeseen", exc_info=True)
            return error_location(error)

    def _retry_soon(self) -> None:
        self._waiting = True
        if self.seconds > _CHECK_SECONDS:
            self.postpone(_CHECK_SECONDS)

    def _on_retry(self, error: TransientError) -> None:
        self.metrics.retried(self.task)
        _log.debug("%s; trying again", error, extra=logs.event("retry"))
        self._log_problem(str(error))

    def _log_problem(self, problem: str) -> None:
        """Log a problem when it starts or changes, not at each repetition."""
        if problem not in self._logged and len(self._logged) < _LINES_PER_OUTAGE:
            self._logged.add(problem)
            _log.warning("%s", problem, extra=logs.event("trouble"))

    def _log_recovery(self) -> None:
        if self._logged:
            self._logged.clear()
            _log.info("recovered", extra=logs.event("recovered"))


class CycleJob(Job):
    """The cycles of one collection: the first at the start, further ones while this daemon leads."""

    def __init__(self, collection: str, context: JobContext) -> None:
        super().__init__(collection, context.settings.schedule.cycle_seconds, context)
        self._leader = self.app.leader_lease(collection)
        # The cycle's lease of a dead leader may have been renewed this much later than the leader lease.
        self._margin = context.settings.lease.seconds / RENEWALS_PER_LEASE
        self._first = True
        self._standing_by = False

    def log_fields(self) -> dict[str, str]:
        """The collection, and an id of the run."""
        return {"collection": self.task, "cycle": secrets.token_hex(4)}

    def count_failure(self) -> None:
        """Redis did not answer before the cycle started."""
        self.metrics.cycle_failed(self.task)

    def leads(self) -> bool:
        """Whether this daemon leads; may be called from any thread."""
        return self._leader.held

    def yield_leadership(self) -> None:
        """Release the leader lease: another daemon may reach the server."""
        self._leader.release()

    def close(self) -> None:
        """Release the leader lease, so that the next daemon need not wait."""
        self._leader.release()
        super().close()

    def work(self) -> str | None:
        """Run a cycle if this daemon leads; always at the start."""
        try:
            self._lead()
        except LeaseHeldError as other:
            self._stand_by(other)
            if not self._first:
                raise NothingDone from other
        self._first = False
        [report] = self.app.sync([self.task])
        if report.exit_code == Interrupted.exit_code:
            raise Interrupted(report.error)
        self.metrics.cycle(report)
        self._log_report(report)
        if report.status == "ok":
            try:
                due = self.app.reconciliation_due(self.task)
            except EtlError as error:
                return str(error)  # the cycle succeeded and is counted already
            if due:
                self._context.postpone(_reconciliation(self.task), 0)
        return report.error if report.status == "failed" else None

    def _lead(self) -> None:
        if not self._leader.held:
            self._leader.acquire()
        if self._standing_by:
            self._standing_by = False
            _log.info("leads now and runs the cycles", extra=logs.event("leader"))

    def _stand_by(self, other: LeaseHeldError) -> None:
        """Run again when the leader lease would end, to take over if it does."""
        if not self._standing_by:
            self._standing_by = True
            text = "standing by: %s leads and runs the cycles"
            _log.info(text, other.holder, extra=logs.event("standby", leader=other.holder))
        self.postpone(other.seconds + self._margin)

    def _log_report(self, report: Report) -> None:
        if report.status == "locked":
            _log.info("%s", report.error, extra=logs.event("locked"))
        if report.status == "ok":
            self._log_counts(report)
        seconds = report.sync_duration_ms / 1000
        if seconds > self.seconds:
            text = "the cycle took %.1f s, longer than its interval of %s s"
            _log.warning(text, seconds, self.seconds, extra=logs.event("overrun", seconds=seconds))

    def _log_counts(self, report: Report) -> None:
        """Log the counts; at debug level if the cycle found nothing."""
        counts = {
            "processed": report.records_processed,
            "dead_lettered": report.dead_lettered,
            "deferred": report.deferred,
            "unreachable": report.unreachable,
            "ms": report.sync_duration_ms,
        }
        level = logging.INFO if report.records_processed or report.dead_lettered else logging.DEBUG
        text = "%d processed, %d dead letters, %d deferred, %d unreachable in %d ms"
        _log.log(level, text, *counts.values(), extra=logs.event("cycle", mode=report.mode, **counts))


class RefreshJob(Job):
    """The refreshes of one family."""

    def log_fields(self) -> dict[str, str]:
        """The family."""
        return {"family": self.task}

    def count_failure(self) -> None:
        """Count any failure: a refresh has a report only on success."""
        self.metrics.refresh_failed(self.task)

    def yield_leadership(self) -> None:
        """Nothing to release: every daemon refreshes."""

    def work(self) -> str | None:
        """Refresh the family."""
        report = self.app.refresh(self.task)
        self.metrics.refreshed(report)
        _log.debug("%d written", report.written, extra=logs.event("refresh", written=report.written))
        return None


class ReconciliationJob(Job):
    """The reconciliations of one collection: every `seconds`, and when one is due after a run.

    The first one is `seconds` after the start. Without `seconds` they run only when due.
    """

    def __init__(self, cycles: CycleJob, seconds: float | None, context: JobContext) -> None:
        super().__init__(_reconciliation(cycles.task), seconds or cycles.seconds, context)
        self.first_delay = self.seconds
        self._only_when_due = seconds is None
        self._cycles = cycles
        self._collection = cycles.task

    def log_fields(self) -> dict[str, str]:
        """The collection."""
        return {"collection": self._collection}

    def count_failure(self) -> None:
        """Not counted: the log reports it."""

    def yield_leadership(self) -> None:
        """Nothing to do: its lease was released when it failed."""

    def work(self) -> str | None:
        """Verify and repair, if this daemon leads."""
        if not self._cycles.leads():
            raise NothingDone
        if self._only_when_due and not self.app.reconciliation_due(self._collection):
            raise NothingDone
        try:
            report = self.app.reconcile(self._collection)
        except LeaseHeldError as other:
            raise NothingDone from other
        if report and report.wrong:
            counts = {
                name: getattr(report, name) for name in ("different", "missing", "orphaned", "repaired")
            }
            text = "%d different, %d missing, %d orphaned, %d repaired"
            _log.info(text, *counts.values(), extra=logs.event("reconciliation", **counts))
        return None


def _reconciliation(collection: str) -> str:
    return f"{collection}, reconciliation"


def jobs(context: JobContext) -> list[Job]:
    """All jobs: one per collection, one per refreshed family, one reconciliation per collection."""
    cycles = [CycleJob(collection.name, context) for collection in context.settings.collections]
    refreshes = [
        RefreshJob(name, family.refresh_seconds, context)
        for name, family in context.settings.families.items()
        if family.refresh_seconds is not None
    ]
    interval = context.settings.reconcile.interval_seconds
    reconciliations = [ReconciliationJob(job, interval, context) for job in cycles]
    return [*cycles, *refreshes, *reconciliations]
