"""What the daemon does again and again: the cycles of a collection, the refreshes of a family.

A job that failed comes back as soon as both servers answer, once; then it waits for its next
interval. So an outage ends when it ends, and what fails for another reason fails once an interval.
"""

import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, NamedTuple

from etl import logs
from etl.app import App
from etl.errors import EtlError, Interrupted, Transient, whereabouts
from etl.model.report import Report
from etl.monitoring.metrics import Metrics
from etl.settings import Settings

_BACK_SECONDS: Final = 5.0
"""After a failure the servers are looked at this often."""

_TOLD_A_SPELL: Final = 5
"""An outage is told in so many lines at most: a server that goes down complains in several ways."""

_log = logging.getLogger("etl.daemon")


class Around(NamedTuple):
    """What all jobs share."""

    settings: Settings
    metrics: Metrics
    postpone: Callable[[str, float], None]
    """Moves the next run of a task to so many seconds from now."""
    start: Callable[[Settings, Callable[[Transient], None]], App] = App
    """Makes an application that tells of its retries."""


class Job(ABC):
    """One task of the scheduler, with an application of its own, since a connection serves one thread."""

    behind: float = 0.0
    """After it failed for a reason of its own: so many seconds more until it tries again."""

    idle_at_first: float = 0.0
    """So many seconds after the start it runs for the first time."""

    def __init__(self, task: str, seconds: float, around: Around) -> None:
        self.task = task
        self.seconds = seconds
        self.app = around.start(around.settings, self._retried)
        self.metrics = around.metrics
        self._around = around
        self._waiting = False
        self._told: set[str] = set()

    @abstractmethod
    def fields(self) -> dict[str, str]:
        """What its log lines are about."""

    @abstractmethod
    def work(self) -> str | None:
        """One run; says what went wrong, None where nothing did. May raise an `EtlError` for the same."""

    @abstractmethod
    def count_failure(self) -> None:
        """Count a run that ended in an error, and so has no report."""

    def __call__(self) -> None:
        """One run, or a look whether it may begin; raises nothing."""
        with logs.bound(**self.fields()):
            try:
                problems = self._run()
            except Interrupted:
                return
            for problem in problems:
                self._tell(problem)
            if not problems:
                self._well()

    def postpone(self, seconds: float) -> None:
        """Run next in so many seconds."""
        self._around.postpone(self.task, seconds)

    def _run(self) -> list[str]:
        """What is wrong; nothing after a run that went well."""
        again, self._waiting = self._waiting, False
        if again and (away := self.app.away()):
            self._come_back()
            return list(away.values())
        problem = self._worked()
        if problem is None:
            return []
        if again:  # it failed though both servers answer
            self.postpone(self.seconds + self.behind)
        else:
            self._come_back()
        return [problem]

    def _worked(self) -> str | None:
        try:
            return self.work()
        except Interrupted:
            raise
        except EtlError as error:
            self.count_failure()
            return str(error)
        except Exception as error:  # noqa: BLE001 (the last resort: the daemon lives, and says where it was)
            self.count_failure()
            _log.debug("unforeseen", exc_info=True)
            return whereabouts(error)

    def _come_back(self) -> None:
        self._waiting = True
        if self.seconds > _BACK_SECONDS:
            self.postpone(_BACK_SECONDS)

    def _retried(self, error: Transient) -> None:
        self.metrics.retried(self.task)
        _log.debug("%s; trying again", error, extra=logs.event("retry"))
        self._tell(str(error))

    def _tell(self, problem: str) -> None:
        """Log a problem when it begins or changes, not every time it is met."""
        if problem not in self._told and len(self._told) < _TOLD_A_SPELL:
            self._told.add(problem)
            _log.warning("%s", problem, extra=logs.event("trouble"))

    def _well(self) -> None:
        if self._told:
            self._told.clear()
            _log.info("well again", extra=logs.event("recovered"))


class Cycles(Job):
    """The cycles of one collection: at the start, then whenever this daemon has the turn."""

    def __init__(self, collection: str, around: Around) -> None:
        super().__init__(collection, around.settings.schedule.cycle_seconds, around)
        self._grace = min(around.settings.lease.seconds, self.seconds / 10)
        self.behind = 2 * self._grace  # so that another daemon, which may fare better, comes first
        self._first = True

    def fields(self) -> dict[str, str]:
        """Each run has an id of its own."""
        return {"collection": self.task, "cycle": secrets.token_hex(4)}

    def count_failure(self) -> None:
        """Redis was away before the cycle began."""
        self.metrics.cycle_failed(self.task)

    def work(self) -> str | None:
        """A cycle, if this daemon has the turn; the first one always, as a start is meant to be seen.

        Without the turn it stands by: it comes back shortly after the holder is due, to take over
        where that does not come.
        """
        due = self.app.take_turn(self.task)
        if due and not self._first:
            _log.debug("another daemon has the turn", extra=logs.event("standby"))
            self.postpone(due + self._grace)
            return None
        self._first = False
        [report] = self.app.sync([self.task])
        if report.exit_code == Interrupted.exit_code:
            raise Interrupted(report.error)
        self.metrics.cycle(report)
        self._say(report)
        return report.error if report.status == "failed" else None

    def _say(self, report: Report) -> None:
        if report.status == "locked":
            _log.info("%s", report.error, extra=logs.event("locked"))
        if report.status == "ok":
            self._say_counts(report)
        seconds = report.sync_duration_ms / 1000
        if seconds > self.seconds:
            text = "it took %.1f s, longer than its interval of %s s"
            _log.warning(text, seconds, self.seconds, extra=logs.event("overrun", seconds=seconds))

    def _say_counts(self, report: Report) -> None:
        """A cycle with nothing to do is for those who want every detail."""
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


class Refreshes(Job):
    """The refreshes of one family."""

    def fields(self) -> dict[str, str]:
        """The family."""
        return {"family": self.task}

    def count_failure(self) -> None:
        """Any failure: a refresh has a report only when it went well."""
        self.metrics.refresh_failed(self.task)

    def work(self) -> str | None:
        """Warm the family again."""
        report = self.app.refresh(self.task)
        self.metrics.refreshed(report)
        _log.debug("%d written", report.written, extra=logs.event("refresh", written=report.written))
        return None


class Reconciliations(Job):
    """The verifications of one collection that mend what is wrong; the first an interval after the start."""

    def __init__(self, collection: str, seconds: float, around: Around) -> None:
        super().__init__(f"{collection}, reconciliation", seconds, around)
        self.idle_at_first = seconds
        self._collection = collection

    def fields(self) -> dict[str, str]:
        """The collection."""
        return {"collection": self._collection}

    def count_failure(self) -> None:
        """It is told in the log, as the cycles are what the metrics are about."""

    def work(self) -> str | None:
        """Verify and mend, if this daemon has the turn."""
        report = self.app.reconcile(self._collection)
        if report and report.wrong:
            told = ("different", "missing", "orphaned", "repaired")
            counts = {name: getattr(report, name) for name in told}
            text = "%d different, %d missing, %d orphaned, %d repaired"
            _log.info(text, *counts.values(), extra=logs.event("reconciliation", **counts))
        return None


def jobs(around: Around) -> list[Job]:
    """Every job that the settings call for: per collection, per family that is refreshed, reconciliations."""
    cycles = [Cycles(collection.name, around) for collection in around.settings.collections]
    lives = around.settings.families.items()
    often = {family: life.refresh_seconds for family, life in lives if life.refresh_seconds is not None}
    refreshes = [Refreshes(family, seconds, around) for family, seconds in often.items()]
    return [*cycles, *refreshes, *_reconciliations(around)]


def _reconciliations(around: Around) -> list[Reconciliations]:
    seconds = around.settings.reconcile.interval_seconds
    names = [collection.name for collection in around.settings.collections] if seconds else []
    return [Reconciliations(name, seconds or 0, around) for name in names]
