"""Retries: bounded, jittered and interruptible; the only place that retries.

Full jitter keeps many processes from retrying in step after an outage ("Exponential Backoff and
Jitter", AWS Architecture Blog).
"""

import threading
from collections.abc import Callable
from typing import Final, TypeVar

import tenacity

from etl.errors import Interrupted, TransientError

T = TypeVar("T")

_FIRST_WAIT_SECONDS: Final = 0.1
_LONGEST_WAIT_SECONDS: Final = 3.0


class Retry:
    """Calls a step until it succeeds, for at most `seconds`, or until `stop` is set.

    The step must be safe to repeat. `on_retry` is called with the error of each failed attempt.
    """

    def __init__(
        self,
        seconds: float,
        stop: threading.Event,
        on_retry: Callable[[TransientError], None] = lambda _: None,
    ) -> None:
        self._stop = stop
        self._policy = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_any(tenacity.stop_before_delay(seconds), tenacity.stop_when_event_set(stop)),
            wait=tenacity.wait_random_exponential(multiplier=_FIRST_WAIT_SECONDS, max=_LONGEST_WAIT_SECONDS),
            sleep=tenacity.sleep_using_event(stop),
            before_sleep=lambda state: on_retry(_failure(state)),
            reraise=True,
        )

    def __call__(self, step: Callable[[], T]) -> T:
        """The result of `step`.

        Raises:
            TransientError: of the last attempt, when the time is up.
            Interrupted: `stop` was set while waiting.
            EtlError: any other error of the step, immediately.
        """
        try:
            return self._policy.copy()(step)
        except TransientError as error:
            if self._stop.is_set():
                raise Interrupted("stopped while waiting for a server") from error
            raise


def _failure(state: tenacity.RetryCallState) -> TransientError:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, TransientError) else TransientError(str(error))
