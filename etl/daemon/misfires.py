"""Counts and logs late and skipped runs.

The scheduler skips a run that is due while the previous one is working, and merges runs that were due while the process
could not run.
"""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent

from etl import logs
from etl.daemon.schedule import monotonic_now
from etl.monitoring.metrics import Metrics

LATE_SECONDS: Final = 1.0

_log = logging.getLogger("etl.daemon")


class MisfireListener:
    """A listener of the scheduler; `intervals` are in seconds, by task."""

    def __init__(self, intervals: Mapping[str, float], metrics: Metrics) -> None:
        self._intervals = {task: timedelta(seconds=seconds) for task, seconds in intervals.items()}
        self._metrics = metrics
        self._expected: dict[str, datetime] = {}
        self._busy: set[str] = set()

    def moved(self, task: str, due: datetime) -> None:
        """Record that the next run of a task was moved to this time, so that earlier ones do not count as missed."""
        self._expected[task] = due

    def __call__(self, event: JobSubmissionEvent) -> None:
        """A run has begun, or was skipped."""
        task, due = event.job_id, event.scheduled_run_times[-1]
        interval = self._intervals[task]
        missed = (due - self._expected.get(task, due)) // interval
        # The job may have moved its next run before this event arrived.
        self._expected[task] = max(due + interval, self._expected.get(task, due))
        if missed > 0:
            self._skip(task, missed, "the process was suspended or got no CPU time when it was due")
        if event.code == EVENT_JOB_MAX_INSTANCES:
            self._still_busy(task)
        else:
            self._busy.discard(task)
            self._begun(task, (monotonic_now() - due).total_seconds())

    def _still_busy(self, task: str) -> None:
        """Count each skipped run; log the first in a row."""
        if task in self._busy:
            self._metrics.skipped(task, 1)
        else:
            self._busy.add(task)
            self._skip(task, 1, "the previous run was still in progress when it was due")

    def _begun(self, task: str, late: float) -> None:
        if late > LATE_SECONDS:
            self._metrics.late(task)
            text = "%s: a run began %.1f s late"
            _log.warning(text, task, late, extra=logs.event("late", task=task, seconds=late))

    def _skip(self, task: str, runs: int, why: str) -> None:
        self._metrics.skipped(task, runs)
        text = "%s: skipped %d: %s"
        _log.warning(text, task, runs, why, extra=logs.event("skipped", task=task, runs=runs))
