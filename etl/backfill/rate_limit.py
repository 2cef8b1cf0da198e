"""A bound on how fast documents are taken."""

import threading
import time


class Pace:
    """At most `rate` documents a second, also right after a pause; without bound where that is None.

    `stop` ends a wait early.
    """

    def __init__(self, rate: float | None, stop: threading.Event) -> None:
        self._rate = rate
        self._stop = stop
        self._taken = time.monotonic()

    def take(self, documents: int) -> None:
        """Wait until so many more may be taken."""
        if self._rate is None:
            return
        now = time.monotonic()
        # Time that was lost to an outage is not made up for: that would be the burst nobody wants.
        self._taken = max(now, self._taken + documents / self._rate)
        self._stop.wait(self._taken - now)
