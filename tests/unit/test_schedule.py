"""The clock and the intervals of the scheduler when the wall clock steps."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from apscheduler.schedulers import base
from apscheduler.schedulers.background import BackgroundScheduler

from etl.daemon.schedule import MONOTONIC, IntervalTrigger, monotonic_now

INTERVAL = 0.2


class WallClock(datetime):
    """`datetime` for APScheduler, on a machine whose clock is set during the test."""

    step = timedelta(0)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        """Return the time of the clock that was set."""
        assert tz is not None
        return tz.fromutc((datetime.now(UTC) + cls.step).replace(tzinfo=tz))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The monotonic times at which a task with an interval of 0.2 s ran."""
    monkeypatch.setattr(base, "datetime", WallClock)
    monkeypatch.setattr(WallClock, "step", timedelta(0))
    found: list[float] = []
    scheduler = BackgroundScheduler(timezone=MONOTONIC, job_defaults={"misfire_grace_time": None})
    scheduler.add_job(
        lambda: found.append(time.monotonic()), IntervalTrigger(INTERVAL), next_run_time=monotonic_now()
    )
    scheduler.start()
    yield found
    scheduler.shutdown()


@pytest.mark.parametrize("step", [timedelta(minutes=-10), timedelta(days=365)], ids=["back", "forward"])
def test_step_of_the_wall_clock_moves_no_run(runs: list[float], step: timedelta) -> None:
    """No gap of ten minutes, and no catching up on a year."""
    rest = threading.Event()
    rest.wait(3 * INTERVAL)
    before = len(runs)
    assert before
    WallClock.step = step
    began = time.process_time()
    rest.wait(5 * INTERVAL)
    assert 3 <= len(runs) - before <= 6
    assert time.process_time() - began < 2 * INTERVAL, "it has counted runs that never were"


def test_first_run_is_due_at_once() -> None:
    now = monotonic_now()
    assert IntervalTrigger(10).get_next_fire_time(None, now) == now


@pytest.mark.parametrize(("late", "next_run"), [(0, 10), (9.9, 10), (10, 10), (25, 20), (864_000, 864_000)])
def test_only_the_last_missed_run_fires(late: float, next_run: float) -> None:
    """It is computed, not searched: ten days take no time."""
    due = monotonic_now()
    fires = IntervalTrigger(10).get_next_fire_time(due, due + timedelta(seconds=late))
    assert fires - due == timedelta(seconds=next_run)


def test_present_follows_the_monotonic_clock() -> None:
    before, began = monotonic_now(), time.monotonic()
    time.sleep(0.05)
    assert (monotonic_now() - before).total_seconds() == pytest.approx(time.monotonic() - began, abs=0.01)
