"""The scheduler's clock and its intervals: monotonic, so that a step of the wall clock moves no run.

APScheduler reads the time only by `datetime.now(scheduler.timezone)`, which calls the time zone. Its own interval
trigger computes dates in another way, and lists every missed run; hence the trigger below.
"""

import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from apscheduler.triggers.base import BaseTrigger

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Monotonic(tzinfo):
    """A time zone whose current time is the monotonic clock; its dates are valid within the scheduler only."""

    def fromutc(self, _: datetime) -> datetime:
        """The current time; the wall clock, which `datetime.now` passes, is ignored."""
        return (_EPOCH + timedelta(seconds=time.monotonic())).replace(tzinfo=self)

    def utcoffset(self, _: datetime | None) -> timedelta:
        """Zero: its dates are compared with each other only."""
        return timedelta(0)

    def dst(self, _: datetime | None) -> None:
        """No daylight saving time."""

    def tzname(self, _: datetime | None) -> str:
        """Shown in logs."""
        return "monotonic"


MONOTONIC: Final = _Monotonic()


def monotonic_now() -> datetime:
    """The current time of the scheduler's clock."""
    return datetime.now(MONOTONIC)


class IntervalTrigger(BaseTrigger):  # type: ignore[misc]  # a class without types
    """Fires at an interval in seconds; missed runs are merged into one."""

    def __init__(self, seconds: float) -> None:
        self._interval = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """The next run: the last one that is due, else the next future one."""
        if previous is None:
            return now
        return previous + max(1, (now - previous) // self._interval) * self._interval
