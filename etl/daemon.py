"""The daemon: a cycle of each collection every interval, and refreshes in between.

Each job has an application of its own, since a connection serves one thread. Several daemons may run
against the same servers: whoever takes the turn of an interval works, the others wait for the next.
"""

import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from etl.app import App
from etl.errors import EtlError
from etl.report import Report
from etl.settings import Settings

GRACE_SECONDS: Final = 4.0
"""How long a stop waits for what is running; what is cut off then is safe, the next cycle goes on there."""

_log = logging.getLogger("etl.daemon")


class Daemon:
    """Runs until it is asked to stop; a server that is away is waited for.

    Raises:
        Misconfigured: an address in the settings is malformed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._apps: list[App] = []
        self._told: dict[str, str | None] = {}
        workers = 2 * len(settings.collections) + len(settings.families)
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(workers)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._scheduler.add_listener(self._skipped, EVENT_JOB_MAX_INSTANCES)

    def run(self) -> None:
        """Work until `stop`; returns in under five seconds after it."""
        for collection in self._settings.collections:
            self._every(
                self._settings.schedule.cycle_seconds, collection.name, _Cycles(self, collection.name)
            )
        for family, life in self._settings.families.items():
            if life.refresh_seconds is not None:
                self._every(life.refresh_seconds, family, _Refreshes(self, family))
        if seconds := self._settings.reconcile.interval_seconds:
            for collection in self._settings.collections:
                job = _Reconciliations(self, collection.name)
                self._scheduler.add_job(job, "interval", seconds=seconds, id=job.name)
        self._scheduler.start()
        _log.info("started: %s", ", ".join(job.id for job in self._scheduler.get_jobs()))
        self._stop.wait()
        self._end()

    def stop(self) -> None:
        """Ask for the end; may be called from a signal handler."""
        self._stop.set()
        for app in self._apps:
            app.stop()

    def open_app(self) -> App:
        """An application for one job."""
        app = App(self._settings)
        self._apps.append(app)
        return app

    def tell(self, what: str, problem: str | None) -> None:
        """Log a problem once, when it begins or changes, and its end."""
        before = self._told.get(what)
        self._told[what] = problem
        if problem is not None and problem != before:
            _log.warning("%s: %s", what, problem)
        elif problem is None and before is not None:
            _log.info("%s: well again", what)

    def _every(self, seconds: int, name: str, job: Callable[[], None]) -> None:
        now = datetime.now(UTC)
        self._scheduler.add_job(job, "interval", seconds=seconds, id=name, next_run_time=now)

    def _skipped(self, event: JobEvent) -> None:
        _log.warning("%s: still busy when the next run was due; that run is skipped", event.job_id)

    def _end(self) -> None:
        waiting = threading.Thread(target=self._scheduler.shutdown, daemon=True)
        waiting.start()
        waiting.join(GRACE_SECONDS)
        if waiting.is_alive():
            # A server that does not answer holds a thread until its time-out, and Python waits for threads.
            _log.warning("stopped while waiting for a server")
            os._exit(0)
        for app in self._apps:
            app.close()
        _log.info("stopped")


class _Cycles:
    """The cycles of one collection."""

    def __init__(self, daemon: Daemon, collection: str) -> None:
        self._daemon = daemon
        self._collection = collection
        self._app = daemon.open_app()
        self._first = True

    def __call__(self) -> None:
        """A cycle, if this daemon has the turn; the first one always, as a start is meant to be seen."""
        try:
            if self._app.take_turn(self._collection) or self._first:
                self._first = False
                self._tell(next(self._app.sync([self._collection])))
        except EtlError as error:
            self._daemon.tell(self._collection, str(error))

    def _tell(self, report: Report) -> None:
        if report.status != "locked":
            self._daemon.tell(self._collection, report.error)
        if report.status == "ok" and (report.records_processed or report.dead_lettered):
            counts = "%s: %d processed, %d dead letters, %d deferred in %d ms"
            figures = (
                report.records_processed,
                report.dead_lettered,
                report.deferred,
                report.sync_duration_ms,
            )
            _log.info(counts, self._collection, *figures)


class _Refreshes:
    """The refreshes of one family."""

    def __init__(self, daemon: Daemon, family: str) -> None:
        self._daemon = daemon
        self._family = family
        self._app = daemon.open_app()

    def __call__(self) -> None:
        """Warm the family again."""
        try:
            self._app.refresh(self._family)
        except EtlError as error:
            self._daemon.tell(self._family, str(error))
        else:
            self._daemon.tell(self._family, None)


class _Reconciliations:
    """The verifications of one collection that mend what is wrong; the first one interval after the start."""

    def __init__(self, daemon: Daemon, collection: str) -> None:
        self.name = f"{collection}, reconciliation"
        self._daemon = daemon
        self._collection = collection
        self._app = daemon.open_app()

    def __call__(self) -> None:
        """Verify and mend, if this daemon has the turn."""
        try:
            report = self._app.reconcile(self._collection)
        except EtlError as error:
            self._daemon.tell(self.name, str(error))
            return
        self._daemon.tell(self.name, None)
        if report and report.wrong:
            counts = "%s: %d different, %d missing, %d orphaned, %d repaired"
            figures = (report.different, report.missing, report.orphaned, report.repaired)
            _log.info(counts, self.name, *figures)
