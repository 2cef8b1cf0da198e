"""Sees to it that no run is lost in silence: the scheduler's runs that came late, or not at all.

The scheduler drops none, but it skips one that falls due while the one before is still at work, and
makes one of several that fell due while the process was asleep.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent

from etl import logs
from etl.monitoring.metrics import Metrics

LATE_SECONDS: Final = 1.0

_log = logging.getLogger("etl.daemon")


class Punctuality:
    """A listener to the scheduler; `intervals` are in seconds, by task."""

    def __init__(self, intervals: Mapping[str, float], metrics: Metrics) -> None:
        self._intervals = intervals
        self._metrics = metrics
        self._before: dict[str, datetime] = {}
        self._busy: set[str] = set()

    def __call__(self, event: JobSubmissionEvent) -> None:
        """A run has begun, or was skipped."""
        task, due = event.job_id, event.scheduled_run_times[-1]
        slept = self._slept(task, due)
        if slept:
            self._skip(task, slept, "the process was not running when it was due")
        if event.code == EVENT_JOB_MAX_INSTANCES:
            self._still_busy(task)
        else:
            self._busy.discard(task)
            self._begun(task, (datetime.now(UTC) - due).total_seconds())

    def _slept(self, task: str, due: datetime) -> int:
        """How many runs fell due between the last one that was heard of and this one."""
        before = self._before.get(task, due)
        self._before[task] = due
        return max(0, int((due - before).total_seconds() / self._intervals[task]) - 1)

    def _still_busy(self, task: str) -> None:
        """All of them count; the first in a row is told."""
        if task in self._busy:
            self._metrics.skipped(task, 1)
        else:
            self._busy.add(task)
            self._skip(task, 1, "still busy with the one before when it was due")

    def _begun(self, task: str, late: float) -> None:
        if late > LATE_SECONDS:
            self._metrics.late(task)
            text = "%s: a run began %.1f s late"
            _log.warning(text, task, late, extra=logs.event("late", task=task, seconds=late))

    def _skip(self, task: str, runs: int, why: str) -> None:
        self._metrics.skipped(task, runs)
        text = "%s: skipped %d: %s"
        _log.warning(text, task, runs, why, extra=logs.event("skipped", task=task, runs=runs))
