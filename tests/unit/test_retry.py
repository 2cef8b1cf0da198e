"""Retries are bounded, jittered and interruptible."""

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

UNAVAILABLE = TransientError("away")


def failing(times: int, error: EtlError = UNAVAILABLE) -> Callable[[], str]:
    """A step that fails `times` times, then succeeds."""
    left = [times]

    def step() -> str:
        if left[0]:
            left[0] -= 1
            raise error
        return "done"

    return step


def test_transient_error_is_retried() -> None:
    """Every failed attempt is reported."""
    reported: list[TransientError] = []
    assert Retry(5, threading.Event(), reported.append)(failing(3)) == "done"
    assert reported == [UNAVAILABLE] * 3


def test_success_is_not_repeated() -> None:
    """Nothing is reported, nothing is waited for."""
    reported: list[TransientError] = []
    assert Retry(5, threading.Event(), reported.append)(lambda: 7) == 7
    assert reported == []


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
def test_permanent_error_is_raised_at_once(error: EtlError) -> None:
    reported: list[TransientError] = []
    with pytest.raises(type(error)):
        Retry(5, threading.Event(), reported.append)(failing(1, error))
    assert reported == []


def test_retry_gives_up_in_time() -> None:
    """With the error of the last attempt; no wait exceeds the time limit."""
    began = time.monotonic()
    with pytest.raises(TransientError, match="away"):
        Retry(0.3, threading.Event())(failing(1_000))
    assert time.monotonic() - began < 0.5


def test_stop_ends_the_wait() -> None:
    stop = threading.Event()
    began = time.monotonic()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Interrupted, match="stopped while waiting") as caught:
        Retry(60, stop)(failing(1_000))
    assert time.monotonic() - began < 5
    assert caught.value.__cause__ is UNAVAILABLE


def test_success_after_a_stop_is_returned() -> None:
    """Callers check for a stop between two batches."""
    stop = threading.Event()
    stop.set()
    assert Retry(5, stop)(lambda: "done") == "done"


def test_retry_can_be_shared_by_threads() -> None:
    """Each call has its own time and attempts."""
    retry = Retry(5, threading.Event())
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(retry(failing(2)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["done"] * 4
