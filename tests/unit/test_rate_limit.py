"""A rate is an upper bound at any time."""

import threading
import time
from collections.abc import Sequence

import pytest

from etl.backfill.rate_limit import RateLimiter
from etl.model.batch import BatchOutcome
from etl.model.result import TransformResult
from tests.support.results import result


def process(page: Sequence[TransformResult], _: int) -> BatchOutcome:
    """Fake writing of a page, which takes no time."""
    return BatchOutcome(processed=len(page))


def seconds_for(limiter: RateLimiter, documents: int) -> float:
    """Seconds that a page of these documents takes."""
    began = time.monotonic()
    page = [result(number) for number in range(documents)]
    assert limiter.limited(process)(page, 0) == BatchOutcome(processed=documents)
    return time.monotonic() - began


def test_first_documents_are_limited_too() -> None:
    limiter = RateLimiter(100, threading.Event())
    assert 0.15 <= seconds_for(limiter, 10) + seconds_for(limiter, 10) < 0.5


def test_idle_time_gives_no_burst() -> None:
    """After an outage the rate is still the bound."""
    limiter = RateLimiter(100, threading.Event())
    time.sleep(0.3)
    seconds_for(limiter, 10)
    assert seconds_for(limiter, 10) == pytest.approx(0.1, abs=0.08)


def test_stop_ends_the_wait() -> None:
    """So that Ctrl-C works at a slow rate."""
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    assert seconds_for(RateLimiter(0.001, stop), 10) < 5


def test_page_is_written_before_the_wait() -> None:
    """After the wait it would be past its deadline."""
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
