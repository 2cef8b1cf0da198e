"""Rate limit of writes."""

import threading
import time
from collections.abc import Sequence

from etl.interfaces import Process
from etl.model.batch import BatchOutcome
from etl.model.result import TransformResult


class RateLimiter:
    """At most `rate` documents per second, without bursts after a pause. `stop` ends a wait early."""

    def __init__(self, rate: float, stop: threading.Event) -> None:
        self._rate = rate
        self._stop = stop
        self._next = time.monotonic()

    def limited(self, process: Process) -> Process:
        """Wrap `process` with a wait after each page; a wait before it would make the read too old."""

        def slowly(page: Sequence[TransformResult], read_at: int) -> BatchOutcome:
            outcome = process(page, read_at)
            now = time.monotonic()
            # Do not catch up after an outage: that would be a burst.
            self._next = max(now, self._next + len(page) / self._rate)
            self._stop.wait(self._next - now)
            return outcome

        return slowly
