"""The scheduler's clock and its intervals, while the wall clock steps."""

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
    """`datetime` as APScheduler imports it, of a machine whose clock is set while the test runs."""

    step = timedelta(0)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        """What `datetime.now` does, with the clock that was set."""
        assert tz is not None
        return tz.fromutc((datetime.now(UTC) + cls.step).replace(tzinfo=tz))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """When a task that is due every fifth of a second has run, by the monotonic clock."""
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
def test_a_step_of_the_wall_clock_moves_no_run(runs: list[float], step: timedelta) -> None:
    """Neither none for ten minutes, nor one after the other for those of a year."""
    rest = threading.Event()
    rest.wait(3 * INTERVAL)
    before = len(runs)
    assert before
    WallClock.step = step
    began = time.process_time()
    rest.wait(5 * INTERVAL)
    assert 3 <= len(runs) - before <= 6
    assert time.process_time() - began < 2 * INTERVAL, "it has counted runs that never were"


def test_the_first_run_is_due_at_once() -> None:
    """Unless the job says when."""
    now = monotonic_now()
    assert IntervalTrigger(10).get_next_fire_time(None, now) == now


@pytest.mark.parametrize(("late", "next_run"), [(0, 10), (9.9, 10), (10, 10), (25, 20), (864_000, 864_000)])
def test_of_runs_that_were_missed_only_the_last_fires(late: float, next_run: float) -> None:
    """It is found without listing them: ten days are as quick as none."""
    due = monotonic_now()
    fires = IntervalTrigger(10).get_next_fire_time(due, due + timedelta(seconds=late))
    assert fires - due == timedelta(seconds=next_run)


def test_the_present_goes_by_the_monotonic_clock() -> None:
    """Its differences are seconds."""
    before, began = monotonic_now(), time.monotonic()
    time.sleep(0.05)
    assert (monotonic_now() - before).total_seconds() == pytest.approx(time.monotonic() - began, abs=0.01)
