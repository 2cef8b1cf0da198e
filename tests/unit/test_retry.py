"""Trying again: bounded, jittered, interruptible."""

import threading
import time
from collections.abc import Callable

import pytest

from etl.errors import (
    ConfigurationError,
    CycleFailed,
    EtlError,
    Interrupted,
    LeaseHeldError,
    LeaseLost,
    TransientError,
)
from etl.retry import Retry

AWAY = TransientError("away")


def failing(times: int, error: EtlError = AWAY) -> Callable[[], str]:
    """A step that fails so many times, and then succeeds."""
    left = [times]

    def step() -> str:
        if left[0]:
            left[0] -= 1
            raise error
        return "done"

    return step


def test_a_temporary_failure_is_retried() -> None:
    """Until it succeeds; every failed attempt is told."""
    told: list[TransientError] = []
    assert Retry(5, threading.Event(), told.append)(failing(3)) == "done"
    assert told == [AWAY] * 3


def test_a_success_is_not_repeated() -> None:
    """Nothing is told, nothing is waited for."""
    told: list[TransientError] = []
    assert Retry(5, threading.Event(), told.append)(lambda: 7) == 7
    assert told == []


@pytest.mark.parametrize(
    "error",
    [
        CycleFailed("no"),
        LeaseLost("2:h"),
        ConfigurationError("no"),
        LeaseHeldError("h", 1),
        Interrupted("no"),
    ],
)
def test_a_permanent_failure_is_raised_at_once(error: EtlError) -> None:
    """Only what passes by itself is worth another attempt."""
    told: list[TransientError] = []
    with pytest.raises(type(error)):
        Retry(5, threading.Event(), told.append)(failing(1, error))
    assert told == []


def test_a_retry_gives_up_in_time() -> None:
    """With the error of the last attempt, and without a wait that would end after the time."""
    began = time.monotonic()
    with pytest.raises(TransientError, match="away"):
        Retry(0.3, threading.Event())(failing(1_000))
    assert time.monotonic() - began < 0.5


def test_a_stop_ends_the_wait() -> None:
    """At once, whatever time is left."""
    stop = threading.Event()
    began = time.monotonic()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Interrupted, match="stopped while waiting") as caught:
        Retry(60, stop)(failing(1_000))
    assert time.monotonic() - began < 5
    assert caught.value.__cause__ is AWAY


def test_a_stop_does_not_undo_a_success() -> None:
    """A step that answers is finished; who asked to stop is heard between two batches."""
    stop = threading.Event()
    stop.set()
    assert Retry(5, stop)(lambda: "done") == "done"


def test_one_retry_serves_threads() -> None:
    """Each call counts its own time and attempts."""
    retry = Retry(5, threading.Event())
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(retry(failing(2)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["done"] * 4
