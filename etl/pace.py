"""A bound on how fast documents are taken."""

import threading
import time


class Pace:
    """At most `rate` documents a second, on average since it began; without bound where that is None.

    `stop` ends a wait early.
    """

    def __init__(self, rate: float | None, stop: threading.Event) -> None:
        self._rate = rate
        self._stop = stop
        self._began = time.monotonic()
        self._taken = 0

    def take(self, documents: int) -> None:
        """Wait until so many more may be taken."""
        if self._rate is None:
            return
        self._taken += documents
        due = self._began + self._taken / self._rate
        self._stop.wait(max(0.0, due - time.monotonic()))
