"""A rate is an upper bound, at any moment."""

import threading
import time
from collections.abc import Sequence

import pytest

from etl.backfill.rate_limit import RateLimiter
from etl.model.batch import BatchOutcome
from etl.model.result import TransformResult
from tests.support.results import result


def process(page: Sequence[TransformResult], _: int) -> BatchOutcome:
    """Stands for the writing of a page, which takes no time."""
    return BatchOutcome(processed=len(page))


def took(limiter: RateLimiter, documents: int) -> float:
    """How many seconds a page of these documents takes."""
    began = time.monotonic()
    page = [result(number) for number in range(documents)]
    assert limiter.limited(process)(page, 0) == BatchOutcome(processed=documents)
    return time.monotonic() - began


def test_the_first_documents_wait_too() -> None:
    """So that there are never more than the rate allows since it began."""
    limiter = RateLimiter(100, threading.Event())
    assert 0.15 <= took(limiter, 10) + took(limiter, 10) < 0.5


def test_lost_time_is_not_made_up_for() -> None:
    """After an outage the bound is what it was."""
    limiter = RateLimiter(100, threading.Event())
    time.sleep(0.3)
    took(limiter, 10)
    assert took(limiter, 10) == pytest.approx(0.1, abs=0.08)


def test_a_wait_can_be_ended() -> None:
    """Ctrl-C does not wait for a slow rate."""
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    assert took(RateLimiter(0.001, stop), 10) < 5


def test_a_page_is_written_before_it_waits() -> None:
    """After the wait it would be too old to be written."""
    written = threading.Event()

    def note(page: Sequence[TransformResult], read_at: int) -> BatchOutcome:
        written.set()
        return process(page, read_at)

    stop = threading.Event()
    slow = RateLimiter(0.001, stop).limited(note)
    thread = threading.Thread(target=slow, args=([result(1)], 0))
    thread.start()
    assert written.wait(5)
    assert thread.is_alive()
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
