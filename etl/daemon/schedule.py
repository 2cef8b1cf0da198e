"""The scheduler's clock and its intervals: monotonic, so that a step of the wall clock moves no run.

APScheduler learns the time in one way only, `datetime.now(scheduler.timezone)`, and Python leaves the answer
to the time zone. Its own interval trigger makes dates by another way, which a zone cannot answer, and lists
every run that was missed; hence a trigger of our own.
"""

import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from apscheduler.triggers.base import BaseTrigger

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Monotonic(tzinfo):
    """A time zone in which the present is what the monotonic clock says; its dates mean nothing elsewhere."""

    def fromutc(self, _: datetime) -> datetime:
        """The present: `datetime.now` asks for it with the wall clock's, which does not matter."""
        return (_EPOCH + timedelta(seconds=time.monotonic())).replace(tzinfo=self)

    def utcoffset(self, _: datetime | None) -> timedelta:
        """None: its dates are compared with each other only."""
        return timedelta(0)

    def dst(self, _: datetime | None) -> None:
        """There is none."""

    def tzname(self, _: datetime | None) -> str:
        """For people."""
        return "monotonic"


MONOTONIC: Final = _Monotonic()


def present() -> datetime:
    """The scheduler's present."""
    return datetime.now(MONOTONIC)


class Every(BaseTrigger):  # type: ignore[misc]  # a class without types
    """Fires every so many seconds; of runs that were missed only the last one fires."""

    def __init__(self, seconds: float) -> None:
        self._interval = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """The next run after the previous one: the last that is due by now, else the first that is not."""
        if previous is None:
            return now
        return previous + max(1, (now - previous) // self._interval) * self._interval
