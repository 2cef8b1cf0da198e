"""Applications in this process, on servers that fail."""

import time
from typing import Any, Protocol

from etl.app import App
from etl.cache.keys import state_keys
from etl.model.report import Report

LEASE = state_keys("promptContent").lease


class Apps(Protocol):
    """Makes an application in this process, pointed at the databases of the test."""

    def __call__(
        self, *, mongo: str = ..., redis: str = ..., patience: float = ..., timeout: float = ..., **rules: Any
    ) -> App:
        """Other addresses go around the test's own; `patience` and `timeout` in seconds.

        `rules` are settings of the collection.
        """
        ...


def cycle(app: App) -> Report:
    """One cycle of the one collection.

    A holder that was cut off may have left its lease behind: then as soon as that has run out.
    """
    deadline = time.monotonic() + 5
    while True:
        [report] = app.sync()
        if report.status != "locked" or time.monotonic() > deadline:
            return report
        time.sleep(0.05)
