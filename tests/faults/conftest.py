import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from pymongo.database import Database

from etl.app import App
from etl.demo import MongoServer
from etl.model.report import Report
from etl.settings import Settings

# The command line as a process, pointed at the databases of the test.
from tests.acceptance.conftest import environment, etl, start_etl
from tests.support.types import Document

__all__ = ["environment", "etl", "start_etl"]

CHECKPOINT = "{etl:last_sync:promptContent}:checkpoint"
LEASE = "{etl:last_sync:promptContent}:lease"
FENCE = "{etl:last_sync:promptContent}:fence"
SEEN = "{etl:last_sync:promptContent}:seen"


class Apps(Protocol):
    """Makes an application in this process, pointed at the databases of the test."""

    def __call__(
        self, *, mongo: str = ..., redis: str = ..., patience: float = ..., timeout: float = ..., **rules: Any
    ) -> App:
        """Other addresses go around the test's own; `patience` and `timeout` in seconds.

        `rules` are settings of the collection.
        """
        ...


@pytest.fixture
def apps(mongod: MongoServer, database: Database[Document], redis_url: str) -> Iterator[Apps]:
    """Make applications; they are closed when the test ends."""
    with ExitStack() as stack:

        def make(
            *,
            mongo: str = mongod.uri,
            redis: str = redis_url,
            patience: float = 10,
            timeout: float = 5,
            **rules: Any,
        ) -> App:
            settings = {
                # A failpoint, unlike a failover, does not wake the driver's monitor: it looks often.
                "mongo": {
                    "uri": f"{mongo}&heartbeatFrequencyMS=500",
                    "database": database.name,
                    "timeout_seconds": timeout,
                },
                "redis": {"url": redis, "timeout_seconds": timeout},
                "collections": [{"name": "promptContent", "page_size": 10, **rules}],
                "lease": {"seconds": 1},
                "retry": {"seconds": patience},
            }
            return stack.enter_context(App(Settings.model_validate(settings)))

        yield make


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
