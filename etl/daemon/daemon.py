"""The daemon: scheduled cycles and refreshes, followers, HTTP endpoints.

Several daemons may run on the same servers: one leads a collection, the others stand by.
"""

import logging
import os
import threading
from collections.abc import Mapping
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Final

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_SUBMITTED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from etl import logs
from etl.app import App
from etl.daemon.followers import FollowerThread
from etl.daemon.jobs import JobContext, jobs
from etl.daemon.misfires import MisfireListener
from etl.daemon.schedule import MONOTONIC, IntervalTrigger, monotonic_now
from etl.monitoring.health import STOPPING, HealthSnapshot, SnapshotCache, take_snapshot
from etl.monitoring.history import QueueLengths, Recent, recent
from etl.monitoring.metrics import Metrics
from etl.monitoring.routes import Endpoints
from etl.monitoring.server import Serving
from etl.settings import Settings

GRACE_SECONDS: Final = 4.0
"""How long a stop waits for current runs; an interrupted run is safe, the next cycle resumes it."""

SNAPSHOT_TIMEOUT_SECONDS: Final = 2.0
"""Time limit per server for HTTP answers: shorter than the time-out of probes."""

RECENT_SECONDS: Final = 5.0
"""How long an answer of /history is reused: it takes longer to read than the status."""

_SIGNAL_SECONDS: Final = 0.5

_log = logging.getLogger("etl.daemon")


class Daemon:
    """Runs until it is stopped; waits for servers that do not answer.

    Raises:
        ConfigurationError: an address in the settings is malformed, or the one for HTTP is taken.
    """

    def __init__(self, settings: Settings) -> None:
        # Unlike an Event, it may be used by a signal handler that interrupts the thread which waits for it.
        self._stop_requests: SimpleQueue[None] = SimpleQueue()
        self._stop = threading.Event()
        self._postponing = threading.Lock()
        metrics = Metrics(settings)
        self._monitoring_app = App(_with_short_timeouts(settings))
        context = JobContext(settings, metrics, self._postpone)
        self._jobs = jobs(context)
        self._followers = [
            FollowerThread(collection.name, context)
            for collection in settings.collections
            if collection.follow
        ]
        self._scheduler = _scheduler(len(self._jobs))
        intervals = {job.task: job.seconds for job in self._jobs}
        self._misfires = MisfireListener(intervals, metrics)
        self._scheduler.add_listener(self._misfires, EVENT_JOB_MAX_INSTANCES | EVENT_JOB_SUBMITTED)
        self._health = SnapshotCache(
            lambda: take_snapshot(self._monitoring_app), HealthSnapshot(error=STOPPING)
        )
        self._recent = SnapshotCache(
            lambda: recent(self._monitoring_app.recent), Recent(error=STOPPING), RECENT_SECONDS
        )
        self._queues = QueueLengths(lambda: take_snapshot(self._monitoring_app))
        endpoints = Endpoints(settings, self._health, self._recent, self._queues, metrics)
        self._serving = Serving(endpoints.app(), settings.http.host, settings.http.port)

    @property
    def url(self) -> str:
        """The base URL of its HTTP server."""
        return self._serving.url

    def run(self) -> None:
        """Run until `stop`; returns less than five seconds after it."""
        self._serving.start()
        self._queues.start()
        _log.info("answering at %s", self.url, extra=logs.event("listening", url=self.url))
        for job in self._jobs:
            first = monotonic_now() + timedelta(seconds=job.first_delay)
            self._scheduler.add_job(job, IntervalTrigger(job.seconds), id=job.task, next_run_time=first)
        self._scheduler.start()
        for follower in self._followers:
            follower.start()
        tasks = [job.task for job in self._jobs]
        _log.info("tasks: %s", "; ".join(tasks), extra=logs.event("started", tasks=tasks))
        self._wait_for_stop()
        _log.info("after the current batch", extra=logs.event("stopping"))
        self._end()

    def stop(self) -> None:
        """Request the end, before or after `run` has begun; may be called from a signal handler."""
        self._stop_requests.put(None)

    def _wait_for_stop(self) -> None:
        # In steps, because Python calls a signal handler in the main thread, between two bytecodes: a signal does not
        # end a wait if another thread has received it, or if it came just before the wait.
        while True:
            try:
                return self._stop_requests.get(timeout=_SIGNAL_SECONDS)
            except Empty:
                pass

    def _postpone(self, task: str, seconds: float) -> None:
        """Move the next run of a task; not while the scheduler shuts down, which would deadlock."""
        with self._postponing:
            if not self._stop.is_set():
                due = monotonic_now() + timedelta(seconds=seconds)
                self._scheduler.modify_job(task, next_run_time=due)
                self._misfires.moved(task, due)

    def _end(self) -> None:
        self._stop.set()
        for job in self._jobs:
            job.app.stop()
        for follower in self._followers:
            follower.stop()
        for cache in (self._health, self._recent, self._queues):
            cache.stop()
        shutdown = threading.Thread(target=self._shut_down, daemon=True)
        shutdown.start()
        shutdown.join(GRACE_SECONDS)
        if shutdown.is_alive():
            # A thread waits for a server until its time-out, and a normal exit would wait for the thread.
            _log.warning("stopped while waiting for a server", extra=logs.event("stopped"))
            os._exit(0)
        _log.info("stopped", extra=logs.event("stopped"))

    def _shut_down(self) -> None:
        with self._postponing:
            pass  # wait for a `_postpone` in progress; no further one starts
        self._scheduler.shutdown()
        self._serving.stop()
        for job in self._jobs:
            job.close()
        for follower in self._followers:
            follower.close()
        self._monitoring_app.close()


def _scheduler(workers: int) -> BackgroundScheduler:
    return BackgroundScheduler(
        timezone=MONOTONIC,
        executors={"default": ThreadPoolExecutor(workers)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )


def _with_short_timeouts(settings: Settings) -> Settings:
    """The settings of the application behind the HTTP endpoints."""
    mongo = {"timeout_seconds": min(settings.mongo.timeout_seconds, SNAPSHOT_TIMEOUT_SECONDS)}
    redis = {"timeout_seconds": min(settings.redis.timeout_seconds, SNAPSHOT_TIMEOUT_SECONDS)}
    sections: Mapping[str, object] = {
        "mongo": settings.mongo.model_copy(update=mongo),
        "redis": settings.redis.model_copy(update=redis),
    }
    return settings.model_copy(update=sections)
