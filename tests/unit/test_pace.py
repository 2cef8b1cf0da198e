"""A rate is an upper bound, at any moment."""

import threading
import time

import pytest

from etl.backfill.rate_limit import Pace


def took(pace: Pace, documents: int) -> float:
    """How many seconds it has to wait."""
    began = time.monotonic()
    pace.take(documents)
    return time.monotonic() - began


def test_without_a_rate_nothing_waits() -> None:
    """Everything may be taken at once."""
    assert took(Pace(None, threading.Event()), 10**9) < 0.05


def test_the_first_ones_wait_too() -> None:
    """So that there are never more than the rate allows since it began."""
    pace = Pace(100, threading.Event())
    assert 0.15 <= took(pace, 10) + took(pace, 10) < 0.5


def test_lost_time_is_not_made_up_for() -> None:
    """After an outage the bound is what it was."""
    pace = Pace(100, threading.Event())
    time.sleep(0.3)
    pace.take(10)
    assert took(pace, 10) == pytest.approx(0.1, abs=0.08)


def test_a_wait_can_be_ended() -> None:
    """Ctrl-C does not wait for a slow rate."""
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    assert took(Pace(0.001, stop), 10) < 5
